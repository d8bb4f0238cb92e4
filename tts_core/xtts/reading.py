"""An utterance as XTTS-v2 reads it: coqui's own spelling-out of numbers and signs, and what to do where that fails."""

import asyncio
import importlib.metadata
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from tts_core.errors import TextTooLong
from tts_core.types import Language

if TYPE_CHECKING:
    from TTS.tts.layers.xtts.tokenizer import VoiceBpeTokenizer

MAX_TEXT_IDS = 401
"""One less than the model's text positions. Source: coqui's own check."""

UNREADABLE = (NotImplementedError, ArithmeticError, LookupError, ValueError, RecursionError)
"""What num2words raises: for every number in Hindi, for Czech ordinals ("1989." ends a sentence so), beyond 1e33."""

HINDI_DIGITS = ("शून्य", "एक", "दो", "तीन", "चार", "पाँच", "छह", "सात", "आठ", "नौ")
HINDI_POINT = "दशमलव"

SPACE = re.compile(r"\s+")
OUTSIDE_NUMBERS = re.compile(r"(?<![\d.,$£€%])|(?![\d.,$£€%])")
BETWEEN_DIGITS = re.compile(r"(?<=[0-9])(?=[0-9])")


@dataclass(frozen=True, slots=True)
class Reading:
    """
    text      as it was given, without white space around it
    text_ids  what goes into the GPT, without start and stop
    chars     length of the text as it was read: numbers as words; Chinese, Japanese and Korean in Latin letters
    """

    text: str
    text_ids: list[int]
    chars: int


class Reader:
    """A thread that reads: it takes milliseconds, and is not thread-safe in every language."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Returns at once; the thread gets ready while weights are loaded."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="xtts-reader")
        self._tokenizer = self._thread.submit(coqui_tokenizer, tokenizer)

    def read(self, text: str, language: Language) -> Reading:
        """See `read`; waits for it."""
        return self._thread.submit(read, self._tokenizer.result(), text, language).result()

    async def read_parts(self, text: str, language: Language) -> list[Reading]:
        """See `read_parts`."""
        tokenizer = self._tokenizer.result()
        return await asyncio.wrap_future(self._thread.submit(read_parts, tokenizer, text, language))

    def close(self) -> None:
        self._thread.shutdown()


def coqui_tokenizer(tokenizer: Tokenizer) -> "VoiceBpeTokenizer":
    """coqui's own, over the model's vocabulary."""
    with _unscanned():  # here, not above: even so it takes a tenth of a second
        from TTS.tts.layers.xtts.tokenizer import VoiceBpeTokenizer

    wrapped = VoiceBpeTokenizer()
    wrapped.tokenizer = tokenizer
    return wrapped


@contextmanager
def _unscanned() -> Iterator[None]:
    """Spares coqui's package its look at every installed distribution, for one that ours cannot be installed beside.

    It is a quarter of a second of Python, of which the thread that loads the weights beside it would wait for most.
    """
    scan = importlib.metadata.packages_distributions
    importlib.metadata.packages_distributions = dict
    try:
        yield
    finally:
        importlib.metadata.packages_distributions = scan


def read(tokenizer: "VoiceBpeTokenizer", text: str, language: Language) -> Reading:
    """Equal to `tokenizer.encode`, which however puts texts into the log and fails on some numbers.

    raises  TextTooLong if the model has no place for so many text ids
    """
    spelled = _spell(tokenizer, text.strip().lower(), language)
    tag = "zh-cn" if language == "zh" else language
    text_ids = tokenizer.tokenizer.encode(f"[{tag}]{spelled}".replace(" ", "[SPACE]")).ids
    if len(text_ids) > MAX_TEXT_IDS:
        raise TextTooLong(f"an utterance has {len(text_ids)} text ids, the model takes {MAX_TEXT_IDS} at once")
    return Reading(text=text.strip(), text_ids=text_ids, chars=len(spelled))


def read_parts(tokenizer: "VoiceBpeTokenizer", text: str, language: Language) -> list[Reading]:
    """The text as one reading if the model has place for it, else as several: words in order, nothing lost.

    A sentence within the engine's limit of characters can be too long all the same once its numbers are words.
    """
    try:
        return [read(tokenizer, text, language)]
    except TextTooLong:
        halves = _halves(text.strip())
    return [reading for half in halves for reading in read_parts(tokenizer, half, language)]


def _halves(text: str) -> tuple[str, str]:
    """Cut nearest the middle: between words, else not in a number (Chinese has no spaces), else between its digits."""
    by_digits = BETWEEN_DIGITS.sub(" ", text)  # the parts of a number would be read as numbers of their own
    for written, border in ((text, SPACE), (text, OUTSIDE_NUMBERS), (by_digits, SPACE)):
        if places := [match.start() for match in border.finditer(written) if 0 < match.start() < len(written)]:
            cut = min(places, key=lambda place: abs(place - len(written) / 2))
            return written[:cut], written[cut:]
    return text[: len(text) // 2], text[len(text) // 2 :]


def _spell(tokenizer: "VoiceBpeTokenizer", text: str, language: Language) -> str:
    *gentler, last = _forms(text, language)
    for form in gentler:
        try:
            return str(tokenizer.preprocess_text(form, language))
        except UNREADABLE:
            continue
    return str(tokenizer.preprocess_text(last, language))


def _forms(text: str, language: Language) -> Iterator[str]:
    """The text, then ever simpler ways to write its numbers; the last has single digits only."""
    yield text
    yield re.sub(r"([0-9])\.(?=\s|$)", r"\1 .", text)  # "1989." as a number and a full stop
    yield _hindi_digits(text) if language == "hi" else re.sub("[0-9]", r" \g<0> ", text)


def _hindi_digits(text: str) -> str:
    with_points = re.sub(r"(?<=[0-9])\.(?=[0-9])", f" {HINDI_POINT} ", text)
    return re.sub("[0-9]", lambda digit: f" {HINDI_DIGITS[int(digit[0])]} ", with_points)
