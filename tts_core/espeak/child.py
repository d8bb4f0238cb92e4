"""eSpeak NG, loaded once, that speaks each text in a fork of itself; `library` starts it. Standard library only, and
no import of ours.

    python -I -S child.py LIBRARY DATA

stdin is a socket of packets. The child first tells its version and sample rate on it. Then each packet is an order,
`VOICE RATE_WPM PITCH`, and brings another socket: from that one the text is read, to its end, and what eSpeak says goes
back on it. First GREETING, then one frame for each callback: the number of samples and of marks (two int32), the marks
(three int32 each: event type, character counted from 0, sample), the samples (int16). A frame of END samples is the
last; where it is missing, eSpeak has come down.
"""

import ctypes
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import Callable
from functools import partial
from typing import IO, Any

GREETING = b"\n"
END = -1
ORDER_BYTES = 200

BLOCK_MS = 250
"""How much the library renders between two calls of its callback; the samples do not depend on it."""

CPU_S = 60
MEMORY_BYTES = 1 << 30
"""Far above what a text of 20,000 characters takes (0.5 s, 60 MB)."""

SYNCHRONOUS = 2
DONT_EXIT = 0x8000
PLAIN_UTF8 = 1
"""Flags of `espeak_Synth`: UTF-8 and neither SSML (0x10) nor [[phonemes]] (0x100)."""
RATE, PITCH = 1, 3
WORD_EVENT, END_EVENT = 1, 5
"""Source of all of these: `speak_lib.h` of espeak-ng 1.52."""


class EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class Event(ctypes.Structure):
    """`espeak_EVENT`; `text_position` counts characters from 1. A list of them ends with one of type 0."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", EventId),
    )


SynthCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event))
UriCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p)


class Speaker:
    """The library in its first state, which is a fork's alone once it speaks. Keeps the callbacks alive."""

    def __init__(self, library_path: str, data_path: str) -> None:
        self._library = ctypes.CDLL(library_path)
        self.rate_hz = self._library.espeak_Initialize(SYNCHRONOUS, BLOCK_MS, os.fsencode(data_path), DONT_EXIT)
        if self.rate_hz <= 0:
            raise SystemExit(f"espeak_Initialize answered {self.rate_hz}")
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(0))  # breathy variants draw noise, seeded with the time
        self._on_uri = UriCallback(lambda kind, uri, base: 1)  # opens nothing
        self._library.espeak_SetUriCallback(self._on_uri)
        self._library.espeak_Info.restype = ctypes.c_char_p
        self.version: str = self._library.espeak_Info(None).decode()

    def say(self, text: bytes, out: IO[bytes], *, voice: str, rate_wpm: int, pitch: int) -> None:
        """Write the frames of a text; the process is of no use afterwards."""
        self._out = out
        self._on_block = SynthCallback(self._write)
        self._library.espeak_SetSynthCallback(self._on_block)
        if status := self._library.espeak_SetVoiceByName(voice.encode()):
            raise SystemExit(f"espeak_SetVoiceByName answered {status}")
        self._library.espeak_SetParameter(RATE, rate_wpm, 0)
        self._library.espeak_SetParameter(PITCH, pitch, 0)
        size = ctypes.c_size_t(len(text) + 1)
        if status := self._library.espeak_Synth(text, size, 0, 0, 0, PLAIN_UTF8, None, None):
            raise SystemExit(f"espeak_Synth answered {status}")

    def _write(self, samples: Any, count: int, events: Any) -> int:
        marks: list[tuple[int, int, int]] = []
        while (event := events[len(marks)]).type:
            marks.append((event.type, max(event.text_position - 1, 0), event.sample))
        marks_told = [mark for mark in marks if mark[0] in (WORD_EVENT, END_EVENT)]
        frame = struct.pack("=ii", count, len(marks_told)) + b"".join(struct.pack("=iii", *mark) for mark in marks_told)
        try:
            self._out.write(frame + (ctypes.string_at(samples, 2 * count) if count else b""))
            self._out.flush()
        except OSError:
            os._exit(1)  # nobody listens any more; an exception would not leave the library
        return 0


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how a fork ended
    speaker, orders = Speaker(*sys.argv[1:]), socket.socket(fileno=sys.stdin.fileno())
    orders.send(f"{speaker.version} {speaker.rate_hz}".encode())
    while True:
        order, descriptors, _, _ = socket.recv_fds(orders, ORDER_BYTES, 1)
        if not order:
            return
        with socket.socket(fileno=descriptors[0]) as listener:
            _in_a_fork(partial(_obey, order.decode(), speaker, listener))


def _in_a_fork(task: Callable[[], None]) -> None:
    """Not waited for. Where there can be no fork, the task is dropped: its listener is told nothing."""
    try:
        if os.fork():
            return
    except OSError:
        return
    try:
        task()
        os._exit(0)
    finally:
        os._exit(1)


def _obey(order: str, speaker: Speaker, listener: socket.socket) -> None:
    os.close(sys.stdin.fileno())  # a text that takes eSpeak over must not get at those of others
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    voice, rate_wpm, pitch = order.split()
    with listener.makefile("rb") as text, listener.makefile("wb") as out:
        told = text.read()
        out.write(GREETING)
        out.flush()
        speaker.say(told, out, voice=voice, rate_wpm=int(rate_wpm), pitch=int(pitch))
        out.write(struct.pack("=ii", END, 0))


if __name__ == "__main__":
    main()
