"""Cut a text into the utterances an engine speaks."""

from collections.abc import Iterator, Sequence

from tts_core.text.clean import CleanText, clean
from tts_core.text.limits import xtts_char_limit
from tts_core.text.pack import attach_silent, gather_short
from tts_core.text.pieces import Piece
from tts_core.text.sentences import sentences
from tts_core.text.split import split
from tts_core.types import Language, Utterance

_SHORT_CHARS_ENGLISH = 40
"""About 2.5 s of speech. XTTS answers much shorter texts ("Hi!") with seconds of noise."""

_SOFT_SHARE = 0.6
"""Of the limit: short sentences are gathered up to here at first, and beyond only where one would be left alone."""


def plan(text: str, *, language: Language, max_chars: int) -> tuple[Utterance, ...]:
    """Cut a text into the utterances an engine speaks, in order: no character that can be spoken is cut or lost.

    The whole normalisation: control characters (Cc) and lone surrogates go, a run of white space is one space inside
    an utterance and none at its ends. Every other character stays as it is, in exactly one utterance.

    max_chars  of each utterance; at least 20
    returns    utterances of 1..max_chars characters with disjoint spans in order; () for a text of nothing but white
               space and control characters. Only where marks fit neither before nor after (a wall of 300 dots) does
               an utterance have no letter or digit. `pause_s` of the last one is 0.
    """
    cleaned = clean(text)
    short = _short_chars(language)
    whole = attach_silent(cleaned, sentences(cleaned, language=language), max_chars=max_chars, stretch=True)
    parts = [part for piece in whole for part in split(cleaned, piece, max_chars=max_chars, short=short)]
    spoken = attach_silent(cleaned, parts, max_chars=max_chars, stretch=False)
    soft = min(max_chars, max(short, int(_SOFT_SHARE * max_chars)))
    gathered = gather_short(spoken, short=short, limit=soft)
    return tuple(_utterances(cleaned, gather_short(gathered, short=short, limit=max_chars)))


def _short_chars(language: Language) -> int:
    """A Chinese character says what three English ones do: the limits of XTTS measure that well enough."""
    return round(_SHORT_CHARS_ENGLISH * xtts_char_limit(language) / xtts_char_limit("en"))


def _utterances(cleaned: CleanText, pieces: Sequence[Piece]) -> Iterator[Utterance]:
    for piece in pieces:
        start, end = cleaned.source_span(piece.start, piece.end)
        pause_s = 0.0 if piece is pieces[-1] else piece.pause_s
        yield Utterance(cleaned.text[piece.start : piece.end], start=start, end=end, pause_s=pause_s)
