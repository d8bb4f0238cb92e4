"""The tables of the local store, as an ordered list of named migrations. A released one is never edited: append.

Names follow the Supabase migrations. Booleans are 0 or 1, times are text written by `utc`.
"""

from datetime import UTC, datetime

Migration = tuple[str, tuple[str, ...]]
"""A name, and the statements that are run for it, in one transaction."""

MIGRATIONS: tuple[Migration, ...] = (
    (
        "0001_tenants",
        (
            """
            create table tenants (
                id text primary key,
                name text not null,
                attested_consent integer not null default 0 check (attested_consent in (0, 1)),
                created_at text not null
            ) strict
            """,
            """
            create table api_keys (
                sha256 blob primary key check (length(sha256) = 32),
                prefix text not null,
                tenant_id text not null references tenants (id),
                scopes text not null check (json_type(scopes) = 'array'),
                created_at text not null,
                expires_at text,
                revoked_at text
            ) strict
            """,
            "create index api_keys_of_tenant on api_keys (tenant_id)",
        ),
    ),
    (
        "0002_voices",
        (
            """
            create table voices (
                id text not null,
                tenant_id text not null references tenants (id),
                name text not null,
                description text not null,
                language text,
                consent text not null,
                clip_paths text not null check (json_type(clip_paths) = 'array'),
                report text not null,
                created_at text not null,
                primary key (tenant_id, id)
            ) strict
            """,
        ),
    ),
    (
        "0003_ledger",
        (
            # From `settled_at` on: how the last attempt ended; null while it runs.
            """
            create table requests (
                request_id text primary key,
                tenant_id text not null references tenants (id),
                identity text not null,
                fingerprint text not null,
                action text not null,
                input_chars integer not null,
                streaming integer not null check (streaming in (0, 1)),
                voice_id text,
                status text not null check (status in ('running', 'success', 'failed', 'cancelled', 'abandoned')),
                fence integer not null check (fence >= 1),
                lease_expires_at text not null,
                created_at text not null,
                settled_at text,
                latency_ms integer,
                audio_seconds real,
                audio_bytes integer,
                spoken_voice_id text,
                error text,
                cached integer check (cached in (0, 1)),
                result text,
                audio_path text,
                metadata text,
                unique (tenant_id, identity),
                check ((status = 'running') = (settled_at is null))
            ) strict
            """,
            "create index requests_running on requests (lease_expires_at) where status = 'running'",
            """
            create table usage_logs (
                id integer primary key,
                tenant_id text not null references tenants (id),
                request_id text not null,
                fence integer not null,
                action text not null,
                input_chars integer not null,
                audio_seconds real not null,
                audio_bytes integer not null,
                latency_ms integer not null,
                streaming integer not null check (streaming in (0, 1)),
                voice_id text,
                status text not null check (status in ('success', 'failed', 'cancelled', 'abandoned')),
                error text,
                cached integer not null check (cached in (0, 1)),
                metadata text not null,
                created_at text not null,
                unique (request_id, fence)
            ) strict
            """,
            "create index usage_logs_of_tenant on usage_logs (tenant_id, id)",
        ),
    ),
)


def utc(seconds: float) -> str:
    """Seconds since 1970 as ISO 8601 in UTC, always with microseconds: such texts sort as the times do."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")
