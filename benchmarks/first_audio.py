"""How long until the first audio is heard, alone and with others listening, against coqui's `inference_stream`?

    python -m benchmarks.first_audio --model DIR [--device cpu|cuda] [--precision int8] [--quick]

Ours goes through the engine, all streams asked for at once. coqui serves one request at a time: its streams wait in a
queue. One was measured per round and chunk size; for more the waits are computed from that (those before it, in full).
coqui's default chunk is 20 codes; its chunk of 8 is like ours, whose first window has 8 codes. Each first chunk carries
another length of audio, see `first_audio_s`. Same texts, voice and number of codes on both sides, no multiple of either
chunk size: coqui would decode all of it once more. Warmed up; our voice's prefix is cached, coqui has no such cache.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.common import TEXTS, Args, median_of, parse_args, percentile, report
from benchmarks.pair import Heard, coqui, coqui_voice, endless_engine, hear, hear_coqui
from tts_core.xtts.engine import XttsEngine
from tts_core.xtts.memory import choose_device

STREAMS = (1, 2, 4, 8)
CHUNKS_CODES = (20, 8)


@dataclass(frozen=True, slots=True)
class Row:
    """
    first_audio_s  of audio in the first chunk
    all_s          until the last stream has ended
    over_coqui_20  coqui's p50 at chunk 20 over this one's, same number of streams; over_coqui_8 likewise
    """

    who: str
    streams: int
    first_p50_s: float
    first_p95_s: float
    first_audio_s: float
    all_s: float
    over_coqui_20: float
    over_coqui_8: float


Rounds = list[list[Heard]]
"""Per round what each of the streams heard, waiting included."""


async def together(engine: XttsEngine, streams: int) -> list[Heard]:
    return await asyncio.gather(*(hear(engine, text, streamed=True) for text in TEXTS[:streams]))


def queued(alone: Heard, streams: int) -> list[Heard]:
    """What so many would hear one after the other, each as long as the one that was measured."""
    waits_s = [place * alone.total_s for place in range(streams)]
    return [Heard(w + alone.first_s, alone.first_audio_s, w + alone.total_s, alone.samples) for w in waits_s]


async def measure(args: Args) -> tuple[dict[int, Rounds], dict[int, list[Heard]]]:
    """Ours by number of streams, and coqui's single streams by chunk size."""
    device = choose_device(args.device)
    model, voice = coqui(args.model, device=device, codes=args.codes), coqui_voice(args.model, device=device)
    ours: dict[int, Rounds] = {streams: [] for streams in STREAMS}
    theirs: dict[int, list[Heard]] = {chunk: [] for chunk in CHUNKS_CODES}
    async with endless_engine(args, slots=max(STREAMS)) as engine:
        await together(engine, max(STREAMS) if device.type == "cuda" else 1)
        hear_coqui(model, voice, TEXTS[0], chunk_codes=CHUNKS_CODES[0])
        for _ in range(args.rounds):
            for chunk, alone in theirs.items():
                alone.append(hear_coqui(model, voice, TEXTS[0], chunk_codes=chunk))
            for streams, rounds in ours.items():
                rounds.append(await together(engine, streams))
    lengths = {heard.samples for rounds in ours.values() for round_ in rounds for heard in round_}
    lengths |= {heard.samples for alone in theirs.values() for heard in alone}
    assert len(lengths) == 1, f"not the same length of audio on both sides: {lengths} samples"
    return ours, theirs


def row(who: str, rounds: Rounds, coquis: dict[int, Rounds]) -> Row:
    heard = [each for round_ in rounds for each in round_]
    p50_s = first_p50_s(rounds)
    return Row(
        who=who,
        streams=len(rounds[0]),
        first_p50_s=p50_s,
        first_p95_s=percentile([each.first_s for each in heard], 0.95),
        first_audio_s=median_of(heard, "first_audio_s"),
        all_s=median(max(each.total_s for each in round_) for round_ in rounds),
        over_coqui_20=first_p50_s(coquis[20]) / p50_s,
        over_coqui_8=first_p50_s(coquis[8]) / p50_s,
    )


def first_p50_s(rounds: Rounds) -> float:
    return median(each.first_s for round_ in rounds for each in round_)


def rows_of(ours: dict[int, Rounds], theirs: dict[int, list[Heard]]) -> list[Row]:
    rows = []
    for streams, rounds in ours.items():
        coquis = {chunk: [queued(each, streams) for each in alone] for chunk, alone in theirs.items()}
        how = "measured" if streams == 1 else "computed"
        rows += [row(f"coqui, chunk {chunk}, {how}", each, coquis) for chunk, each in coquis.items()]
        rows.append(row("ours", rounds, coquis))
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv, __doc__, codes=67, quick_codes=28)
    ours, theirs = asyncio.run(measure(args))
    report("first_audio", args, rows_of(ours, theirs), samples_each=ours[1][0][0].samples)


if __name__ == "__main__":
    main()
