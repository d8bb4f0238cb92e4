"""eSpeak NG in a process of its own for every utterance.

The library keeps everything in C statics. Among them is the index of its pitch flutter, which no call resets, so one
loaded copy says the same sentence differently each time and speaks one sentence at a time. And a text of 94
characters can overrun its buffers, which ends the process. So one child loads the library and forks for each
utterance (2 ms; a new process took 25): the same samples every time, beside any number of others, and it dies alone.
"""

import socket
import struct
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np

from tts_core.errors import StartupError, TextUnspeakable
from tts_core.espeak.child import END, GREETING, ORDER_BYTES, WORD_EVENT
from tts_core.types import FloatArray

CHILD = Path(__file__).with_name("child.py")


@dataclass(frozen=True, slots=True)
class Setting:
    """voice: an eSpeak voice with its variant (`en-us+f3`); rate_wpm: 80..450 words a minute; pitch: 0..99."""

    voice: str
    rate_wpm: int = 175
    pitch: int = 50


@dataclass(frozen=True, slots=True)
class Mark:
    """At `sample` begins the word at `position` of the text, or ends the clause that stops before it."""

    kind: Literal["word", "end"]
    position: int
    sample: int


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """At most 250 ms: samples [n] float32 -1..1, and the marks that fall into them or at their end."""

    samples: FloatArray
    marks: tuple[Mark, ...]


class EspeakLibrary:
    """The child that has eSpeak loaded, and another one when that has died; any thread may ask it.

    raises  StartupError if the package `espeakng-loader` is not installed or its library does not run
    """

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError as exc:
            raise StartupError("the eSpeak engine needs the package 'espeakng-loader': install .[espeak]") from exc
        self._paths = (str(espeakng_loader.get_library_path()), str(espeakng_loader.get_data_path()))
        self._gate = threading.Lock()
        self._child = _Child(self._paths)
        self.version, rate_hz = self._child.told.split()
        self.sample_rate_hz = int(rate_hz)

    def render(self, text: str, setting: Setting, *, deliver: Callable[[Block], bool]) -> bool:
        """Speak plain text; returns False if `deliver` cut it short by returning False.

        text     as `SpokenText` holds it: eSpeak takes orders from control characters
        deliver  called on this thread; what it raises is raised here
        raises   TextUnspeakable if the text brings eSpeak down, OSError if this machine can have no more processes
        """
        with self._spoken(text, setting) as output:
            return all(deliver(block) for block in _blocks(output))

    def close(self) -> None:
        self._child.close()

    @contextmanager
    def _spoken(self, text: str, setting: Setting) -> Iterator[IO[bytes]]:
        """What a fork of the child writes, from its first frame on; the fork ends when this does."""
        ours, output = self._asked(text, setting)
        with ours, output:
            yield output

    def _asked(self, text: str, setting: Setting) -> tuple[socket.socket, IO[bytes]]:
        for _ in range(2):
            child = self._child
            ours, theirs = socket.socketpair()
            with theirs:
                child.order(f"{setting.voice} {setting.rate_wpm} {setting.pitch}", theirs)
            output = ours.makefile("rb")
            if _begins(ours, text, output):
                return ours, output
            output.close()
            ours.close()
            self._replace(child)
        raise ChildProcessError("eSpeak's process ends before it speaks")

    def _replace(self, died: "_Child") -> None:
        with self._gate:
            if self._child is died:
                died.close()
                self._child = _Child(self._paths)


class _Child:
    """See `child`. It ends with its last user at the latest.

    told  its version and sample rate
    """

    def __init__(self, paths: tuple[str, str]) -> None:
        """raises StartupError if it does not run"""
        command = (sys.executable, "-I", "-S", str(CHILD), *paths)
        nowhere = subprocess.DEVNULL
        self._orders, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        with theirs:
            # an empty environment: the child reads hostile text, and ours holds keys
            process = subprocess.Popen(command, stdin=theirs.fileno(), stdout=nowhere, stderr=nowhere, env={})  # noqa: S603
        self.close = weakref.finalize(self, _end, self._orders, process)
        self.told = self._orders.recv(ORDER_BYTES).decode()
        if not self.told:
            self.close()
            raise StartupError(f"eSpeak does not start: its process ended with {process.returncode}")

    def order(self, order: str, listener: socket.socket) -> None:
        """Whether it will be obeyed shows on the listener."""
        with suppress(OSError):  # it has died, or was closed
            socket.send_fds(self._orders, [order.encode()], [listener.fileno()])


def _end(orders: socket.socket, process: subprocess.Popen[bytes]) -> None:
    with suppress(OSError):  # it has died
        orders.shutdown(socket.SHUT_RDWR)  # closing is not enough: a fork of this process may hold it, too
    orders.close()
    process.wait()


def _begins(ours: socket.socket, text: str, output: IO[bytes]) -> bool:
    """Hand over the text; False if nobody takes it."""
    try:
        ours.sendall(text.encode())
        ours.shutdown(socket.SHUT_WR)
        return output.read(len(GREETING)) == GREETING
    except ConnectionError:
        return False


def _blocks(output: IO[bytes]) -> Iterator[Block]:
    """Every frame, see `child`. raises TextUnspeakable if the last one is missing"""
    while len(head := output.read(8)) == 8:
        samples, marks = struct.unpack("=ii", head)
        if samples == END:
            return
        body = output.read(12 * marks + 2 * samples)
        if len(body) < 12 * marks + 2 * samples:
            break
        told = tuple(_mark(*numbers) for numbers in struct.iter_unpack("=iii", body[: 12 * marks]))
        pcm: FloatArray = np.frombuffer(body[12 * marks :], np.int16).astype(np.float32)
        yield Block(np.ldexp(pcm, -15), told)
    raise TextUnspeakable("eSpeak cannot speak this text: it has brought its process down")


def _mark(event: int, position: int, sample: int) -> Mark:
    return Mark("word" if event == WORD_EVENT else "end", position, sample)
