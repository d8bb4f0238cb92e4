"""The port behind which an engine speaks. `handler.main` chooses who stands behind it."""

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from tts_core.errors import TTSError
from tts_core.types import Audience, AudioChunk, BuiltinVoice, Language, Manner, ReferenceClip, Speaker, Utterance

Speak: TypeAlias = Callable[[Utterance, Manner, Audience], AsyncGenerator[AudioChunk]]
"""Speaks one utterance: an engine's `speak`, or what stands in for it."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What is known of an engine before it can speak, and all that a cached answer needs.

    name            "xtts" or "espeak"; every result tells it
    revision        changes whenever the same input could sound different
    sample_rate_hz  of every chunk
    voices          the built-in ones, the default one first
    max_chars       the longest utterance, in characters, that the engine speaks well
    """

    name: str
    revision: str
    sample_rate_hz: int
    voices: tuple[BuiltinVoice, ...]
    max_chars: Callable[[Language], int]


class SpeechEngine(Protocol):
    """Turns one utterance at a time into audio; any number may be in it at once.

    What an `Identity` tells can be read once `known()` has returned; `is_ready`: nothing waits for the engine's start
    """

    @property
    def name(self) -> str: ...

    @property
    def revision(self) -> str: ...

    @property
    def sample_rate_hz(self) -> int: ...

    @property
    def is_ready(self) -> bool: ...

    @property
    def fault(self) -> TTSError | None:
        """Why it will never be ready."""

    async def known(self) -> None:
        """Until it is known which engine it is. raises StartupError, EngineLost if that will never be"""

    async def lost(self) -> None:
        """Until the engine can no longer speak in this process, though it could in another: its device failed."""

    def voices(self) -> Sequence[BuiltinVoice]:
        """The built-in voices, the default one first."""

    def max_chars(self, language: Language) -> int:
        """The longest utterance, in characters, that the engine speaks well."""

    async def clone(self, clips: Sequence[ReferenceClip]) -> Speaker:
        """What the engine needs to know of a voice, from one or more clips of it.

        raises  ReferenceTooShort if the clips together are too short for this engine
        """

    def speak(self, utterance: Utterance, manner: Manner, audience: Audience) -> AsyncGenerator[AudioChunk]:
        """Speak one utterance, chunk by chunk as it is made.

        The same utterance in the same manner gives the same samples, whoever hears it and whatever else is spoken.
        Closing the generator stops the work.

        raises  VoiceNotFound if the built-in speaker is not among `voices()`, Overloaded if too much is waiting
        """

    async def close(self) -> None:
        """Stop all work and free what the engine holds."""
