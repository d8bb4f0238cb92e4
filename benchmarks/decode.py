"""How many codes a second does the GPT make, alone and in batches, against coqui's generator?

    python -m benchmarks.decode --model DIR [--device cpu|cuda] [--precision int8] [--quick]

Ours is `Gpt` and `Runner`, one step in flight as in the engine's loop; coqui's, always in float32, is
`GPT.get_generator`, which `inference_stream` uses: both give a code and its latent per step. coqui's API takes one
text at a time. Same texts, voice and number of codes; warmed up; sides take turns within a round, and ratios are taken
within rounds. Our prefill finds the voice's prefix cached, as every utterance of a voice but the first does; coqui has
no such cache.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from TTS.tts.models.xtts import Xtts

from benchmarks.common import TEXTS, Args, median_of, parse_args, report
from benchmarks.pair import COQUI_SAMPLING, SAMPLING, CoquiVoice, coqui, coqui_voice, endless, wait_for
from tts_core.xtts.gpt import Gpt
from tts_core.xtts.memory import choose_device, choose_precision
from tts_core.xtts.model import Voice, load_model
from tts_core.xtts.reading import read
from tts_core.xtts.runner import Flight, Runner, Spoken
from tts_core.xtts.scheduler import MAX_PREFILL, Decode, Prefill
from tts_core.xtts.vocoder import Vocoder

BATCHES = (1, 2, 4, 8, 16)


@dataclass(frozen=True, slots=True)
class Timing:
    """One run: `batch` sequences of `codes` codes each.

    prefill_s  until the first code of each is there
    decode_s   the codes - 1 steps after that
    """

    batch: int
    codes: int
    prefill_s: float
    decode_s: float

    @property
    def codes_per_s(self) -> float:
        """Of all sequences together, prefill included."""
        return self.batch * self.codes / (self.prefill_s + self.decode_s)

    @property
    def step_ms(self) -> float:
        return 1000 * self.decode_s / (self.codes - 1)

    @property
    def prefill_ms(self) -> float:
        return 1000 * self.prefill_s


@dataclass(frozen=True, slots=True)
class Row:
    """ratio: codes per second over coqui's"""

    who: str
    batch: int
    codes_each: int
    prefill_ms: float
    step_ms: float
    codes_per_s: float
    ratio: float


class Ours:
    """Gpt and Runner without the engine's thread and scheduler."""

    def __init__(self, args: Args, *, slots: int) -> None:
        device = choose_device(args.device)
        precision = choose_precision(args.precision, device)
        self.precision = precision.name
        self._model = endless(load_model(args.model, device=device, precision=precision.dtype))
        gpt = Gpt(self._model.gpt, self._model.sizes, slots=slots, linear=precision.linear)
        self._runner = Runner(gpt, Vocoder(self._model.vocoder), slots=slots)
        self._voice: Voice = next(iter(self._model.speakers.values()))

    def text_ids(self, text: str) -> list[int]:
        return read(self._model.tokenizer, text, "en").text_ids

    def run(self, texts: Sequence[str], *, codes: int) -> Timing:
        sequences = [self._sequence(text, slot, codes) for slot, text in enumerate(texts)]
        started = time.perf_counter()
        for flight in [self._runner.launch(step) for step in prefills(sequences)]:
            land(flight)
        prefilled = time.perf_counter()
        flying: Flight | None = None
        for step in decodes(sequences, count=codes - 1):
            launched = self._runner.launch(step)
            if flying is not None:
                land(flying)
            flying = launched
        if flying is not None:
            land(flying)
        ended = time.perf_counter()
        assert all(len(sequence.codes) == codes for sequence in sequences), "not the codes asked for"
        return Timing(len(texts), codes, prefilled - started, ended - prefilled)

    def _sequence(self, text: str, slot: int, codes: int) -> Spoken:
        return Spoken(
            tenant="",
            max_codes=codes,
            stop_code=self._model.sizes.stop_code,
            slot=slot,
            text_ids=tuple(self.text_ids(text)),
            voice=self._voice,
            sampling=SAMPLING,
        )


def prefills(sequences: Sequence[Spoken]) -> Iterator[Prefill]:
    for first in range(0, len(sequences), MAX_PREFILL):
        group = tuple(sequences[first : first + MAX_PREFILL])
        for sequence in group:
            sequence.launched = 1
        yield Prefill(group)


def decodes(sequences: Sequence[Spoken], *, count: int) -> Iterator[Decode]:
    for _ in range(count):
        for sequence in sequences:
            sequence.launched += 1
        yield Decode(tuple(sequences))


def land(flight: Flight) -> None:
    assert isinstance(flight.step, Prefill | Decode)
    for sequence, code in zip(flight.step.sequences, flight.codes(), strict=True):
        sequence.read(code)


@torch.inference_mode()
def run_coqui(model: Xtts, voice: CoquiVoice, text_ids: Sequence[int], *, codes: int) -> Timing:
    torch.manual_seed(SAMPLING.seed)
    started = time.perf_counter()
    ids = torch.tensor([list(text_ids)], dtype=torch.int32, device=model.device)
    prompt = model.gpt.compute_embeddings(voice.gpt_latents, ids)
    steps = model.gpt.get_generator(
        prompt, do_sample=True, output_hidden_states=True, return_dict_in_generate=True, **COQUI_SAMPLING
    )
    next(steps)
    wait_for(model.device)
    prefilled = time.perf_counter()
    made = 1 + sum(1 for _ in steps)
    wait_for(model.device)
    ended = time.perf_counter()
    assert made == codes, f"coqui made {made} codes, not {codes}"
    return Timing(1, codes, prefilled - started, ended - prefilled)


def summary(who: str, timings: Sequence[Timing], coquis: Sequence[Timing]) -> Row:
    """Medians over rounds; those of the ratio are of ratios within a round."""
    ratios = [ours.codes_per_s / theirs.codes_per_s for ours, theirs in zip(timings, coquis, strict=True)]
    return Row(
        who=who,
        batch=timings[0].batch,
        codes_each=timings[0].codes,
        prefill_ms=median_of(timings, "prefill_ms"),
        step_ms=median_of(timings, "step_ms"),
        codes_per_s=median_of(timings, "codes_per_s"),
        ratio=median(ratios),
    )


def measure(args: Args) -> tuple[list[Row], str]:
    """The rows, and the precision of ours."""
    codes = args.codes
    device = choose_device(args.device)
    ours = Ours(args, slots=max(BATCHES))
    model, voice = coqui(args.model, device=device, codes=codes), coqui_voice(args.model, device=device)
    text_ids = ours.text_ids(TEXTS[0])
    assert text_ids == model.tokenizer.encode(TEXTS[0].lower(), lang="en"), "the two read the text differently"
    for batch in BATCHES:
        ours.run(TEXTS[:batch], codes=2)
    run_coqui(model, voice, text_ids, codes=codes)
    theirs: list[Timing] = []
    mine: dict[int, list[Timing]] = {batch: [] for batch in BATCHES}
    for _ in range(args.rounds):
        theirs.append(run_coqui(model, voice, text_ids, codes=codes))
        for batch, timings in mine.items():
            timings.append(ours.run(TEXTS[:batch], codes=codes))
    rows = [summary("coqui", theirs, theirs), *(summary("ours", timings, theirs) for timings in mine.values())]
    return rows, ours.precision


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv, __doc__, codes=40, quick_codes=16)
    rows, precision = measure(args)
    report("decode", args, rows, chosen_precision=precision)


if __name__ == "__main__":
    main()
