"""When each sentence and word of the caller's text sounds."""

import unicodedata
from collections.abc import Iterator, Sequence

from tts_core.jobs import JsonObject
from tts_core.synthesizer import Spoken
from tts_core.types import Utterance

_FIELDS = ("type", "start", "end", "start_s", "end_s")


class Alignments:
    """Follows a stream and notes times in seconds from its start, places in characters of the caller's text."""

    def __init__(self, text: str, plan: Sequence[Utterance], rate_hz: int) -> None:
        self.items: list[JsonObject] = []
        self._text = text
        self._plan = plan
        self._rate_hz = rate_hz
        self._now = 0
        self._sentence_start = 0
        self._sentence_end = 0
        self._words: list[JsonObject] = []

    def follow(self, spoken: Spoken) -> None:
        utterance = self._plan[spoken.utterance]
        self._words += self._placed(spoken, utterance)
        self._now += len(spoken.samples)
        if not spoken.finished:
            self._sentence_end = self._now
            return
        times = (self._sentence_start / self._rate_hz, self._sentence_end / self._rate_hz)
        self.items += [self._item("sentence", (utterance.start, utterance.end), times), *self._words]
        self._words = []
        self._sentence_start = self._sentence_end = self._now

    def _placed(self, spoken: Spoken, utterance: Utterance) -> Iterator[JsonObject]:
        if not spoken.words:
            return
        places = _places(self._text, utterance)
        for word in spoken.words:
            if span := [place for place in places[word.start : word.end] if place is not None]:
                yield self._item("word", (span[0], span[-1] + 1), (word.start_s, word.end_s))

    def _item(self, kind: str, span: tuple[int, int], times_s: tuple[float, float]) -> JsonObject:
        start, end = span
        start_s, end_s = (round(time_s, 3) for time_s in times_s)
        text = self._text[start:end]
        return {"type": kind, "text": text, "start": start, "end": end, "start_s": start_s, "end_s": end_s}


def shortened(items: Sequence[JsonObject]) -> list[list[str | int | float]]:
    """Alignments as the cache keeps them: without the texts, which the text itself has."""
    return [[item[field] for field in _FIELDS] for item in items]


def restored(rows: Sequence[Sequence[str | int | float]], text: str) -> list[JsonObject]:
    """What `shortened` has left out put back."""
    items: list[JsonObject] = [dict(zip(_FIELDS, row, strict=True)) for row in rows]
    return [{"type": item["type"], "text": text[item["start"] : item["end"]]} | item for item in items]


def _places(text: str, utterance: Utterance) -> list[int | None]:
    """For each character of the utterance, where it stands in the caller's text; None for white space.

    Planning only collapses white space and removes control characters, so what is left stands in the same order.
    """
    kept = iter([i for i in range(utterance.start, utterance.end) if _is_kept(text[i])])
    return [next(kept, None) if _is_kept(character) else None for character in utterance.text]


def _is_kept(character: str) -> bool:
    return not character.isspace() and unicodedata.category(character) != "Cc"
