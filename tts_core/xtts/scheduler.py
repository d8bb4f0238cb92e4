"""What the engine does next. Pure rules: no torch, no thread, no clock (time is an argument).

One step is always in flight ahead of the commit, so a sequence may be asked for one code more than it turns out to
need; the code is drawn and thrown away. Whoever takes its slot is launched later, so the device keeps them apart.
"""

from collections import Counter
from collections.abc import Sequence as Many
from dataclasses import dataclass

from tts_core.errors import Overloaded
from tts_core.xtts.sequence import Sequence

MAX_PREFILL = 8
"""Prompts in one step: it stalls everybody's decoding for as long as it takes."""

STREAM_SHARE = 4
"""One slot in so many is kept for streams: a book cannot take all of them."""

MAX_WHOLE_WAIT_STEPS = 8
"""Of decoding, while windows of whole jobs could go: streams that never pause must not hold them up for ever."""

RETRY_AFTER_S = 2.0


@dataclass(frozen=True, slots=True)
class Prefill:
    """Take the prompts of new sequences into their slots; each draws its first code."""

    sequences: tuple[Sequence, ...]


@dataclass(frozen=True, slots=True)
class Decode:
    """One code more for each."""

    sequences: tuple[Sequence, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """Latents of a sequence, from the window before on, become audio.

    stop  where they end
    last  nothing follows, so nothing waits for its right side
    """

    sequence: Sequence
    stop: int
    last: bool


@dataclass(frozen=True, slots=True)
class Vocode:
    windows: tuple[Window, ...]


Step = Prefill | Decode | Vocode


class Scheduler:
    """Decides whose turn it is: listeners that run dry first, fairly between tenants."""

    def __init__(self, *, slots: int, max_waiting: int, max_windows: int = 8) -> None:
        """
        slots        KV rows, at least 1
        max_waiting  sequences that may wait for one
        max_windows  of the vocoder in one step
        """
        self._slots = slots
        self._max_waiting = max_waiting
        self._max_windows = max_windows
        self._waiting: list[Sequence] = []
        self._live: list[Sequence] = []
        self._arrivals = 0
        self._prefilled_last = False
        self._wholes_waited_steps = 0

    @property
    def idle(self) -> bool:
        return not self._waiting and not self._live

    @property
    def free_slots(self) -> list[int]:
        """Lowest first: the fewer rows in use, the cheaper a step."""
        held = {sequence.slot for sequence in self._live}
        return [slot for slot in range(self._slots) if slot not in held]

    def add(self, sequence: Sequence) -> None:
        """One that has ended, and was cancelled then, is to be heard after all: it needs no slot.

        raises  Overloaded if the waiting room is full
        """
        if sequence.ending is not None:
            self._live.append(sequence)
            return
        if len(self._waiting) >= self._max_waiting:
            raise Overloaded(f"{self._max_waiting} utterances are waiting; try again in {RETRY_AFTER_S:.0f} s")
        self._arrivals += 1
        sequence.arrived = self._arrivals
        self._waiting.append(sequence)

    def cancel(self, sequence: Sequence) -> None:
        """Forget it, whatever it is doing; its slot is free for the next step."""
        sequence.ending = sequence.ending or "cancelled"
        sequence.slot = None
        self._waiting = [waiting for waiting in self._waiting if waiting is not sequence]
        self._live = [live for live in self._live if live is not sequence]

    def next_step(self, *, now_s: float) -> Step | None:
        """The step to launch now; None if all that can be done depends on steps in flight."""
        if streamed := self._windows(streamed=True):
            return self._vocode(streamed)
        decoding = tuple(s for s in self._live if s.slot is not None and s.launched < s.max_codes)
        # Two prefills in a row would hold up those who decode.
        if not (self._prefilled_last and decoding) and (admitted := self._admit(now_s)):
            self._prefilled_last = True
            return Prefill(admitted)
        self._prefilled_last = False
        windows = self._windows(streamed=False)
        self._wholes_waited_steps = self._wholes_waited_steps + 1 if windows else 0
        have_waited = self._wholes_waited_steps > MAX_WHOLE_WAIT_STEPS
        if windows and (not decoding or len(windows) >= self._max_windows or have_waited):
            self._wholes_waited_steps = 0
            return self._vocode(windows)
        for sequence in decoding:
            sequence.launched += 1
        return Decode(decoding) if decoding else None

    def commit(self, step: Prefill | Decode, codes: Many[int]) -> list[tuple[Sequence, int]]:
        """Take in the codes of a step, in its order; returns who has just ended, each with the slot it has left."""
        ended = []
        for sequence, code in zip(step.sequences, codes, strict=True):
            sequence.read(code)
            if sequence.ending is not None and sequence.slot is not None:
                ended.append((sequence, sequence.slot))
                sequence.slot = None
        return ended

    def _admit(self, now_s: float) -> tuple[Sequence, ...]:
        """Fill free slots from the waiting room."""
        admitted: list[Sequence] = []
        while len(admitted) < MAX_PREFILL and (sequence := self._next_in_turn(now_s)) is not None:
            self._waiting.remove(sequence)
            sequence.slot = self.free_slots[0]
            sequence.launched = 1
            self._live.append(sequence)
            admitted.append(sequence)
        return tuple(admitted)

    def _next_in_turn(self, now_s: float) -> Sequence | None:
        holding = [sequence for sequence in self._live if sequence.slot is not None]
        wholes_may = sum(not sequence.is_streamed for sequence in holding) < self._slots - self._slots // STREAM_SHARE
        may = [sequence for sequence in self._waiting if sequence.is_streamed or wholes_may]
        if not may or len(holding) == self._slots:
            return None
        held = Counter(sequence.tenant for sequence in holding)
        tenants = {sequence.tenant for sequence in self._waiting} | set(held)
        fair_share = self._slots / len(tenants)

        def turn(sequence: Sequence) -> tuple[bool, float, int, int]:
            holds = held[sequence.tenant]
            # A deadline already missed is no better than one missed now: late streams go by share, then arrival.
            return holds >= fair_share, max(sequence.due_s, now_s), holds, sequence.arrived

        return min(may, key=turn)

    def _windows(self, *, streamed: bool) -> list[Sequence]:
        ready = [s for s in self._live if s.window_is_ready and s.is_streamed == streamed]
        ready.sort(key=lambda sequence: (sequence.due_s, sequence.arrived))
        return ready[: self._max_windows]

    def _vocode(self, sequences: list[Sequence]) -> Vocode:
        windows = tuple(Window(s, s.take_window(), last=s.is_vocoded) for s in sequences)
        self._live = [sequence for sequence in self._live if not sequence.is_vocoded]
        return Vocode(windows)
