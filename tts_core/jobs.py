"""The wire: JSON in, typed requests out. What a job may say is here and nowhere else (DESIGN section 3).

Every model is strict (no "1" for 1, no true for 1), refuses unknown fields and non-finite numbers, and never
repeats a value in an error: values can be secrets, texts or megabytes.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from tts_core.errors import InvalidInput, NotSupported
from tts_core.store import Scope
from tts_core.types import AudioFormat, Sampling

JsonObject: TypeAlias = dict[str, Any]
"""An event or result on its way to the caller."""

MAX_METADATA_BYTES = 4096
MAX_METADATA_DEPTH = 8
MAX_CLIPS = 8


def _nesting(value: object, depth: int = 0) -> int:
    if depth > MAX_METADATA_DEPTH or not isinstance(value, Mapping | list):
        return depth
    items = value.values() if isinstance(value, Mapping) else value
    return max((_nesting(item, depth + 1) for item in items), default=depth + 1)


def _shallow(value: object) -> object:
    # Before pydantic looks at it: its own recursion guard is far deeper than what is worth storing.
    if _nesting(value) > MAX_METADATA_DEPTH:
        raise ValueError(f"is nested deeper than {MAX_METADATA_DEPTH}")
    return value


def _storable(value: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    try:
        size = len(json.dumps(value, ensure_ascii=False, allow_nan=False).encode())
    except UnicodeEncodeError as exc:
        raise ValueError("holds a lone surrogate") from exc
    if size > MAX_METADATA_BYTES:
        raise ValueError(f"has {size} bytes as JSON, more than {MAX_METADATA_BYTES}")
    return value


def _one_or_more(value: object) -> object:
    """A single clip is a list of one; null is none."""
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list) else (value,)


def _encodable(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        raise ValueError("holds a lone surrogate") from exc
    return value


Text = Annotated[str, AfterValidator(_encodable)]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Statement = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]
LanguageTag = Annotated[str, StringConstraints(min_length=1, max_length=20)]
Clips = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_one_or_more), Field(max_length=MAX_CLIPS)
]
Metadata = Annotated[dict[str, JsonValue], BeforeValidator(_shallow), AfterValidator(_storable)]


class Request(BaseModel):
    """What every action takes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True, allow_inf_nan=False)
    scope: ClassVar[Scope | None] = None

    action: str
    tenant_key: str | None = Field(default=None, max_length=500)
    idempotency_key: str | None = Field(default=None, min_length=1, max_length=200, pattern=r"^[\x21-\x7e]+$")

    def fingerprint(self) -> str:
        """sha256 of what is asked for; the same work under another key or identity has the same one."""
        asked = self.model_dump(mode="json", exclude={"tenant_key", "idempotency_key"})
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


class Health(Request):
    """Is the worker able to speak? Needs no key."""

    action: Literal["health"]


class _WithReference(Request):
    reference_audio_url: Clips = ()
    reference_audio_base64: Clips = ()
    consent: Statement | None = None

    @model_validator(mode="after")
    def _not_too_many(self) -> Self:
        if len(self.reference_audio_url) + len(self.reference_audio_base64) > MAX_CLIPS:
            raise ValueError(f"reference_audio_url and _base64 have more than {MAX_CLIPS} clips together")
        return self

    @property
    def has_reference(self) -> bool:
        return bool(self.reference_audio_url or self.reference_audio_base64)


class Synthesize(_WithReference):
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


class VoicesCreate(_WithReference):
    """Save a voice under the tenant."""

    scope = "voices"

    action: Literal["voices.create"]
    name: Name
    description: str = Field(default="", max_length=2000)
    language: LanguageTag | None = None


class VoicesList(Request):
    """The engine's built-in voices and the tenant's own."""

    scope = "voices"

    action: Literal["voices.list"]


class VoicesGet(Request):
    scope = "voices"

    action: Literal["voices.get"]
    voice_id: Name


class VoicesDelete(Request):
    """Forget a voice and its clips."""

    scope = "voices"

    action: Literal["voices.delete"]
    voice_id: Name


AnyRequest = Synthesize | VoicesCreate | VoicesList | VoicesGet | VoicesDelete | Health
ACTIONS: Mapping[str, type[AnyRequest]] = {
    "synthesize": Synthesize,
    "voices.create": VoicesCreate,
    "voices.list": VoicesList,
    "voices.get": VoicesGet,
    "voices.delete": VoicesDelete,
    "health": Health,
}


def parse(body: object) -> AnyRequest:
    """The `input` of a job as a typed request.

    raises  InvalidInput that names the first fields that are wrong; NotSupported for what a later version does
    """
    if not isinstance(body, dict):
        raise InvalidInput(f"input: must be an object, not {type(body).__name__}")
    action = body.get("action", "synthesize")
    if not isinstance(action, str) or action not in ACTIONS:
        raise InvalidInput(f"action: must be one of {', '.join(ACTIONS)}")
    try:
        request = ACTIONS[action].model_validate(body)
    except ValidationError as exc:
        raise InvalidInput("; ".join(_reason(error["loc"], error["msg"]) for error in exc.errors()[:3])) from exc
    if isinstance(request, Synthesize):
        _refuse_the_future(request)
    return request


def _reason(location: Sequence[int | str], message: str) -> str:
    # Location is caller-made for unknown fields: shortened, and escaped so that it is always valid UTF-8.
    path = ".".join(ascii(part)[1:-1] if isinstance(part, str) else str(part) for part in location) or "input"
    return f"{path[:80]}: {message.removeprefix('Value error, ')}"


def _refuse_the_future(request: Synthesize) -> None:
    wanted = {
        "ssml": request.ssml,
        "persona_id": request.persona_id is not None,
        "user_id": request.user_id is not None,
        "cache": request.cache == "refresh",
    }
    for field, is_wanted in wanted.items():
        if is_wanted:
            raise NotSupported(f"{field}: this version does not do that yet")


def json_schema() -> JsonObject:
    """JSON Schema of every `input` a job may carry."""
    return TypeAdapter(AnyRequest).json_schema()
