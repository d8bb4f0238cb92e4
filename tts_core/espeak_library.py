"""eSpeak NG through ctypes: a fresh private copy of the shared object for every utterance.

The library keeps everything in C statics. Among them is the index of its pitch flutter, which no call resets, so
one loaded copy says the same sentence differently each time and speaks one sentence at a time. A copy of its own
gives each utterance the same samples every time, beside any number of others, for less than a millisecond.
"""

import ctypes
import os
import sys
import tempfile
from _ctypes import dlclose
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, Literal

import numpy as np

from tts_core.errors import StartupError
from tts_core.types import FloatArray

BLOCK_MS = 250
"""How much the library renders between two calls of its callback; the samples do not depend on it."""

SYNCHRONOUS = 2
DONT_EXIT = 0x8000
PLAIN_UTF8 = 1
"""Flags of `espeak_Synth`: UTF-8 and neither SSML (0x10) nor [[phonemes]] (0x100)."""
RATE, PITCH = 1, 3
WORD_EVENT, END_EVENT = 1, 5
"""Source of all of these: `speak_lib.h` of espeak-ng 1.52."""


class _EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    """`espeak_EVENT`; `text_position` counts characters from 1."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_SynthCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
_UriCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p)

_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "espeak_Initialize": (ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int),
    "espeak_SetSynthCallback": (_SynthCallback,),
    "espeak_SetUriCallback": (_UriCallback,),
    "espeak_SetVoiceByName": (ctypes.c_char_p,),
    "espeak_SetParameter": (ctypes.c_int, ctypes.c_int, ctypes.c_int),
    "espeak_Synth": (
        *(ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint, ctypes.c_uint),
        *(ctypes.c_void_p, ctypes.c_void_p),
    ),
    "espeak_Terminate": (),
    "espeak_ng_SetRandSeed": (ctypes.c_long,),
}


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
    """What one callback brings: samples [n] float32 -1..1, and the marks that fall into them or at their end."""

    samples: FloatArray
    marks: tuple[Mark, ...]


class EspeakLibrary:
    """The bytes of the shared object and the folder of its data; loads nothing until asked to speak.

    raises  StartupError if the package `espeakng-loader` is not installed or its library does not run
    """

    version: str
    sample_rate_hz: int

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError as exc:
            raise StartupError("the eSpeak engine needs the package 'espeakng-loader': install .[espeak]") from exc
        with open(espeakng_loader.get_library_path(), "rb") as file:
            self._image = file.read()
        self._data_path = espeakng_loader.get_data_path().encode()
        with self._running() as (library, sample_rate_hz):
            library.espeak_Info.restype = ctypes.c_char_p
            self.version = library.espeak_Info(None).decode()
            self.sample_rate_hz = sample_rate_hz

    def render(self, text: str, setting: Setting, *, deliver: Callable[[Block], bool]) -> bool:
        """Speak plain text; returns False if `deliver` cut it short by returning False.

        text     without control characters: eSpeak takes orders from them
        deliver  called on this thread; what it raises is raised here
        """
        failures: list[Exception] = []
        stopped = False

        def on_block(samples: Any, count: int, events: Any) -> int:
            nonlocal stopped
            try:
                stopped = stopped or not deliver(_block(samples, count, events))
            except Exception as exc:  # noqa: BLE001 - C cannot carry an exception; it is raised again below
                failures.append(exc)
                stopped = True
            return int(stopped)

        callback = _SynthCallback(on_block)
        with self._running() as (library, _):
            library.espeak_SetSynthCallback(callback)
            _configure(library, setting)
            data = text.encode()
            status = library.espeak_Synth(data, len(data) + 1, 0, 0, 0, PLAIN_UTF8, None, None)
        if failures:
            raise failures[0]
        if status:
            raise RuntimeError(f"espeak_Synth answered {status}")
        return not stopped

    @contextmanager
    def _running(self) -> Iterator[tuple[ctypes.CDLL, int]]:
        """A private copy, initialised, with its sample rate; both are gone afterwards."""
        refuse = _UriCallback(lambda kind, uri, base: 1)
        with _private_copy(self._image) as library:
            for name, arguments in _SIGNATURES.items():
                getattr(library, name).argtypes = arguments
            sample_rate_hz: int = library.espeak_Initialize(SYNCHRONOUS, BLOCK_MS, self._data_path, DONT_EXIT)
            if sample_rate_hz <= 0:
                raise StartupError(f"eSpeak does not start: espeak_Initialize answered {sample_rate_hz}")
            library.espeak_ng_SetRandSeed(0)  # breathy variants draw noise, seeded with the time of day
            library.espeak_SetUriCallback(refuse)
            try:
                yield library, sample_rate_hz
            finally:
                library.espeak_Terminate()


@contextmanager
def _private_copy(image: bytes) -> Iterator[ctypes.CDLL]:
    """Load the image under a name nobody else has.

    The file stays open until the copy is unloaded: a descriptor's number is used again at once, and the loader
    answers a name it already knows with the copy it already has, which would be another utterance's.
    """
    with _image_file() as file:
        file.write(image)
        file.flush()
        path = f"/proc/self/fd/{file.fileno()}" if sys.platform == "linux" else file.name
        library = ctypes.CDLL(path)
        try:
            yield library
        finally:
            dlclose(library._handle)


def _image_file() -> IO[bytes]:
    if sys.platform == "linux":  # in memory: /tmp may be mounted noexec
        return open(os.memfd_create("espeak"), "wb")
    return tempfile.NamedTemporaryFile(suffix=".dylib")


def _configure(library: ctypes.CDLL, setting: Setting) -> None:
    if status := library.espeak_SetVoiceByName(setting.voice.encode()):
        raise RuntimeError(f"eSpeak has no voice {setting.voice!r}: espeak_SetVoiceByName answered {status}")
    library.espeak_SetParameter(RATE, setting.rate_wpm, 0)
    library.espeak_SetParameter(PITCH, setting.pitch, 0)


def _block(samples: Any, count: int, events: Any) -> Block:
    """Copy what the callback lends; both pointers are void once it returns."""
    pcm = np.ctypeslib.as_array(samples, (count,)) if count else np.zeros(0, np.int16)
    return Block(pcm.astype(np.float32) / 32768, tuple(_marks(events)))


def _marks(events: Any) -> Iterator[Mark]:
    """The events that matter, up to the one of type 0 that ends the list."""
    index = 0
    while (event := events[index]).type:
        if event.type in (WORD_EVENT, END_EVENT):
            kind: Literal["word", "end"] = "word" if event.type == WORD_EVENT else "end"
            yield Mark(kind, max(event.text_position - 1, 0), event.sample)
        index += 1
