"""How long does a whole text take: its sentences all at once through the engine, against coqui one after the other?

    python -m benchmarks.long_text [--model DIR] [--device cpu|cuda] [--quick]

Twenty sentences, nobody listening along: ours decodes those of one text together, coqui's `inference` takes one at a
time. Every sentence has 40 codes (1.9 s) on both sides: equal lengths are the best case for a batch. Same texts and
voice; both warmed up, our voice's prefix is cached. Never run on CUDA.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.common import TEXTS, Args, parse_args, ratio, report, say, say_round
from benchmarks.pair import Coqui, Pair, hear, pair
from tts_core.xtts.engine import XttsEngine


@dataclass(frozen=True, slots=True)
class Run:
    total_s: float
    samples: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Row:
    who: str
    sentences: int
    codes_each: int
    total_s: float
    audio_s: float
    audio_s_per_s: float


async def run_ours(engine: XttsEngine, texts: Sequence[str]) -> Run:
    started_s = time.perf_counter()
    heard = await asyncio.gather(*(hear(engine, text, streamed=False) for text in texts))
    return Run(time.perf_counter() - started_s, tuple(each.samples for each in heard))


def run_coqui(coqui: Coqui, texts: Sequence[str]) -> Run:
    started_s = time.perf_counter()
    samples = tuple(coqui.speak(text) for text in texts)
    return Run(time.perf_counter() - started_s, samples)


async def measure(args: Args, sides: Pair) -> tuple[list[Run], list[Run]]:
    """Coqui's and ours, of each round."""
    theirs: list[Run] = []
    ours: list[Run] = []
    say("warming up")
    await run_ours(sides.engine, TEXTS if sides.device.type == "cuda" else TEXTS[:1])
    run_coqui(sides.coqui, TEXTS[:1])
    for number in range(1, args.rounds + 1):
        say_round(args, number, "coqui")
        theirs.append(run_coqui(sides.coqui, TEXTS))
        say_round(args, number, "ours")
        ours.append(await run_ours(sides.engine, TEXTS))
        assert ours[-1].samples == theirs[-1].samples, "not the same length of audio on both sides"
    return theirs, ours


def row(who: str, runs: Sequence[Run], *, codes: int, rate_hz: int) -> Row:
    total_s, audio_s = median(run.total_s for run in runs), sum(runs[0].samples) / rate_hz
    return Row(who, len(runs[0].samples), codes, total_s, audio_s, audio_s / total_s)


async def compare(args: Args) -> None:
    async with pair(args) as sides:
        theirs, ours = await measure(args, sides)
        rate_hz = sides.engine.sample_rate_hz
    rows = [row(who, runs, codes=args.codes, rate_hz=rate_hz) for who, runs in (("coqui", theirs), ("ours", ours))]
    faster = ratio((run.total_s for run in theirs), (run.total_s for run in ours))
    report("long_text", args, rows, ratios={"twenty_sentences": faster})


def main(argv: Sequence[str] | None = None) -> None:
    asyncio.run(compare(parse_args(argv, __doc__, codes=40)))


if __name__ == "__main__":
    main()
