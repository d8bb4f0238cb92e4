"""Samples as a file that gives back exactly what was put in: FLAC would round an engine's floats."""

import struct

import numpy as np

from tts_core.types import FloatArray

CONTENT_TYPE = "audio/wav"
_IEEE_FLOAT = 3
_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")


def pack(samples: FloatArray, *, rate_hz: int) -> bytes:
    """samples  [n] float32 mono; returns a wav file of 32-bit floats"""
    data = samples.astype("<f4", copy=False).tobytes()
    fmt = (b"fmt ", 16, _IEEE_FLOAT, 1, rate_hz, rate_hz * 4, 4, 32)
    return _HEADER.pack(b"RIFF", _HEADER.size - 8 + len(data), b"WAVE", *fmt, b"data", len(data)) + data


def unpack(file: bytes) -> FloatArray:
    """The samples of a file that `pack` made."""
    return np.frombuffer(file, "<f4", offset=_HEADER.size).astype(np.float32, copy=False)
