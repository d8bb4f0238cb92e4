"""What may be wrong with jobs about the cache."""

import math

from tests.hostile_people import Wrong
from tests.hostile_values import LONG, NOT_BOOL, NOT_NUMBER, NOT_TEXT, NULL, SURROGATE, TRUTHS, Values, codes

INVALID = codes("invalid_input")

NOT_NAMES: Values = TRUTHS | {
    "null": None,
    "a text": "nova",
    "an object": {"0": "nova"},
    "none": [],
    "a null": [None],
    "an integer": [1],
    "a list": [["nova"]],
    "a surrogate": [SURROGATE],
}
HASHES = ("", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "0" * 64 + "\n", "../" * 22, SURROGATE, LONG)
CONTENT_TYPES = ("", " ", "Narrative", "a b", "a/b", "audio\n", "\0", "é", SURROGATE, "x" * 51)


def bad_cache() -> dict[str, tuple[Values, Wrong]]:
    """By action: the fields of a good job, and what may be wrong with each."""
    seed: Values = {"texts": ["Hello there."], "voices": ["nova"]}
    return {
        "cache.seed": (
            seed,
            {
                "texts": (NOT_NAMES | {"501": [str(n) for n in range(501)]}, INVALID),
                "voices": (NOT_NAMES | {"51": [str(n) for n in range(51)], "an empty one": [""]}, INVALID),
                "content_type": (NOT_TEXT | NULL, INVALID),
                "shared": (NOT_BOOL, INVALID),
                "speed": (NOT_NUMBER | NULL, INVALID),
                "format": (("", "exe", "../wav"), INVALID),
                "text": (("Hello there.",), INVALID),
                "cache": (("use",), INVALID),
                "reference_audio_url": (("http://127.0.0.1/a.wav",), INVALID),
            },
        ),
        "cache.invalidate": (
            {"content_type": "hostile"},
            {
                "content_type": (CONTENT_TYPES, INVALID),
                "content_hash": (HASHES, INVALID),
                "voice_id": (("", " ", "\0", SURROGATE, LONG), INVALID),
                "older_than_days": ((-1, 1e6, math.inf, math.nan, "1"), INVALID),
                "all": ((True, 1, "true"), INVALID),
                "shared": ((True,), codes("forbidden")),
            },
        ),
        "cache.stats": ({}, {"voice_id": (("nova",), INVALID), "shared": ((True,), INVALID)}),
    }
