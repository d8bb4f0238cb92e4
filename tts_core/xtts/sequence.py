"""One utterance on its way through the engine. The scheduler looks at its numbers; the tensors are the runner's."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from tts_core.types import Sampling
from tts_core.xtts.guard import CodeWatch, Verdict

if TYPE_CHECKING:
    from torch import Tensor

    from tts_core.xtts.voice_encoder import Voice

Ending = Literal["stop", "budget", "guard", "cancelled"]

FIRST_WINDOWS_CODES = (8, 12, 20)
LATER_WINDOWS_CODES = 40
"""Codes between two vocoder windows of a stream: the first is heard soonest (0.17 s of audio, as its right context is
held back), later ones waste less on context."""

MAX_WINDOW_CODES = 60
"""Of one window, whoever listens: a step that takes longer would hold up everybody else's."""


@dataclass(slots=True, eq=False)
class Sequence:
    """What was asked for, and how far it is.

    tenant       whose turn it uses up
    text_ids     what goes into the GPT, without start and stop
    max_codes    budget; the code that reaches it is the last one
    stop_code    the code that ends the utterance by itself
    due_s        when its listener runs dry, all that was delivered considered; inf for whole jobs
    watch        judges the codes; None where nothing is judged
    arrived      order of arrival
    slot         KV row, from prefill to the end
    launched     codes asked of the device, those not read yet included
    codes        codes read so far, the stop code included; there is one latent for each
    latents      [codes, width] float32, once it has left its slot
    windowed     codes whose latents were handed to the vocoder
    frames       of its waveform that were decoded
    """

    tenant: str
    text_ids: list[int]
    voice: "Voice"
    max_codes: int
    stop_code: int
    sampling: Sampling = field(default_factory=Sampling)
    speed: float = 1.0
    due_s: float = math.inf
    watch: CodeWatch | None = None
    arrived: int = 0
    slot: int | None = None
    launched: int = 0
    codes: list[int] = field(default_factory=list)
    latents: "Tensor | None" = None
    windowed: int = 0
    windows: int = 0
    frames: int = 0
    ending: Ending | None = None

    @property
    def is_streamed(self) -> bool:
        return self.due_s < math.inf

    @property
    def is_vocoded(self) -> bool:
        return self.ending is not None and self.windowed == len(self.codes)

    @property
    def verdict(self) -> Verdict:
        """On all of it, once it has ended: what was wrong first."""
        return "ok" if self.watch is None else self.watch.ended(stopped=self.ending == "stop")

    @property
    def is_rejected(self) -> bool:
        """A bad take of which nothing has been heard: another one may be better."""
        return self.verdict != "ok" and self.windows == 0

    @property
    def window_is_ready(self) -> bool:
        """Enough new codes for the next window, or the end has come and its window has not.

        A whole job's come at its end: fewer are cheaper, and a bad take can be thrown away until then.
        """
        if self.ending is not None:
            return not self.is_vocoded
        sizes = FIRST_WINDOWS_CODES
        wanted = sizes[self.windows] if self.windows < len(sizes) else LATER_WINDOWS_CODES
        return self.is_streamed and len(self.codes) - self.windowed >= wanted

    def take_window(self) -> int:
        """Hand the next codes to the vocoder: where they stop."""
        self.windowed = min(len(self.codes), self.windowed + MAX_WINDOW_CODES)
        self.windows += 1
        return self.windowed

    def read(self, code: int) -> None:
        """A code has come back from the device; those drawn after the end are nobody's.

        The end is the stop code, the budget, or the first thing that is wrong.
        """
        if self.ending is not None:
            return
        self.codes.append(code)
        fault = self.watch.read(code) if self.watch is not None else None
        if code == self.stop_code:
            self.ending = "stop"
        elif len(self.codes) == self.max_codes:
            self.ending = "budget"
        elif fault is not None:
            self.ending = "guard"
