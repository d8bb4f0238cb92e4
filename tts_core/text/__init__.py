"""Text in, utterances out: which language it is, whether it can be spoken, and where an engine may breathe."""

from tts_core.text.check import check_script, check_text
from tts_core.text.language import choose_language
from tts_core.text.limits import xtts_char_limit
from tts_core.text.plan import plan

__all__ = ["check_script", "check_text", "choose_language", "plan", "xtts_char_limit"]
