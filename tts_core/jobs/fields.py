"""The kinds of value that fields of a request hold, each with its limits."""

import json
import unicodedata
from collections.abc import Mapping
from typing import Annotated, NamedTuple, Self

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, StringConstraints

MAX_METADATA_BYTES = 4096
MAX_METADATA_DEPTH = 8
MAX_CLIPS = 8
MAX_PROSE_CHARS = 20_000


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


def _storable_object(value: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
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


def _storable(value: str) -> str:
    # Postgres has no text with a NUL in it.
    if "\0" in value:
        raise ValueError("holds a NUL character")
    return _encodable(value)


def _printable(value: str) -> str:
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in value):
        raise ValueError("holds a control character or a lone surrogate")
    return value


Text = Annotated[str, AfterValidator(_encodable)]
Prose = Annotated[str, Field(max_length=MAX_PROSE_CHARS), AfterValidator(_storable)]
"""Kept as it was sent."""
RowId = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,200}$")]
ForeignId = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_printable)]
Email = Annotated[str, StringConstraints(pattern=r"^[^@\s\x00-\x1f\x7f]+@[^@\s\x00-\x1f\x7f]+$", max_length=254)]
Uuid = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), AfterValidator(_storable)]
Statement = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000), AfterValidator(_storable)
]
Words = Annotated[str, StringConstraints(max_length=2000), AfterValidator(_storable)]
Label = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=50), AfterValidator(_storable)]
LanguageTag = Annotated[str, StringConstraints(min_length=1, max_length=20)]
Clips = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_one_or_more), Field(max_length=MAX_CLIPS)
]
Metadata = Annotated[dict[str, JsonValue], BeforeValidator(_shallow), AfterValidator(_storable_object)]


class VoiceRef(NamedTuple):
    """A voice, and which of its versions; None: the newest."""

    id: str
    version: int | None = None

    @classmethod
    def parse(cls, voice_id: str) -> Self:
        """`id` or `id@2`. What is neither is an id, of no voice."""
        name, at, number = voice_id.rpartition("@")
        is_version = at and number.isascii() and number.isdigit() and len(number) < 7 and number[0] != "0"
        return cls(name, int(number)) if is_version else cls(voice_id)
