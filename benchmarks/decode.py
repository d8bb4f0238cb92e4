"""How long does one utterance take, and how many codes a second does the GPT make in batches, against coqui?

    python -m benchmarks.decode [--model DIR] [--device cpu|cuda] [--bandwidth-gb-s N] [--quick]

`utterance`: text to the last sample, our engine against coqui's `inference`. `new length`: likewise, of a few codes
more, a number that this process has never spoken: on a CPU the vocoder's kernels are made for each length. `codes`:
those of N utterances together, prefill included, over coqui's one (its API takes one text at a time). Ours is `Runner`,
one step in flight as in the engine's loop; coqui's is `GPT.get_generator`, which `inference_stream` uses: both give a
code and its latent per step. `vocoder`: latents of one utterance to its samples, on CUDA of eight.

Same texts, voice and number of codes; one round of all comes before and does not count; sides take turns within a
round. Our voice's prefix is cached, as it is for every utterance of a voice but the first; coqui has no such cache. On
CUDA, where this was never run, a step is also told as a share of its floor: what it must read over the bandwidth.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from statistics import median

import torch

from benchmarks.common import CODES_PER_S, TEXTS, Args, parse_args, ratio, report, say, say_round
from benchmarks.pair import COQUI_SAMPLING, SAMPLING, Coqui, Pair, hear, pair, timed_s, wait_for
from benchmarks.parts import Parts, Timing, copy_bandwidth_gb_s, step_bytes
from tts_core.xtts.gpt import prompt_positions
from tts_core.xtts.reading import read

BATCHES = {"cpu": (1, 2, 4, 8, 16), "cuda": (1, 2, 4, 8, 16, 32, 64)}

WINDOWS = {"cpu": 1, "cuda": 8}
"""That the vocoder takes together when it is alone."""


@dataclass(frozen=True, slots=True)
class Case:
    """batch: utterances together"""

    what: str
    who: str
    batch: int

    @property
    def of_coqui(self) -> "Case":
        return Case(self.what, "coqui", 1)


@dataclass(frozen=True, slots=True)
class Row:
    """Medians over rounds.

    codes_per_s    of all utterances together
    audio_s_per_s  how many times faster than real time
    ratio          coqui's time for an utterance over this one's
    floor_share    time in which a step could read what it must, over its time
    """

    what: str
    who: str
    batch: int
    codes_each: int
    total_s: float
    prefill_ms: float | None
    step_ms: float | None
    codes_per_s: float
    audio_s_per_s: float
    ratio: float
    floor_share: float | None


@torch.inference_mode()
def coqui_codes(coqui: Coqui, text_ids: Sequence[int], *, codes: int) -> Timing:
    model = coqui.model
    torch.manual_seed(SAMPLING.seed)
    started_s = time.perf_counter()
    ids = torch.tensor([list(text_ids)], dtype=torch.int32, device=model.device)
    prompt = model.gpt.compute_embeddings(coqui.latents, ids)
    steps = model.gpt.get_generator(
        prompt, do_sample=True, output_hidden_states=True, return_dict_in_generate=True, **COQUI_SAMPLING
    )
    next(steps)
    wait_for(model.device)
    prefilled_s = time.perf_counter()
    made = 1 + sum(1 for _ in steps)
    wait_for(model.device)
    ended_s = time.perf_counter()
    assert made == codes, f"coqui made {made} codes, not the codes asked for: {codes}"
    return Timing(codes, ended_s - started_s, prefilled_s - started_s)


@torch.inference_mode()
def vocoder_s(coqui: Coqui, latents: torch.Tensor) -> float:
    return timed_s(lambda: coqui.model.hifigan_decoder(latents, g=coqui.embedding), latents.device)


class Cases:
    """What is measured."""

    def __init__(self, sides: Pair, *, codes: int) -> None:
        self._sides = sides
        self._codes = codes
        self._lengths = {who: count(codes + 1) for who in ("coqui", "ours")}
        self.ids = text_ids(sides.coqui)
        self._parts = Parts(sides.engine, codes=codes, ids=self.ids)
        latents = torch.randn(codes, sides.engine.model.sizes.width, generator=torch.Generator().manual_seed(0))
        self._latents = latents.to(sides.device)

    async def prepared(self) -> dict[Case, Callable[[], Awaitable[Timing]]]:
        """In the order in which they are measured."""
        await self._parts.prepare()
        device, windows = self._sides.device.type, WINDOWS[self._sides.device.type]
        return {
            Case("utterance", "coqui", 1): lambda: self._coqui_utterance(self._codes),
            Case("utterance", "ours", 1): lambda: self._our_utterance(self._codes),
            Case("new length", "coqui", 1): lambda: self._coqui_utterance(next(self._lengths["coqui"])),
            Case("new length", "ours", 1): lambda: self._our_utterance(next(self._lengths["ours"])),
            Case("codes", "coqui", 1): self._coqui_codes,
            **{Case("codes", "ours", batch): partial(self._parts.decode, batch) for batch in BATCHES[device]},
            Case("vocoder", "coqui", 1): self._coqui_vocoder,
            Case("vocoder", "ours", windows): lambda: self._parts.vocode(self._latents, windows=windows),
        }

    async def _coqui_utterance(self, codes: int) -> Timing:
        with self._sides.of_codes(codes):
            started_s = time.perf_counter()
            samples = self._sides.coqui.speak(TEXTS[0])
            return Timing(codes, time.perf_counter() - started_s, samples=samples)

    async def _our_utterance(self, codes: int) -> Timing:
        with self._sides.of_codes(codes):
            heard = await hear(self._sides.engine, TEXTS[0], streamed=False)
        return Timing(codes, heard.total_s, samples=heard.samples)

    async def _coqui_codes(self) -> Timing:
        coqui = self._sides.coqui
        return coqui.call(lambda: coqui_codes(coqui, self.ids[TEXTS[0]], codes=self._codes))

    async def _coqui_vocoder(self) -> Timing:
        coqui, latents = self._sides.coqui, self._latents[None]
        return Timing(self._codes, coqui.call(lambda: vocoder_s(coqui, latents)))


def text_ids(coqui: Coqui) -> dict[str, list[int]]:
    """Of TEXTS; both sides must read them alike."""
    tokenizer = coqui.model.tokenizer
    ids = {text: read(tokenizer, text, "en").text_ids for text in TEXTS}
    assert all(ids[text] == tokenizer.encode(text.lower(), lang="en") for text in TEXTS)
    return ids


async def measure(args: Args, cases: Mapping[Case, Callable[[], Awaitable[Timing]]]) -> dict[Case, list[Timing]]:
    timings: dict[Case, list[Timing]] = {case: [] for case in cases}
    say("warming up")
    for work in cases.values():
        await work()
    for number in range(1, args.rounds + 1):
        for case, work in cases.items():
            say_round(args, number, f"{case.who}: {case.what}, {case.batch} together")
            timings[case].append(await work())
    for case, mine in timings.items():
        for one, other in zip(mine, timings[case.of_coqui], strict=True):
            assert one.samples == other.samples, "not the same length of audio on both sides"
    return timings


def row(case: Case, timings: Mapping[Case, Sequence[Timing]], *, floor_s: float | None = None) -> Row:
    """floor_s: of a step"""
    mine = timings[case]
    codes, total_s = mine[0].codes, median(each.total_s for each in mine)
    prefill_s = step_s = None
    if prefills_s := [each.prefill_s for each in mine if each.prefill_s is not None]:
        prefill_s = median(prefills_s)
        step_s = (total_s - prefill_s) / (codes - 1)
    codes_per_s = case.batch * codes / total_s
    return Row(
        what=case.what,
        who=case.who,
        batch=case.batch,
        codes_each=codes,
        total_s=total_s,
        prefill_ms=prefill_s and 1000 * prefill_s,
        step_ms=step_s and 1000 * step_s,
        codes_per_s=codes_per_s,
        audio_s_per_s=codes_per_s / CODES_PER_S,
        ratio=ratio((each.total_s for each in timings[case.of_coqui]), (each.total_s / case.batch for each in mine)),
        floor_share=floor_s / step_s if floor_s and step_s else None,
    )


def ratio_name(row: Row) -> str:
    names = {"utterance": "one_utterance", "new length": "one_utterance_of_new_length", "vocoder": "vocoder"}
    return names.get(row.what, f"decode_{row.batch}")


def bandwidth(args: Args, device: torch.device) -> float | None:
    """Of the GPU in GB/s; None on a CPU, where nothing is told of it"""
    if device.type == "cpu":
        return None
    return args.bandwidth_gb_s or copy_bandwidth_gb_s(device)


async def compare(args: Args) -> None:
    async with pair(args) as sides:
        cases = Cases(sides, codes=args.codes)
        timings = await measure(args, await cases.prepared())
        bandwidth_gb_s = bandwidth(args, sides.device)
        positions = prompt_positions(cases.ids[TEXTS[0]]) + args.codes // 2  # on average
        rows = []
        for case in timings:
            read_bytes = step_bytes(sides.engine, batch=case.batch, positions=positions)
            floor_s = read_bytes / (1e9 * bandwidth_gb_s) if bandwidth_gb_s and case.who == "ours" else None
            rows.append(row(case, timings, floor_s=floor_s))
    ratios = {ratio_name(row): row.ratio for row in rows if row.who == "ours"}
    report("decode", args, rows, ratios=ratios, bandwidth_gb_s=bandwidth_gb_s)


def main(argv: Sequence[str] | None = None) -> None:
    asyncio.run(compare(parse_args(argv, __doc__, codes=60)))


if __name__ == "__main__":
    main()
