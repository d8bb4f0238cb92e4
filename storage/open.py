"""Which body of the Store the settings ask for."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from storage.local import open_local
from tts_core.errors import StartupError
from tts_core.settings import Settings
from tts_core.store import Store


@asynccontextmanager
async def open_store(settings: Settings, *, clock: Callable[[], float] = time.time) -> AsyncIterator[Store]:
    """Open the store, and close it at the end.

    raises  StartupError on RunPod, where the local store dies with its worker, unless XTTS_STORE=local asks for it
    """
    if settings.on_runpod and settings.store == "auto":
        raise StartupError(
            "no store is configured; set XTTS_STORE=local to keep keys and usage on the worker's own disk"
        )
    store = await open_local(settings.data_dir, clock=clock)
    try:
        yield store
    finally:
        await store.close()
