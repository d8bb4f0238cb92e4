"""RunPod's edge and nothing else: the handler, and `main`, which builds the worker and wires everything.

python handler.py                       on RunPod: take jobs; elsewhere: run test_input.json
python handler.py --job FILE|-          run one job here
python handler.py tenants create NAME   make a tenant and print its key, once; also list, rotate, disable, delete
python handler.py schema                print the JSON Schema of a job's input
"""

import asyncio
import logging
import multiprocessing
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager, suppress
from functools import partial
from pathlib import Path

from storage import open_store
from tts_core import cli, logs
from tts_core.audio.fetch import fetch
from tts_core.errors import StartupError, TTSError
from tts_core.jobs import Handler, JsonObject
from tts_core.service import Service
from tts_core.settings import Settings
from tts_core.speech import Identity, SpeechEngine
from tts_core.starting import Start, StartingEngine, StartTimes

log = logging.getLogger("xtts-worker")

ANSWERING_S = 10.0
"""Within which a worker whose engine is lost has told all whose jobs it had taken, or those jobs come again."""

ANSWERING_PAUSE_S = 0.1


def make_handler(service: Service) -> Handler:
    """The async generator RunPod calls with each job. The SDK looks at the function itself, so it stays bare."""

    async def handler(job: JsonObject) -> AsyncGenerator[JsonObject]:
        logs.JOB_ID.set(str(job["id"]))
        async with aclosing(service.answer(job.get("input"), job_id=str(job["id"]))) as events:
            with _closed_with_their_reader(events):
                async for event in events:
                    yield event

    return handler


@contextmanager
def _closed_with_their_reader(events: AsyncGenerator[JsonObject]) -> Iterator[None]:
    """Close them when the task that reads them ends, at a `yield` too.

    The SDK cancels its task mostly while that posts what was yielded, which no generator is told; and keeps the task,
    and with it the generator, until another job comes.
    """
    reader = asyncio.current_task()
    assert reader is not None
    closing: list[asyncio.Task[None]] = []

    def close(_: object) -> None:
        closing.append(asyncio.create_task(_close(events)))

    reader.add_done_callback(close)
    try:
        yield
    finally:
        reader.remove_done_callback(close)


async def _close(events: AsyncGenerator[JsonObject]) -> None:
    await events.aclose()


def make_broken_handler(error: TTSError) -> Handler:
    """Answers every job with the reason why this worker cannot work: a crash would be restarted for ever."""

    async def handler(job: JsonObject) -> AsyncGenerator[JsonObject]:
        yield {"error": error.to_wire(str(job["id"]))}

    return handler


class Caretaker:
    """Looks after a service as long as the SDK's loop runs, which has no hooks for its start and its end.

    But it asks for the concurrency first of all and before it takes a job, and cancels every task once it has drained.
    """

    def __init__(self, service: Service, times: StartTimes | None = None, *, concurrency: int) -> None:
        self._service = service
        self._times = times
        self._concurrency = concurrency
        self._is_lost = False
        self._watch: asyncio.Task[None] | None = None

    def __call__(self, _: int) -> int:
        """A constant: any change makes the SDK drain all running jobs before it takes another, if it takes any.

        Once the engine is lost, just what it has taken, the answers of a poll that was open then included: with less it
        would not begin them, with more it would take others.
        """
        if self._watch is None:
            self._watch = asyncio.create_task(self._until_the_end())
            if self._times is not None:
                self._times.mark("taking_jobs")
        return len(_jobs_taken()) if self._is_lost else self._concurrency

    async def _until_the_end(self) -> None:
        try:
            await self._service.lost()
            log.critical("the engine is lost: another worker has to go on")
            self._is_lost = True
            with suppress(TimeoutError):
                async with asyncio.timeout(ANSWERING_S):
                    while _jobs_taken():  # noqa: ASYNC110  the SDK tells nobody
                        await asyncio.sleep(ANSWERING_PAUSE_S)
        except asyncio.CancelledError:
            await self._service.close()
            return
        try:
            await self._service.close()
        finally:
            for child in multiprocessing.active_children():
                child.kill()  # the SDK's heartbeat, which would go on telling that this worker lives
            os._exit(1)  # now, and not once the SDK's poll returns, which by then might have taken a job


def _jobs_taken() -> Collection[object]:
    """Those of the SDK that it has not posted the result of."""
    from runpod.serverless.modules.worker_state import JobsProgress

    taken: Collection[object] = JobsProgress()
    return taken


def choose_engine(settings: Settings) -> Start:
    """XTTS where weights are found, eSpeak where none are; on RunPod never the one instead of the other.

    raises  StartupError with what to do about it
    """
    from tts_core.xtts import weights

    folder = None if settings.engine == "espeak" else weights.find(settings.model_path)
    if folder is not None:
        weights.require_licence(folder, agreed=settings.coqui_tos_agreed)
        return partial(_start_xtts, settings, folder)
    if settings.engine == "xtts" or (settings.engine == "auto" and settings.on_runpod):
        raise StartupError("no XTTS-v2 weights found: set XTTS_MODEL_PATH, or XTTS_ENGINE=espeak to do without")
    return _start_espeak


def _start_xtts(settings: Settings, folder: Path, announce: Callable[[Identity], None]) -> SpeechEngine:
    try:
        from tts_core.xtts.engine import XttsEngine
    except ImportError as exc:
        if isinstance(exc, ModuleNotFoundError):
            raise StartupError(f"XTTS needs a package that is not installed, {exc.name!r}: install .[xtts]") from exc
        raise StartupError(f"XTTS cannot be imported: {exc}") from exc
    return XttsEngine(folder, device=settings.device, precision=settings.precision, announce=announce)


def _start_espeak(announce: Callable[[Identity], None]) -> SpeechEngine:
    from tts_core.espeak import EspeakEngine

    engine = EspeakEngine()
    announce(engine.identity)
    return engine


def build(settings: Settings, *, engine: SpeechEngine | None = None) -> Service:
    """The worker, wired; the settings choose the engine where none is given, and it is loaded. raises StartupError"""
    store = asyncio.run(open_store(settings))
    engine = engine or choose_engine(settings)(lambda _: None)
    return Service(engine, store, settings=settings, fetch=_fetch_with(settings))


def build_worker(settings: Settings, times: StartTimes) -> Service:
    """As `build`, the engine still being loaded: what needs no speech is answered meanwhile."""
    engine = StartingEngine(choose_engine(settings), times)
    store = asyncio.run(open_store(settings))
    times.mark("store_open")
    return Service(engine, store, settings=settings, fetch=_fetch_with(settings))


def _fetch_with(settings: Settings) -> Callable[[str], Awaitable[bytes]]:
    async def fetch_clip(url: str) -> bytes:
        # Imported on first use: a local job without a URL need not wait the seconds this takes.
        from runpod.serverless.utils.rp_ssrf import safe_get

        return await fetch(
            url, open_url=safe_get, timeout_s=settings.fetch_timeout_s, max_bytes=settings.max_reference_bytes
        )

    return fetch_clip


def serve(handler: Handler, concurrency_modifier: Callable[[int], int]) -> None:
    """Take jobs from RunPod until told to stop; returns when all that were taken are answered."""
    import runpod

    runpod.serverless.start(
        {"handler": handler, "concurrency_modifier": concurrency_modifier, "return_aggregate_stream": True}
    )


def main(argv: Sequence[str], env: Mapping[str, str]) -> int:
    on_runpod = bool(env.get("RUNPOD_WEBHOOK_GET_JOB"))
    logs.set_up(on_runpod=on_runpod and not argv)
    if argv or not on_runpod:
        return cli.main(argv, lambda: build(Settings.from_env(env)), make_handler, fill_key=not on_runpod)
    work(env)
    return 0


def work(env: Mapping[str, str]) -> None:
    """As a worker of RunPod's: a configuration that is wrong is what it answers, see `make_broken_handler`."""
    times = StartTimes()
    try:
        settings = Settings.from_env(env)
        if settings.sentry_dsn is not None:
            logs.report_errors(settings.sentry_dsn.get_secret_value())
        service = build_worker(settings, times)
    except TTSError as error:
        log.error("startup_error: %s", error)
        serve(make_broken_handler(StartupError(str(error))), lambda _: 1)
        return
    serve(make_handler(service), Caretaker(service, times, concurrency=settings.concurrency))


if __name__ == "__main__":
    os.environ.setdefault("RUNPOD_LOG_LEVEL", "INFO")  # the SDK's own default prints audio and texts
    sys.exit(main(sys.argv[1:], os.environ))
