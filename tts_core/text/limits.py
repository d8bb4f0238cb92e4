"""How long an utterance XTTS-v2 speaks well, per language."""

from collections.abc import Mapping
from types import MappingProxyType

from tts_core.types import Language

_XTTS_CHAR_LIMITS: Mapping[Language, int] = MappingProxyType(
    {
        "en": 250,
        "de": 253,
        "fr": 273,
        "es": 239,
        "it": 213,
        "pt": 203,
        "pl": 224,
        "zh": 82,
        "ar": 166,
        "cs": 186,
        "ru": 182,
        "nl": 251,
        "tr": 226,
        "ja": 71,
        "hu": 224,
        "ko": 95,
        "hi": 150,
    }
)


def xtts_char_limit(language: Language) -> int:
    """Characters beyond which XTTS-v2 truncates or babbles. Source: the limits coqui-tts 0.28 warns at."""
    return _XTTS_CHAR_LIMITS[language]
