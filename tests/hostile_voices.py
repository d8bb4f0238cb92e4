"""What may be wrong with jobs that change, share and list voices."""

from tests.hostile_people import CURSORS, INVALID, NO_VOICE, Wrong
from tests.hostile_values import LANGUAGES, LONG, NOT_BOOL, NOT_TEXT, NULL, OBJECTS, SURROGATE, TRUTHS, Values, codes
from tests.hostile_values import VOICE_IDS as UNKNOWN

NO_LANGUAGE = codes("language_unsupported", "invalid_input")

BAD_NAMES: Values = {"empty": "", "blank": " ", "a NUL": "a\0b", "a surrogate": SURROGATE, "long": LONG}
PROSE: Values = {"a NUL": "a\0b", "a surrogate": SURROGATE, "long": "x" * 100_000}
TAGS: Values = {
    "a text": "calm",
    "one too many": ["calm"] * 21,
    "an empty one": [""],
    "a long one": ["x" * 51],
    "a NUL in one": ["a\0b"],
    "a list in one": [["calm"]],
    "no text in one": [1],
}
GENDERS = ("", "Female", "woman", SURROGATE)
LIMITS = (0, -1, 201, 2**64, 1.0, "1", True)
VERSIONS = ("nobody@1", "nobody@0", "nobody@", "@1", "@", "nobody@1@1", "nobody@" + "9" * 100, "nobody@\u0661")


def bad_voices() -> dict[str, tuple[Values, Wrong]]:
    """By action: the fields of a good job (but for its voice), and what may be wrong with each."""
    return {
        "voices.update": (
            {"voice_id": "nobody", "name": "Eve"},
            {
                "voice_id": (UNKNOWN + VERSIONS, NO_VOICE),
                "name": (NOT_TEXT | NULL | BAD_NAMES, INVALID),
                "description": (NOT_TEXT | NULL | PROSE, INVALID),
                "language": (LANGUAGES, NO_LANGUAGE),
                "gender": (GENDERS, INVALID),
                "accent": (NOT_TEXT | BAD_NAMES, INVALID),
                "tags": (TRUTHS | OBJECTS | NULL | TAGS, INVALID),
                "user_id": (NOT_TEXT | BAD_NAMES, INVALID),
                "consent": (NOT_TEXT | BAD_NAMES | {"long": LONG * 10}, INVALID),
                "tenant_id": (("someone",), INVALID),
                "version": ((1,), INVALID),
            },
        ),
        "voices.share": (
            {"voice_id": "nobody", "tenant_id": "someone"},
            {
                "voice_id": (UNKNOWN + VERSIONS, NO_VOICE),
                "tenant_id": (NOT_TEXT | NULL | BAD_NAMES, INVALID),
                "name": (("Eve",), INVALID),
            },
        ),
        "voices.unshare": (
            {"voice_id": "nobody", "tenant_id": "someone"},
            {"voice_id": (UNKNOWN + VERSIONS, NO_VOICE), "tenant_id": (NOT_TEXT | NULL | BAD_NAMES, INVALID)},
        ),
        "voices.list": (
            {},
            {
                "limit": (LIMITS, INVALID),
                "cursor": (CURSORS, INVALID),
                "include_shared": (NOT_BOOL, INVALID),
                "language": (LANGUAGES, NO_LANGUAGE),
                "user_id": (NOT_TEXT | BAD_NAMES, INVALID),
                "tag": (NOT_TEXT | BAD_NAMES, INVALID),
                "persona_id": (NOT_TEXT | BAD_NAMES, INVALID),
            },
        ),
    }
