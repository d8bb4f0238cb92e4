"""How long a text may sound, before anybody has looked at it: what is held of a tenant's quota until it was spoken."""

import unicodedata
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import cast, get_args

from tts_core.jobs import CacheSeed, Request, Synthesize
from tts_core.text import xtts_char_limit
from tts_core.types import Language

_UTTERANCE_S = 17.0
"""What the longest utterance of XTTS takes: 250 characters of English at 15 a second. Its limits are about as long in
every language, so a limit over this is how many characters are spoken in a second."""

CHARS_PER_S: Mapping[str, float] = MappingProxyType(
    {language: xtts_char_limit(language) / _UTTERANCE_S for language in cast(tuple[Language, ...], get_args(Language))}
)
"""From 4.2 (ja) over 14.7 (en) to 16.1 (fr). eSpeak is a quarter faster, and in Chinese a sixth slower."""

DIGIT_S, SYMBOL_S, MARK_S = 0.6, 0.4, 0.3
"""A digit is a word ("1234567" takes eSpeak 4.0 s in English), a symbol is one; a mark is a pause, or a word ("/")."""

LEAD_S = 0.5
"""What even the shortest text takes beyond its characters."""

SAFETY = 1.25
"""More is held than is likely: what was not spoken is given back, what was not held overshoots the quota."""

_LATIN_ENDS = "\u0250"
_LATIN_PER_S, _NARROW_PER_S, _WIDE_PER_S = CHARS_PER_S["cs"], CHARS_PER_S["hi"], CHARS_PER_S["ja"]
"""The slowest of each kind of script: Latin, another alphabet, one whose characters are as wide as they are high."""


def estimate_of(request: Request) -> float:
    """Seconds of audio that a request may become; 0 for what is not spoken."""
    match request:
        case Synthesize(text=text, language=language, speed=speed):
            return estimate_s(text, language=language, speed=speed)
        case CacheSeed(texts=texts, voices=voices, language=language, speed=speed):
            return len(voices) * sum(estimate_s(text, language=language, speed=speed) for text in texts)
    return 0.0


def estimate_s(text: str, *, language: str, speed: float) -> float:
    """Seconds of audio that a text may become; 0 if there is none.

    language  as it was asked for; for `auto`, or what is none of the seventeen, the slowest of the same script counts
    """
    base = language.lower().replace("_", "-").partition("-")[0]
    spoken_s = sum(_character_s(character, base) * n for character, n in Counter(text).items())
    return SAFETY * (LEAD_S + spoken_s) / speed if spoken_s else 0.0


def _character_s(character: str, language: str) -> float:
    match unicodedata.category(character)[0]:
        case "N":
            return DIGIT_S
        case "S":
            return SYMBOL_S
        case "P":
            return MARK_S
        case "C":
            return 0.0
        case _:
            return 1 / _chars_per_s(character, language)


def _chars_per_s(character: str, language: str) -> float:
    if unicodedata.east_asian_width(character) in ("W", "F"):
        return _WIDE_PER_S
    return CHARS_PER_S.get(language, _LATIN_PER_S if character < _LATIN_ENDS else _NARROW_PER_S)
