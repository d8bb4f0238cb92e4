"""Many requests that were made and settled, put into an empty store by raw SQL, for `benchmarks.store`.

Each has its row in `requests` and in `usage_logs`, as its settlement would have left them, and is counted in
`usage_daily`; a thousand rows more mean one tenant with one key more. They lie in the 30 days before the start of this
one, on seven voices, so that summaries have as many groups however many rows there are.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

from tests.postgres import Database

ROWS_PER_KEY = 1000
DAYS, VOICES = 30, 7

POSTGRES = (
    "set session_replication_role = replica",  # the trigger counts row by row: the counts are made at the end
    """
    insert into public.tenants (id, name, created_at)
    select 'tenant-' || n, 'filler', now() from generate_series(1, %(keys)s) as n
    """,
    """
    insert into public.api_keys (sha256, prefix, tenant_id, scopes, created_at)
    select sha256(('key-' || n)::bytea), 'tts_live_' || n, 'tenant-' || n, array['synthesize'], now()
    from generate_series(1, %(keys)s) as n
    """,
    """
    create temporary table filler as
    select 'request-' || n as request_id, 'v' || n %% %(voices)s as voice_id,
        date_trunc('day', now()) - make_interval(days => 1 + n %% %(days)s, secs => n %% 86000) as at
    from generate_series(1, %(rows)s) as n
    """,
    """
    insert into public.requests (
        request_id, tenant_id, identity, fingerprint, holder, action, input_chars, streaming, voice_id, status, fence,
        lease_expires_at, created_at, settled_at, latency_ms, audio_seconds, audio_bytes, spoken_voice_id, cached
    )
    select request_id, %(tenant)s, 'job:' || request_id, 'f', 'h', 'synthesize', 60, false, voice_id, 'success', 1,
        at, at, at, 500, 4.5, 216044, voice_id, false
    from filler
    """,
    """
    insert into public.usage_logs (
        tenant_id, request_id, fence, action, input_chars, audio_seconds, audio_bytes, latency_ms, streaming, voice_id,
        status, cached, metadata, created_at
    )
    select %(tenant)s, request_id, 1, 'synthesize', 60, 4.5, 216044, 500, false, voice_id, 'success', false, '{}', at
    from filler
    """,
    """
    insert into public.usage_daily
    select tenant_id, (created_at at time zone 'UTC')::date, action, voice_id, '', count(*), count(*), 0, 0, 0, 0,
        sum(input_chars), sum(audio_seconds), sum(audio_bytes), sum(latency_ms)
    from public.usage_logs group by 1, 2, 3, 4
    """,
    "drop table filler",
    "vacuum analyze",
)

SQLITE = (
    """
    insert into tenants (id, name, created_at)
    with recursive n (n) as (select 1 union all select n + 1 from n where n < :keys)
    select 'tenant-' || n, 'filler', '2026-01-01T00:00:00.000000+00:00' from n
    """,
    """
    insert into api_keys (sha256, prefix, tenant_id, scopes, created_at)
    with recursive n (n) as (select 1 union all select n + 1 from n where n < :keys)
    select randomblob(32), 'tts_live_' || n, 'tenant-' || n, '["synthesize"]', '2026-01-01T00:00:00.000000+00:00' from n
    """,
    """
    create temporary table filler as
    with recursive n (n) as (select 1 union all select n + 1 from n where n < :rows)
    select 'request-' || n as request_id, 'v' || n % :voices as voice_id,
        strftime('%Y-%m-%dT%H:%M:%S.000000+00:00', 'now', 'start of day', (-1 - n % :days) || ' days',
            (n % 86000) || ' seconds') as at
    from n
    """,
    """
    insert into requests (
        request_id, tenant_id, identity, fingerprint, holder, action, input_chars, streaming, voice_id, status, fence,
        lease_expires_at, created_at, settled_at, latency_ms, audio_seconds, audio_bytes, spoken_voice_id, cached
    )
    select request_id, :tenant, 'job:' || request_id, 'f', 'h', 'synthesize', 60, 0, voice_id, 'success', 1,
        at, at, at, 500, 4.5, 216044, voice_id, 0
    from filler
    """,
    """
    insert into usage_logs (
        tenant_id, request_id, fence, action, input_chars, audio_seconds, audio_bytes, latency_ms, streaming, voice_id,
        status, cached, metadata, created_at
    )
    select :tenant, request_id, 1, 'synthesize', 60, 4.5, 216044, 500, 0, voice_id, 'success', 0, '{}', at from filler
    """,
    """
    insert into usage_daily
    select tenant_id, substr(created_at, 1, 10), action, voice_id, '', count(*), count(*), 0, 0, 0, 0,
        sum(input_chars), sum(audio_seconds), sum(audio_bytes), sum(latency_ms)
    from usage_logs group by 1, 2, 3, 4
    """,
    "drop table filler",
    "analyze",
)


def fill_postgres(database: Database, tenant_id: str, *, rows: int) -> None:
    with database.connect(role="supabase_admin") as connection:
        for statement in POSTGRES:
            connection.execute(statement.encode(), _numbers(tenant_id, rows) if "%(" in statement else None)


def fill_sqlite(folder: Path, tenant_id: str, *, rows: int) -> None:
    """folder: of a local store that nobody has open"""
    with closing(sqlite3.connect(next(folder.glob("*.db")))) as connection, connection:
        for statement in SQLITE:
            connection.execute(statement, _numbers(tenant_id, rows))


def _numbers(tenant_id: str, rows: int) -> dict[str, object]:
    return {"tenant": tenant_id, "rows": rows, "keys": max(1, rows // ROWS_PER_KEY), "days": DAYS, "voices": VOICES}
