"""The body of the Store that the settings ask for."""

import time
from collections.abc import Callable

from storage.local import open_local
from tts_core.errors import StartupError
from tts_core.settings import Settings
from tts_core.store import Store

__all__ = ["open_store"]


async def open_store(settings: Settings, *, clock: Callable[[], float] = time.time) -> Store:
    """raises  StartupError on RunPod unless XTTS_STORE=local asks for a store that dies with its worker"""
    if settings.on_runpod and settings.store == "auto":
        raise StartupError("no store is configured: set XTTS_STORE=local to keep keys and usage on the worker's disk")
    return await open_local(settings.data_dir, clock=clock)
