"""Says one text with eSpeak NG and ends; `library` starts it. Standard library only, and no import of ours.

    python -I -S child.py LIBRARY DATA VOICE RATE_WPM PITCH < text > frames

First a line: version and sample rate. Then one frame for each callback: the number of samples and of marks
(two int32), the marks (three int32 each: event type, character counted from 0, sample), the samples (int16).
"""

import ctypes
import os
import resource
import struct
import sys
from typing import Any, BinaryIO

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
    """The library in its first state, writing what it says to `out`. Keeps the callbacks alive."""

    def __init__(self, library_path: str, data_path: str, out: BinaryIO) -> None:
        self._out = out
        self._library = ctypes.CDLL(library_path)
        rate_hz = self._library.espeak_Initialize(SYNCHRONOUS, BLOCK_MS, os.fsencode(data_path), DONT_EXIT)
        if rate_hz <= 0:
            raise SystemExit(f"espeak_Initialize answered {rate_hz}")
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(0))  # breathy variants draw noise, seeded with the time
        self._on_block = SynthCallback(self._write)
        self._on_uri = UriCallback(lambda kind, uri, base: 1)  # opens nothing
        self._library.espeak_SetSynthCallback(self._on_block)
        self._library.espeak_SetUriCallback(self._on_uri)
        self._library.espeak_Info.restype = ctypes.c_char_p
        out.write(self._library.espeak_Info(None) + f" {rate_hz}\n".encode())

    def say(self, text: bytes, *, voice: str, rate_wpm: int, pitch: int) -> None:
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
        self._out.write(struct.pack("=ii", count, len(marks_told)))
        self._out.writelines(struct.pack("=iii", *mark) for mark in marks_told)
        if count:
            self._out.write(ctypes.string_at(samples, 2 * count))
        self._out.flush()
        return 0


def main() -> None:
    library_path, data_path, voice, rate_wpm, pitch = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    speaker = Speaker(library_path, data_path, sys.stdout.buffer)
    speaker.say(sys.stdin.buffer.read(), voice=voice, rate_wpm=int(rate_wpm), pitch=int(pitch))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
