"""What is lost, doubled or left behind when stores fail and workers are killed? `python -m benchmarks.faults`

The real handler.py on eSpeak, under the real SDK loop and a platform that keeps its own ledger, with the real
migrations on a real Postgres behind the tests' Supabase-speaking server. Each worker is killed (SIGKILL to its process
group), `--kills` in all, while it holds up to eight jobs: at a random moment of the time they take, while it waits for
a call that was or was not carried out, or while it posts a result. Half of them lose their data folder, and their jobs
go to another worker's station; else the next worker on that folder gets them. Meanwhile calls to the store are reset,
stalled, answered with a page or with half a body, or refused with 503. At the end `balance_sql`, which imports nothing
of ours, compares the platforms' ledger with the database.

Three things are not as they would be: workers that are killed are forks of a process that has their imports done; a
killed one's leases are ended at once, by SQL, where the next worker would wait for up to 30 s; and where
the folder is to be deleted, the store is not away for longer than three tries (README: an answer that was given while
it was away and the disk lost before it came back has no usage row).

--without-clause takes from the settlement the condition that its attempt has not ended before: `doubled` must rise.
"""

import argparse
import asyncio
import json
import logging
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import stations
from benchmarks.common import commit, say
from benchmarks.forked import Nursery
from benchmarks.stations import OBJECTS, RESERVE, SETTLE, Books, Fault, Kill, Station
from storage.supabase import open_supabase
from tests.fake_platform import FakePlatform
from tests.postgres import Database, Postgres
from tests.stores import MIGRATIONS
from tests.supabase_server import Kind, SupabaseServer
from tts_core.store import Limits

STATIONS = 3
"""Workers at once, and no more than there are kills."""

JOBS_PER_KILL = 4
KILL_S, ALL_S = 20.0, 300.0
"""How long a kill may take, and what is left when the last worker was killed: four times what they took."""

SENTENCE = "The quick brown fox jumps over the lazy dog, and nobody is told."
BRIDGED = (Kind.RESET, Kind.HTML, Kind.HALF, Kind.UNAVAILABLE)
PREFIXES = (RESERVE, SETTLE, OBJECTS, "/rest/v1/rpc/", "/")
CLAUSE = "\n        and (status = 'running' or (status = 'abandoned' and p_ended ->> 'status' <> 'abandoned'))"
"""Of `close_attempt`: what makes a settlement that comes twice one."""


@dataclass(frozen=True, slots=True)
class Args:
    kills: int
    seed: int
    without_clause: bool


def parse_args(argv: Sequence[str] | None) -> Args:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, help="workers to kill; 100")
    parser.add_argument("--quick", action="store_true", help="twelve kills")
    parser.add_argument(
        "--seed", type=int, default=0, help="of what is drawn; when the machine gets to it is not in it"
    )
    parser.add_argument("--without-clause", action="store_true", help="break the settlement, and see it noticed")
    args = parser.parse_args(argv)
    kills = args.kills if args.kills is not None else (12 if args.quick else 100)
    if kills < 0:
        parser.error("--kills is not negative")
    return Args(kills, args.seed, args.without_clause)


def stations_for(args: Args) -> int:
    return max(1, min(STATIONS, args.kills))


def a_kill(number: int, draw: random.Random) -> Kill:
    """Half of the folders are deleted, the odd ones; moments are drawn over all of a life."""
    is_deleted = number % 2 == 1
    at = draw.choices(("moment", "call", "result"), (5, 4, 1))[0]
    return Kill(
        number,
        at,
        part=draw.random(),
        prefix=draw.choice((RESERVE, OBJECTS, "/rest/v1/rpc/put_cached", SETTLE, SETTLE, SETTLE)),
        carried_out=draw.random() < 0.5,
        is_deleted=is_deleted,
        faults=[a_fault(draw, may_last=not is_deleted) for _ in range(draw.randrange(3))],
    )


def a_fault(draw: random.Random, *, may_last: bool) -> Fault:
    """One or two calls, which the third try bridges; or, now and then, an outage that it does not."""
    carried_out = draw.random() < 0.5
    if may_last and draw.random() < 0.3:
        return Fault(draw.choice(BRIDGED), draw.randrange(3, 20), draw.choice((RESERVE, SETTLE)), carried_out)
    if draw.random() < 0.1:
        return Fault(Kind.STALL, 1, "/rest/v1/rpc/", carried_out)
    return Fault(draw.choice(BRIDGED), draw.randrange(1, 3), draw.choice(PREFIXES), carried_out)


def a_body(number: int, draw: random.Random) -> dict[str, Any]:
    """A sentence, whole, streamed, or kept; one in sixteen is a text long enough to be kept in chunks."""
    text = f"{SENTENCE} This is number {number}. "
    if number % 16 == 15:
        return {"text": text[:90] * 24, "language": "en"}
    how = draw.choice(({}, {}, {"streaming": True}, {"output": "url"}, {"keep": True, "include_alignments": True}))
    return {"text": text, "language": "en", **how}


@contextmanager
def database(without_clause: bool) -> Iterator[Database]:
    with Postgres() as postgres, tempfile.TemporaryDirectory() as folder:
        migrations = mutated(Path(folder)) if without_clause else MIGRATIONS
        with postgres.database(migrations) as made:
            yield made


def mutated(folder: Path) -> Path:
    """The migrations without CLAUSE, in this folder."""
    found = 0
    for path in MIGRATIONS.glob("*.sql"):
        text = path.read_text()
        found += text.count(CLAUSE)
        (folder / path.name).write_text(text.replace(CLAUSE, ""))
    assert found == 1, "the clause is not where it was"
    return folder


@asynccontextmanager
async def open_stations(count: int, database: Database, folder: Path, *, books: Books) -> AsyncIterator[list[Station]]:
    """Each has its own way to the one database, and all of them the same objects."""
    async with AsyncExitStack() as opened:
        made, nursery = [], await opened.enter_async_context(Nursery.open())
        for number in range(count):
            server = opened.enter_context(SupabaseServer(database, folder / "objects"))
            platform = await opened.enter_async_context(FakePlatform(hold_s=0.3))
            data = folder / f"data-{number}"
            made.append(Station(platform, server, nursery=nursery, folder=data, books=books))
        for station, following in zip(made, [*made[1:], made[0]], strict=True):
            station.next = following
        callers = [asyncio.create_task(station.call_for()) for station in made]
        yield made
        for caller in callers:
            caller.cancel()
        await asyncio.wait(callers)


async def sign_up(server: SupabaseServer, books: Books, bodies: Sequence[dict[str, Any]]) -> list[str]:
    """A tenant for each job; their ids."""
    store = await open_supabase(server.url, server.service_key)
    job_ids = [f"job-{number:04}" for number in range(len(bodies))]
    for job_id, body in zip(job_ids, bodies, strict=True):
        made = await store.create_tenant(job_id, scopes=["synthesize"], limits=Limits(quota_minutes=600))
        books.tenants[job_id] = made.tenant.id
        books.inputs[job_id] = {"tenant_key": made.secret, **body}
    await store.close()
    return job_ids


async def run(args: Args, database: Database, folder: Path, books: Books) -> tuple[dict[str, Any], Counter[Kind]]:
    """Kill all workers that are to be killed, and let the last ones finish; the ledger, and the store's faults."""
    draw = random.Random(args.seed)
    kills = [a_kill(number, draw) for number in range(args.kills)]
    count = stations_for(args)
    bodies = [a_body(number, draw) for number in range(args.kills * JOBS_PER_KILL + count)]
    (folder / "objects").mkdir()
    async with open_stations(count, database, folder, books=books) as all_of_them:
        jobs = iter(await sign_up(all_of_them[0].server, books, bodies))
        waiting = iter(kills)

        async def work(station: Station) -> None:
            for kill in waiting:
                say(f"kill {kill.number + 1} of {len(kills)}")
                await station.live_and_die(kill, [next(jobs) for _ in range(JOBS_PER_KILL)])
            code = await station.live([next(jobs)], until=lambda: books.is_complete)
            assert code == 0, f"a worker left with {code}"

        try:
            async with asyncio.timeout(args.kills * KILL_S + ALL_S):
                await asyncio.gather(*map(work, all_of_them))
        except TimeoutError:
            say("not all was finished in time: what is open counts as lost")
        done = sum((station.server.faults.done for station in all_of_them), Counter[Kind]())
        return stations.ledger(all_of_them, books.tenants), done


def balance(ledger: dict[str, Any], database: Database, folder: Path) -> dict[str, list[str]]:
    """By a process that has nothing of ours."""
    path = folder / "ledger.json"
    path.write_text(json.dumps(ledger))
    script = Path(__file__).with_name("balance_sql.py")
    command = [sys.executable, "-I", str(script), str(path), database.url(role="supabase_admin")]
    found: dict[str, list[str]] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    args, begun_s = parse_args(argv), time.monotonic()
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # of clients that went in the middle of a call
    with ExitStack() as opened:
        made = opened.enter_context(database(args.without_clause))
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        books = Books(opened.enter_context(made.connect(role="supabase_admin")))
        ledger, faults = asyncio.run(run(args, made, folder, books))
        found = balance(ledger, made, folder)
    report(args, books, faults, found=found, took_s=time.monotonic() - begun_s)


def report(args: Args, books: Books, faults: Counter[Kind], *, found: dict[str, list[str]], took_s: float) -> None:
    broken = ", WITHOUT the clause of the settlement" if args.without_clause else ""
    print(f"faults: {args.kills} kills, {len(books.inputs)} jobs, seed {args.seed}, {took_s:.0f} s{broken}")
    sections = {
        "workers killed": {f"at a {at}": n for at, n in books.kills.items()},
        "jobs they held": dict(books.phases),
        "store faults": {kind.value: n for kind, n in faults.items()},
        "asked again after": dict(books.asked_again),
        "found": {kind: len(words) for kind, words in found.items()},
    }
    for title, counts in sections.items():
        for what, n in sorted(counts.items()) or [("-", 0)]:
            print(f"{title:<18} {what:<56} {n:>5}")
    for words in [*books.refused, *(words for each in found.values() for words in each)]:
        print(f"  {words}")
    counted = {kind: len(words) for kind, words in found.items()}
    total = {"faults": sum(faults.values()) + sum(books.kills.values())}
    told = {
        "commit": commit(),
        "kills": sum(books.kills.values()),
        "jobs": len(books.inputs),
        "seed": args.seed,
        "seconds": round(took_s),
    }
    print(json.dumps(total | counted | {"refused": len(books.refused)} | told | {"held": dict(books.phases)}))


if __name__ == "__main__":
    main()
