"""Strangers' files become checked clips: decoded in child processes, measured and judged here."""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, TypeVar

import numpy as np

from tts_core.audio import decode_child
from tts_core.audio.decode_child import CONTENT_TYPES, MAX_S, NO_TYPE, SAMPLE_RATE_HZ
from tts_core.audio.measure import check, measure
from tts_core.errors import ReferenceNotAudio, ReferenceTooLarge, ReferenceTooLong, StartupError
from tts_core.types import FloatArray, ReferenceClip

CHILD = [sys.executable, "-I", decode_child.__file__]
CHILD_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1"}
"""All of it: no key of ours. Numpy would otherwise start a thread per core, each with 40 MB of address space."""

MAX_HEADER_BYTES = 200
MAX_SAMPLES_BYTES = round((MAX_S + 1) * SAMPLE_RATE_HZ) * 4
"""One second more than is accepted, for what the resampler adds."""

Result = TypeVar("Result")


class ReferenceReader:
    """Strangers' files become checked clips, in warm child processes that hold no secret."""

    def __init__(self, *, max_bytes: int, children: int = 2, timeout_s: float = 10.0) -> None:
        """
        max_bytes  of one file
        children   files looked into at once; more wait
        timeout_s  for one file, from when a child has it
        """
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(children, thread_name_prefix="read-reference")
        self._alive: set[_Child] = set()
        self._idle: asyncio.Queue[_Child | None] = asyncio.Queue()
        for _ in range(children):
            self._idle.put_nowait(None)  # a place whose child has not been started

    async def start(self) -> None:
        """Start the children now, so that the first read need not wait for it (0.3 s).

        raises  StartupError if a child does not get to work: then the installation is broken, not a file
        """
        await asyncio.gather(*(self._probe() for _ in range(self._idle.qsize())))

    async def read(self, data: bytes) -> ReferenceClip:
        """
        data     a sound file, or a video whose sound is wanted, in a container that `decode_child.DEMUXERS` lists
        returns  all of it, mono at 22,050 Hz, neither trimmed nor levelled
        raises   ReferenceTooLarge, ReferenceNotAudio, ReferenceTooLong, ReferenceTooShort, ReferenceSilent,
                 ReferenceClipped, ReferenceNoisy; the message has the value and the limit
        """
        if len(data) > self._max_bytes:
            raise ReferenceTooLarge(f"the clip has {len(data):,} bytes; at most {self._max_bytes:,} are accepted")
        async with self._child() as child:
            try:
                return await self._in_thread(_ask_and_judge, child, data)
            except _ChildFailed as exc:
                raise ReferenceNotAudio(f"the clip cannot be decoded: {exc}") from exc

    async def close(self) -> None:
        """End the children; a read that is under way is refused."""
        for child in list(self._alive):
            self._end(child)
        self._threads.shutdown()

    async def _probe(self) -> None:
        async with self._child() as child:
            try:
                await self._in_thread(_Child.ask, child, b"")
            except _ChildFailed as exc:
                raise StartupError(f"the decoder of reference clips does not work: {exc}") from exc

    async def _in_thread(self, work: "Callable[[_Child, bytes], Result]", child: "_Child", data: bytes) -> Result:
        """For it blocks on the child's pipes. Raises _ChildFailed, and what `work` raises."""
        child.answered = False
        asked = asyncio.get_running_loop().run_in_executor(self._threads, work, child, data)
        try:
            return await asyncio.wait_for(asked, self._timeout_s)
        except TimeoutError as exc:
            raise _ChildFailed(f"it takes longer than {self._timeout_s:g} s") from exc

    @contextlib.asynccontextmanager
    async def _child(self) -> AsyncIterator["_Child"]:
        """A child for one file. One that still owes an answer afterwards is ended, and its place left empty."""
        child = await self._idle.get()
        try:
            if child is not None and not child.running:  # nobody's file has killed it
                self._end(child)
                child = None
            child = child or self._spawn()
            yield child
        finally:
            if child is not None and not child.answered:
                self._end(child)
                child = None
            self._idle.put_nowait(child)

    def _spawn(self) -> "_Child":
        child = _Child()
        self._alive.add(child)
        return child

    def _end(self, child: "_Child") -> None:
        child.end()
        self._alive.discard(child)


class _ChildFailed(Exception):
    """The child died, answered nonsense, or did not answer in time; the message says which."""


@dataclass(frozen=True, slots=True, eq=False)
class _Answer:
    """As `decode_child` tells it."""

    verdict: str
    clipped_ratio: float
    content_type: str
    samples: FloatArray


class _Child:
    """One decoding process. `ask` is for one thread at a time; `end` may be called from another meanwhile.

    answered  whether nothing is owed; whoever hands the child to a thread sets it to False before
    """

    def __init__(self) -> None:
        self.answered = True
        self._process = subprocess.Popen(  # noqa: S603  the interpreter and a file of our own
            CHILD,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=CHILD_ENVIRONMENT,
        )

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def ask(self, data: bytes) -> _Answer:
        """raises _ChildFailed"""
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(len(data).to_bytes(8, "little") + data)
            self._process.stdin.flush()
            header = _frame(self._process.stdout, MAX_HEADER_BYTES)
            samples = _frame(self._process.stdout, MAX_SAMPLES_BYTES)
            answer = _parsed(header, samples)
        except (OSError, ValueError) as exc:
            raise _ChildFailed("the decoder broke off") from exc
        self.answered = True
        return answer

    def end(self) -> None:
        """Kill and bury it: some milliseconds. Its pipes break, so a thread in `ask` comes back with _ChildFailed."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe
            with contextlib.suppress(OSError):  # what it did not read is lost
                pipe.close()


def _frame(pipe: IO[bytes], max_bytes: int) -> bytes:
    length = int.from_bytes(pipe.read(8), "little")
    frame = pipe.read(length) if length <= max_bytes else b""
    if len(frame) != length:
        raise ValueError("the frame is cut off or too large")
    return frame


def _parsed(header: bytes, samples: bytes) -> _Answer:
    """raises ValueError: whoever took the child over may answer anything"""
    match json.loads(header):
        case {
            "verdict": "audio" | "not_audio" | "too_long" as verdict,
            "clipped_ratio": float(clipped_ratio),
            "content_type": str(content_type),
        } if content_type in CONTENT_TYPES | {NO_TYPE}:
            decoded = np.frombuffer(samples, np.float32).copy()  # writable: torch insists
            if 0 <= clipped_ratio <= 1 and np.abs(decoded).max(initial=0) <= 1:
                return _Answer(verdict, clipped_ratio, content_type, decoded)
    raise ValueError("the answer is not one of ours")


def _ask_and_judge(child: _Child, data: bytes) -> ReferenceClip:
    """raises _ChildFailed, any ReferenceRefused"""
    answer = child.ask(data)
    if answer.verdict == "too_long":
        raise ReferenceTooLong(f"the clip is longer than the {MAX_S:g} s accepted")
    if answer.verdict == "not_audio" or len(answer.samples) == 0:
        raise ReferenceNotAudio("the clip holds no sound that can be decoded: send wav, mp3, ogg, flac, m4a or webm")
    report = measure(answer.samples, sample_rate_hz=SAMPLE_RATE_HZ, clipped_ratio=answer.clipped_ratio)
    check(report)
    return ReferenceClip(answer.samples, SAMPLE_RATE_HZ, report, content_type=answer.content_type)
