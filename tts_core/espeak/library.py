"""eSpeak NG in a process of its own for every utterance.

The library keeps everything in C statics. Among them is the index of its pitch flutter, which no call resets, so one
loaded copy says the same sentence differently each time and speaks one sentence at a time. And a text of 94
characters can overrun its buffers, which ends the process. A child of its own, 20 ms and 10 MB, gives each utterance
the same samples every time, beside any number of others, and dies alone.
"""

import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np

from tts_core.errors import StartupError, TextUnspeakable
from tts_core.espeak.child import WORD_EVENT
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
    """Where the shared object and its data are; tried once.

    raises  StartupError if the package `espeakng-loader` is not installed or its library does not run
    """

    version: str
    sample_rate_hz: int

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError as exc:
            raise StartupError("the eSpeak engine needs the package 'espeakng-loader': install .[espeak]") from exc
        self._paths = (str(espeakng_loader.get_library_path()), str(espeakng_loader.get_data_path()))
        with self._child("", Setting("en-us")) as child:
            first = _output(child).readline().decode()
            if not first:
                raise StartupError(f"eSpeak does not start: its process ended with {child.wait()}")
        self.version, rate_hz = first.split()
        self.sample_rate_hz = int(rate_hz)

    def render(self, text: str, setting: Setting, *, deliver: Callable[[Block], bool]) -> bool:
        """Speak plain text; returns False if `deliver` cut it short by returning False.

        text     as `SpokenText` holds it: eSpeak takes orders from control characters
        deliver  called on this thread; what it raises is raised here
        raises   TextUnspeakable if the text brings eSpeak down
        """
        with self._child(text, setting) as child:
            output = _output(child)
            output.readline()
            if not all(deliver(block) for block in _blocks(output)):
                return False
            if child.wait():
                raise TextUnspeakable(f"eSpeak cannot speak this text: its process ended with {child.returncode}")
            return True

    @contextmanager
    def _child(self, text: str, setting: Setting) -> Iterator[subprocess.Popen[bytes]]:
        """A process that has been given its text; it is gone afterwards."""
        options = (setting.voice, str(setting.rate_wpm), str(setting.pitch))
        command = (sys.executable, "-I", "-S", str(CHILD), *self._paths, *options)
        pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
        # an empty environment: the child reads hostile text, and ours holds keys
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nowhere, env={}) as child:  # noqa: S603
            try:
                _send(child, text.encode())
                yield child
            finally:
                child.kill()


def _send(child: subprocess.Popen[bytes], text: bytes) -> None:
    assert child.stdin is not None
    with suppress(BrokenPipeError), child.stdin as pipe:  # how the child ended is told by its exit status
        pipe.write(text)


def _output(child: subprocess.Popen[bytes]) -> IO[bytes]:
    assert child.stdout is not None
    return child.stdout


def _blocks(output: IO[bytes]) -> Iterator[Block]:
    """Every whole frame, see `child`."""
    while len(head := output.read(8)) == 8:
        samples, marks = struct.unpack("=ii", head)
        body = output.read(12 * marks + 2 * samples)
        if len(body) < 12 * marks + 2 * samples:
            return
        told = tuple(_mark(*numbers) for numbers in struct.iter_unpack("=iii", body[: 12 * marks]))
        pcm: FloatArray = np.frombuffer(body[12 * marks :], np.int16).astype(np.float32)
        yield Block(np.ldexp(pcm, -15), told)


def _mark(event: int, position: int, sample: int) -> Mark:
    return Mark("word" if event == WORD_EVENT else "end", position, sample)
