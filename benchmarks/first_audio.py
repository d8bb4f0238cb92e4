"""How long until the first audio is heard, alone and with others listening, against coqui's `inference_stream`?

    python -m benchmarks.first_audio [--model DIR] [--device cpu|cuda] [--quick]

Ours goes through the engine, all streams asked for at once: as shipped (windows of 8, 12, 20, 40 ... codes), and with a
first window of 20 codes, which is coqui's default chunk. coqui serves one request at a time: one was measured, and what
more would hear who wait in a queue is computed. Each first chunk carries another length of audio, see `first_audio_s`.
Same texts, voice and number of codes, no multiple of coqui's chunk: it would decode all of it once more. One stream of
each came before: what more of them need to be made ready (graphs, kernels) falls into the first round. Our voice's
prefix is cached, coqui has no such cache. Never run on CUDA.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from statistics import median
from unittest.mock import patch

from torch import Tensor

from benchmarks.common import TEXTS, Args, median_of, parse_args, percentile, ratio, report, say, say_round, texts
from benchmarks.pair import Heard, Pair, hear, pair
from tts_core.xtts.engine import XttsEngine
from tts_core.xtts.hifigan import HOP, Generator

STREAMS = {"cpu": (1, 8), "cuda": (1, 8, 32, 64)}

COQUI_CHUNK_CODES = 20


@dataclass(frozen=True, slots=True)
class Row:
    """
    first_audio_s  of audio in the first chunk
    underruns      how often listeners ran dry, all of a round, who play in real time from their first chunk on
    all_s          until the last stream has ended
    audio_s_per_s  of all streams
    gpu_peak_mib   of our side
    """

    who: str
    streams: int
    first_p50_s: float
    first_p95_s: float
    first_audio_s: float
    underruns: float
    all_s: float
    audio_s_per_s: float
    gpu_peak_mib: float | None


@dataclass(slots=True)
class Listened:
    """Per round what each of the streams heard, waiting included."""

    who: str
    rounds: list[list[Heard]] = field(default_factory=list)
    gpu_peaks_mib: list[float] = field(default_factory=list)

    @property
    def first_s(self) -> list[float]:
        """Per round, of the first stream."""
        return [heard[0].first_s for heard in self.rounds]

    def row(self) -> Row:
        heard = [each for round_ in self.rounds for each in round_]
        all_s = median(max(each.total_s for each in round_) for round_ in self.rounds)
        return Row(
            who=self.who,
            streams=len(self.rounds[0]),
            first_p50_s=median_of(heard, "first_s"),
            first_p95_s=percentile([each.first_s for each in heard], 0.95),
            first_audio_s=median_of(heard, "first_audio_s"),
            underruns=float(median(sum(each.underruns for each in round_) for round_ in self.rounds)),
            all_s=all_s,
            audio_s_per_s=sum(each.audio_s for each in self.rounds[0]) / all_s,
            gpu_peak_mib=max(self.gpu_peaks_mib, default=None),
        )


async def together(engine: XttsEngine, streams: int) -> list[Heard]:
    return await asyncio.gather(*(hear(engine, text, streamed=True) for text in texts(streams)))


def queued(alone: Heard, streams: int) -> list[Heard]:
    """What so many would hear one after the other, each as long as the one that was measured."""
    waits_s = [place * alone.total_s for place in range(streams)]
    return [replace(alone, first_s=wait_s + alone.first_s, total_s=wait_s + alone.total_s) for wait_s in waits_s]


@contextmanager
def first_window(codes: int) -> Iterator[None]:
    with patch("tts_core.xtts.sequence.FIRST_WINDOWS_CODES", (codes,)):
        yield


async def measure(args: Args, sides: Pair) -> tuple[Listened, Listened, list[Listened]]:
    """coqui, ours with a first window of coqui's size, and ours as shipped by number of streams."""
    theirs, equal = Listened("coqui, chunk 20"), Listened("ours, first window 20")
    shipped = {streams: Listened("ours, as shipped") for streams in STREAMS[sides.device.type]}
    say("warming up")
    sides.coqui.stream(TEXTS[0], chunk_codes=COQUI_CHUNK_CODES)
    await together(sides.engine, 1)
    with first_window(COQUI_CHUNK_CODES):
        await together(sides.engine, 1)
    for number in range(1, args.rounds + 1):
        say_round(args, number, "coqui")
        theirs.rounds.append([sides.coqui.stream(TEXTS[0], chunk_codes=COQUI_CHUNK_CODES)])
        say_round(args, number, "ours, first window 20")
        with first_window(COQUI_CHUNK_CODES):
            equal.rounds.append(await together(sides.engine, 1))
        for streams, listened in shipped.items():
            say_round(args, number, f"ours, {streams} streams")
            heard, peak_mib = await sides.with_gpu_peak(together(sides.engine, streams))
            listened.rounds.append(heard)
            listened.gpu_peaks_mib += [] if peak_mib is None else [peak_mib]
    lengths = {each.samples for one in (theirs, equal, *shipped.values()) for heard in one.rounds for each in heard}
    assert len(lengths) == 1, f"not the same length of audio on both sides: {lengths} samples"
    return theirs, equal, list(shipped.values())


async def streaming_vocoder_work(engine: XttsEngine) -> float:
    """Frames that the vocoder decodes for one stream, context included, over those that its audio has."""
    frames: list[int] = []
    call = Generator.__call__

    def counting(generator: Generator, latents: Tensor, embeddings: Tensor) -> Tensor:
        frames.append(latents.shape[0] * latents.shape[2])
        return call(generator, latents, embeddings)

    with patch.object(Generator, "__call__", counting):
        heard = await hear(engine, TEXTS[0], streamed=True)
    return sum(frames) / (heard.samples / HOP)


async def compare(args: Args) -> None:
    async with pair(args) as sides:
        theirs, equal, shipped = await measure(args, sides)
        work = await streaming_vocoder_work(sides.engine)
    rows = [theirs.row(), equal.row()]
    for listened in shipped:
        if (streams := len(listened.rounds[0])) > 1:
            queue = [queued(alone, streams) for (alone,) in theirs.rounds]
            rows.append(Listened("coqui, chunk 20, computed", queue).row())
        rows.append(listened.row())
    ratios = {
        "first_audio_equal_chunk": ratio(theirs.first_s, equal.first_s),
        "first_audio_small_chunk": ratio(theirs.first_s, shipped[0].first_s),
    }
    report("first_audio", args, rows, ratios=ratios, streaming_vocoder_work=round(work, 3))


def main(argv: Sequence[str] | None = None) -> None:
    asyncio.run(compare(parse_args(argv, __doc__, codes=103)))


if __name__ == "__main__":
    main()
