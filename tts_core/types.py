"""The nouns every layer shares. Units end names; numpy float32 crosses every border inside the worker."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
"""Audio or model conditioning; audio is mono, -1..1."""

Language = Literal["en", "es", "fr", "de", "it", "pt", "pl", "tr", "ru", "nl", "cs", "ar", "zh", "hu", "ko", "ja", "hi"]
"""The 17 languages XTTS-v2 was trained on. Source: the tokenizer's language tags; `zh-cn` is spelled `zh` here."""

AudioFormat = Literal["wav", "pcm", "mp3", "opus", "flac", "aac", "ulaw", "alaw"]


@dataclass(frozen=True, slots=True)
class Utterance:
    """One sentence (or a part of one too long for the model) as the engine reads it.

    start, end  the span of the caller's text it came from, in characters
    pause_s     silence that follows it in the stream
    """

    text: str
    start: int
    end: int
    pause_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Sampling:
    """How codes are drawn. Source of the defaults: DESIGN section 3; an engine without sampling ignores them."""

    temperature: float = 0.75
    top_k: int = 50
    top_p: float = 0.85
    repetition_penalty: float = 10.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Audience:
    """Who hears an utterance: whose turn it uses up, and when silence would fall.

    due_s  `time.monotonic()` by which its first sample is needed; inf where nobody listens along
    """

    tenant: str = ""
    due_s: float = math.inf


@dataclass(frozen=True, slots=True, eq=False)
class Speaker:
    """Who speaks, in the terms of one engine: a built-in voice by name, or what was computed from clips.

    builtin       the engine's own name of the voice, or None for a cloned one
    conditioning  named float32 arrays (XTTS: gpt_latents [32, 1024], speaker_embedding [512])
    """

    builtin: str | None = None
    conditioning: Mapping[str, FloatArray] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Manner:
    """How an utterance is spoken; all of a stream are spoken alike."""

    speaker: Speaker
    language: Language
    speed: float = 1.0
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(frozen=True, slots=True)
class BuiltinVoice:
    """A voice the engine brings along."""

    id: str
    name: str
    gender: Literal["female", "male", "neutral"] = "neutral"
    languages: tuple[Language, ...] = ()
    """Empty: all of them."""


@dataclass(frozen=True, slots=True)
class WordTiming:
    """When a word sounds: seconds from the start of its utterance, characters within the utterance's text."""

    start_s: float
    end_s: float
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Quality:
    """What an engine thinks of an utterance it has spoken.

    verdict  "ok", or what was wrong with the take that was kept
    retries  takes that were thrown away
    """

    verdict: str
    retries: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class AudioChunk:
    """Speech as it leaves an engine.

    samples  [n] float32 mono at the engine's `sample_rate_hz`; n >= 0
    words    words known to have ended by now and not told before
    quality  of the utterance, on its last chunk, from engines that judge themselves
    """

    samples: FloatArray
    words: tuple[WordTiming, ...] = ()
    quality: Quality | None = None


@dataclass(frozen=True, slots=True)
class ClipReport:
    """What was measured on a reference clip, over all of it unless said otherwise.

    duration_s       length after decoding
    speech_s         length of the parts within 30 dB of the clip's loud level
    peak             largest absolute sample, 0..1
    clipped_ratio    share of samples inside runs of three or more at the clip's own peak, 0..1
    snr_db           loud level over quiet level; saturates near 32 dB on clips without silence
    loudness_dbfs    RMS of the speech parts
    bandwidth_hz     frequency below which 99 % of the energy lies
    """

    duration_s: float
    speech_s: float
    peak: float
    clipped_ratio: float
    snr_db: float
    loudness_dbfs: float
    bandwidth_hz: float


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceClip:
    """A checked voice reference.

    samples       [n] float32 mono at `sample_rate_hz`
    content_type  of the file it came in: `audio/...`, or `video/...` if it was the sound track of a video
    """

    samples: FloatArray
    sample_rate_hz: int
    report: ClipReport
    content_type: str = "audio/wav"


@dataclass(frozen=True, slots=True)
class Warn:
    """Something the caller should know about a result that is good all the same; `code` is API."""

    code: str
    message: str
