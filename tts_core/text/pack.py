"""Bring the pieces of a text to a length that an engine speaks well: none silent, few short, the first one soon."""

from collections.abc import Sequence

from tts_core.text.clean import CleanText
from tts_core.text.pieces import Piece, joined, part_of_paragraph


def attach_silent(cleaned: CleanText, pieces: Sequence[Piece], *, max_chars: int, stretch: bool) -> list[Piece]:
    """Give each piece without a letter or digit to the piece before it where it fits, else to the one behind it.

    stretch  the result is split again: a piece already over the limit takes it, and where both neighbours are full
             the one before takes it, for the split to balance. Otherwise what fits nowhere stays alone.
    """
    found: list[Piece] = []
    for piece in pieces:
        if found and _takes(cleaned, found[-1], piece, max_chars=max_chars, stretch=stretch):
            found[-1] = _joined_silent(cleaned, found[-1], piece)
            continue
        if stretch:
            _overfill(cleaned, found)
        found.append(piece)
    if stretch:
        _overfill(cleaned, found)
    return found


def _takes(cleaned: CleanText, first: Piece, second: Piece, *, max_chars: int, stretch: bool) -> bool:
    silent = [_is_silent(cleaned, first), _is_silent(cleaned, second)]
    room = second.end - first.start <= max_chars or (
        stretch and (all(silent) or max(len(first), len(second)) > max_chars)
    )
    return any(silent) and room


def _overfill(cleaned: CleanText, found: list[Piece]) -> None:
    """The last piece found no room on either side: the one before it takes it all the same."""
    if len(found) > 1 and _is_silent(cleaned, found[-1]):
        found[-2:] = [_joined_silent(cleaned, *found[-2:])]


def _joined_silent(cleaned: CleanText, first: Piece, second: Piece) -> Piece:
    """Marks behind a piece keep its pause where that is the longer one: `The end.` (paragraph) `* * *`."""
    pause_s = max(first.pause_s, second.pause_s) if _is_silent(cleaned, second) else second.pause_s
    return Piece(first.start, second.end, pause_s)


def _is_silent(cleaned: CleanText, piece: Piece) -> bool:
    return not cleaned.says_something(piece.start, piece.end)


def gather_short(pieces: Sequence[Piece], *, short: int, limit: int) -> list[Piece]:
    """Join pieces of under `short` characters with a neighbour in their paragraph while the two are at most `limit`.

    The first piece takes no more than it needs, so that a listener hears something soon.
    """
    found: list[Piece] = []
    for i, piece in enumerate(pieces):
        if found and part_of_paragraph(found[-1]) and piece.end - found[-1].start <= limit:
            first_waits = len(found) == 1 and _has_room_behind(pieces, i, limit=limit)
            if len(found[-1]) < short or (len(piece) < short and not first_waits):
                found[-1] = joined(found[-1], piece)
                continue
        found.append(piece)
    return found


def _has_room_behind(pieces: Sequence[Piece], i: int, *, limit: int) -> bool:
    """Whether the piece behind number `i` can take it, so that the one before need not."""
    piece = pieces[i]
    return part_of_paragraph(piece) and i + 1 < len(pieces) and pieces[i + 1].end - piece.start <= limit
