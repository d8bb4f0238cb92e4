"""How long does a whole text take: its sentences all at once through the engine, against coqui one after the other?

    python -m benchmarks.long_text --model DIR [--device cpu|cuda] [--precision int8] [--quick]

Twenty sentences (--quick: six), nobody listening along: ours decodes those of one text together, coqui's `inference`
takes one at a time. Every sentence has 40 codes (1.9 s) on both sides: equal lengths are the best case for a batch.
Same texts and voice; both warmed up.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import torch
from TTS.tts.models.xtts import Xtts

from benchmarks.common import TEXTS, Args, parse_args, report
from benchmarks.pair import COQUI_SAMPLING, SAMPLING, CoquiVoice, coqui, coqui_voice, endless_engine, hear
from tts_core.xtts.engine import XttsEngine
from tts_core.xtts.memory import choose_device

SLOTS = 32
"""A quarter of them is kept for streams: 24 are left for the sentences."""

QUICK_SENTENCES = 6


@dataclass(frozen=True, slots=True)
class Run:
    total_s: float
    samples: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """ratio: coqui's total over this one's, within rounds"""

    who: str
    sentences: int
    codes_each: int
    total_s: float
    audio_s: float
    audio_s_per_s: float
    ratio: float


async def run_ours(engine: XttsEngine, texts: Sequence[str]) -> Run:
    started_s = time.perf_counter()
    heard = await asyncio.gather(*(hear(engine, text, streamed=False) for text in texts))
    return Run(time.perf_counter() - started_s, tuple(each.samples for each in heard))


def run_coqui(model: Xtts, voice: CoquiVoice, texts: Sequence[str]) -> Run:
    torch.manual_seed(SAMPLING.seed)
    started_s = time.perf_counter()
    waves = [model.inference(text, "en", voice.gpt_latents, voice.embedding, **COQUI_SAMPLING)["wav"] for text in texts]
    return Run(time.perf_counter() - started_s, tuple(len(wave) for wave in waves))


async def measure(args: Args) -> tuple[list[Run], list[Run], int]:
    """Ours, coqui's, and the sample rate."""
    texts = TEXTS[:QUICK_SENTENCES] if args.quick else TEXTS
    device = choose_device(args.device)
    model, voice = coqui(args.model, device=device, codes=args.codes), coqui_voice(args.model, device=device)
    ours: list[Run] = []
    theirs: list[Run] = []
    async with endless_engine(args, slots=SLOTS) as engine:
        await run_ours(engine, texts if device.type == "cuda" else texts[:1])
        run_coqui(model, voice, texts[:1])
        for _ in range(args.rounds):
            theirs.append(run_coqui(model, voice, texts))
            ours.append(await run_ours(engine, texts))
            assert ours[-1].samples == theirs[-1].samples, "not the same length of audio on both sides"
        return ours, theirs, engine.sample_rate_hz


def row(who: str, runs: Sequence[Run], coquis: Sequence[Run], *, rate_hz: int, codes: int) -> Row:
    total_s, audio_s = median(run.total_s for run in runs), sum(runs[0].samples) / rate_hz
    return Row(
        who=who,
        sentences=len(runs[0].samples),
        codes_each=codes,
        total_s=total_s,
        audio_s=audio_s,
        audio_s_per_s=audio_s / total_s,
        ratio=median(theirs.total_s / run.total_s for run, theirs in zip(runs, coquis, strict=True)),
    )


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv, __doc__, codes=40, quick_codes=40)
    ours, theirs, rate_hz = asyncio.run(measure(args))
    rows = [
        row(who, runs, theirs, rate_hz=rate_hz, codes=args.codes) for who, runs in (("coqui", theirs), ("ours", ours))
    ]
    report("long_text", args, rows)


if __name__ == "__main__":
    main()
