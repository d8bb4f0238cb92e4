"""Processes of a test, found by a variable they were started with: none of them may outlive it."""

import asyncio
import os
import signal
import uuid
from contextlib import suppress
from pathlib import Path

MARK = "TEST_PROCESS_FAMILY"


class ProcessesLeft(Exception):
    """A process that is gone has left others behind."""


def new_mark() -> dict[str, str]:
    """Environment for one process and all its descendants."""
    return {MARK: str(uuid.uuid4())}


async def end_family(process: asyncio.subprocess.Process, mark: dict[str, str]) -> None:
    """Kill the process and its group, if it has not left by itself.

    raises  ProcessesLeft if any descendant is alive after that; it is killed too
    """
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    left = [pid for pid in _family(mark) if not await _ends(pid, timeout_s=2.0)]
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if left:
        raise ProcessesLeft(f"process {process.pid} has left {len(left)}")


def _family(mark: dict[str, str]) -> list[int]:
    """One that has ended and is not reaped yet is not found: it has no environment any more."""
    wanted = f"{MARK}={mark[MARK]}".encode()
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if wanted in environ.read_bytes().split(b"\0"):
                found.append(int(environ.parent.name))
    return found


async def _ends(pid: int, *, timeout_s: float) -> bool:
    """Whether a process that is not our child ends in time; a pidfd is readable from its end on."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(pidfd, ended.set)
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await ended.wait()
    asyncio.get_running_loop().remove_reader(pidfd)
    os.close(pidfd)
    return ended.is_set()
