"""A stretch of cleaned text on its way to an utterance."""

from collections.abc import Mapping
from dataclasses import dataclass

PARAGRAPH_PAUSE_S = 0.6
SENTENCE_PAUSE_S = 0.25
CLAUSE_PAUSE_S = 0.1
"""What readers leave, less the short silence that XTTS and eSpeak themselves put at the end of an utterance."""


@dataclass(frozen=True, slots=True)
class Piece:
    """text[start:end] of a `CleanText`, without white space at its ends, and the silence behind it."""

    start: int
    end: int
    pause_s: float

    def __len__(self) -> int:
        return self.end - self.start


def pieces_between(text: str, *, span: tuple[int, int], cuts: Mapping[int, float], last_pause_s: float) -> list[Piece]:
    """Part a span at its cuts (position -> pause there, all inside it); spaces at the cuts belong to no piece."""
    found, start = [], span[0]
    for cut in sorted(cuts):
        found.append(trimmed(text, start=start, end=cut, pause_s=cuts[cut]))
        start = cut
    found.append(trimmed(text, start=start, end=span[1], pause_s=last_pause_s))
    return found


def trimmed(text: str, *, start: int, end: int, pause_s: float) -> Piece:
    """`text` is clean: no two spaces in a row, so one at either end is all there can be."""
    return Piece(start + (text[start] == " "), end - (text[end - 1] == " "), pause_s)


def joined(first: Piece, second: Piece) -> Piece:
    return Piece(first.start, second.end, second.pause_s)


def part_of_paragraph(piece: Piece) -> bool:
    """Whether its paragraph goes on behind it."""
    return piece.pause_s < PARAGRAPH_PAUSE_S
