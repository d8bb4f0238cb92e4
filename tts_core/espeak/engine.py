"""The embedded engine: eSpeak NG, for machines without XTTS weights and for tests that listen."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from tts_core.errors import Cancelled, VoiceNotFound
from tts_core.espeak.clone import NORMAL_RATE_WPM, measure, rate_wpm_for, variant_for
from tts_core.espeak.kana import KanaReader, reader_version
from tts_core.espeak.library import Block, EspeakLibrary, Setting
from tts_core.espeak.words import SpokenText, WordTimer
from tts_core.speech import Identity
from tts_core.types import Audience, AudioChunk, BuiltinVoice, Language, Manner, ReferenceClip, Speaker, Utterance

OUR_REVISION = 1
"""Goes up with every change of ours that can be heard."""

LANGUAGE_VOICES: dict[Language, str] = {
    "en": "en-us",
    "es": "es",
    "fr": "fr",
    "de": "de",
    "it": "it",
    "pt": "pt-br",
    "pl": "pl",
    "tr": "tr",
    "ru": "ru",
    "nl": "nl",
    "cs": "cs",
    "ar": "ar",
    "zh": "cmn",
    "hu": "hu",
    "ko": "ko",
    "ja": "ja",
    "hi": "hi",
}

VOICES = (
    BuiltinVoice("nova", "Nova", "female"),
    BuiltinVoice("onyx", "Onyx", "male"),
    BuiltinVoice("shimmer", "Shimmer", "female"),
    BuiltinVoice("echo", "Echo", "male"),
    BuiltinVoice("coral", "Coral", "female"),
    BuiltinVoice("ash", "Ash", "male"),
    BuiltinVoice("alloy", "Alloy", "neutral"),
    BuiltinVoice("fable", "Fable", "male"),
)

VARIANTS = {
    "nova": "f3",
    "onyx": "m3",
    "shimmer": "Annie",
    "echo": "m7",
    "coral": "f5",
    "ash": "Alex",
    "alloy": "steph",
    "fable": "m1",
}
"""eSpeak's variants, chosen among those whose peaks stay below full scale."""

RATE_RANGE_WPM = (80, 450)
MAX_CHARS = 1000


class EspeakEngine:
    """A SpeechEngine on a few threads of its own. Sampling does not apply: eSpeak draws nothing.

    raises  StartupError if espeakng-loader or pykakasi is not installed
    """

    name = "espeak"
    is_ready = True
    fault = None

    def __init__(self, *, threads: int = 4) -> None:
        self._library = EspeakLibrary()
        self.revision = f"espeak-ng {self._library.version}, pykakasi {reader_version()}, r{OUR_REVISION}"
        self.sample_rate_hz = self._library.sample_rate_hz
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="espeak")
        self._kana = KanaReader()
        self._kana_thread = ThreadPoolExecutor(1, thread_name_prefix="espeak-kana")
        self._closing = threading.Event()

    @property
    def identity(self) -> Identity:
        return Identity(self.name, self.revision, self.sample_rate_hz, VOICES, self.max_chars)

    async def known(self) -> None:
        """It was, before there was one."""

    async def lost(self) -> None:
        await asyncio.Event().wait()  # there is no device

    def voices(self) -> Sequence[BuiltinVoice]:
        return VOICES

    def max_chars(self, language: Language) -> int:
        return MAX_CHARS

    async def clone(self, clips: Sequence[ReferenceClip]) -> Speaker:
        """Median pitch and pace of the clips; nothing else of a voice can be had from eSpeak.

        raises  ReferenceTooShort if there is less than a second of speech, or none with a pitch
        """
        self._refuse_if_closed()
        return await asyncio.get_running_loop().run_in_executor(self._pool, measure, clips)

    async def speak(self, utterance: Utterance, manner: Manner, audience: Audience) -> AsyncGenerator[AudioChunk]:
        """See SpeechEngine.

        raises  VoiceNotFound if the speaker is not one of this engine; TextUnspeakable if the text brings eSpeak
                down, which may be after a part of it was spoken; Cancelled if the engine is closed meanwhile
        """
        setting = _setting(manner.speaker, language=manner.language, speed=manner.speed)
        self._refuse_if_closed()
        spoken = await self._spoken(utterance.text, manner.language)
        loop = asyncio.get_running_loop()
        chunks: asyncio.Queue[AudioChunk | None] = asyncio.Queue()
        left = threading.Event()

        def post(chunk: AudioChunk | None) -> bool:
            loop.call_soon_threadsafe(chunks.put_nowait, chunk)
            return not (left.is_set() or self._closing.is_set())

        self._refuse_if_closed()
        job = self._pool.submit(self._render, spoken, setting, post)
        try:
            while (chunk := await chunks.get()) is not None:
                yield chunk
            if not await asyncio.wrap_future(job):
                raise Cancelled("the engine was closed while it spoke")
        finally:
            left.set()
            if not job.cancel():
                await asyncio.gather(asyncio.wrap_future(job), return_exceptions=True)

    async def close(self) -> None:
        """Cut short what is being spoken, and wait for the threads."""
        self._closing.set()
        for pool in (self._pool, self._kana_thread):
            await asyncio.to_thread(pool.shutdown)
        await asyncio.to_thread(self._library.close)

    def _refuse_if_closed(self) -> None:
        if self._closing.is_set():
            raise Cancelled("the engine is closed")

    async def _spoken(self, text: str, language: Language) -> SpokenText:
        if language != "ja":
            return SpokenText.of(text)
        return await asyncio.get_running_loop().run_in_executor(self._kana_thread, self._kana.read, text)

    def _render(self, spoken: SpokenText, setting: Setting, post: Callable[[AudioChunk | None], bool]) -> bool:
        """Speak on this thread; True if all of it was spoken. `post(None)` follows in any case."""
        timer = WordTimer(spoken, sample_rate_hz=self.sample_rate_hz)

        def deliver(block: Block) -> bool:
            return post(AudioChunk(block.samples, timer.feed(block)))

        try:
            return self._library.render(spoken.text, setting, deliver=deliver)
        finally:
            post(None)


def _setting(speaker: Speaker, *, language: Language, speed: float) -> Setting:
    """raises VoiceNotFound"""
    voice = LANGUAGE_VOICES[language]
    if speaker.builtin is not None:
        if speaker.builtin not in VARIANTS:
            raise VoiceNotFound(f"eSpeak has no voice {speaker.builtin!r}; it has {', '.join(VARIANTS)}")
        return Setting(f"{voice}+{VARIANTS[speaker.builtin]}", _rate_wpm(NORMAL_RATE_WPM * speed))
    if not {"pitch_hz", "pace_per_s"} <= speaker.conditioning.keys():
        raise VoiceNotFound("this cloned voice was made by another engine")
    pitch_hz, pace_per_s = (float(speaker.conditioning[key][0]) for key in ("pitch_hz", "pace_per_s"))
    variant, pitch = variant_for(pitch_hz, mandarin=language == "zh")
    return Setting(f"{voice}+{variant}", _rate_wpm(rate_wpm_for(pace_per_s) * speed), pitch)


def _rate_wpm(rate_wpm: float) -> int:
    slowest, fastest = RATE_RANGE_WPM
    return round(min(max(rate_wpm, slowest), fastest))
