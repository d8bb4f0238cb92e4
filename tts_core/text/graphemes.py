"""Where a reader sees one character although the text has several."""

import re
import unicodedata
from bisect import bisect_right

_NON_ASCII = re.compile(r"[^\x00-\x7f]+")

_ZWJ = "\u200d"

_EXTENDERS = frozenset("\u200c\u200d\uff9e\uff9f") | frozenset(map(chr, range(0x1F3FB, 0x1F400)))
"""Joiners, half-width voicing marks and skin tones: they belong to what stands before them, yet are no marks (M*)."""

_TAGS = range(0xE0020, 0xE0080)
"""Letters of subdivision flags (England, Scotland, Wales)."""

_REGIONAL = range(0x1F1E6, 0x1F200)
"""Two of them make one flag."""

_VIRAMA_CLASS = 9
"""Canonical combining class of the signs that join two Indic consonants into one."""

_HANGUL_STARTS = (0, 0x1100, 0x1160, 0x1200, 0xA960, 0xA980, 0xAC00, 0xD7B0, 0xD800)
_HANGUL_KINDS = ("", "lead", "tail", "", "lead", "", "syllable", "tail", "")
"""Ranges of Unicode's Hangul: leading consonants, vowels and final consonants (both join backwards), syllables."""


def inner_positions(text: str) -> frozenset[int]:
    """Positions at which a cut would fall inside a grapheme cluster.

    source  UAX 29, rules GB6 to GB13, simplified: joiners and viramas also bind what they would not in good spelling
    """
    return frozenset(
        i for run in _NON_ASCII.finditer(text) for i in _inner(text, start=max(run.start(), 1), end=run.end())
    )


def _inner(text: str, *, start: int, end: int) -> list[int]:
    found, flag_open = [], _is_regional(text[start - 1])
    for i in range(start, min(end + 1, len(text))):
        before, after = text[i - 1], text[i]
        flag = _is_regional(after)
        if (flag and flag_open) or _joins(before, after):
            found.append(i)
        flag_open = flag and not flag_open
    return found


def _joins(before: str, after: str) -> bool:
    """Whether two neighbours are one cluster; flags aside, those depend on more than their neighbour.

    A space is one with nothing, not even with a mark behind it: it is where words may be parted.
    """
    if " " in (before, after):
        return False
    if _extends(after):
        return True
    return before == _ZWJ or _makes_conjunct(before, after) or _makes_syllable(before, after)


def _extends(char: str) -> bool:
    return char in _EXTENDERS or ord(char) in _TAGS or unicodedata.category(char)[0] == "M"


def _makes_conjunct(before: str, after: str) -> bool:
    return unicodedata.combining(before) == _VIRAMA_CLASS and after.isalpha()


def _makes_syllable(before: str, after: str) -> bool:
    first, second = _hangul(before), _hangul(after)
    return bool(first and second) and (second == "tail" or first == "lead")


def _hangul(char: str) -> str:
    return _HANGUL_KINDS[bisect_right(_HANGUL_STARTS, ord(char)) - 1]


def _is_regional(char: str) -> bool:
    return ord(char) in _REGIONAL
