"""Is this speech, or has the model lost its way? Judged by the codes of an utterance alone: 21.53 of them a second.

Every threshold here is uncalibrated until real weights were heard: none has been checked against real speech.

What this cannot notice: words added or dropped without a change of length beyond the limits below; a loop that sounds
the same in other codes (a repetition penalty makes the model look for them); a hum of three codes or more in no order.
"""

from collections import defaultdict, deque
from typing import Literal

Verdict = Literal["ok", "budget", "loop", "stall", "short"]
"""What was wrong first.

budget  no stop code came within `code_budget`
loop    a phrase was said again and again
stall   a sound, or silence, was held
short   the stop code came long before the text could have been said
"""

CODES_PER_S = 22_050 / 1024

MODEL_MAX_CODES = 602
"""28 s: 605 positions less start, stop and one more. Source: coqui `GPT.get_generator`."""

STOP_CODE = 1025

CHARS_PER_S = 15
"""Of speech, over its pauses; uncalibrated until real weights were heard."""

MIN_PERIOD, MAX_PERIOD = 2, 60
"""Of a loop, in codes: 0.09 s to 2.8 s; uncalibrated until real weights were heard."""

LOOP_COPIES = 3.5
"""A phrase said three times may be in the text; uncalibrated until real weights were heard."""

LOOP_MIN_S = 1.5
"""Of a loop however short its phrase; uncalibrated until real weights were heard."""

LOOP_EQUAL = 0.9
"""Share of codes equal to those one period before; uncalibrated until real weights were heard."""

MAX_HELD_S = 1.2
"""A pause in good speech takes up to 0.8 s and repeats its codes; uncalibrated until real weights were heard."""

MAX_HELD_CODES = int(MAX_HELD_S * CODES_PER_S)

MIN_SHARE = 1 / 3
"""Of the usual length of a text: 45 characters a second; uncalibrated until real weights were heard."""

BY_WEIGHT: tuple[Verdict, ...] = ("ok", "stall", "budget", "loop", "short")
"""A stall costs silence and runaways mostly come after the last word, but loops and early ends cost words."""


def badness(verdict: Verdict, *, codes: int, chars: int) -> tuple[int, float]:
    """Of several takes the one to keep has the least: the lighter fault, then the length closer to what is usual.

    codes  of the take
    chars  length of the text as it was read
    """
    return BY_WEIGHT.index(verdict), abs(codes - _usual_codes(chars))


def code_budget(chars: int) -> int:
    """The number of codes after which an utterance of so many characters, as read, is no longer speech but a runaway.

    2.5 times what 15 characters per second take, and 40 codes (1.9 s) more for a breath, or for letters spelled
    out: a second of babble is better than speech cut off. Never more than the 602 codes, 28 s, that the model has
    places for.
    """
    return min(MODEL_MAX_CODES, 40 + int(2.5 * _usual_codes(chars)))


class CodeWatch:
    """Watches the codes of one utterance as they come. A fault once found stays the verdict.

    codes  read so far, without the stop code
    """

    def __init__(self, *, chars: int) -> None:
        """chars: length of the text as it was read, see `Reading`"""
        self.codes = 0
        self._budget = code_budget(chars)
        self._min_codes = MIN_SHARE * _usual_codes(chars)
        self._held = _Held()
        self._echoes = _Echoes()
        self._fault: Verdict | None = None

    def read(self, code: int) -> Verdict | None:
        """None while nothing is wrong, else the first fault; the stop code itself is neither counted nor judged."""
        if code != STOP_CODE:
            self.codes += 1
            self._fault = self._fault or self._judge(code)
        return self._fault

    def ended(self, *, stopped: bool) -> Verdict:
        """
        stopped  whether the stop code came; if not, and nothing else was wrong, the utterance ran into its budget or
                 was cut off by whoever is asking, which is for him to know
        """
        if self._fault is not None:
            return self._fault
        if not stopped:
            return "budget"
        return "short" if self.codes < self._min_codes else "ok"

    def _judge(self, code: int) -> Verdict | None:
        held_codes = self._held.read(code)
        loops = self._echoes.read(code)
        if held_codes > MAX_HELD_CODES:
            return "stall"
        if loops:
            return "loop"
        return "budget" if self.codes >= self._budget else None


class _Held:
    """The longest run of at most two different codes up to now."""

    def __init__(self) -> None:
        self._latest = self._other = -1
        self._latest_in_a_row = 0
        self._codes = 0

    def read(self, code: int) -> int:
        """Its length with this code, in codes."""
        if code not in (self._latest, self._other):
            self._codes = self._latest_in_a_row
        if code != self._latest:
            self._latest, self._other = code, self._latest
            self._latest_in_a_row = 0
        self._latest_in_a_row += 1
        self._codes += 1
        return self._codes


class _Echoes:
    """Which codes were said before, and how long before. Work per code: the times it was said in the last 60."""

    def __init__(self) -> None:
        self._now = 0
        self._positions: defaultdict[int, deque[int]] = defaultdict(deque)
        self._echoes: defaultdict[int, deque[int]] = defaultdict(deque)
        """By code, where it was said; by period, where codes were equal to those one period before."""

    def read(self, code: int) -> bool:
        """Whether a loop is going on; once it is, nothing more can be asked."""
        self._now += 1
        said = self._positions[code]
        _forget(said, before=self._now - MAX_PERIOD)
        periods = [self._now - position for position in said]
        said.append(self._now)
        return any(self._is_loop(period) for period in periods if period >= MIN_PERIOD)

    def _is_loop(self, period: int) -> bool:
        echoes, window = self._echoes[period], _window_codes(period)
        echoes.append(self._now)
        _forget(echoes, before=self._now - window + 1)
        return len(echoes) >= LOOP_EQUAL * window


def _forget(positions: deque[int], *, before: int) -> None:
    while positions and positions[0] < before:
        positions.popleft()


def _window_codes(period: int) -> int:
    """Codes of a loop that have one of its phrases before them: all but the first copy."""
    return max(int(LOOP_COPIES * period), int(LOOP_MIN_S * CODES_PER_S) + 1) - period


def _usual_codes(chars: int) -> float:
    return CODES_PER_S * chars / CHARS_PER_S
