"""The wire of `health`."""

from collections.abc import Mapping
from typing import Literal

from tts_core.jobs.base import Request


class Health(Request):
    """Is the worker able to speak? Needs no key."""

    action: Literal["health"]


ACTIONS: Mapping[str, type[Request]] = {"health": Health}
