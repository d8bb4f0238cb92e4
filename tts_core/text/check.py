"""What is refused before anything is planned, reserved or spoken."""

from tts_core.errors import TextEmpty, TextTooLong, TextUnspeakable


def check_text(text: str, *, max_chars: int) -> None:
    """Refuse a text that cannot be spoken.

    raises  TextEmpty (nothing, or white space), TextTooLong (more than `max_chars` characters, white space
            included), TextUnspeakable (not one letter or digit of any script: only signs, emoji, control characters)
    """
    if not text or text.isspace():
        raise TextEmpty("text is empty: send at least one word")
    if len(text) > max_chars:
        raise TextTooLong(f"text has {len(text)} characters, at most {max_chars} are accepted: send it in parts")
    if not any(map(str.isalnum, text)):
        raise TextUnspeakable("text has no letter or digit: there is nothing to speak")
