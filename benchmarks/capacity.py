"""What does an hour of audio cost on an autoscaled endpoint, how long do jobs wait, and which settings are best?

    python -m benchmarks.capacity [--gpu L4] [--path graphs|eager]    a table per traffic, with what it recommends
    python -m benchmarks.capacity --readme                           the README's two tables

A simulation (`endpoint.py`) with service times from `gpus.py`: NOT ONE OF THEM WAS MEASURED ON A GPU. Jobs come at
random (Poisson), or in bursts of 20 within two seconds; each is 10 s of audio on average, exponentially distributed.
For every traffic all settings of `CHOICES` are tried; best is the cheapest whose p95 wait is below a second, where
there is none the one with the shortest.
"""

import argparse
import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import product
from typing import Literal

from benchmarks.common import commit, percentile, print_table
from benchmarks.endpoint import Endpoint, Job, Outcome, Settings
from benchmarks.gpus import GPUS, PRICES_OF, Gpu, Path

Traffic = Literal["poisson", "bursts"]
TRAFFICS: tuple[Traffic, ...] = ("poisson", "bursts")

PER_DAY = (1_000, 10_000, 100_000, 1_000_000)
MEAN_AUDIO_S = 10.0
BURST, BURST_S = 20, 2.0
JOBS, STRETCH_S = 1_000, 900.0
"""What is simulated: so many jobs, or all of so long where they are more. At a million a day: 10,416."""

WAIT_P95_S = 1.0
"""What is asked for. The rest of a first chunk's 1.5 s is the engine's."""

COLD_START_S = 13.4
"""5 s of container and 6.3 s for 1.9 GB of weights at 300 MB/s, both assumed, and 2.1 s to ready, measured on a CPU."""

SECONDS_A_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Row:
    """wait: from arrival to a worker's beginning with it; dollars_per_audio_hour: of what was billed"""

    traffic: Traffic
    per_day: int
    concurrency: int
    scaler: str
    value: float
    idle_s: float
    active: int
    wait_p50_s: float
    wait_p95_s: float
    workers: float
    most_workers: int
    dollars_per_audio_hour: float
    dollars_per_day: float

    @property
    def is_prompt(self) -> bool:
        return self.wait_p95_s <= WAIT_P95_S


def arrivals(traffic: Traffic, per_day: int, *, jobs: int, seed: int = 0) -> Iterator[Job]:
    """So many jobs, in order."""
    chance, now_s = random.Random(seed), 0.0
    size = BURST if traffic == "bursts" else 1
    for _ in range(jobs // size):
        now_s += chance.expovariate(per_day / SECONDS_A_DAY / size)
        moments = sorted(now_s + chance.uniform(0, BURST_S) for _ in range(size)) if size > 1 else [now_s]
        yield from (Job(at_s, chance.expovariate(1 / MEAN_AUDIO_S)) for at_s in moments)


def in_order(jobs: Iterator[Job]) -> list[Job]:
    """Bursts may overlap."""
    return sorted(jobs, key=lambda job: job.at_s)


def choices(gpu: Gpu, path: Path, *, per_day: int) -> Iterator[Settings]:
    """Settings that are tried. Active workers: none, one, or what the mean traffic keeps busy at 70 %."""
    most = gpu.concurrency(path)
    busy = per_day / SECONDS_A_DAY * MEAN_AUDIO_S / (most * gpu.speed(most, path))
    for active, idle_s in product(sorted({0, 1, round(busy / 0.7)}), (5.0, 60.0)):
        base = Settings(most, "queue_delay", 1.0, idle_s, min_workers=active, cold_start_s=COLD_START_S)
        yield replace(base, max_workers=1_000)
        for share in (0.5, 0.9):
            yield replace(base, scaler="request_count", value=max(1, round(share * most)), max_workers=1_000)


def simulate(gpu: Gpu, path: Path, settings: Settings, *, traffic: Traffic, per_day: int) -> Row:
    speeds = _speeds(gpu, path, settings.concurrency)
    jobs = max(JOBS, round(STRETCH_S * per_day / SECONDS_A_DAY))
    outcome = Endpoint(settings, speeds=speeds).run(in_order(arrivals(traffic, per_day, jobs=jobs)))
    dollars = gpu.price_per_s * outcome.billed_s
    return Row(
        traffic=traffic,
        per_day=per_day,
        concurrency=settings.concurrency,
        scaler=settings.scaler,
        value=settings.value,
        idle_s=settings.idle_s,
        active=settings.min_workers,
        wait_p50_s=round(percentile(outcome.waits_s, 0.5), 2),
        wait_p95_s=round(percentile(outcome.waits_s, 0.95), 2),
        workers=round(outcome.billed_s / _lasts_s(outcome), 2),
        most_workers=outcome.most_workers,
        dollars_per_audio_hour=round(dollars / (outcome.audio_s / 3600), 4),
        dollars_per_day=round(dollars / _lasts_s(outcome) * SECONDS_A_DAY, 2),
    )


@cache
def _speeds(gpu: Gpu, path: Path, concurrency: int) -> Sequence[float]:
    return [0.0, *(gpu.speed(rows, path) for rows in range(1, concurrency + 1))]


def _lasts_s(outcome: Outcome) -> float:
    return max(shift.stopped_s for shift in outcome.shifts)


def recommend(gpu: Gpu, path: Path, *, traffic: Traffic, per_day: int) -> Row:
    tried = [
        simulate(gpu, path, settings, traffic=traffic, per_day=per_day)
        for settings in choices(gpu, path, per_day=per_day)
    ]
    prompt = [row for row in tried if row.is_prompt]
    if prompt:
        return min(prompt, key=lambda row: row.dollars_per_audio_hour)
    return min(tried, key=lambda row: (row.wait_p95_s, row.dollars_per_audio_hour))


def cheapest(gpu: Gpu, path: Path, *, traffic: Traffic, per_day: int) -> Row:
    """Whoever waits: without active workers, and with the shortest idling."""
    most = gpu.concurrency(path)
    settings = Settings(most, "request_count", most, idle_s=5.0, max_workers=1_000, cold_start_s=COLD_START_S)
    return simulate(gpu, path, settings, traffic=traffic, per_day=per_day)


def readme() -> str:
    """The two tables of the README, the same ones every time."""
    return "\n".join([*_cost_table(), "", *_settings_table()])


def _cost_table() -> Iterator[str]:
    yield _cells(
        "GPU", "$ per s", "streams at once", "$ per audio hour, full", "one stream", "eager: streams", "$, full"
    )
    yield _cells(*["---"] * 7)
    for gpu in GPUS:
        graphs, eager = gpu.concurrency("graphs"), gpu.concurrency("eager")
        full, alone = (gpu.dollars_per_audio_hour(rows, "graphs") for rows in (graphs, 1))
        slow = gpu.dollars_per_audio_hour(eager, "eager")
        yield _cells(gpu.name, f"{gpu.price_per_s:.5f}", graphs, f"{full:.4f}", f"{alone:.4f}", eager, f"{slow:.4f}")


def _settings_table() -> Iterator[str]:
    yield _cells(
        *("requests a day", "traffic", "active workers", "scaler, value", "idle timeout"),
        *("wait p50, p95", "workers, most", "$ per audio hour", "$ a day", "cheapest: p95 wait, $ per audio hour"),
    )
    yield _cells(*["---"] * 10)
    for per_day, traffic in product(PER_DAY, TRAFFICS):
        best, cheap = (choose(GPUS[0], "graphs", traffic=traffic, per_day=per_day) for choose in (recommend, cheapest))
        yield _cells(
            *(f"{per_day:,}", traffic, best.active, f"`{best.scaler.upper()}` {best.value:g}", f"{best.idle_s:g} s"),
            *(f"{best.wait_p50_s:.1f}, {best.wait_p95_s:.1f} s", f"{best.workers:g}, {best.most_workers}"),
            *(f"{best.dollars_per_audio_hour:.3f}", f"{best.dollars_per_day:,.0f}"),
            f"{cheap.wait_p95_s:.1f} s, {cheap.dollars_per_audio_hour:.3f}",
        )


def _cells(*values: object) -> str:
    return f"| {' | '.join(map(str, values))} |"


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.capacity", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--gpu", default="L4", help="how its name begins")
    parser.add_argument("--path", choices=("graphs", "eager"), default="graphs")
    parser.add_argument("--readme", action="store_true")
    args = parser.parse_args(argv)
    if args.readme:
        print(readme())
        return
    gpu = next((gpu for gpu in GPUS if gpu.name.startswith(args.gpu)), None)
    if gpu is None:
        parser.error(f"no such GPU: {args.gpu!r}; there are {', '.join(gpu.name for gpu in GPUS)}")
    _report(gpu, args.path)


def _report(gpu: Gpu, path: Path) -> None:
    print(f"capacity: {gpu.name}, {path}: SCALED BY BANDWIDTH, NOT MEASURED; {PRICES_OF}")
    asked = [(per_day, traffic) for per_day in PER_DAY for traffic in TRAFFICS]
    cheap = [cheapest(gpu, path, traffic=traffic, per_day=per_day) for per_day, traffic in asked]
    best = [recommend(gpu, path, traffic=traffic, per_day=per_day) for per_day, traffic in asked]
    print("cheapest, whoever waits:")
    print_table(cheap)
    print(f"recommended: the cheapest with a p95 wait of {WAIT_P95_S:g} s at most")
    print_table(best)
    rows = {"cheapest": [asdict(row) for row in cheap], "recommended": [asdict(row) for row in best]}
    inputs = asdict(gpu) | {"path": path, "inputs": "scaled, not measured", "prices": PRICES_OF}
    print(json.dumps({"benchmark": "capacity", "commit": commit(), "gpu": inputs} | rows))


if __name__ == "__main__":
    main(sys.argv[1:])
