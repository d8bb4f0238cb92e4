"""RunPod's edge and nothing else: the handler, and `main`, which builds the worker and wires everything.

python handler.py                       on RunPod: take jobs; elsewhere: run test_input.json
python handler.py --job FILE|-          run one job here
python handler.py tenants create NAME   make a tenant and print its key, once; also list, rotate, disable, delete
python handler.py schema                print the JSON Schema of a job's input
"""

import asyncio
import logging
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress

from storage import open_store
from tts_core import cli
from tts_core.audio.fetch import fetch
from tts_core.errors import StartupError, TTSError
from tts_core.jobs import JsonObject
from tts_core.service import Service
from tts_core.settings import Settings
from tts_core.speech import SpeechEngine

log = logging.getLogger("xtts-worker")

Handler = Callable[[JsonObject], AsyncGenerator[JsonObject]]


def make_handler(service: Service) -> Handler:
    """The async generator RunPod calls with each job. The SDK looks at the function itself, so it stays bare."""
    closing_task: list[asyncio.Task[None]] = []

    async def handler(job: JsonObject) -> AsyncGenerator[JsonObject]:
        if not closing_task:
            closing_task.append(asyncio.create_task(_close_with_loop(service)))
        async with aclosing(service.answer(job.get("input"), job_id=str(job["id"]))) as events:
            async for event in events:
                yield event

    return handler


def make_broken_handler(error: TTSError) -> Handler:
    """Answers every job with the reason why this worker cannot work: a crash would be restarted for ever."""

    async def handler(job: JsonObject) -> AsyncGenerator[JsonObject]:
        yield {"error": error.to_wire(str(job["id"]))}

    return handler


async def _close_with_loop(service: Service) -> None:
    # The SDK has no shutdown hook; asyncio.run cancels this task when the SDK's loop has drained.
    with suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    await service.close()


def choose_engine(settings: Settings) -> SpeechEngine:
    """XTTS where weights are found, eSpeak where none are; on RunPod never the one instead of the other.

    raises  StartupError with what to do about it
    """
    from tts_core.xtts import weights

    folder = None if settings.engine == "espeak" else weights.find(settings.model_path)
    if folder is not None:
        weights.require_licence(folder, agreed=settings.coqui_tos_agreed)
        try:
            from tts_core.xtts.engine import XttsEngine
        except ImportError as exc:
            raise StartupError(f"XTTS needs a package that is not installed, {exc.name!r}: install .[xtts]") from exc
        return XttsEngine(folder, device=settings.device, precision=settings.precision)
    if settings.engine == "xtts" or (settings.engine == "auto" and settings.on_runpod):
        raise StartupError("no XTTS-v2 weights found: set XTTS_MODEL_PATH, or XTTS_ENGINE=espeak to do without")
    from tts_core.espeak import EspeakEngine

    return EspeakEngine()


def build(settings: Settings, *, engine: SpeechEngine | None = None) -> Service:
    """The worker, wired; the settings choose the engine where none is given. raises StartupError"""
    store = asyncio.run(open_store(settings))
    engine = engine or choose_engine(settings)
    return Service(engine, store, settings=settings, fetch=_fetch_with(settings))


def _fetch_with(settings: Settings) -> Callable[[str], Awaitable[bytes]]:
    async def fetch_clip(url: str) -> bytes:
        # Imported on first use: a local job without a URL need not wait the seconds this takes.
        from runpod.serverless.utils.rp_ssrf import safe_get

        return await fetch(
            url, open_url=safe_get, timeout_s=settings.fetch_timeout_s, max_bytes=settings.max_reference_bytes
        )

    return fetch_clip


def serve(handler: Handler, *, concurrency: int) -> None:
    """Take jobs from RunPod until told to stop; returns when all that were taken are answered."""
    import runpod

    # A constant: any change makes the SDK drain all running jobs before it takes another.
    runpod.serverless.start(
        {
            "handler": handler,
            "concurrency_modifier": lambda _: concurrency,
            "return_aggregate_stream": True,
        }
    )


def main(argv: Sequence[str], env: Mapping[str, str]) -> int:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log every address it asks
    if argv or not env.get("RUNPOD_WEBHOOK_GET_JOB"):
        on_runpod = bool(env.get("RUNPOD_WEBHOOK_GET_JOB"))
        return cli.main(argv, lambda: build(Settings.from_env(env)), make_handler, fill_key=not on_runpod)
    handler, concurrency = _worker(env)
    serve(handler, concurrency=concurrency)
    return 0


def _worker(env: Mapping[str, str]) -> tuple[Handler, int]:
    try:
        settings = Settings.from_env(env)
        return make_handler(build(settings)), settings.concurrency
    except TTSError as error:
        log.error("startup_error: %s", error)
        return make_broken_handler(StartupError(str(error))), 1


if __name__ == "__main__":
    os.environ.setdefault("RUNPOD_LOG_LEVEL", "INFO")  # the SDK's own default prints audio and texts
    sys.exit(main(sys.argv[1:], os.environ))
