"""The body of the Store that the settings ask for."""

import time
from collections.abc import Callable
from typing import Literal

from storage.local import open_local
from storage.outbox import with_outbox
from tts_core.errors import StartupError
from tts_core.settings import Settings
from tts_core.store import Store

__all__ = ["open_store"]


async def open_store(settings: Settings, *, clock: Callable[[], float] | None = None) -> Store:
    """The configured body; settlements that it does not take wait in the data folder's outbox.

    clock   a test's; None: the machine's for the local store, the database's for Supabase
    raises  StartupError that says what is missing; on RunPod also if nothing is configured, as the local store would
            die with its worker there: XTTS_STORE=local asks for that; StoreUnavailable
    """
    return await with_outbox(await _open_body(settings, clock), settings.data_dir / "outbox")


async def _open_body(settings: Settings, clock: Callable[[], float] | None) -> Store:
    operator_key = bytes.fromhex(settings.bootstrap_key_sha256) if settings.bootstrap_key_sha256 else None
    if _body(settings) == "local":
        return await open_local(settings.data_dir, clock=clock or time.time, operator_key=operator_key)
    from storage.supabase import open_supabase  # here, as its HTTP client takes 0.2 s to import

    assert settings.supabase_url is not None
    assert settings.supabase_service_role_key is not None
    return await open_supabase(
        settings.supabase_url,
        settings.supabase_service_role_key.get_secret_value(),
        schema=settings.supabase_schema,
        clock=clock,
        operator_key=operator_key,
    )


def _body(settings: Settings) -> Literal["local", "supabase"]:
    if settings.store == "local":
        return "local"
    needed = {
        "SUPABASE_URL": settings.supabase_url,
        "SUPABASE_SERVICE_ROLE_KEY": settings.supabase_service_role_key,
    }
    missing = [name for name, value in needed.items() if value is None]
    if not missing:
        return "supabase"
    if settings.store == "supabase" or len(missing) < len(needed):
        raise StartupError(f"Supabase needs {' and '.join(needed)}: {' and '.join(missing)} is not set")
    if settings.on_runpod:
        raise StartupError(
            "no store is configured: set SUPABASE_URL and SUPABASE_SERVICE_ROLE_KEY, "
            "or XTTS_STORE=local to keep keys and usage on the worker's disk"
        )
    return "local"
