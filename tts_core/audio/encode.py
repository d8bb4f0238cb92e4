"""Float samples become the bytes of one audio file while they are still being spoken."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import BinaryIO, cast

import av
import numpy as np
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream

from tts_core.errors import InvalidInput
from tts_core.types import AudioFormat, FloatArray


@dataclass(frozen=True)
class _Codec:
    """How FFmpeg is asked for one format.

    sample_format  what the codec takes: "s16" or a float format (mono: planar and packed are the same bytes)
    bit_rate       bits per second; 0 for codecs without a choice
    """

    muxer: str
    codec: str
    content_type: str
    sample_format: str = "s16"
    bit_rate: int = 0
    rates_hz: Sequence[int] = (8000, 16000, 22050, 24000, 44100, 48000)
    default_rate_hz: int = 24000
    muxer_options: dict[str, str] = field(default_factory=dict)


CODECS: dict[AudioFormat, _Codec] = {
    "wav": _Codec("s16le", "pcm_s16le", "audio/wav"),  # the header is ours: FFmpeg's grows with its tags
    "pcm": _Codec("s16le", "pcm_s16le", "audio/pcm"),
    "mp3": _Codec("mp3", "libmp3lame", "audio/mpeg", "fltp", 64_000, muxer_options={"id3v2_version": "0"}),
    "opus": _Codec(
        "ogg", "libopus", "audio/ogg", "flt", 48_000,
        rates_hz=(8000, 16000, 24000, 48000),
        muxer_options={"page_duration": "100000"},  # us; FFmpeg's own second would hold back a second of speech
    ),
    "flac": _Codec("flac", "flac", "audio/flac", muxer_options={"metadata_header_padding": "0"}),
    "aac": _Codec("adts", "aac", "audio/aac", "fltp", 64_000),
    "ulaw": _Codec("mulaw", "pcm_mulaw", "audio/PCMU", default_rate_hz=8000),
    "alaw": _Codec("alaw", "pcm_alaw", "audio/PCMA", default_rate_hz=8000),
}  # fmt: skip

MUXER_OPTIONS = {"fflags": "bitexact"}
"""So that the same samples are the same file: Ogg would draw a serial number."""

REVISION = "1"
"""Of what is done to samples on their way into a file; cached takes of another revision are not told any more."""

WAV_HEADER_BYTES = 44
UNKNOWN_SIZE = 0xFFFFFFFF
"""What players take to mean "until the end of the stream"."""

FLAC_SAMPLES_AT = 21
"""Offset of the byte whose lower half begins the sample count: 4 magic, 4 block header, 13 of STREAMINFO."""


def default_rate_hz(format: AudioFormat) -> int:
    return CODECS[format].default_rate_hz


def content_type(format: AudioFormat) -> str:
    """The MIME type; `pcm`, `ulaw` and `alaw` have no header, so their rate must be told besides."""
    return CODECS[format].content_type


def check_rate(format: AudioFormat, sample_rate_hz: int) -> None:
    """raises InvalidInput that names the rates the format takes"""
    rates_hz = CODECS[format].rates_hz
    if sample_rate_hz not in rates_hz:
        accepted = ", ".join(map(str, rates_hz))
        raise InvalidInput(f"sample_rate {sample_rate_hz!r} is not one that {format} takes: {accepted}")


def seal(file: BinaryIO, format: AudioFormat) -> None:
    """Give a finished wav or flac file its exact length; other formats are whole as they are.

    Players take an unknown length as it is, but readers that allocate first (soundfile, with flac) fail on it.

    file  a whole file from an Encoder, seekable; for flac readable too. Left at its end
    """
    if format == "wav":
        _seal_wav(file)
    elif format == "flac":
        _seal_flac(file)
    file.seek(0, 2)


def _seal_wav(file: BinaryIO) -> None:
    size_bytes = file.seek(0, 2)
    if size_bytes < UNKNOWN_SIZE:  # the header cannot say more; players go on to the end
        _patch(file, at=4, data=struct.pack("<I", size_bytes - 8))
        _patch(file, at=WAV_HEADER_BYTES - 4, data=struct.pack("<I", size_bytes - WAV_HEADER_BYTES))


def _seal_flac(file: BinaryIO) -> None:
    """STREAMINFO ends in 36 bits of sample count and an MD5, zero for unknown. Source: RFC 9639, section 8.2."""
    if file.seek(0, 2) == 0:
        return
    file.seek(0)
    with av.open(file, "r", format="flac") as container:
        samples = sum(packet.duration or 0 for packet in container.demux(audio=0))
    file.seek(FLAC_SAMPLES_AT)
    bits_per_sample = file.read(1)[0] & 0xF0  # the four bits before the count
    _patch(file, at=FLAC_SAMPLES_AT, data=((bits_per_sample << 32) | samples).to_bytes(5, "big"))


def _patch(file: BinaryIO, *, at: int, data: bytes) -> None:
    file.seek(at)
    file.write(data)


class Encoder:
    """Float samples in, bytes of one file out, incrementally; joined in order the bytes are the file.

    How the samples are split into writes changes no byte of it. Samples beyond -1..1 are clipped.
    """

    def __init__(self, format: AudioFormat, *, source_rate_hz: int, sample_rate_hz: int) -> None:
        """
        source_rate_hz  of what is written here
        sample_rate_hz  of the file
        raises          InvalidInput if the format does not take `sample_rate_hz`
        """
        check_rate(format, sample_rate_hz)
        self._codec = CODECS[format]
        self._rate_hz = sample_rate_hz
        self._resampler = Resampler(source_rate_hz, sample_rate_hz)
        self._sink = _Sink(_wav_header(sample_rate_hz) if format == "wav" else b"")
        self._container = av.open(
            self._sink, "w", format=self._codec.muxer, options=MUXER_OPTIONS | self._codec.muxer_options
        )
        self._stream = self._open_stream()
        self._written = 0

    def write(self, samples: FloatArray) -> bytes:
        """What the file has grown by; may be empty, for the codec needs whole frames.

        samples  [n] float32 mono, n >= 0
        raises   ValueError if a sample is not finite
        """
        if not np.isfinite(samples).all():
            raise ValueError("samples are not finite")
        self._encode(self._resampler.write(samples))
        return self._sink.take()

    def finish(self) -> bytes:
        """The rest of the file; nothing can be written after it. Without any sample only wav has a byte, its header."""
        self._encode(self._resampler.finish())
        if self._written:
            self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._sink.take()

    def _open_stream(self) -> AudioStream:
        stream = cast(AudioStream, self._container.add_stream(self._codec.codec, rate=self._rate_hz))
        stream.layout = "mono"
        stream.format = self._codec.sample_format
        if self._codec.bit_rate:
            stream.bit_rate = self._codec.bit_rate
        return stream

    def _encode(self, samples: FloatArray) -> None:
        if len(samples) == 0:
            return
        frame = av.AudioFrame.from_ndarray(self._as_codec_takes(samples), self._codec.sample_format, "mono")
        _stamp(frame, rate_hz=self._rate_hz, position=self._written)
        self._written += len(samples)
        self._container.mux(self._stream.encode(frame))

    def _as_codec_takes(self, samples: FloatArray) -> np.ndarray:
        if self._codec.sample_format != "s16":
            return np.clip(samples, -1, 1)[None]
        # Times 32768 is what every reader of PCM16 undoes, so 16-bit sources pass through unchanged.
        return np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)[None]


class Resampler:
    """Another rate for one mono stream; how the stream is split changes no sample of it."""

    def __init__(self, source_rate_hz: int, target_rate_hz: int) -> None:
        self._source_rate_hz = source_rate_hz
        self._target_rate_hz = target_rate_hz
        self._swr = AudioResampler(format="flt", layout="mono", rate=target_rate_hz)
        self._read = 0
        self._made = 0

    def write(self, samples: FloatArray) -> FloatArray:
        """samples  [n] float32; returns [m], all but the last 16 taps of the filter (0.7 ms at 24 kHz)"""
        if self._source_rate_hz == self._target_rate_hz or len(samples) == 0:
            return samples
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples)[None], "flt", "mono")
        _stamp(frame, rate_hz=self._source_rate_hz, position=self._read)
        self._read += len(samples)
        made = [resampled.to_ndarray()[0] for resampled in self._swr.resample(frame)]
        self._made += sum(map(len, made))
        return np.concatenate([np.zeros(0, np.float32), *made])

    def finish(self) -> FloatArray:
        """What was held back: all in all ceil(n * target / source) samples.

        Silence pushes it out, for swr's own flush loses a stream shorter than its filter.
        """
        missing = -(-self._read * self._target_rate_hz // self._source_rate_hz) - self._made
        taps = 64 * max(1, -(-self._source_rate_hz // self._target_rate_hz))
        return self.write(np.zeros(taps, np.float32))[:missing]


class _Sink:
    """A file FFmpeg can only append to."""

    def __init__(self, first: bytes) -> None:
        self._parts = [first]

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))  # the memory is FFmpeg's
        return len(data)

    def take(self) -> bytes:
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken


def _stamp(frame: av.AudioFrame, *, rate_hz: int, position: int) -> None:
    frame.sample_rate = rate_hz
    frame.time_base = Fraction(1, rate_hz)
    frame.pts = position


def _wav_header(rate_hz: int) -> bytes:
    """RIFF, fmt (PCM, mono, 16 bit) and the head of data, sizes unknown."""
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate_hz, rate_hz * 2, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", UNKNOWN_SIZE, b"WAVE") + fmt + struct.pack("<4sI", b"data", UNKNOWN_SIZE)
