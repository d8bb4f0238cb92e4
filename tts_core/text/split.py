"""Cut a sentence that is too long for the engine where a reader would breathe."""

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tts_core.text.clean import CleanText
from tts_core.text.marks import CLAUSES, CLOSERS, COMMAS, STOPS, WIDE_CLAUSES, WIDE_CLOSERS, WIDE_COMMAS, WIDE_STOPS
from tts_core.text.pieces import CLAUSE_PAUSE_S, SENTENCE_PAUSE_S, Piece, trimmed


@dataclass(frozen=True, slots=True)
class _Rank:
    """How good a place is.

    cost     in units of the length a piece should have: a better place may lie that much farther from the ideal one
    pause_s  what a reader leaves there
    """

    cost: float
    pause_s: float


_STOP = _Rank(0.0, SENTENCE_PAUSE_S)
_CLAUSE = _Rank(0.1, CLAUSE_PAUSE_S)
_COMMA = _Rank(0.2, CLAUSE_PAUSE_S)
_SPACE = _Rank(0.8, 0.0)
_SEAM = _Rank(0.0, 0.0)
_ANYWHERE = _Rank(0.5, 0.0)
"""The last two part words that alone exceed the limit: at a mark or a change of script, or between any characters."""

_SHORT_COST = 1.0
"""For a piece of few characters: XTTS babbles on them."""

_EXTRA_COST = 0.25
"""For a place that leaves so much that one more piece is needed than the length asks for."""

_SILENT_COST = 10.0
"""For a piece with no letter or digit."""

_RANKS = {mark: _STOP for mark in STOPS + WIDE_STOPS}
_RANKS |= {mark: _CLAUSE for mark in CLAUSES + WIDE_CLAUSES}
_RANKS |= {mark: _COMMA for mark in COMMAS + WIDE_COMMAS}

_PLACE = re.compile(
    rf"(?P<wide>[{re.escape(WIDE_STOPS + WIDE_CLAUSES + WIDE_COMMAS)}])[{re.escape(WIDE_CLOSERS)}]*[ ]?"
    rf"|(?P<mark>[{re.escape(STOPS + CLAUSES + COMMAS)}])[{re.escape(CLOSERS)}]*[ ]"
    r"|(?<=[ ])(?P<dash>[-–])[ ]"
    r"|[ ]"
)

_WORD_BEFORE_STOP = re.compile(r"(?:^|[\s\"'(“„«])([^\s\"'(“„«]{1,8})\.[ ]$")

_LONGEST_TITLE = 4
"""`Prof.`"""

_SEAM_BEHIND = "/-_.,:;&?=+)]}"
"""Where URLs, paths and chains of words may be parted."""


@dataclass(frozen=True, slots=True)
class _Place:
    """A position where the next piece could start."""

    position: int
    rank: _Rank


@dataclass(frozen=True, slots=True)
class _Need:
    """What is still to be cut: text[start:end], into pieces of at most `max_chars`, better not under `short`.

    `short` is at most half of `max_chars`.
    """

    start: int
    end: int
    max_chars: int
    short: int

    @property
    def pieces(self) -> int:
        return -(-(self.end - self.start) // self.max_chars)

    @property
    def ideal(self) -> float:
        """Length of each piece if all were equal."""
        return (self.end - self.start) / self.pieces


def split(cleaned: CleanText, piece: Piece, *, max_chars: int, short: int) -> list[Piece]:
    """Cut a piece into parts of at most `max_chars` characters, about equally long.

    Best behind a stop, then behind a clause or a comma, then at a space; inside a word only if it alone is too long,
    inside a grapheme cluster only if that is.
    """
    if len(piece) <= max_chars:
        return [piece]
    places = _places(cleaned, piece)
    found, start = [], piece.start
    while piece.end - start > max_chars:
        need = _Need(start, piece.end, max_chars=max_chars, short=min(short, max_chars // 2))
        place = _best_place(cleaned, places, need)
        found.append(trimmed(cleaned.text, start=start, end=place.position, pause_s=place.rank.pause_s))
        start = place.position + (cleaned.text[place.position] == " ")
    return [*found, Piece(start, piece.end, piece.pause_s)]


def _places(cleaned: CleanText, piece: Piece) -> list[_Place]:
    matches = _PLACE.finditer(cleaned.text, piece.start, piece.end)
    return [
        _Place(match.end(), _rank(cleaned.text, match))
        for match in matches
        if match.end() < piece.end and _may_cut(cleaned, match.end())
    ]


def _may_cut(cleaned: CleanText, position: int) -> bool:
    """Not inside a cluster, and not inside a run of marks: `?!`, `——` and `……` stay whole."""
    return position not in cleaned.inside_clusters and not (
        cleaned.text[position] in _RANKS and cleaned.text[position - 1] in _RANKS
    )


def _rank(text: str, match: re.Match[str]) -> _Rank:
    mark = match["wide"] or match["mark"]
    if mark is None:
        return _CLAUSE if match["dash"] else _SPACE
    return _SPACE if mark == "." and _is_abbreviated(text, match.end()) else _RANKS[mark]


def _is_abbreviated(text: str, position: int) -> bool:
    """A full stop inside what sentencex took for one sentence: behind `Dr`, `e.g` or `B` it ends none."""
    match = _WORD_BEFORE_STOP.search(text[max(0, position - 11) : position])
    if match is None:
        return False
    word = match[1]
    return len(word) == 1 or "." in word or (word[0].isupper() and len(word) <= _LONGEST_TITLE)


def _best_place(cleaned: CleanText, places: Sequence[_Place], need: _Need) -> _Place:
    first = bisect_right(places, need.start, key=_position)
    behind = bisect_right(places, need.start + need.max_chars + 1, key=_position)
    fitting = [place for place in places[first:behind] if _fits(cleaned.text, place, need)]
    hard = _Place(need.start + need.max_chars, _ANYWHERE)
    return min(fitting or _inside_word(cleaned, need), key=_cost_of(cleaned, need), default=hard)


def _position(place: _Place) -> int:
    return place.position


def _fits(text: str, place: _Place, need: _Need) -> bool:
    return place.position - (text[place.position - 1] == " ") - need.start <= need.max_chars


def _cost_of(cleaned: CleanText, need: _Need) -> Callable[[_Place], float]:
    capacity_after = (need.pieces - 1) * need.max_chars

    def cost(place: _Place) -> float:
        length, rest = place.position - need.start, need.end - place.position
        spoken = cleaned.says_something(need.start, place.position), cleaned.says_something(place.position, need.end)
        return (
            place.rank.cost
            + abs(length - need.ideal) / need.ideal
            + _SHORT_COST * (min(length, rest) < need.short)
            + _EXTRA_COST * (rest > capacity_after)
            + _SILENT_COST * spoken.count(False)
        )

    return cost


def _inside_word(cleaned: CleanText, need: _Need) -> list[_Place]:
    """Every place between two characters of a word; none if it begins with a cluster longer than the limit."""
    window = range(need.start + 1, need.start + need.max_chars + 1)
    return [_Place(i, _word_rank(cleaned.text, i)) for i in window if i not in cleaned.inside_clusters]


def _word_rank(text: str, position: int) -> _Rank:
    before, after = text[position - 1], text[position]
    changes_script = _is_hiragana(before) and not _is_hiragana(after) and after.isalpha()
    return _SEAM if before in _SEAM_BEHIND or changes_script else _ANYWHERE


def _is_hiragana(char: str) -> bool:
    """Japanese phrases mostly end in hiragana and begin with something else."""
    return "\u3041" <= char <= "\u309f"
