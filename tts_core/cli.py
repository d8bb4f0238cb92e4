"""Local jobs, batches and tenants: the same handler through the same events, on this machine.

The SDK's own --test_input never iterates a generator handler, so it would print an object instead of speaking.
"""

import argparse
import asyncio
import base64
import json
import signal
import sys
import tempfile
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path

from tts_core import cli_batch, cli_tenants
from tts_core.audio.encode import seal
from tts_core.errors import InvalidInput, TTSError
from tts_core.jobs import Handler, JsonObject, json_schema
from tts_core.jobs.files import file_at, with_files
from tts_core.service import Service
from tts_core.store import Store


def main(
    argv: Sequence[str],
    build: Callable[[], Service],
    make_handler: Callable[[Service], Handler],
    *,
    fill_key: bool,
) -> int:
    """Exit status: 0 on success, 1 if the job failed or was stopped, 2 if the command itself was wrong.

    fill_key  a job without a key speaks as this machine's own tenant
    """
    args = _parser().parse_args(argv)
    if args.command == "schema":
        _say(json.dumps(json_schema(), indent=2))
        return 0
    if args.command == "batch":
        return cli_batch.run(args, build, make_handler, fill_key=fill_key)
    try:
        job = None if args.command else _read_job(args.job)
        service = build()
        if job is None:
            return asyncio.run(_tenants(service, args))
        args.out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=args.out).close()  # better now than after everything was spoken
        return asyncio.run(_run(service, make_handler(service), job, sink=_Sink(args.out), fill_key=fill_key))
    except OSError as error:
        _note(f"{args.out}: {error.strerror}")
        return 2
    except TTSError as error:
        _note(f"{error.code}: {error}")
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="handler.py", description="XTTS-v2 worker for RunPod Serverless")
    parser.add_argument("--job", default="test_input.json", help="JSON file of one job, or - for standard input")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the audio")
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("schema", help="print the JSON Schema of a job's input")
    cli_tenants.add_parser(commands)
    cli_batch.add_parser(commands)
    return parser


async def _tenants(service: Service, args: argparse.Namespace) -> int:
    try:
        lines = await args.tenants(service.store, args)
    finally:
        await service.close()
    if any("tenant_key" in line for line in lines):
        _note("the key is shown this once; the store keeps only its hash")
    for line in lines:
        _say(json.dumps(line))
    return 0


async def _run(service: Service, handler: Handler, job: JsonObject, *, sink: "_Sink", fill_key: bool) -> int:
    if fill_key:
        await _fill_key(service.store, job["input"])
    reading = asyncio.create_task(_read(handler(job), sink))
    for stop in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(stop, reading.cancel)
    await asyncio.wait({reading})
    await service.close()  # what was spoken until a signal is in the usage row
    summary = {"status": "cancelled"} if reading.cancelled() else reading.result()
    _say(json.dumps(summary))
    return 0 if summary.get("status") == "success" else 1


async def _read(events: AsyncGenerator[JsonObject], sink: "_Sink") -> JsonObject:
    async with aclosing(events):
        async for event in events:
            await asyncio.to_thread(sink.take, event)
    return await asyncio.to_thread(sink.summary)


async def _fill_key(store: Store, body: object) -> None:
    """A job without a key speaks as this machine's own tenant; on RunPod it would be refused."""
    if isinstance(body, dict) and body.get("action") != "health" and body.get("tenant_key") is None:
        body["tenant_key"] = await store.local_key()


def _read_job(source: str) -> JsonObject:
    """A job as RunPod delivers it, from `{"input": {…}}` or the input alone.

    raises  InvalidInput if the file cannot be read or is not JSON
    """
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
        job = json.loads(text)
    except (OSError, ValueError, RecursionError) as exc:
        raise InvalidInput(f"{source}: {exc}") from exc
    if not isinstance(job, dict) or "input" not in job:
        job = {"input": job}
    base = Path.cwd() if source == "-" else Path(source).parent
    return {"id": f"local-{uuid.uuid4()}", **job, "input": with_files(job["input"], base)}


class _Sink:
    """Writes the audio of one job to a file and remembers its last event."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._chunks: list[bytes] = []
        self._last: JsonObject = {}

    def take(self, event: JsonObject) -> None:
        match event.get("event"):
            case "progress":
                done, total = event["utterances_done"], event["utterances_total"]
                _note(f"{done}/{total} utterances, {event['audio_seconds']:.1f} s of audio")
            case "audio":
                self._chunks.append(_audio_of(event))
            case _:
                self._last = event

    def summary(self) -> JsonObject:
        """The result without its audio, and where that was written."""
        last = self._last
        if "error" in last:
            return {"status": "failed", "error": json.loads(last["error"])}
        audio = b"".join(self._chunks) or _audio_of(last)
        told = {k: v for k, v in last.items() if k not in ("audio_base64", "alignments")}
        if audio:
            told["audio_path"] = str(self._write(audio, last))
        if last.get("alignments"):
            path = self._out / f"{last['request_id']}.alignments.json"
            path.write_text(json.dumps(last["alignments"], ensure_ascii=False), encoding="utf-8")
            told["alignments_path"] = str(path)
        return told

    def _write(self, audio: bytes, result: JsonObject) -> Path:
        path = self._out / f"{result['request_id']}.{result['format']}"
        part = path.with_name(f".{path.name}.part")
        try:
            part.write_bytes(audio)
            with part.open("r+b") as file:
                seal(file, result["format"])  # a stream's header cannot know its size
            return part.replace(path)
        finally:
            part.unlink(missing_ok=True)  # where the disk is full; else it has its name


def _audio_of(event: JsonObject) -> bytes:
    if encoded := event.get("audio_base64"):
        return base64.b64decode(encoded)
    path = file_at(event.get("audio_url") or "")
    return b"" if path is None else path.read_bytes()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


def _note(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
