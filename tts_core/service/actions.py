"""What an area of the service offers: one action for each kind of request it answers."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from tts_core.jobs import JsonObject, Request
from tts_core.service.attempt import Attempt

Action = Callable[[Any, Attempt], Awaitable[JsonObject]]
"""Answers a request of the kind it stands for in `Area.actions`, in one piece."""


class Area(Protocol):
    def actions(self) -> Mapping[type[Request], Action]: ...


def now() -> str:
    """UTC, ISO 8601, as rows are dated."""
    return datetime.now(UTC).isoformat(timespec="microseconds")
