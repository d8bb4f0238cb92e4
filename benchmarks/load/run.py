"""The command line of the load: phases, one row each, and the last line for machines."""

import argparse
import asyncio
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from benchmarks import load
from benchmarks.common import commit, percentile, print_table, say
from benchmarks.load.balance import Tables, discrepancies
from benchmarks.load.clients import Clients
from benchmarks.load.faults import FAULTS, Fault
from benchmarks.load.hearing import BYTES_PER_S
from benchmarks.load.site import Shape, Site, open_site
from benchmarks.load.verdict import Row, cpu_s, judge, machine_cpu_s, rss_slope, told_by

QUIET = Fault("load")

LEASES_END_S = 40.0
"""Within which a request of a killed worker can be closed: its lease is 30 s."""

PROMISES = {"settled_p95_ms": 1500.0, "success_rate": 0.995}


@dataclass(frozen=True, slots=True)
class Args:
    shape: Shape
    minutes: float
    phases: Sequence[Fault]


def parse_args(argv: Sequence[str]) -> Args:
    parser = argparse.ArgumentParser("python -m benchmarks.load", description=load.__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="in all; what runs then is waited for")
    parser.add_argument("--workers", type=int, default=8, help="processes")
    parser.add_argument("--concurrency", type=int, default=9, help="jobs each takes at once")
    parser.add_argument("--streams", type=int, default=64, help="played at any time")
    parser.add_argument("--pace", type=float, default=2.5, help="s of an utterance spoken in one")
    parser.add_argument("--sentences", type=int, nargs=2, default=(3, 8), help="of a streamed text, least and most")
    parser.add_argument("--format", choices=sorted(BYTES_PER_S), default="ulaw")
    parser.add_argument("--store", choices=("local", "supabase"), default="local")
    parser.add_argument("--faults", nargs="*", choices=sorted(FAULTS), help="these, or all")
    parser.add_argument("--quick", action="store_true", help="8 streams, two workers, and seconds instead of minutes")
    given = parser.parse_args(argv)
    if given.quick:
        given.minutes, given.streams, given.sentences = 0.1, 8, (1, 1)
        given.workers, given.concurrency = 2, 6
    shape = Shape(
        given.workers,
        given.concurrency,
        given.streams,
        pace=given.pace,
        sentences=tuple(given.sentences),
        format=given.format,
        store=given.store,
    )
    phases = [QUIET] if given.faults is None else [FAULTS[name] for name in given.faults or FAULTS]
    return Args(shape, given.minutes, phases)


def main(argv: Sequence[str]) -> None:
    args = parse_args(argv)
    rows, books = asyncio.run(measure(args))
    _report(args, rows, books)


@dataclass(frozen=True, slots=True)
class Books:
    """At the end: what the tables say, what does not agree, and how large the workers had become."""

    tables: Tables
    unbalanced: Sequence[str]
    faults: Sequence[str]
    rss_slope_mb_per_1000_jobs: float | None
    cpu_s: Mapping[str, float]
    errors: Mapping[str, int]
    machine_late_ms: Mapping[str, float]
    exit_codes: Sequence[int]


async def measure(args: Args) -> tuple[Sequence[Row], Books]:
    begun_cpu_s = machine_cpu_s()
    async with open_site(args.shape) as site:
        clients = Clients(site)
        rows = [await _phase(site, clients, fault, minutes=args.minutes / len(args.phases)) for fault in args.phases]
        await _settle_down(site, clients)
        tables = await asyncio.to_thread(site.tables)
        ledger = site.platform.ledger
        return rows, Books(
            tables,
            unbalanced=discrepancies(tables, told_by(ledger)),
            faults=ledger.faults,
            rss_slope_mb_per_1000_jobs=rss_slope(site.sizes),
            cpu_s=cpu_s(site.sizes) | {"machine": round(machine_cpu_s() - begun_cpu_s, 1)},
            errors=clients.errors(),
            machine_late_ms=_lateness(site.lags_s),
            exit_codes=site.exit_codes,
        )


def _lateness(lags_s: Sequence[float]) -> dict[str, float]:
    """Of naps in this process, which computes little: later chunks than these are the worker's doing."""
    shares = {"p50": 0.5, "p99": 0.99, "worst": 1.0}
    return {name: round(1000 * percentile(lags_s, share), 1) for name, share in shares.items()}


async def _phase(site: Site, clients: Clients, fault: Fault, *, minutes: float) -> Row:
    say(f"{fault.name}: {60 * minutes:.0f} s, and until what runs then has ended")
    before, begun_s = len(clients.stories), time.monotonic()
    async with fault.at(site, clients):
        await clients.crowd(listeners=site.shape.streams, minutes=minutes)
    stories, taken_s = clients.stories[before:], time.monotonic() - begun_s
    settled_s = (await asyncio.to_thread(site.tables)).settled_s()
    audio_format, ledger = site.shape.format, site.platform.ledger
    return judge(fault.name, stories, ledger, settled_s=settled_s, audio_format=audio_format, minutes=taken_s / 60)


async def _settle_down(site: Site, clients: Clients) -> None:
    """Until no request runs: who asks next closes those whose worker has died."""
    ends_s = time.monotonic() + LEASES_END_S
    while (await asyncio.to_thread(site.tables)).running and time.monotonic() < ends_s:
        await asyncio.sleep(1.0)
        await clients.ask("short")


def _report(args: Args, rows: Sequence[Row], books: Books) -> None:
    shape = args.shape
    print(
        f"load: {shape.workers} workers, {shape.concurrency} jobs each at once, {shape.streams} listeners, "
        f"eSpeak at {shape.pace:g} times real time, {shape.format}, {shape.store} store; "
        f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}"
    )
    print_table(rows)
    print(f"naps on this machine ended late by {books.machine_late_ms} ms; computed: {books.cpu_s} s")
    for wrong in [*books.faults, *books.unbalanced][:20]:
        print(f"WRONG: {wrong}")
    totals = {name: sum(getattr(row, name) for row in rows) for name in ("jobs", "lost", "doubled", "reordered")}
    first = rows[0]
    last_line = {
        "benchmark": "load",
        "commit": commit(),
        "shape": asdict(shape),
        "minutes": round(sum(row.minutes for row in rows), 2),
        **totals,
        "underruns": first.underruns if args.phases[0] is QUIET else None,
        "unbalanced": len(books.unbalanced),
        "sdk_faults": len(books.faults),
        "held_s": books.tables.held_s,
        "rss_slope_mb_per_1000_jobs": books.rss_slope_mb_per_1000_jobs,
        "cpu_s": books.cpu_s,
        "exit_codes": books.exit_codes,
        "added_latency_ms": {"p50": first.added_p50_ms, "p95": first.added_p95_ms},
        "short_ms": {"p50": first.short_p50_ms, "p95": first.short_p95_ms, "settled_p95": first.settled_p95_ms},
        "errors": books.errors,
        "machine_late_ms": books.machine_late_ms,
        "failure_rate": {row.phase: round(row.failure_rate, 5) for row in rows},
        "promises": PROMISES,
        "kept": {row.phase: _kept(row) for row in rows},
        "rows": [asdict(row) for row in rows],
    }
    print(json.dumps(last_line))


def _kept(row: Row) -> bool:
    is_quick = row.settled_p95_ms is None or row.settled_p95_ms <= PROMISES["settled_p95_ms"]
    return is_quick and 1 - row.failure_rate >= PROMISES["success_rate"]
