"""Workers that are killed, for `benchmarks.faults`: the real `handler.py` under the real SDK loop.

A station is a platform with one worker after another, each on the station's data folder and its own way to the common
database, in which things go wrong. Callers ask again for what failed and may be tried again, as any client should.
"""

import asyncio
import base64
import hashlib
import json
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.forked import Forked, Nursery
from tests.fake_platform import FakePlatform, worker
from tests.ledger import JobRecord, Result
from tests.supabase_server import Kind, SupabaseServer

SETTLE, RESERVE, OBJECTS = "/rest/v1/rpc/settle_request", "/rest/v1/rpc/reserve_request", "/storage/v1/object/"
START_S = 60.0
"""How long a worker may take to begin, and to end."""

AGAIN_S = 1.0
"""Before a caller asks again."""

AGE_LEASES = """
    update public.requests set lease_expires_at = clock_timestamp()
    where status = 'running' and identity = any(%s)
"""
PHASES = """
    select r.identity, case
        when r.status = 'success' then 'settled, not told'
        when r.status <> 'running' then 'before its row'
        when exists (select from public.tts_cache as c where c.pool = r.tenant_id) then 'kept, not settled'
        else 'being spoken'
    end
    from public.requests as r where r.identity = any(%s)
"""


@dataclass(frozen=True)
class Fault:
    """What goes wrong with the next n calls below `prefix`."""

    kind: Kind
    n: int
    prefix: str
    carried_out: bool


@dataclass(frozen=True)
class Kill:
    """One life of a worker, and its end.

    at          `moment`: when the share `part` of the time has passed that its jobs take; `call`: while it waits for
                the answer to a call below `prefix`, which was or was not carried out; `result`: while it posts one
    is_deleted  whether its data folder goes with it, and its jobs go to another station; else the next worker of
                this station gets both
    """

    number: int
    at: str
    part: float
    prefix: str
    carried_out: bool
    is_deleted: bool
    faults: Sequence[Fault]


@dataclass
class Books:
    """What the platforms know together, and what the kills found.

    phases  how far the jobs had come that were with a worker when it was killed
    """

    connection: psycopg.Connection[Any]
    inputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    tenants: dict[str, str] = field(default_factory=dict)
    finished: set[str] = field(default_factory=set)
    kills: Counter[str] = field(default_factory=Counter)
    phases: Counter[str] = field(default_factory=Counter)
    asked_again: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)

    def book_kill(self, kill: Kill, job_ids: Sequence[str]) -> None:
        """Their leases end at once: nobody waits for the thirty seconds after which a dead worker's would."""
        self.kills[kill.at] += 1
        identities = [f"job:{job_id}" for job_id in job_ids]
        found = dict(self.connection.execute(PHASES, [identities]).fetchall())
        self.phases.update(found.get(identity, "before its row") for identity in identities)
        self.connection.execute(AGE_LEASES, [identities])

    @property
    def is_complete(self) -> bool:
        return len(self.finished) == len(self.inputs)


class Station:
    """A platform, and the workers that it has one after another.

    next    who gets its jobs when its folder is lost
    folder  their data; their log lies beside it
    """

    def __init__(
        self, platform: FakePlatform, server: SupabaseServer, *, nursery: Nursery, folder: Path, books: Books
    ) -> None:
        self.platform = platform
        self.server = server
        self.next: Station = self
        self._nursery = nursery
        self._folder = folder
        self._books = books
        self._gone: Counter[str] = Counter()
        self._answered: Counter[str] = Counter()
        self._submitted = 0
        self._span_s = 2.0

    def submit(self, job_id: str) -> None:
        self._submitted += 1
        self.platform.submit(self._books.inputs[job_id], id=job_id)

    async def live_and_die(self, kill: Kill, job_ids: Sequence[str]) -> None:
        """One worker, from its start to its end in the middle of these jobs."""
        env = {**os.environ, **self.platform.env(), **self._env()}
        async with self._nursery.worker(env, self._folder.with_suffix(".log")) as running:
            for fault in kill.faults:
                self._plan(fault)
            stalled = self._stall(kill)
            for job_id in job_ids:
                self.submit(job_id)
            await self._moment(kill, running, stalled=stalled)
            running.slay()
            await running.ended()
        await asyncio.sleep(0.05)  # the platform reads what was on its way
        self.platform.answers = lambda kind, job_id: 200
        self.server.faults.clear()
        held = self._held()
        self._gone.update(held)
        self._books.book_kill(kill, list(held))
        if kill.is_deleted:
            shutil.rmtree(self._folder, ignore_errors=True)
        for job_id in held:
            (self.next if kill.is_deleted else self).submit(job_id)

    async def live(self, job_ids: Sequence[str], *, until: Callable[[], bool]) -> int:
        """The last worker, which works until all is done and leaves by itself; its exit code."""
        self._plan(Fault(Kind.RESET, 1, SETTLE, carried_out=True))
        async with worker(self.platform, [sys.executable, "handler.py"], env=self._env()) as running:
            for job_id in job_ids:
                self.submit(job_id)
            while not until():  # noqa: ASYNC110  others' platforms tell theirs
                await asyncio.sleep(0.1)
            running.process.send_signal(signal.SIGTERM)
            return await running.exit_code(timeout_s=START_S)

    async def call_for(self) -> None:
        """The callers of this platform's jobs: hear each answer, and ask again after an error that allows it."""
        while True:
            await self.platform.until(lambda: bool(self._unheard()), timeout_s=1e6)
            for job_id, result in self._unheard():
                self._answered[job_id] += 1
                self._hear(job_id, result)

    def _unheard(self) -> list[tuple[str, Result]]:
        jobs = self.platform.ledger.jobs.items()
        return [(job_id, result) for job_id, job in jobs for result in job.results[self._answered[job_id] :]]

    def _hear(self, job_id: str, result: Result) -> None:
        if result.error is None:
            self._books.finished.add(job_id)
            return
        error = json.loads(result.error)
        if error["retryable"]:
            self._books.asked_again[error["code"]] += 1
            asyncio.get_running_loop().call_later(AGAIN_S, self.submit, job_id)
        else:
            self._books.refused.append(f"{job_id}: {error['code']}")
            self._books.finished.add(job_id)

    def _env(self) -> dict[str, str]:
        return {
            "SUPABASE_URL": self.server.url,
            "SUPABASE_SERVICE_ROLE_KEY": self.server.service_key,
            "XTTS_DATA_DIR": str(self._folder),
            "XTTS_ENGINE": "espeak",
        }

    def _plan(self, fault: Fault) -> None:
        self.server.faults.next(fault.n, fault.kind, carried_out=fault.carried_out, prefix=fault.prefix)

    def _stall(self, kill: Kill) -> Callable[[], bool]:
        """Hold the call at which the worker is to be killed; says whether one is held."""
        before = self.server.faults.done[Kind.STALL]
        if kill.at == "call":
            self._plan(Fault(Kind.STALL, 1, kill.prefix, kill.carried_out))
        return lambda: self.server.faults.done[Kind.STALL] > before

    async def _moment(self, kill: Kill, running: Forked, *, stalled: Callable[[], bool]) -> None:
        """Wait for the moment of its death, or until it has nothing left to do."""
        taken = self._taken()
        if kill.at == "result":
            self.platform.answers = lambda kind, job_id: _refuse(running) if kind == "done" else 200
        await self.platform.until(lambda: self._taken() > taken, timeout_s=START_S)
        if kill.at == "result":
            await asyncio.wait_for(running.ended(), START_S)
        elif kill.at == "call":
            while not (stalled() or self._is_idle()):  # noqa: ASYNC110  another thread's
                await asyncio.sleep(0.005)
        else:
            await self._live_for(kill.part)

    async def _live_for(self, part: float) -> None:
        """A share of the time that jobs take here: half way to that if it was less, a tenth more if it was not."""
        begun_s = time.monotonic()
        try:
            await self.platform.until(self._is_idle, timeout_s=part * self._span_s)
        except TimeoutError:
            self._span_s *= 1.1
        else:
            self._span_s = (self._span_s + time.monotonic() - begun_s) / 2

    def _taken(self) -> int:
        return sum(job.times_taken for job in self.platform.ledger.jobs.values())

    def _told(self) -> int:
        return sum(len(job.results) for job in self.platform.ledger.jobs.values())

    def _is_idle(self) -> bool:
        return self._submitted <= self._told() + self._gone.total()

    def _held(self) -> Mapping[str, int]:
        """Deliveries that were taken and not answered, by workers that have not been killed before."""
        jobs = self.platform.ledger.jobs.items()
        held = {id: job.times_taken - len(job.results) - self._gone[id] for id, job in jobs}
        return {job_id: count for job_id, count in held.items() if count > 0}


def _refuse(running: Forked) -> int:
    """Kill it while it posts; what it posted does not count."""
    running.slay()
    return 500


def ledger(stations: Sequence[Station], tenants: Mapping[str, str]) -> dict[str, Any]:
    """What the platforms have booked, for `balance_sql`."""
    records: dict[str, list[JobRecord]] = {job_id: [] for job_id in tenants}
    for station in stations:
        for job_id, record in station.platform.ledger.jobs.items():
            records[job_id].append(record)
    return {
        job_id: {
            "tenant_id": tenants[job_id],
            "told": [told(result) for each in of_job for result in each.results if result.error is None],
        }
        for job_id, of_job in records.items()
    }


def told(result: Result) -> list[Any]:
    """Whose result it is, how long, and its sound, where that is in it."""
    *parts, last = result.output
    audio = b"".join(base64.b64decode(part.get("audio_base64") or b"") for part in [*parts, last])
    return [last["request_id"], last["duration"], hashlib.sha256(audio).hexdigest()]
