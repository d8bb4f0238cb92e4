"""Sounds for tests, made in memory: what people upload, and what attackers do. Nothing here is random twice."""

import io
from fractions import Fraction
from typing import cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.video.stream import VideoStream

from tts_core.audio.encode import Encoder
from tts_core.types import AudioFormat, FloatArray

RATE_HZ = 24_000


def speech(duration_s: float, *, rate_hz: int = RATE_HZ, noise_dbfs: float = -65.0, seed: int = 0) -> FloatArray:
    """Voiced syllables at 4 a second, a pause of 0.3 s every 2 s, over a noise floor; peak 0.5."""
    t = np.arange(round(duration_s * rate_hz)) / rate_hz
    f0_hz = 120 + 15 * np.sin(2 * np.pi * 0.7 * t)
    phase = 2 * np.pi * np.cumsum(f0_hz) / rate_hz
    voiced = sum(np.sin(k * phase) / k for k in range(1, 25) if k * 140 < rate_hz / 2)
    envelope = (0.15 + 0.85 * np.sin(np.pi * 4 * t) ** 2) * ((t % 2.0) < 1.7)
    sound = voiced * envelope
    return as_float32(0.5 * sound / np.abs(sound).max() + noise(len(t), level_dbfs=noise_dbfs, seed=seed))


def noise(samples: int, *, level_dbfs: float, seed: int = 0) -> FloatArray:
    return as_float32(np.random.default_rng(seed).standard_normal(samples) * 10 ** (level_dbfs / 20))


def noisy(duration_s: float, *, snr_db: float) -> FloatArray:
    """Speech over white noise; the ratio is that of the speech's own RMS, pauses left out."""
    clean = speech(duration_s, noise_dbfs=-120)
    rms_dbfs = 10 * np.log10(np.mean(clean[np.abs(clean) > 1e-3] ** 2))
    return as_float32(clean + noise(len(clean), level_dbfs=float(rms_dbfs - snr_db)))


def clipped(duration_s: float) -> FloatArray:
    return as_float32(np.clip(speech(duration_s) * 6, -0.9, 0.9))


def encoded(samples: FloatArray, format: AudioFormat = "wav", *, rate_hz: int = RATE_HZ) -> bytes:
    """A file as this worker itself would send it."""
    encoder = Encoder(format, source_rate_hz=rate_hz, sample_rate_hz=rate_hz)
    return encoder.write(samples) + encoder.finish()


def muxed(samples: FloatArray, muxer: str, codec: str, *, rate_hz: int = 48_000, picture: str = "") -> bytes:
    """A file of any container and codec FFmpeg has, stereo; `picture` is the codec of one before the sound."""
    file = io.BytesIO()
    pixels = "rgb24" if picture == "png" else "yuv420p"
    frame = av.AudioFrame.from_ndarray(np.repeat(samples[None], 2, axis=0), "fltp", "stereo")
    frame.sample_rate, frame.time_base, frame.pts = rate_hz, Fraction(1, rate_hz), 0
    with av.open(file, "w", format=muxer) as container:
        pictures = [
            container.add_stream(name, rate=10, width=32, height=32, pix_fmt=pixels) for name in [picture] if name
        ]
        sound = cast(AudioStream, container.add_stream(codec, rate=rate_hz, layout="stereo"))
        for stream in cast(list[VideoStream], pictures):
            container.mux(stream.encode(av.VideoFrame(32, 32, pixels)))
            container.mux(stream.encode(None))
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    return file.getvalue()


def flac_bomb(hours: float) -> bytes:
    """Silence, at about half a megabyte an hour."""
    file = io.BytesIO()
    second = av.AudioFrame.from_ndarray(np.zeros((1, 65535), np.int16), "s16", "mono")
    second.sample_rate = 8000
    with av.open(file, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=8000, layout="mono")
        for _ in range(int(hours * 3600 * 8000 / 65535)):
            second.pts = None
            container.mux(stream.encode(second))
        container.mux(stream.encode(None))
    return file.getvalue()


def as_float32(samples: np.ndarray) -> FloatArray:
    return samples.astype(np.float32)
