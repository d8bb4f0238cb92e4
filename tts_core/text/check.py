"""What is refused before anything is planned or spoken, and what is spoken with a warning."""

import unicodedata
from collections.abc import Sequence

from tts_core.errors import TextEmpty, TextTooLong, TextUnspeakable
from tts_core.types import Language, Warn

SCRIPTS = (
    *("LATIN", "CYRILLIC", "ARABIC", "DEVANAGARI", "CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"),
    *("HANGUL", "FULLWIDTH", "HALFWIDTH", "FEMININE", "MASCULINE", "MICRO"),
)
"""How the names of the letters begin that the 17 languages are written with (the last three: ª º µ)."""

DIGITS: dict[Language, tuple[str, ...]] = {"ar": ("ARABIC-INDIC", "EXTENDED"), "hi": ("DEVANAGARI",)}
"""How the names of the digits begin that are read in one language only; 0 to 9 are read in all."""

MAX_NAMED = 10


def check_text(text: str, *, max_chars: int) -> None:
    """Refuse a text that cannot be spoken in any language.

    raises  TextEmpty (nothing, or white space), TextTooLong (more than `max_chars` characters, white space
            included), TextUnspeakable (not one letter or digit of any script: only signs, emoji, control characters)
    """
    if not text or text.isspace():
        raise TextEmpty("text is empty: send at least one word")
    if len(text) > max_chars:
        raise TextTooLong(f"text has {len(text)} characters, at most {max_chars} are accepted: send it in parts")
    if not any(map(str.isalnum, text)):
        raise TextUnspeakable("text has no letter or digit: there is nothing to speak")


def check_script(text: str, *, language: Language) -> Sequence[Warn]:
    """A warning that names the letters and digits that may not be heard.

    raises  TextUnspeakable if there are no others
    """
    if not any(_is_spoken(character, language) for character in text):
        raise TextUnspeakable(f"text has no letter or digit that is read in {language!r}: there is nothing to speak")
    foreign = sorted({one for one in text if one.isalnum() and not _is_spoken(one, language)})
    if not foreign:
        return ()
    more = f" and {len(foreign) - MAX_NAMED} more" if len(foreign) > MAX_NAMED else ""
    return (Warn("letters_not_spoken", f"these may not be heard: {' '.join(foreign[:MAX_NAMED])}{more}"),)


def _is_spoken(character: str, language: Language) -> bool:
    if character.isascii():
        return character.isalnum()
    script = unicodedata.name(character, "").split(" ")[0]
    if character.isalpha():
        return script in SCRIPTS
    return character.isdecimal() and (script == "FULLWIDTH" or script in DIGITS.get(language, ()))
