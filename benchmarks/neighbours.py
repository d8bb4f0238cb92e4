"""Does it change an utterance's codes who else is spoken at the same time?

    python -m benchmarks.neighbours --model DIR [--precision fp32|bf16|int8|fast]

Twenty seeds, 1,000 codes each (two utterances of 500), first alone and then among seven others that come and go at
random. The noise of a draw depends on seed and position alone, so codes can differ only where two of them are as good
as equal to a rounding error. Every first difference of an utterance is shown with how close the two were: the gap
between the logarithms of the two best of p / q (see `sampler.draw`). What follows a difference is another utterance,
and is not compared. Our side only; speed is not measured, so any machine and a small model will do.
"""

import argparse
import json
import random
from collections.abc import Iterator
from collections.abc import Sequence as Many
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from torch import Tensor

from benchmarks.common import weights_in_words
from tts_core.types import Sampling
from tts_core.xtts import runner, sampler
from tts_core.xtts.gpt import Gpt
from tts_core.xtts.memory import choose_device
from tts_core.xtts.model import XttsModel, load_model
from tts_core.xtts.precision import choose_precision
from tts_core.xtts.runner import Runner
from tts_core.xtts.scheduler import Scheduler, Vocode
from tts_core.xtts.sequence import Sequence

SEEDS = 20
UTTERANCES = 2
CODES = 500
SLOTS = 8
TIE = 1e-4
NO_STOP = -1e4


@dataclass(frozen=True, slots=True)
class Difference:
    """The first one of an utterance; gap: of the logarithms of its two best codes, alone"""

    seed: int
    place: int
    gap: float


class Choir:
    """Speaks utterances through the real scheduler and runner, without the vocoder."""

    def __init__(self, model: XttsModel, gpt: Gpt) -> None:
        self._model = model
        self._gpt = gpt

    def speak(self, sequences: Many[Sequence], *, arrivals: Many[int]) -> None:
        """arrivals: the step before which each one comes"""
        scheduler, device = (
            Scheduler(slots=SLOTS, max_waiting=len(sequences)),
            Runner(self._gpt, self._model.vocoder, slots=SLOTS),
        )
        waiting = sorted(zip(arrivals, range(len(sequences)), strict=True))
        number = 0
        while waiting or not scheduler.idle:
            while waiting and (waiting[0][0] <= number or scheduler.idle):
                scheduler.add(sequences[waiting.pop(0)[1]])
            if (step := scheduler.next_step(now_s=0.0)) is not None and not isinstance(step, Vocode):
                for ended, slot in scheduler.commit(step, device.launch(step).codes()):
                    device.detach(ended, slot)
                    scheduler.cancel(ended)
            number += 1

    def sequence(self, seed: int, place: int) -> Sequence:
        ids = [3 + (7 * seed + 3 * place + letter) % 200 for letter in range(10 + 5 * (seed % 4))]
        return Sequence(
            tenant="",
            max_codes=CODES,
            stop_code=self._model.sizes.stop_code,
            text_ids=ids,
            voice=next(iter(self._model.speakers.values())),
            sampling=Sampling(seed=1000 * place + seed),
        )


@contextmanager
def gaps_noted() -> Iterator[list[float]]:
    """How close the two best codes were, of every draw of the first row."""
    gaps: list[float] = []

    def draw(scores: Tensor, noise: Tensor) -> Tensor:
        best = (scores[0].log_softmax(-1) - noise[0].log()).topk(2).values
        gaps.append(float(best[0] - best[1]))
        return sampler.draw(scores, noise)

    with patch.object(runner, "draw", draw):
        yield gaps


def measure(choir: Choir) -> tuple[int, list[Difference]]:
    """Codes compared, and the first differences."""
    wanted = [(seed, place) for seed in range(SEEDS) for place in range(UTTERANCES)]
    together = [choir.sequence(*each) for each in wanted]
    arrivals = random.Random(0).choices(range(CODES * len(wanted) // SLOTS), k=len(wanted))
    choir.speak(together, arrivals=arrivals)
    compared, differences = 0, []
    for (seed, place), spoken in zip(wanted, together, strict=True):
        alone = choir.sequence(seed, place)
        with gaps_noted() as gaps:
            choir.speak([alone], arrivals=[0])
        pairs = list(zip(alone.codes, spoken.codes, strict=True))
        first = next((at for at, (a, b) in enumerate(pairs) if a != b), None)
        compared += len(pairs) if first is None else first + 1
        if first is not None:
            differences.append(Difference(seed, place * CODES + first, gaps[first]))
    return compared, differences


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16", "int8", "fast"))
    args = parser.parse_args()
    device = choose_device(args.device)
    precision = choose_precision(args.precision, device)
    model = load_model(args.model, device=device, precision=precision)
    model.gpt["mel_head.bias"][model.sizes.stop_code] = NO_STOP
    choir = Choir(model, Gpt(model.gpt, model.sizes, slots=SLOTS, precision=precision))
    compared, differences = measure(choir)
    print(f"neighbours: {weights_in_words(args.model)}, {precision}: {compared} codes, {len(differences)} differ first")
    for each in differences:
        print(f"  seed {each.seed}, code {each.place}: gap {each.gap:.2e}{'' if each.gap < TIE else '  NO TIE'}")
    worst = max((each.gap for each in differences), default=0.0)
    print(
        json.dumps(
            {
                "benchmark": "neighbours",
                "precision": str(precision),
                "codes": compared,
                "utterances": SEEDS * UTTERANCES,
                "differences": len(differences),
                "largest_gap": worst,
                "ties": worst < TIE,
            }
        )
    )


if __name__ == "__main__":
    main()
