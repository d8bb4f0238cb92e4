"""The caller's text without what no engine can say, and the way back to where each character stood."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Literal

from tts_core.text.graphemes import inner_positions

Break = Literal["line", "paragraph"]

_SPOKEN = re.compile(r"[^\s\x00-\x1f\x7f-\x9f\ud800-\udfff]+")
"""Everything but white space, control characters (Cc) and lone surrogates, which no encoding can carry."""

_SPACE = re.compile(r"\s")

_LINE_END = re.compile(r"\r\n|[\n\v\f\r\x85\u2028\u2029]")

_HARD_BREAKS = "\f\u2029"
"""Form feed and paragraph separator: a new paragraph with no blank line needed."""


@dataclass(frozen=True)
class CleanText:
    """A text in which control characters are gone and every run of white space is one space, trimmed at both ends.

    Nothing else is changed: no NFC, no case, no quotes; zero-width joiners and direction marks stay.

    text         the cleaned text
    breaks       position behind a space -> what the white space was that became it, where it held a line end
    run_starts   where in `text` each stretch begins that was copied in one piece
    run_sources  where that stretch begins in the caller's text
    """

    text: str
    breaks: Mapping[int, Break]
    run_starts: Sequence[int]
    run_sources: Sequence[int]

    def source_span(self, start: int, end: int) -> tuple[int, int]:
        """The caller's span of text[start:end], which must begin and end with a character that is no space."""
        return self._source(start), self._source(end - 1) + 1

    def says_something(self, start: int, end: int) -> bool:
        """Whether text[start:end] has a letter or digit."""
        return self._speakable_before[end] > self._speakable_before[start]

    def breaks_within(self, start: int, end: int) -> Sequence[int]:
        """Positions behind the line ends of text[start:end]."""
        return self._break_positions[
            bisect_right(self._break_positions, start) : bisect_left(self._break_positions, end)
        ]

    @cached_property
    def inside_clusters(self) -> frozenset[int]:
        """Positions that would cut a grapheme cluster."""
        return inner_positions(self.text)

    @cached_property
    def _break_positions(self) -> Sequence[int]:
        return list(self.breaks)

    @cached_property
    def _speakable_before(self) -> Sequence[int]:
        return list(accumulate(map(str.isalnum, self.text), initial=0))

    def _source(self, position: int) -> int:
        run = bisect_right(self.run_starts, position) - 1
        return self.run_sources[run] + position - self.run_starts[run]


def clean(text: str) -> CleanText:
    """Drop control characters and collapse white space; a control character alone does not part two letters."""
    parts: list[str] = []
    breaks: dict[int, Break] = {}
    run_starts: list[int] = []
    run_sources: list[int] = []
    length = behind = 0
    for run in _SPOKEN.finditer(text):
        gap = text[behind : run.start()]
        if length and _SPACE.search(gap):
            parts.append(" ")
            length += 1
            if kind := _break(gap):
                breaks[length] = kind
        run_starts.append(length)
        run_sources.append(run.start())
        parts.append(run.group())
        length += len(run.group())
        behind = run.end()
    return CleanText("".join(parts), breaks=breaks, run_starts=run_starts, run_sources=run_sources)


def _break(gap: str) -> Break | None:
    line_ends = len(_LINE_END.findall(gap))
    if line_ends > 1 or any(mark in gap for mark in _HARD_BREAKS):
        return "paragraph"
    return "line" if line_ends else None
