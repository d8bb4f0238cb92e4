"""The process that looks into strangers' files. `reference.py` runs it as a script.

Parsing hostile files is what FFmpeg's security bulletins are about, so it is done where nothing is to be had: no
environment, no file or socket to open, no process to start, another user where we are root. Speaks frames on stdin and
stdout, each an 8-byte little-endian length and that many bytes. A job is one frame, the file. The answer to it is two:
JSON {"verdict": "audio" | "not_audio" | "too_long", "clipped_ratio": float, "content_type": str}, and float32 samples,
mono at 22,050 Hz.
Ends at the end of its input, that is with its parent.
"""

import contextlib
import io
import json
import os
import resource
import signal
import struct
import sys
import wave
from collections.abc import Iterator
from typing import BinaryIO

import av
import numpy as np
import numpy.typing as npt
from av.stream import Disposition

SAMPLE_RATE_HZ = 22_050
"""What XTTS takes its conditioning from; more would be thrown away."""

MAX_S = 60.0
"""Of sound, counted as it is decoded: what a header says of the length is the attacker's word."""

RATES_HZ = range(4_000, 384_001)
MAX_CHANNELS = 8

JOB_LIMIT_S = 60
"""The parent gives up long before; this ends a child that works on after its parent has died."""

NOBODY = 65534

LIMITS = {
    resource.RLIMIT_AS: 1 << 30,  # av and numpy take 0.25 GB of address space, the largest file 0.1 GB
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_FSIZE: 0,
    resource.RLIMIT_NOFILE: 3,  # stdin, stdout, stderr: nothing more can be opened
    resource.RLIMIT_NPROC: 0,
}

DEMUXERS = "wav,w64,aiff,caf,mp3,ogg,flac,mov,matroska,aac"
DECODERS = (
    "mp3,mp3float,mp2,mp2float,aac,vorbis,opus,libopus,flac,alac,pcm_mulaw,pcm_alaw,adpcm_ms,adpcm_ima_wav,"
    "pcm_u8,pcm_s8,pcm_s16le,pcm_s16be,pcm_s24le,pcm_s24be,pcm_s32le,pcm_s32be,pcm_f32le,pcm_f32be,pcm_f64le,pcm_f64be"
)
OPTIONS = {"format_whitelist": DEMUXERS, "codec_whitelist": DECODERS, "protocol_whitelist": ""}
"""Without these an uploaded SDP or playlist makes FFmpeg open connections."""

SUBTYPES = {
    "wav": "wav",
    "w64": "x-w64",
    "aiff": "aiff",
    "caf": "x-caf",
    "mp3": "mpeg",
    "ogg": "ogg",
    "flac": "flac",
    "mov": "mp4",
    "matroska": "webm",
    "aac": "aac",
}
"""Of the content type, by demuxer: Matroska plays where webm does, QuickTime where mp4 does."""

CONTENT_TYPES = frozenset(f"{kind}/{subtype}" for kind in ("audio", "video") for subtype in SUBTYPES.values())
NO_TYPE = ""

Samples = npt.NDArray[np.float32]


class TooLong(Exception):
    """More than MAX_S of sound came out."""


def main() -> None:
    sink = sys.stdout.buffer
    _warm_up()
    _lock_in()
    for file in _frames(sys.stdin.buffer):
        signal.alarm(JOB_LIMIT_S)
        header, samples = _looked_into(file)
        signal.alarm(0)
        for frame in (json.dumps(header).encode(), samples.tobytes()):
            sink.write(struct.pack("<Q", len(frame)) + frame)
        sink.flush()


def _warm_up() -> None:
    """PyAV imports half of itself with the first file, which cannot be done without opening any."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(1600))
    header, _ = _looked_into(file.getvalue())
    assert header["verdict"] == "audio"


def _lock_in() -> None:
    """Give up what a taken-over process would want; after the imports, which open files."""
    for limit, value in LIMITS.items():
        resource.setrlimit(limit, (value, value))
    if os.getuid() == 0:
        with contextlib.suppress(PermissionError):  # a container without CAP_SETUID: still no worse than not trying
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)


def _frames(source: BinaryIO) -> Iterator[bytes]:
    while len(head := source.read(8)) == 8:
        (length,) = struct.unpack("<Q", head)
        yield source.read(length)


def _looked_into(file: bytes) -> tuple[dict[str, str | float], Samples]:
    """What is told of a file, and its sound: none unless the verdict is "audio"."""
    meter = ClipMeter()
    try:
        content_type, samples = _decoded(file, meter)
    except TooLong:
        return _refusal("too_long")
    except Exception:  # noqa: BLE001  root of the process: hostile files raise FFmpeg's errors and half of Python's
        return _refusal("not_audio")
    if not len(samples):
        return _refusal("not_audio")
    return {"verdict": "audio", "clipped_ratio": meter.ratio, "content_type": content_type}, samples


def _refusal(verdict: str) -> tuple[dict[str, str | float], Samples]:
    return {"verdict": verdict, "clipped_ratio": 0.0, "content_type": NO_TYPE}, np.zeros(0, np.float32)


def _decoded(file: bytes, meter: "ClipMeter") -> tuple[str, Samples]:
    """Content type, and [n] mono at SAMPLE_RATE_HZ, -1..1; raises ValueError if a sample is no number"""
    to_planes = av.AudioResampler(format="fltp")
    to_rate = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE_HZ)
    frames: list[av.AudioFrame] = []
    with av.open(io.BytesIO(file), "r", options=OPTIONS) as container:
        content_type = _content_type(container)
        for frame in _sound(container):
            (planar,) = to_planes.resample(frame)
            planes = np.asarray(planar.to_ndarray(), np.float32)
            meter.add(planes)
            frames += to_rate.resample(_mono(planes, like=frame))
    frames += [last for last in to_rate.resample(None) if last]  # None: PyAV's when there was nothing to resample
    samples = np.concatenate([np.zeros(0, np.float32), *(frame.to_ndarray()[0] for frame in frames)])
    if not np.isfinite(samples).all():
        raise ValueError("samples are not finite")
    return content_type, np.asarray(samples.clip(-1, 1), np.float32)


def _content_type(container: av.container.InputContainer) -> str:
    """`video/...` where there are moving pictures: the cover of a song is a video stream, too."""
    moving = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    subtype = SUBTYPES[container.format.name.split(",")[0]]
    return f"{'video' if moving else 'audio'}/{subtype}"


def _mono(planes: Samples, *, like: av.AudioFrame) -> av.AudioFrame:
    """The mean of the channels: FFmpeg's own mix of equal ones is 3 dB louder, and would be clipped here."""
    mono = av.AudioFrame.from_ndarray(planes.mean(axis=0, keepdims=True), "flt", "mono")
    mono.sample_rate = like.sample_rate
    return mono


def _sound(container: av.container.InputContainer) -> Iterator[av.AudioFrame]:
    """Frames up to the end or the first damage: what a cut-off upload still holds is judged like any other clip."""
    seconds = 0.0
    stream = container.streams.audio[0]
    stream.codec_context.thread_type = "NONE"
    if stream.codec_context.name not in DECODERS.split(","):  # the option of that name holds for probing only
        raise ValueError(f"codec {stream.codec_context.name}")
    with contextlib.suppress(av.error.FFmpegError):
        for frame in container.decode(stream):
            if frame.sample_rate not in RATES_HZ or frame.layout.nb_channels > MAX_CHANNELS:
                raise ValueError(f"{frame.layout.nb_channels} channels at {frame.sample_rate} Hz")
            seconds += frame.samples / frame.sample_rate
            if seconds > MAX_S:
                raise TooLong
            yield frame


class ClipMeter:
    """Which share of the samples stands in runs of three or more at the file's own peak, in its worst channel.

    Measured on the frames as they were decoded: mixing and resampling round off what an overdriven input cut flat.
    """

    SAME = 0.9995
    """Of the peak. Source: speech report, section 3: clean 0, gain x2 0.0022."""

    def __init__(self) -> None:
        self._peak = 0.0
        self._samples = 0
        self._at_peak = np.zeros(0)

    @property
    def ratio(self) -> float:
        return float(self._at_peak.max(initial=0)) / max(1, self._samples)

    def add(self, planes: Samples) -> None:
        """planes  [channels, n]; runs across two frames are missed, which are a thousand samples and more"""
        levels = np.abs(planes).clip(0, 1)
        peak = float(levels.max(initial=0))
        if self._at_peak.size == 0 or peak * self.SAME > self._peak:
            self._at_peak = np.zeros(len(levels))  # what was counted until now is below the peak
        self._peak = max(self._peak, peak)
        self._samples += levels.shape[1]
        flat = levels >= max(self._peak * self.SAME, 1e-3)
        threes = np.pad(flat[:, 2:] & flat[:, 1:-1] & flat[:, :-2], ((0, 0), (2, 2)))
        self._at_peak += (threes[:, 2:] | threes[:, 1:-1] | threes[:, :-2]).sum(axis=1)


if __name__ == "__main__":
    main()
