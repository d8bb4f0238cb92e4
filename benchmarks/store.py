"""What does the store cost a job, and does that grow with what it remembers? `python -m benchmarks.store`

Two stores: the local one, and the Supabase one before the tests' server and a real Postgres on loopback, so without the
way to a project far away. The engine speaks at once what is prepared, so all the time that a job takes is overhead:
parsing, planning, encoding, reserving, keeping, settling. One job at a time, 4.5 s of audio as wav; a cached hit is the
same request under another id, found in the worker's memory.

Growth: a summary of the last 30 days by day and voice, and a key that is looked up by a request that is told again,
in a store with a thousand usage rows (and their requests) and in one with a million, asked in turns; time over time.
The number of groups is the same: what a summary takes grows with days, voices, endpoints and users, not with rows.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

import numpy as np

from benchmarks.common import commit, percentile, print_table, say
from benchmarks.usage_rows import fill_postgres, fill_sqlite
from storage import open_store
from tests.postgres import Database, Postgres
from tests.scripted_engine import ScriptedEngine
from tests.stores import MIGRATIONS
from tests.supabase_server import SupabaseServer
from tts_core.errors import ReferenceUnreachable
from tts_core.service import Service
from tts_core.settings import Settings
from tts_core.store import NewKey, Outcome, Reservation, Store, UsageQuery
from tts_core.types import Audience, AudioChunk, Manner, Utterance

TEXT = "The quick brown fox jumps over the lazy dog and nobody is told"
AUDIO_S = 4.5
STORES = ("local", "supabase")


class Prepared(ScriptedEngine):
    """Has said everything before it was asked."""

    sample_rate_hz = 24_000
    _chunk = AudioChunk(np.zeros(round(AUDIO_S * sample_rate_hz), np.float32))

    async def speak(self, utterance: Utterance, manner: Manner, audience: Audience) -> AsyncGenerator[AudioChunk]:
        yield self._chunk


@dataclass(frozen=True, slots=True)
class Args:
    rows: tuple[int, int]
    jobs: int


@dataclass(frozen=True, slots=True)
class Row:
    """Milliseconds; `rows` of usage were there before."""

    store: str
    what: str
    rows: int
    n: int
    p50_ms: float
    p95_ms: float


def parse_args(argv: Sequence[str] | None) -> Args:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs=2, default=(1_000, 1_000_000), help="of usage, few and many")
    parser.add_argument("--jobs", type=int, default=200, help="of each kind that are timed")
    parser.add_argument("--quick", action="store_true", help="20,000 rows for many, 40 jobs")
    args = parser.parse_args(argv)
    if min(*args.rows, args.jobs) < 1 or args.rows[0] > args.rows[1]:
        parser.error("--rows are few and many, --jobs at least 1")
    return Args((1_000, 20_000), 40) if args.quick else Args(tuple(args.rows), args.jobs)


@dataclass(frozen=True, slots=True)
class Place:
    """Where one store lies. fill: puts so many usage rows of a tenant there, while nobody has it open"""

    settings: Settings
    fill: Callable[[str, int], None]


def local_place(folder: Path) -> Place:
    return Place(Settings(store="local", data_dir=folder), lambda tenant, rows: fill_sqlite(folder, tenant, rows=rows))


def supabase_place(folder: Path, database: Database, server: SupabaseServer) -> Place:
    reached: Any = {"supabase_url": server.url, "supabase_service_role_key": server.service_key}
    settings = Settings(store="supabase", data_dir=folder, **reached)
    return Place(settings, lambda tenant, rows: fill_postgres(database, tenant, rows=rows))


def places(opened: ExitStack, postgres: Postgres | None) -> Callable[[], Place]:
    """Makes empty places: on a Postgres, or local ones without."""

    def make() -> Place:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        if postgres is None:
            return local_place(folder)
        database = opened.enter_context(postgres.database(MIGRATIONS))
        server = opened.enter_context(SupabaseServer(database, folder / "objects"))
        (folder / "objects").mkdir()
        return supabase_place(folder, database, server)

    return make


async def filled(place: Place, rows: int) -> NewKey:
    """One tenant with so many usage rows, and one request that has ended."""
    store = await open_store(place.settings)
    key = await store.create_tenant("acme", scopes=["synthesize", "usage"])
    await store.close()
    await asyncio.to_thread(place.fill, key.tenant.id, rows)
    return key


@asynccontextmanager
async def working(place: Place) -> AsyncIterator[Service]:
    service = Service(Prepared(), await open_store(place.settings), settings=place.settings, fetch=_no_network)
    yield service
    await service.close()


async def _no_network(url: str) -> bytes:
    raise ReferenceUnreachable("no network in this benchmark")


async def speak(service: Service, key: NewKey, text: str) -> None:
    body = {"tenant_key": key.secret, "text": text, "language": "en"}
    (result,) = [event async for event in service.answer(body, job_id=uuid4().hex)]
    assert result["duration"] == AUDIO_S, result


async def timed_ms(work: Callable[[], Awaitable[object]]) -> float:
    begun_s = time.perf_counter()
    await work()
    return (time.perf_counter() - begun_s) * 1000


async def job_rows(store: str, place: Place, key: NewKey, *, rows: int, jobs: int) -> list[Row]:
    """Jobs that are spoken and jobs that are cached, in turns; each kind once before, untimed."""
    spoken, cached = [], []
    async with working(place) as service:
        for number in range(jobs + 1):
            text = f"{TEXT}, {number} times."
            spoken.append(await timed_ms(lambda text=text: speak(service, key, text)))  # type: ignore[misc]
            cached.append(await timed_ms(lambda text=text: speak(service, key, text)))  # type: ignore[misc]
    return [row(store, "job", rows, spoken[1:]), row(store, "cached hit", rows, cached[1:])]


Question = Callable[[], Awaitable[object]]


async def questions(store: Store, key: NewKey) -> dict[str, Question]:
    asked = Reservation(key.secret, "synthesize", identity="key:told", fingerprint="f", action="synthesize")
    await store.settle(await store.reserve(asked), Outcome("success", latency_ms=1, result="{}"))
    today = datetime.now(UTC).date()
    query = UsageQuery(str(today - timedelta(days=30)), str(today), by=("day", "voice"))
    return {
        "usage summary": partial(store.summarize_usage, key.tenant.id, query),
        "key lookup": partial(store.reserve, asked),
    }


async def growth_rows(store: str, filled_places: Sequence[tuple[Place, NewKey, int]], *, times: int) -> list[Row]:
    """Few and many rows are asked in turns, so that what else the machine does is the same for both."""
    stores = [await open_store(place.settings) for place, _, _ in filled_places]
    asked = [await questions(each, key) for each, (_, key, _) in zip(stores, filled_places, strict=True)]
    took: dict[tuple[str, int], list[float]] = {}
    for _ in range(times + 1):
        for each, (_, _, rows) in zip(asked, filled_places, strict=True):
            for what, question in each.items():
                took.setdefault((what, rows), []).append(await timed_ms(question))
    for each_store in stores:
        await each_store.close()
    return [row(store, what, rows, values[1:]) for (what, rows), values in took.items()]


def row(store: str, what: str, rows: int, values_ms: Sequence[float]) -> Row:
    return Row(store, what, rows, len(values_ms), median(values_ms), percentile(values_ms, 0.95))


async def measure(store: str, make: Callable[[], Place], args: Args) -> list[Row]:
    say(f"{store}: filling")
    few, many = [(place := make(), await filled(place, rows), rows) for rows in args.rows]
    say(f"{store}: asking")
    grown = await growth_rows(store, [few, many], times=args.jobs)
    return [*await job_rows(store, few[0], few[1], rows=args.rows[0], jobs=args.jobs), *grown]


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    rows: list[Row] = []
    with ExitStack() as opened:
        postgres = opened.enter_context(Postgres())
        for store in STORES:
            make = places(opened, postgres if store == "supabase" else None)
            rows += asyncio.run(measure(store, make, args))
    print(f"store: few rows {args.rows[0]:,}, many {args.rows[1]:,}; {args.jobs} times each; one at a time")
    print_table(rows)
    print(
        json.dumps({"benchmark": "store", "commit": commit(), **figures(rows), "rows": [asdict(each) for each in rows]})
    )


def figures(rows: Sequence[Row]) -> dict[str, Any]:
    """overhead_ms: medians; growth: the median with many rows over that with few, for each question."""
    told: dict[str, Any] = {"overhead_ms": {}, "cached_hit_ms": {}, "growth": {}}
    for each in rows:
        if each.what == "job":
            told["overhead_ms"][each.store] = round(each.p50_ms, 2)
        elif each.what == "cached hit":
            told["cached_hit_ms"][each.store] = {"p50": round(each.p50_ms, 2), "p95": round(each.p95_ms, 2)}
        else:
            few = min((r for r in rows if (r.store, r.what) == (each.store, each.what)), key=lambda r: r.rows)
            told["growth"].setdefault(each.store, {})[each.what.replace(" ", "_")] = round(each.p50_ms / few.p50_ms, 2)
    return told


if __name__ == "__main__":
    main()
