"""The kinds of value that fields of a request hold, each with its limits."""

import json
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, StringConstraints

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
