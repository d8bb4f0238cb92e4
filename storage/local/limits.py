"""What tenants may use, in the local store: each function is one transaction's work on its connection.

What a tenant has used is counted for every kind of period, so that another quota period holds at once.
What is held is no counter: it is the sum over the attempts whose leases are alive, so it cannot drift.
"""

import math

from storage.local.database import Connection
from storage.local.schema import Migration, utc
from storage.periods import PERIODS, period_bounds
from tts_core.errors import QuotaExceeded, RateLimited
from tts_core.store import Standing, Tenant

WINDOW_S = {"minute": 60.0, "hour": 3600.0}

ROUNDING_S = 1e-6
"""A request that is early by less is in time: who waits `retry_after_s` is accepted."""

MIGRATIONS: tuple[Migration, ...] = (
    (
        "0004_limits",
        (
            "alter table tenants add column requests_per_minute integer check (requests_per_minute >= 1)",
            "alter table tenants add column requests_per_hour integer check (requests_per_hour >= 1)",
            "alter table tenants add column quota_minutes real check (quota_minutes >= 0)",
            """
            alter table tenants add column quota_period text not null default 'month'
                check (quota_period in ('day', 'month', 'total'))
            """,
            "alter table tenants add column disabled_at text",
            "alter table tenants add column is_operator integer not null default 0 check (is_operator in (0, 1))",
            "update tenants set is_operator = 1 where id = 'local'",
            "alter table api_keys add column last_used_at text",
            "alter table api_keys add column made_by text",
            "alter table api_keys add column replaces text",
            "drop index api_keys_of_tenant",
            "create unique index api_keys_of_tenant on api_keys (tenant_id, prefix)",
            "create unique index api_keys_made_by on api_keys (tenant_id, made_by)",
            "alter table requests add column held_s real not null default 0 check (held_s >= 0)",
            "create index requests_of_tenant_running on requests (tenant_id) where status = 'running'",
            """
            create table rate_buckets (
                tenant_id text not null references tenants (id) on delete cascade,
                per text not null check (per in ('minute', 'hour')),
                tokens real not null,
                refilled_at_s real not null,
                primary key (tenant_id, per)
            ) strict
            """,
            """
            create table quota_used (
                tenant_id text not null references tenants (id) on delete cascade,
                period text not null check (period in ('day', 'month', 'total')),
                started_at text not null,
                used_s real not null check (used_s >= 0),
                primary key (tenant_id, period)
            ) strict
            """,
            # What remains of a deleted tenant: no name, no key, nothing that was said.
            """
            create table deleted_tenants (
                tenant_id text primary key,
                deleted_at text not null,
                rows text not null check (json_type(rows) = 'object'),
                objects integer not null check (objects >= 0)
            ) strict
            """,
        ),
    ),
)


def take_request(tx: Connection, tenant: Tenant, *, now_s: float) -> None:
    """One request from each of the tenant's rates, or none from any. raises RateLimited"""
    rates = {"minute": tenant.limits.requests_per_minute, "hour": tenant.limits.requests_per_hour}
    filled = {per: (_tokens(tx, tenant.id, per, rate=rate, now_s=now_s), rate) for per, rate in rates.items() if rate}
    wait_s = max(((1 - tokens) * WINDOW_S[per] / rate for per, (tokens, rate) in filled.items()), default=0.0)
    if wait_s > ROUNDING_S:
        wait_s = math.ceil(wait_s * 1000) / 1000
        raise RateLimited(f"too many requests: the next is accepted in {wait_s:g} s", retry_after_s=wait_s)
    for per, (tokens, _) in filled.items():
        # The moment never goes back, or a clock that was set back would have the same rest counted twice.
        tx.execute(
            """
            insert into rate_buckets (tenant_id, per, tokens, refilled_at_s) values (?, ?, ?, ?)
            on conflict do update set
                tokens = excluded.tokens, refilled_at_s = max(refilled_at_s, excluded.refilled_at_s)
            """,
            (tenant.id, per, tokens - 1, now_s),
        )


def _tokens(tx: Connection, tenant_id: str, per: str, *, rate: int, now_s: float) -> float:
    """Requests that the bucket holds by now: a new one is full."""
    bucket = tx.execute(
        "select tokens, refilled_at_s from rate_buckets where tenant_id = ? and per = ?", (tenant_id, per)
    ).fetchone()
    if bucket is None:
        return rate
    rested_s = max(0.0, now_s - bucket["refilled_at_s"])
    return float(min(rate, bucket["tokens"] + rested_s * rate / WINDOW_S[per]))


def hold(tx: Connection, tenant: Tenant, estimate_s: float, *, now_s: float) -> float | None:
    """What of its quota a request may use; None without a quota.

    raises  QuotaExceeded if that is less than it may need; never if it needs nothing
    """
    if tenant.limits.quota_minutes is None:
        return None
    now = standing(tx, tenant, now_s=now_s)
    left_s = tenant.limits.quota_minutes * 60 - now.used_s - now.held_s
    if estimate_s > 0 and left_s < estimate_s:
        raise QuotaExceeded(
            f"this may take {estimate_s:.1f} s of audio and {left_s:.1f} s are left "
            + (f"until {now.resets_at}" if now.resets_at else "of this tenant's quota"),
            left_s=round(left_s, 3),
            resets_at=now.resets_at,
        )
    return left_s


def charge(tx: Connection, tenant_id: str, audio_seconds: float, *, now_s: float) -> None:
    """Count what was spoken in the periods that run now."""
    for period in PERIODS:
        started, _ = period_bounds(period, now_s)
        tx.execute(
            """
            insert into quota_used (tenant_id, period, started_at, used_s) values (?, ?, ?, ?)
            on conflict (tenant_id, period) do update set
                used_s = excluded.used_s + iif(started_at < excluded.started_at, 0, used_s),
                started_at = max(started_at, excluded.started_at)
            """,
            (tenant_id, period, utc(started.timestamp()), audio_seconds),
        )


def standing(tx: Connection, tenant: Tenant, *, now_s: float) -> Standing:
    period = tenant.limits.quota_period
    started, ended = period_bounds(period, now_s)
    row = tx.execute(
        """
        select
            coalesce((
                select used_s from quota_used where tenant_id = :tenant_id and period = :period
                and started_at >= :started_at
            ), 0) as used_s,
            coalesce((
                select sum(held_s) from requests where tenant_id = :tenant_id and status = 'running'
                and lease_expires_at > :now
            ), 0) as held_s
        """,
        {
            "tenant_id": tenant.id,
            "period": period,
            "started_at": utc(started.timestamp()),
            "now": utc(now_s),
        },
    ).fetchone()
    return Standing(
        used_s=row["used_s"],
        held_s=row["held_s"],
        started_at=utc(started.timestamp()) if ended else None,
        resets_at=utc(ended.timestamp()) if ended else None,
    )
