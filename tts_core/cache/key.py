"""What a take is kept under: a hash of everything that can change a sample of it."""

import hashlib
import json
from dataclasses import asdict, dataclass

from tts_core.audio.encode import REVISION as ENCODER_REVISION
from tts_core.text import REVISION as TEXT_REVISION
from tts_core.types import AudioFormat, Language, Sampling


@dataclass(frozen=True, slots=True)
class Resolved:
    """A request in the words that decide how it sounds, after all defaults and names were looked up.

    text             as it was sent: alignments point into it
    voice            names a voice of the engine, one version of a saved one, or the very clips of a cloned one
    rate_hz          of the encoded audio
    engine_revision  of model, precision and all else the engine does
    """

    text: str
    ssml: bool
    language: Language
    voice: str
    speed: float
    sampling: Sampling
    format: AudioFormat
    rate_hz: int
    engine: str
    engine_revision: str

    @property
    def content_hash(self) -> str:
        """sha256 of the canonical JSON, with the revisions of what cuts texts and encodes speech; 64 hex digits."""
        decisive = asdict(self) | {"text_revision": TEXT_REVISION, "encoder_revision": ENCODER_REVISION}
        canonical = json.dumps(decisive, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()
