"""Requests and what they used: each function is one transaction's work on the local store's connection.

An attempt is one (request_id, fence). What always holds, since `_start` and `_close` alone write these rows:

- of a request at most one attempt runs, and a later attempt has a greater fence;
- an attempt that has ended has exactly one row in `usage_logs`; one that runs has none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any
from uuid import uuid4

from storage.accounts import authenticate
from storage.database import Connection, Row
from storage.schema import utc
from tts_core.errors import IdempotencyConflict, RequestRunning
from tts_core.store import Outcome, Reservation, Reserved, UsageRow

MAX_REAPED = 20
"""Expired attempts, whoever's they are, that one `reserve` settles besides its own."""

_ABANDONED = asdict(Outcome(status="failed", latency_ms=0)) | {"status": "abandoned"}
"""How an attempt ended of which nothing more was heard."""


def reserve(tx: Connection, asked: Reservation, *, now_s: float) -> Reserved:
    tenant = authenticate(tx, asked.tenant_key, scope=asked.scope, now_s=now_s)
    _reap(tx, now_s=now_s)
    row = tx.execute(
        "select * from requests where tenant_id = ? and identity = ?", (tenant.id, asked.identity)
    ).fetchone()
    if row is None:
        return _start(tx, Reserved(tenant, request_id=uuid4().hex, fence=1), asked=asked, now_s=now_s)
    if row["fingerprint"] != asked.fingerprint:
        raise IdempotencyConflict("this idempotency_key or job id was used before with another body; send a new one")
    if row["status"] == "success":
        return Reserved(tenant, row["request_id"], row["fence"], outcome=_outcome(row))
    if row["status"] == "running" and row["lease_expires_at"] > utc(now_s):
        raise RequestRunning(f"request {row['request_id']!r} is being worked on; ask again later")
    if row["status"] == "running":
        _close(tx, row, ended=_ABANDONED, now_s=now_s)
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
    return _close(tx, _attempt(reserved), ended=asdict(outcome), now_s=now_s)


def usage(tx: Connection, tenant_id: str) -> Sequence[UsageRow]:
    rows = tx.execute("select * from usage_logs where tenant_id = ? order by id", (tenant_id,))
    return tuple(map(_usage_row, rows))


def _start(tx: Connection, attempt: Reserved, *, asked: Reservation, now_s: float) -> Reserved:
    """Write the row of a new attempt: it keeps when the request was first made, and no trace of how the last ended."""
    tx.execute(
        """
        insert or replace into requests (
            request_id, tenant_id, identity, fingerprint, action, input_chars, streaming, voice_id,
            status, fence, lease_expires_at, created_at
        ) values (
            :request_id, :tenant_id, :identity, :fingerprint, :action, :input_chars, :streaming, :voice_id,
            'running', :fence, :lease_expires_at,
            coalesce((select created_at from requests where request_id = :request_id), :now)
        )
        """,
        {
            **_attempt(attempt),
            "identity": asked.identity,
            "fingerprint": asked.fingerprint,
            "action": asked.action,
            "input_chars": asked.input_chars,
            "streaming": asked.streaming,
            "voice_id": asked.voice_id,
            "lease_expires_at": utc(now_s + asked.lease_s),
            "now": utc(now_s),
        },
    )
    return attempt


def _close(tx: Connection, attempt: Mapping[str, Any] | Row, *, ended: Mapping[str, Any], now_s: float) -> bool:
    """End an attempt and write its usage row; False, and nothing is written, if it does not run any more."""
    closed = tx.execute(
        """
        update requests set
            status = :status, settled_at = :now, latency_ms = :latency_ms, audio_seconds = :audio_seconds,
            audio_bytes = :audio_bytes, spoken_voice_id = :voice_id, error = :error, cached = :cached,
            result = :result, audio_path = :audio_path, metadata = :metadata
        where tenant_id = :tenant_id and request_id = :request_id and fence = :fence and status = 'running'
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
    tx.execute(
        """
        insert into usage_logs (
            tenant_id, request_id, fence, action, input_chars, audio_seconds, audio_bytes, latency_ms, streaming,
            voice_id, status, error, cached, metadata, created_at
        ) select
            tenant_id, request_id, fence, action, input_chars, audio_seconds, audio_bytes, latency_ms, streaming,
            coalesce(spoken_voice_id, voice_id), status, error, cached, metadata, settled_at
        from requests where request_id = ?
        """,
        (attempt["request_id"],),
    )
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


def _usage_row(row: Row) -> UsageRow:
    columns = {field.name: row[field.name] for field in fields(UsageRow)}
    return UsageRow(**columns | {"streaming": bool(row["streaming"]), "cached": bool(row["cached"])})
