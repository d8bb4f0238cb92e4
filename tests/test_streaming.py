"""True streaming, not slicing: with the model held after twelve codes, the first chunk has already left the handler."""

import asyncio
import subprocess
import sys
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


SERVE_ONE_JOB = """
import asyncio, sys
from pathlib import Path
import handler
from tts_core.settings import Settings

async def main(service):
    job = {"tenant_key": await service.store.local_key(), "text": "Hello there.", "language": "en"}
    events = [event async for event in handler.make_handler(service)({"id": "1", "input": job})]
    await service.close()
    print(events[-1]["status"], *sorted({"transformers", "TTS.tts.models.xtts"} & set(sys.modules)))

folder = Path(sys.argv[1])
asyncio.run(main(handler.build(Settings(engine="xtts", model_path=folder / "model", data_dir=folder / "data"))))
"""


def test_a_process_that_served_a_job_has_loaded_neither_transformers_nor_coquis_model(tmp_path: Path) -> None:
    build(tmp_path / "model")
    command = [sys.executable, "-c", SERVE_ONE_JOB, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["success"]
