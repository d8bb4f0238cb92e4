"""A stranger's URL becomes bytes, or a refusal, within a time and a size that hold whatever the server does."""

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Protocol

from tts_core.errors import Overloaded, ReferenceBlocked, ReferenceRefused, ReferenceTooLarge, ReferenceUnreachable

MAX_FETCHES = 32
"""Downloads under way in one process, those given up by their caller included; each has a thread of its own."""

READ_TIMEOUT_S = 10.0
"""Longest silence of a server: a thread outlives its caller's deadline by this at most."""

CHUNK_BYTES = 64 * 1024

THREAD_NAME = "fetch-reference"


class Response(Protocol):
    """What is used of a `requests.Response` opened with stream=True."""

    status_code: int

    def iter_content(self, chunk_size: int) -> Iterator[bytes]: ...

    def close(self) -> None: ...


class OpenUrl(Protocol):
    """RunPod's `safe_get`: follows redirects, and refuses every hop that is not http(s) to a public address.

    raises  a ValueError for what it refuses, an OSError where the network fails
    """

    def __call__(self, url: str, *, stream: bool, timeout: float, max_bytes: int) -> Response: ...


async def fetch(url: str, *, open_url: OpenUrl, timeout_s: float, max_bytes: int) -> bytes:
    """The body behind a URL.

    timeout_s  for all of it: name look-up, redirects, headers, body
    raises     ReferenceBlocked, ReferenceUnreachable, ReferenceTooLarge; none of them repeats the URL,
               whose query may be a password. Overloaded if too many fetches are under way
    """
    if sum(thread.name == THREAD_NAME for thread in threading.enumerate()) >= MAX_FETCHES:
        raise Overloaded(f"{MAX_FETCHES} reference downloads are under way; try again")
    deadline_s = time.monotonic() + timeout_s

    def download() -> bytes:
        with _told_as_refusals(timeout_s), _Deadline(deadline_s):
            return _download(url, open_url=open_url, timeout_s=timeout_s, max_bytes=max_bytes)

    try:
        return await asyncio.wait_for(_in_a_thread(download), timeout_s)
    except TimeoutError:
        raise _too_late(timeout_s) from None


def _download(url: str, *, open_url: OpenUrl, timeout_s: float, max_bytes: int) -> bytes:
    # No limit for open_url: it would refuse a large body with the error it has for blocked addresses.
    response = open_url(url, stream=True, timeout=min(timeout_s, READ_TIMEOUT_S), max_bytes=sys.maxsize)
    try:
        if response.status_code != 200:
            raise ReferenceUnreachable(f"reference_audio_url answered with status {response.status_code}, not 200")
        body = bytearray()
        for chunk in response.iter_content(CHUNK_BYTES):
            body += chunk
            if len(body) > max_bytes:
                raise ReferenceTooLarge(f"reference_audio_url has more than the {max_bytes:,} bytes accepted")
        return bytes(body)
    finally:
        response.close()


@contextmanager
def _told_as_refusals(timeout_s: float) -> Iterator[None]:
    """Foreign errors as ours, without their text and cause: both hold the URL."""
    try:
        yield
    except _DeadlinePassed:
        raise _too_late(timeout_s) from None
    except OSError as exc:
        # Some of requests' errors are both: a URL that cannot be parsed, also after a redirect.
        raise (_blocked() if isinstance(exc, ValueError) else _unreachable()) from None
    except ValueError as exc:
        raise (_unreachable() if isinstance(exc.__cause__, OSError) else _blocked()) from None


def _blocked() -> ReferenceRefused:
    return ReferenceBlocked(
        "reference_audio_url must be http or https and lead, redirects included, to a public address"
    )


def _unreachable() -> ReferenceRefused:
    return ReferenceUnreachable("reference_audio_url could not be read: no such host, or the connection failed")


def _too_late(timeout_s: float) -> ReferenceRefused:
    return ReferenceUnreachable(f"reference_audio_url did not deliver its file within {timeout_s:g} s")


class _DeadlinePassed(BaseException):
    """Not an Exception: the network libraries would take it for a lost connection and try the next address."""


class _Deadline:
    """Ends the thread it is entered in at the first call or return of anything after the deadline.

    A timeout of sockets is per read, so a server that drips header bytes holds a thread for as long as it likes.
    The interpreter tells a profiler of every call, and each of those reads is one.
    """

    def __init__(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s

    def __enter__(self) -> None:
        sys.setprofile(self._check)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _check(self, _frame: FrameType, _event: str, _arg: Any) -> None:
        if time.monotonic() > self._deadline_s:
            sys.setprofile(None)  # what cleans up on the way out may take its calls
            raise _DeadlinePassed


async def _in_a_thread(work: Callable[[], bytes]) -> bytes:
    """A thread of its own: asyncio's executor is shared, and a stuck download would starve the others."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[bytes] = loop.create_future()

    def run() -> None:
        try:
            result = work()
        except Exception as exc:  # noqa: BLE001  root of the thread: the caller gets it, whatever it is
            _tell(loop, done.set_exception, exc)
        else:
            _tell(loop, done.set_result, result)

    threading.Thread(target=run, name=THREAD_NAME, daemon=True).start()
    return await done


def _tell(loop: asyncio.AbstractEventLoop, settle: Callable[[Any], None], value: object) -> None:
    def unless_given_up() -> None:
        with suppress(asyncio.InvalidStateError):
            settle(value)

    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(unless_given_up)
