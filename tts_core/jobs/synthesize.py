"""The wire of `synthesize`."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from tts_core.errors import NotSupported
from tts_core.jobs.base import Request, WithReference
from tts_core.jobs.fields import LanguageTag, Metadata, Name, RowId, Text, VoiceRef
from tts_core.types import AudioFormat, Sampling


class WithManner(Request):
    """Says how something is to be spoken and encoded."""

    ssml: bool = False
    language: LanguageTag = "auto"
    format: AudioFormat = "wav"
    sample_rate: int | None = None
    """In Hz; null: 24000, or 8000 for ulaw and alaw."""
    speed: float = Field(default=1.0, ge=0.5, le=2.0)
    temperature: float = Field(default=0.75, ge=0.05, le=2.0)
    top_k: int = Field(default=50, ge=1, le=1000)
    top_p: float = Field(default=0.85, gt=0.0, le=1.0)
    repetition_penalty: float = Field(default=10.0, ge=1.0, le=50.0)
    seed: int = Field(default=0, ge=0, lt=2**32)

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.temperature, self.top_k, self.top_p, self.repetition_penalty, self.seed)

    def refuse_the_future(self) -> None:
        if self.ssml:
            raise NotSupported("ssml: this version does not do that yet")


class Synthesize(WithReference, WithManner):
    """Speak a text."""

    scope = "synthesize"

    action: Literal["synthesize"] = "synthesize"
    text: Text
    voice_id: Name | None = None
    persona_id: RowId | None = None
    user_id: RowId | None = None
    streaming: bool = False
    output: Literal["auto", "inline", "url"] = "auto"
    keep: bool | None = None
    """Have a job row that `jobs.get` reads; null: where the audio is fetched later, or the text is long."""
    include_alignments: bool = False
    cache: Literal["use", "refresh", "bypass"] = "use"
    """`refresh`: speak, and keep that instead of what was kept; `bypass`: speak, and neither look nor keep."""
    progress: bool = False
    metadata: Metadata = Field(default_factory=dict)

    @property
    def input_chars(self) -> int:
        return len(self.text)

    @property
    def is_streamed(self) -> bool:
        return self.streaming

    @property
    def named_voice_id(self) -> str | None:
        return None if self.voice_id is None else VoiceRef.parse(self.voice_id).id


ACTIONS: Mapping[str, type[Request]] = {"synthesize": Synthesize}
