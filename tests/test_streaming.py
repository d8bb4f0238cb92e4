"""True streaming, not slicing: with the model held after twelve codes, the first chunk has already left the handler."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

import handler
from storage.local import open_local
from tests.tiny_xtts import build
from tts_core.errors import ReferenceUnreachable
from tts_core.service import Service
from tts_core.settings import Settings
from tts_core.xtts.engine import XttsEngine

HELD_AFTER_CODES = 12


async def no_network(url: str) -> bytes:
    raise ReferenceUnreachable("no network in this test")


@pytest.fixture
async def engine_and_service(tmp_path: Path) -> AsyncIterator[tuple[XttsEngine, Service]]:
    build(tmp_path / "model")
    engine = XttsEngine(tmp_path / "model", device="cpu")
    store = await open_local(tmp_path / "data")
    service = Service(engine, store, settings=Settings(), fetch=no_network)
    yield engine, service
    await service.close()


async def test_the_first_chunk_has_left_the_handler_when_the_model_is_held_after_12_codes(
    engine_and_service: tuple[XttsEngine, Service],
) -> None:
    engine, service = engine_and_service
    released, codes, decode = threading.Event(), 1, engine.gpt.decode

    def hold(*args: Any, **how: Any) -> tuple[Tensor, Tensor]:
        nonlocal codes
        codes += 1  # the prefill has made the first, each step makes one
        if codes > HELD_AFTER_CODES:
            released.wait()
        return decode(*args, **how)

    engine.gpt.decode = hold  # type: ignore[method-assign]
    job = {"tenant_key": await service.store.local_key(), "language": "en", "streaming": True}
    job["text"] = "It was a bright cold day in April, and the clocks were striking thirteen."
    try:
        async with aclosing(handler.make_handler(service)({"id": "1", "input": job})) as events:
            async with asyncio.timeout(60):
                first = await anext(events)
            assert (first["event"], first["seq"], bool(first["audio_base64"])) == ("audio", 0, True)
            assert codes <= HELD_AFTER_CODES + 1
            assert not released.is_set()
            released.set()
            assert [event async for event in events][-1]["event"] == "done"
    finally:
        released.set()
    assert codes > 2 * HELD_AFTER_CODES
