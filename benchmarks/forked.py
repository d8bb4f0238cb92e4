"""Workers that start in a moment: `handler.main` in forks of a process that has imported what every worker does.

A start of `python handler.py` is two to three seconds of imports, each time the same; from there on nothing differs.

`python -m benchmarks.forked` is that process: for each line of its standard input, `[environment, path of a log]`, it
starts a worker in a session of its own and prints its process id. It ends with its standard input; they do not.
"""

import asyncio
import importlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

IMPORTED = ("handler", "storage.supabase", "tts_core.espeak", "aiohttp", "aiohttp_retry", "boto3", "fastapi")
"""Not `runpod` itself, which reads its environment when it is imported."""


@dataclass(frozen=True, slots=True)
class Forked:
    """A running worker. `slay` is as the end of a container: its helpers die with it."""

    pid: int
    pidfd: int

    def slay(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    async def ended(self) -> None:
        """It is not our child: a pidfd is readable from its end on."""
        over, loop = asyncio.Event(), asyncio.get_running_loop()
        loop.add_reader(self.pidfd, over.set)
        await over.wait()
        loop.remove_reader(self.pidfd)


class Nursery:
    """Where they come from. One process for all; it is running while its context is open."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._turn = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator["Nursery"]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.forked", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        yield cls(process)
        await process.communicate(b"")  # which closes its input

    @asynccontextmanager
    async def worker(self, env: Mapping[str, str], log_path: Path) -> AsyncIterator[Forked]:
        """A worker with this environment and no other; at the end it is not alive."""
        pid = await self._fork(env, log_path)
        running = Forked(pid, os.pidfd_open(pid))
        try:
            yield running
        finally:
            running.slay()
            await running.ended()
            os.close(running.pidfd)

    async def _fork(self, env: Mapping[str, str], log_path: Path) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        async with self._turn:
            self._process.stdin.write(json.dumps([dict(env), str(log_path)]).encode() + b"\n")
            return int(await self._process.stdout.readline())


def main() -> None:
    for name in IMPORTED:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody here asks how they ended
    for line in sys.stdin:
        env, log_path = json.loads(line)
        begun, begins = os.pipe()
        if (pid := os.fork()) == 0:
            os.setsid()
            os.close(begins)
            _work(env, log_path)
        os.close(begins)
        os.read(begun, 1)  # its end: the session is there, so that it can be killed
        os.close(begun)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


def _work(env: dict[str, str], log_path: str) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    nothing, log = os.open(os.devnull, os.O_RDONLY), os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream, target in enumerate((nothing, log, log)):
        os.dup2(target, stream)
    os.environ.clear()
    os.environ.update(env)

    import handler

    sys.exit(handler.main([], os.environ))


if __name__ == "__main__":
    main()
