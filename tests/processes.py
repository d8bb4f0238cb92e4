"""Processes of a test and their descendants: none of them may outlive it."""

import asyncio
import os
import resource
import signal
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MARK = "TEST_PROCESS_FAMILY"


async def until(done: Callable[[], bool]) -> None:
    """Wait for what another process does, within a minute. raises TimeoutError"""
    for _ in range(1200):  # it has no event
        if done():
            return
        await asyncio.sleep(0.05)
    raise TimeoutError


@contextmanager
def room_for(*, bytes: int) -> Iterator[None]:
    """What is written behind that is cut short, and refused then, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


class ProcessesLeft(Exception):
    """A process that is gone has left others behind."""


def new_mark() -> dict[str, str]:
    """Environment for one process and all its descendants."""
    return {MARK: str(uuid.uuid4())}


async def end_family(process: asyncio.subprocess.Process, mark: dict[str, str]) -> None:
    """Kill the process and its group, if it has not left by itself.

    process  started with `mark` and in a session of its own
    raises   ProcessesLeft if any descendant is alive after that; it is killed too. One that has both gone into
             another session and dropped its environment is not found
    """
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    left = [pid for pid in await _family(process.pid, mark) if not await _ends(pid, timeout_s=2.0)]
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if left:
        raise ProcessesLeft(f"process {process.pid} has left {len(left)}")


async def _family(session: int, mark: dict[str, str]) -> list[int]:
    for _ in range(10):
        told = {int(folder.name): _belongs(folder, session, mark) for folder in Path("/proc").glob("[0-9]*")}
        if None not in told.values():
            break
        await asyncio.sleep(0.02)  # there is no event for the end of an exec
    return [pid for pid, belongs in told.items() if belongs]


def _belongs(folder: Path, session: int, mark: dict[str, str]) -> bool | None:
    """None: it is in the middle of an exec, when it has a program but no environment yet."""
    try:
        state, _, _, its_session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
        if state == "Z" or int(its_session) == session:
            return state != "Z"
        environ = (folder / "environ").read_bytes()
        (folder / "exe").readlink()  # a thread of the kernel has none, and no environment either
    except OSError:  # it has ended, or belongs to somebody else
        return False
    return f"{MARK}={mark[MARK]}".encode() in environ.split(b"\0") if environ else None


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
