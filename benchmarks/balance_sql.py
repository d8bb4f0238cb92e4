"""Does the database hold what callers were told? `python benchmarks/balance_sql.py LEDGER DATABASE_URL`

Imports nothing of this project, so that no mistake can be on both sides. Prints one JSON line, words in three lists:

lost       a job that nobody was told the sound of; one that was, and has no success, no usage row or no charge for it
doubled    a job told in two ways, with two successes, an attempt with two rows, seconds charged or counted twice
orphaned   what nobody will ever end or find: a running request, an attempt without a row, objects without an owner

LEDGER is JSON, as the platform kept it: {job id: {"tenant_id": ..., "told": [[request id, seconds, ...], ...]}}. Each
job has a tenant of its own, so that whatever is counted by tenant is counted by job.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import namedtuple_row

REQUESTS = """
    select tenant_id, request_id, identity, status, fence, audio_path,
        exists (select from storage.objects as o where o.bucket_id || '/' || o.name = r.audio_path) as has_audio
    from public.requests as r
"""
USAGE = """
    select tenant_id, request_id, fence, status, case when cached then 0 else audio_seconds end as paid_s
    from public.usage_logs
"""
CHARGED = "select tenant_id, used_s from public.quota_used where period = 'total'"
COUNTED = """
    select tenant_id, sum(requests)::integer as requests, sum(audio_seconds) as audio_seconds
    from public.usage_daily group by tenant_id
"""
ROWS = "select tenant_id, count(*) as requests, sum(audio_seconds) as audio_seconds from public.usage_logs group by 1"
STRAY_OBJECTS = """
    select o.bucket_id || '/' || o.name as path from storage.objects as o
    where o.bucket_id || '/' || o.name not in (
        select audio_path from public.requests where audio_path is not null
        union all select audio_path from public.tts_cache
        union all select audio_path from public.jobs where audio_path is not null
        union all select alignments_path from public.jobs where alignments_path is not null
        union all select object_path from public.job_chunks
    )
"""
ROUNDING_S = 1e-6

Ledger = Mapping[str, Mapping[str, Any]]
Connection = psycopg.Connection[Any]
Finding = tuple[str, str]
"""Of which kind, and in words."""


def findings(connection: Connection, ledger: Ledger) -> Iterator[Finding]:
    requests, usage = rows(connection, REQUESTS), rows(connection, USAGE)
    for job_id, job in ledger.items():
        own = [request for request in requests if request.tenant_id == job["tenant_id"]]
        yield from of_job(job_id, job, own, [row for row in usage if row.tenant_id == job["tenant_id"]])
    yield from of_attempts(requests, usage)
    yield from of_money(connection, usage)
    owners = {job["tenant_id"]: job_id for job_id, job in ledger.items()}
    for request in requests:
        if request.identity != f"job:{owners.get(request.tenant_id)}":
            yield "orphaned", f"request {request.request_id} belongs to no job"
    known = {request.request_id for request in requests}
    for row in usage:
        if row.request_id not in known:
            yield "orphaned", f"a usage row of {row.request_id}, which is no request"
    for stray in rows(connection, STRAY_OBJECTS):
        yield "orphaned", f"object {stray.path} is in no row"


def of_job(job_id: str, job: Mapping[str, Any], requests: list[Any], usage: list[Any]) -> Iterator[Finding]:
    """One result, one success, one row of it."""
    told = {tuple(each) for each in job["told"]}
    successes = [row for row in usage if row.status == "success"]
    if not told:
        yield "lost", f"{job_id}: never told"
    if len(told) > 1:
        yield "doubled", f"{job_id}: told in {len(told)} ways"
    if len(requests) > 1:
        yield "doubled", f"{job_id}: {len(requests)} requests"
    if len(successes) > 1:
        yield "doubled", f"{job_id}: {len(successes)} rows that say success"
    if told and not successes:
        yield "lost", f"{job_id}: told, and no row says success"
    for request in requests:
        if told and request.request_id not in {request_id for request_id, *_ in told}:
            yield "lost", f"{job_id}: told as another request than {request.request_id}"
        if told and request.status != "success":
            yield "lost", f"{job_id}: told, and {request.status} in the database"
        if request.audio_path and not request.has_audio:
            yield "lost", f"{job_id}: nothing lies at {request.audio_path}"


def of_attempts(requests: list[Any], usage: list[Any]) -> Iterator[Finding]:
    """Each attempt has ended, and has a row."""
    fences: dict[str, list[int]] = {}
    for row in usage:
        fences.setdefault(row.request_id, []).append(row.fence)
    for request in requests:
        found, expected = sorted(fences.get(request.request_id, [])), list(range(1, request.fence + 1))
        if request.status == "running":
            yield "orphaned", f"request {request.request_id} holds its reservation"
        elif set(expected) - set(found):
            yield "orphaned", f"request {request.request_id} has rows of the attempts {found} of {request.fence}"
        if len(found) > len(set(found)):
            yield "doubled", f"request {request.request_id} has rows of the attempts {found}"


def of_money(connection: Connection, usage: list[Any]) -> Iterator[Finding]:
    """What was charged, and what the days count, is what the rows say."""
    due: dict[str, float] = {}
    for row in usage:
        due[row.tenant_id] = due.get(row.tenant_id, 0.0) + row.paid_s
    charged = {each.tenant_id: each.used_s for each in rows(connection, CHARGED)}
    for tenant_id in due.keys() | charged.keys():
        yield from difference(f"tenant {tenant_id}: seconds charged", charged, due, tenant_id)
    counted = {each.tenant_id: each for each in rows(connection, COUNTED)}
    written = {each.tenant_id: each for each in rows(connection, ROWS)}
    for tenant_id in counted.keys() | written.keys():
        for what in ("requests", "audio_seconds"):
            found, due = ({key: getattr(row, what) for key, row in side.items()} for side in (counted, written))
            yield from difference(f"tenant {tenant_id}: {what} counted", found, due, tenant_id)


def difference(what: str, found: Mapping[str, float], due: Mapping[str, float], key: str) -> Iterator[Finding]:
    more = found.get(key, 0) - due.get(key, 0)
    if abs(more) > ROUNDING_S:
        yield ("doubled" if more > 0 else "lost"), f"{what} {found.get(key, 0)}, due {due.get(key, 0)}"


def rows(connection: Connection, query: str) -> list[Any]:
    return connection.cursor(row_factory=namedtuple_row).execute(query.encode()).fetchall()


def balance(connection: Connection, ledger: Ledger) -> dict[str, list[str]]:
    told: dict[str, list[str]] = {"lost": [], "doubled": [], "orphaned": []}
    for kind, words in findings(connection, ledger):
        told[kind].append(words)
    return told


def main(ledger: str, url: str) -> None:
    with psycopg.connect(url) as connection:
        print(json.dumps(balance(connection, json.loads(Path(ledger).read_text()))))


if __name__ == "__main__":
    main(*sys.argv[1:])
