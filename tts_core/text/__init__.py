"""Text in, utterances out: which language it is, whether it can be spoken, and where an engine may breathe."""

from tts_core.text.check import check_script, check_text
from tts_core.text.language import choose_language
from tts_core.text.limits import xtts_char_limit
from tts_core.text.plan import plan

__all__ = ["REVISION", "check_script", "check_text", "choose_language", "plan", "xtts_char_limit"]

REVISION = "1"
"""Of everything a text goes through before an engine reads it. Whoever changes a plan changes this: cached takes of the
old plans are then not told any more."""
