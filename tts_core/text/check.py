"""What is refused before anything is planned or spoken, and what is spoken with a warning."""

import unicodedata
from collections.abc import Sequence

from tts_core.errors import TextEmpty, TextTooLong, TextUnspeakable
from tts_core.types import Warn

SCRIPTS = (
    *("LATIN", "CYRILLIC", "ARABIC", "DEVANAGARI", "CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"),
    *("HANGUL", "FULLWIDTH", "HALFWIDTH", "FEMININE", "MASCULINE", "MICRO"),
)
"""How the names of the letters begin that the 17 languages are written with (the last three: ª º µ)."""

MAX_NAMED = 10


def check_text(text: str, *, max_chars: int) -> None:
    """Refuse a text that cannot be spoken.

    raises  TextEmpty (nothing, or white space), TextTooLong (more than `max_chars` characters, white space
            included), TextUnspeakable (no digit, and no letter of a script that the 17 languages are written with)
    """
    if not text or text.isspace():
        raise TextEmpty("text is empty: send at least one word")
    if len(text) > max_chars:
        raise TextTooLong(f"text has {len(text)} characters, at most {max_chars} are accepted: send it in parts")
    if not any(map(_is_spoken, text)):
        raise TextUnspeakable("text has no digit and no letter of a supported language: there is nothing to speak")


def check_script(text: str) -> Sequence[Warn]:
    """A warning that names letters no supported language is written with: they may not be heard."""
    foreign = sorted({character for character in text if character.isalpha() and not _is_spoken(character)})
    if not foreign:
        return ()
    more = f" and {len(foreign) - MAX_NAMED} more" if len(foreign) > MAX_NAMED else ""
    named = " ".join(foreign[:MAX_NAMED])
    message = f"letters that none of the 17 languages is written with may not be heard: {named}{more}"
    return (Warn("letters_not_spoken", message),)


def _is_spoken(character: str) -> bool:
    if character.isalpha():
        return unicodedata.name(character, "").split(" ")[0] in SCRIPTS
    return character.isdecimal()
