"""From eSpeak's events to the words of the caller's text: when each sounds, and where it stands."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from tts_core.espeak.library import Block, Mark
from tts_core.types import FloatArray, WordTiming

SILENCE = 10 ** (-50 / 20)
"""Amplitude below which the end of a word is the pause after it."""

UNSPACED = re.compile(r"[\u3040-\u30ff\u31f0-\u31ff\u3400-\u9fff\uf900-\ufaff]")
"""Kana and Han: a word may begin after any of them."""

UNKNOWN = re.compile(
    "[^ -~\u00a0-\u024f"  # Latin; among what is left out are control characters, which give eSpeak orders
    "\u0300-\u036f\u0386-\u03ce\u0400-\u04ff\u1e00-\u1eff"  # accents, Greek, Cyrillic, more Latin
    "\u0600-\u06ff\u0900-\u097f\u200c\u200d"  # Arabic, Devanagari, and their joiners
    "\u2010-\u2015\u2018-\u201f\u2026\u2030-\u203a\u20a0-\u20bf\u2116\u2122"  # punctuation, currencies
    "\u3001-\u3011\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uff01-\uff9f]"
)
"""What becomes a space: eSpeak 1.52 overruns its buffers on single characters of other scripts (U+28FF in Arabic)."""

LONG_WORD = re.compile(r"\S{40}(?=\S)")
"""Divided, because eSpeak overruns its buffers on some long ones (English "s's's's" and so on)."""


@dataclass(frozen=True, slots=True)
class SpokenText:
    """What eSpeak is given, character by character from which place of the caller's text.

    origin  one index into `source` per character of `text`, never falling
    """

    text: str
    source: str
    origin: Sequence[int]

    @classmethod
    def of(cls, source: str) -> Self:
        """What eSpeak may be given of a text: no orders, no script it does not know, no endless word."""
        return cls(UNKNOWN.sub(" ", source), source, range(len(source))).divided()

    def divided(self) -> Self:
        """The same with spaces in long words."""
        breaks = [word.end() for word in LONG_WORD.finditer(self.text)]
        origin = (
            np.insert(np.asarray(self.origin), breaks, [self.origin[at] for at in breaks]) if breaks else self.origin
        )
        return type(self)(LONG_WORD.sub(r"\g<0> ", self.text), self.source, [int(at) for at in origin])


class WordTimer:
    """Follows one utterance block by block.

    eSpeak's word events are not one per word: "of the" is one event, "23" are two, and a Korean word may have none.
    So a word lasts from its event to the next one, in time and in text, and an event inside a word does not count.
    """

    def __init__(self, spoken: SpokenText, *, sample_rate_hz: int) -> None:
        self._spoken = spoken
        self._rate_hz = sample_rate_hz
        self._begun = Mark("word", 0, 0)
        self._heard: FloatArray = np.zeros(0, np.float32)
        """The samples since `_begun`."""

    def feed(self, block: Block) -> tuple[WordTiming, ...]:
        """The words that the block's marks end."""
        self._heard = np.concatenate((self._heard, block.samples))
        return tuple(word for mark in block.marks if self._counts(mark) for word in self._end_at(mark))

    def _counts(self, mark: Mark) -> bool:
        text, at = self._spoken.text, mark.position
        if mark.kind == "end" or not 0 < at < len(text):
            return mark.kind == "end" or at == 0
        return not _is_inside(text, at) and self._source_index(mark) > self._source_index(self._begun)

    def _end_at(self, mark: Mark) -> Iterator[WordTiming]:
        """The word begun last, unless no letter of it was passed; `mark` begins the next."""
        start, end = _trim(self._spoken.source, self._source_index(self._begun), self._source_index(mark))
        length = self._sounding(mark.sample - self._begun.sample)
        if start < end and length:
            start_s, end_s = (sample / self._rate_hz for sample in (self._begun.sample, self._begun.sample + length))
            yield WordTiming(start_s, end_s, start, end)
        self._heard = self._heard[mark.sample - self._begun.sample :]
        self._begun = mark

    def _source_index(self, mark: Mark) -> int:
        origin = self._spoken.origin
        # The end of a clause is told as its closing mark, and where it has none as its last character.
        if mark.kind == "end" and mark.position == len(origin) - 1:
            return len(self._spoken.source)
        return origin[mark.position] if mark.position < len(origin) else len(self._spoken.source)

    def _sounding(self, count: int) -> int:
        """How many of the next `count` samples pass until the last one that can be heard."""
        loud = np.flatnonzero(np.abs(self._heard[:count]) > SILENCE)
        return int(loud[-1]) + 1 if loud.size else 0


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    """Leave out the white space and punctuation around a word; complete a last one cut by a miscounted number."""
    while 0 < end < len(text) and _is_inside(text, end):
        end += 1
    while start < end and not _is_spoken(text[end - 1]):
        end -= 1
    while start < end and not _is_spoken(text[start]):
        start += 1
    return start, end


def _is_inside(text: str, at: int) -> bool:
    """Whether a word goes on at this place."""
    before, after = text[at - 1], text[at]
    return _in_word(before) and _in_word(after) and not UNSPACED.match(before) and not UNSPACED.match(after)


def _in_word(char: str) -> bool:
    """Letters, digits, and the marks that Hindi and Arabic hang on them."""
    return unicodedata.category(char)[0] in "LNM"


def _is_spoken(char: str) -> bool:
    return unicodedata.category(char)[0] in "LNMS"
