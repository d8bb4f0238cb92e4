"""The wire of `synthesize`."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from tts_core.errors import NotSupported
from tts_core.jobs.base import Request, WithReference
from tts_core.jobs.fields import LanguageTag, Metadata, Name, Text
from tts_core.types import AudioFormat, Sampling


class Synthesize(WithReference):
    """Speak a text."""

    scope = "synthesize"

    action: Literal["synthesize"] = "synthesize"
    text: Text
    ssml: bool = False
    language: LanguageTag = "auto"
    voice_id: Name | None = None
    persona_id: Text | None = None
    user_id: Text | None = None
    streaming: bool = False
    output: Literal["auto", "inline", "url"] = "auto"
    format: AudioFormat = "wav"
    sample_rate: int | None = None
    """In Hz; null: 24000, or 8000 for ulaw and alaw."""
    speed: float = Field(default=1.0, ge=0.5, le=2.0)
    temperature: float = Field(default=0.75, ge=0.05, le=2.0)
    top_k: int = Field(default=50, ge=1, le=1000)
    top_p: float = Field(default=0.85, gt=0.0, le=1.0)
    repetition_penalty: float = Field(default=10.0, ge=1.0, le=50.0)
    seed: int = Field(default=0, ge=0, lt=2**32)
    include_alignments: bool = False
    cache: Literal["use", "refresh", "bypass"] = "use"
    progress: bool = False
    metadata: Metadata = Field(default_factory=dict)

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.temperature, self.top_k, self.top_p, self.repetition_penalty, self.seed)

    @property
    def input_chars(self) -> int:
        return len(self.text)

    @property
    def is_streamed(self) -> bool:
        return self.streaming

    @property
    def named_voice_id(self) -> str | None:
        return self.voice_id

    def refuse_the_future(self) -> None:
        wanted = {
            "ssml": self.ssml,
            "persona_id": self.persona_id is not None,
            "user_id": self.user_id is not None,
            "cache": self.cache == "refresh",
        }
        for field, is_wanted in wanted.items():
            if is_wanted:
                raise NotSupported(f"{field}: this version does not do that yet")


ACTIONS: Mapping[str, type[Request]] = {"synthesize": Synthesize}
