"""Requests and the attempts at them, in the local store: each function is one transaction's work on its connection.

An attempt is one (request_id, fence). What always holds, since `_start` and `_close` alone write these rows:

- of a request at most one attempt runs, and a later attempt has a greater fence;
- an attempt that has ended has exactly one row in `usage_logs`; one that runs has none.
"""

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any
from uuid import uuid4

from storage.local.area import LocalArea
from storage.local.database import Connection, Row
from storage.local.limits import charge, hold, take_request
from storage.local.schema import Migration, utc
from storage.local.tenants import authenticate
from storage.local.usage import record_usage
from tts_core.errors import IdempotencyConflict, RequestRunning
from tts_core.store import Outcome, Reservation, Reserved, Tenant

MAX_REAPED = 20
"""Expired attempts, whoever's they are, that one `reserve` settles besides its own."""

_ABANDONED = asdict(Outcome(status="failed", latency_ms=0)) | {"status": "abandoned"}
"""How an attempt ended of which nothing more was heard."""

MIGRATIONS: tuple[Migration, ...] = (
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
    (
        "0010_holder",
        # Null: asked for by a call that nobody can repeat.
        ("alter table requests add column holder text",),
    ),
)


class LocalRequests(LocalArea):
    """`tts_core.store.Requests`"""

    async def reserve(self, reservation: Reservation) -> Reserved:
        return await self._database.write(
            lambda tx: reserve(tx, reservation, operator_key=self._operator_key, now_s=self._clock())
        )

    async def renew(self, reserved: Reserved, *, lease_s: float) -> bool:
        return await self._database.write(lambda tx: renew(tx, reserved, lease_s=lease_s, now_s=self._clock()))

    async def settle(self, reserved: Reserved, outcome: Outcome) -> bool:
        return await self._database.write(lambda tx: settle(tx, reserved, outcome, now_s=self._clock()))


def reserve(tx: Connection, asked: Reservation, *, operator_key: bytes | None, now_s: float) -> Reserved:
    tenant = authenticate(tx, asked.tenant_key, scope=asked.scope, operator_key=operator_key, now_s=now_s)
    reserved = _reserve(tx, tenant, asked=asked, now_s=now_s)
    _reap(tx, now_s=now_s)
    return reserved


def _reserve(tx: Connection, tenant: Tenant, *, asked: Reservation, now_s: float) -> Reserved:
    row = tx.execute(
        "select * from requests where tenant_id = ? and identity = ?", (tenant.id, asked.identity)
    ).fetchone()
    if row is None:
        take_request(tx, tenant, now_s=now_s)
        return _start(tx, Reserved(tenant, request_id=uuid4().hex, fence=1), asked=asked, now_s=now_s)
    if row["fingerprint"] != asked.fingerprint:
        raise IdempotencyConflict("this idempotency_key or job id was used before with another body; send a new one")
    if row["status"] == "success":
        return Reserved(tenant, row["request_id"], row["fence"], outcome=_outcome(row))
    is_holder = asked.holder is not None and row["holder"] == asked.holder
    if row["status"] == "running" and is_holder:
        return _given_again(tx, Reserved(tenant, row["request_id"], row["fence"]), asked=asked, now_s=now_s)
    if is_holder or (row["status"] == "running" and row["lease_expires_at"] > utc(now_s)):
        raise RequestRunning(f"request {row['request_id']!r} is being worked on; ask again later")
    if row["status"] == "running":
        _close(tx, row, ended=_ABANDONED, now_s=now_s)
    elif row["status"] != "abandoned":
        take_request(tx, tenant, now_s=now_s)
    return _start(tx, Reserved(tenant, row["request_id"], row["fence"] + 1), asked=asked, now_s=now_s)


def renew(tx: Connection, reserved: Reserved, *, lease_s: float, now_s: float) -> bool:
    """A renewal that arrives late does not shorten the lease."""
    renewed = tx.execute(
        """
        update requests set lease_expires_at = max(lease_expires_at, :lease_expires_at)
        where tenant_id = :tenant_id and request_id = :request_id and fence = :fence and status = 'running'
        """,
        {**_attempt(reserved), "lease_expires_at": utc(now_s + lease_s)},
    )
    return renewed.rowcount == 1


def settle(tx: Connection, reserved: Reserved, outcome: Outcome, *, now_s: float) -> bool:
    if _close(tx, _attempt(reserved), ended=asdict(outcome), now_s=now_s):
        return True
    ended_so = """
        select 1 from usage_logs
        where tenant_id = :tenant_id and request_id = :request_id and fence = :fence and status = :status
    """
    return tx.execute(ended_so, {**_attempt(reserved), "status": outcome.status}).fetchone() is not None


def _start(tx: Connection, attempt: Reserved, *, asked: Reservation, now_s: float) -> Reserved:
    """Write the row of a new attempt: it keeps when the request was first made, and no trace of how the last ended.

    raises  QuotaExceeded
    """
    attempt = replace(attempt, left_s=hold(tx, attempt.tenant, asked.estimate_s, now_s=now_s))
    tx.execute(
        """
        insert or replace into requests (
            request_id, tenant_id, identity, fingerprint, holder, action, input_chars, held_s, streaming,
            voice_id, status, fence, lease_expires_at, created_at
        ) values (
            :request_id, :tenant_id, :identity, :fingerprint, :holder, :action, :input_chars, :held_s, :streaming,
            :voice_id, 'running', :fence, :lease_expires_at,
            coalesce((select created_at from requests where request_id = :request_id), :now)
        )
        """,
        {
            **_attempt(attempt),
            "identity": asked.identity,
            "fingerprint": asked.fingerprint,
            "holder": asked.holder,
            "action": asked.action,
            "input_chars": asked.input_chars,
            "held_s": asked.estimate_s,
            "streaming": asked.streaming,
            "voice_id": asked.voice_id,
            "lease_expires_at": utc(now_s + asked.lease_s),
            "now": utc(now_s),
        },
    )
    return attempt


def _given_again(tx: Connection, attempt: Reserved, *, asked: Reservation, now_s: float) -> Reserved:
    """The attempt of a caller who did not get the answer, its lease running from now."""
    renew(tx, attempt, lease_s=asked.lease_s, now_s=now_s)
    left_s = hold(tx, attempt.tenant, 0.0, now_s=now_s)
    return replace(attempt, left_s=None if left_s is None else left_s + asked.estimate_s)


def _close(tx: Connection, attempt: Mapping[str, Any] | Row, *, ended: Mapping[str, Any], now_s: float) -> bool:
    """End an attempt and write its usage row; False, and nothing is written, if it had ended before.

    One that was given up as abandoned, and that no other has followed, may still say how it ended.
    """
    closed = tx.execute(
        """
        update requests set
            status = :status, settled_at = :now, latency_ms = :latency_ms, audio_seconds = :audio_seconds,
            audio_bytes = :audio_bytes, spoken_voice_id = :voice_id, error = :error, cached = :cached,
            result = :result, audio_path = :audio_path, metadata = :metadata, user_id = :user_id
        where tenant_id = :tenant_id and request_id = :request_id and fence = :fence
            and (status = 'running' or (status = 'abandoned' and :status <> 'abandoned'))
        """,
        {
            **ended,
            "tenant_id": attempt["tenant_id"],
            "request_id": attempt["request_id"],
            "fence": attempt["fence"],
            "now": utc(now_s),
        },
    )
    if closed.rowcount == 0:
        return False
    record_usage(tx, attempt["request_id"])
    if ended["audio_seconds"] and not ended["cached"]:
        charge(tx, attempt["tenant_id"], ended["audio_seconds"], now_s=now_s)
    return True


def _reap(tx: Connection, *, now_s: float) -> None:
    expired = tx.execute(
        "select * from requests where status = 'running' and lease_expires_at <= ? order by lease_expires_at limit ?",
        (utc(now_s), MAX_REAPED),
    )
    for row in expired.fetchall():
        _close(tx, row, ended=_ABANDONED, now_s=now_s)


def _attempt(reserved: Reserved) -> dict[str, str | int]:
    return {"tenant_id": reserved.tenant.id, "request_id": reserved.request_id, "fence": reserved.fence}


def _outcome(row: Row) -> Outcome:
    columns = {field.name: row[field.name] for field in fields(Outcome)}
    return Outcome(**columns | {"voice_id": row["spoken_voice_id"], "cached": bool(row["cached"])})
