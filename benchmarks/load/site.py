"""Where a load runs: the fake platform, a store that workers share, and workers, each replaced when it ends."""

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.load.balance import Tables, read_postgres, read_sqlite
from benchmarks.load.hearing import brief
from tests.fake_platform import FakePlatform, Worker, worker
from tests.postgres import Postgres
from tests.stores import Place, new_project
from tts_core.store import Limits

COMMAND = (sys.executable, "-m", "benchmarks.load.paced_worker")

START_S = 60.0

NAP_S = 0.05

CACHE_BYTES = "4000000"
"""Of speech held in memory: soon full, so that a worker's growth is not that of its cache."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How much of everything.

    pace       seconds of an utterance that are spoken in one
    sentences  of a streamed text, the least and the most; each is about 4.5 s of speech
    """

    workers: int
    concurrency: int
    streams: int
    pace: float
    sentences: tuple[int, int]
    format: str
    store: str


@dataclass(frozen=True, slots=True)
class Size:
    """How large a worker was when it had answered so many jobs, and what it had computed by then."""

    worker_id: str
    jobs: int
    rss_bytes: int
    cpu_s: float


@dataclass(slots=True)
class Site:
    """running: workers that are alive, by their ids; sizes: of all that ever were

    lags_s  how late a nap of this process ended, again and again: what the machine is late by itself
    """

    platform: FakePlatform
    shape: Shape
    place: Place
    key: str
    database_url: str | None
    running: dict[str, Worker] = field(default_factory=dict)
    sizes: list[Size] = field(default_factory=list)
    exit_codes: list[int] = field(default_factory=list)
    lags_s: list[float] = field(default_factory=list)

    def tables(self) -> Tables:
        if self.database_url is not None:
            return read_postgres(self.database_url)
        return read_sqlite(next(self.place.folder.glob("*.db")))

    def env(self, worker_id: str) -> Mapping[str, str]:
        env = {
            "RUNPOD_POD_ID": worker_id,
            "XTTS_ENGINE": "espeak",
            "XTTS_CONCURRENCY": str(self.shape.concurrency),
            "XTTS_CACHE_MEMORY_BYTES": CACHE_BYTES,
            "PACE": str(self.shape.pace),
            "PYTHONPATH": ".",
        }
        if self.place.url is None:
            return env | {"XTTS_STORE": "local", "XTTS_DATA_DIR": str(self.place.folder)}
        own = {"XTTS_DATA_DIR": str(self.place.folder / worker_id)}
        return env | own | {"SUPABASE_URL": self.place.url, "SUPABASE_SERVICE_ROLE_KEY": self.place.key}

    async def keep_worker(self, number: int) -> None:
        """A worker, and another one whenever it ends, until cancelled."""
        generation = 0
        while True:
            worker_id = f"worker-{number}.{generation}"
            async with worker(self.platform, COMMAND, env=self.env(worker_id)) as running:
                self.running[worker_id] = running
                try:
                    self.exit_codes.append(await running.process.wait())
                finally:
                    del self.running[worker_id]
            generation += 1

    async def measure_sizes(self, *, every_s: float = 1.0) -> None:
        while True:
            jobs = self._jobs_by_worker()
            for worker_id, running in self.running.items():
                with suppress(OSError):  # it has ended
                    self.sizes.append(_size(worker_id, jobs.get(worker_id, 0), pid=running.process.pid))
            await asyncio.sleep(every_s)

    async def measure_lags(self) -> None:
        while True:
            begun_s = time.monotonic()
            await asyncio.sleep(NAP_S)
            self.lags_s.append(time.monotonic() - begun_s - NAP_S)

    def _jobs_by_worker(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for job in self.platform.ledger.jobs.values():
            for result in job.results:
                counts[result.worker_id] = counts.get(result.worker_id, 0) + 1
        return counts


def _size(worker_id: str, jobs: int, *, pid: int) -> Size:
    """raises  OSError if there is no such process any more"""
    told = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    cpu_s = (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")
    rss_bytes = int(told[21]) * os.sysconf("SC_PAGE_SIZE")
    return Size(worker_id, jobs, rss_bytes, cpu_s)


@asynccontextmanager
async def open_site(shape: Shape, *, hold_s: float = 5.0, lease_s: float = 8.0) -> AsyncIterator[Site]:
    """Workers that wait for jobs, and a tenant's key; at the end they are asked to leave. raises TimeoutError"""
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="load-")))
        place, database_url = Place(folder), None
        if shape.store == "supabase":
            project = opened.enter_context(new_project(opened.enter_context(Postgres())))
            place = Place(folder, project.server.url, project.server.service_key)
            database_url = project.database.url(role="supabase_admin")
        key = await _new_tenant(place)
        async with FakePlatform(hold_s=hold_s, silence_s=2.0, lease_s=lease_s, brief=brief) as platform:
            site = Site(platform, shape, place, key, database_url)
            async with _workers(site):
                yield site


async def _new_tenant(place: Place) -> str:
    """With a quota, so that every request holds and is charged."""
    store = await place.open(time.time)
    made = await store.create_tenant("load", scopes=("synthesize",), limits=Limits(quota_minutes=1e6))
    await store.close()
    return made.secret


@asynccontextmanager
async def _workers(site: Site) -> AsyncIterator[None]:
    keeping = [asyncio.create_task(site.keep_worker(number)) for number in range(site.shape.workers)]
    measuring = [asyncio.create_task(site.measure_sizes())]
    try:
        wanted = site.shape.workers
        await site.platform.until(lambda: site.platform.held["take"] >= wanted, timeout_s=START_S)
        measuring.append(asyncio.create_task(site.measure_lags()))
        yield
    finally:
        for task in (*keeping, *measuring):
            task.cancel()
        await asyncio.gather(*keeping, *measuring, return_exceptions=True)


async def terminate(running: Worker) -> None:
    with suppress(ProcessLookupError):
        running.process.send_signal(signal.SIGTERM)
