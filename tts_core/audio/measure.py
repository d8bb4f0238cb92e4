"""What can be told of a clip in numbers, and which numbers a voice reference must have."""

import numpy as np
import numpy.typing as npt

from tts_core.errors import ReferenceClipped, ReferenceNoisy, ReferenceSilent, ReferenceTooShort
from tts_core.types import ClipReport, FloatArray

FRAME_S = 0.02

SPEECH_WITHIN_DB = 30.0
"""Of the loud level. Source: speech report, section 2: the mask that told speech from pauses on held-out texts."""

LOUD_PERCENTILE = 95
QUIET_PERCENTILE = 5
"""Of the frames' levels. Even fluent speech pauses for a twentieth of the time."""

FLOOR_DBFS = -100.0
"""Stands for digital silence; the noise of 16-bit samples is at -101."""

ENERGY_SHARE = 0.99

# Source of the gates: speech report, section 5. They are judgement, tried on synthetic speech and made noise and
# not calibrated on recordings of people.
MIN_PEAK = 0.001
"""-60 dBFS: below it there is nothing but the hiss of an open input."""
MIN_SPEECH_S = 3.0
MAX_SILENCE_RATIO = 0.5
MAX_CLIPPED_RATIO = 0.001
MIN_SNR_DB = 15.0


def measure(samples: FloatArray, *, sample_rate_hz: int, clipped_ratio: float) -> ClipReport:
    """
    samples        [n] float32 mono, n >= 1
    clipped_ratio  measured before the clip was resampled, where overdriven peaks are still flat
    """
    levels_dbfs = _levels_dbfs(samples, frame=round(FRAME_S * sample_rate_hz))
    loud_dbfs, quiet_dbfs = np.percentile(levels_dbfs, [LOUD_PERCENTILE, QUIET_PERCENTILE])
    speech = levels_dbfs > max(loud_dbfs - SPEECH_WITHIN_DB, FLOOR_DBFS)
    duration_s = len(samples) / sample_rate_hz
    return ClipReport(
        duration_s=duration_s,
        speech_s=float(speech.mean()) * duration_s,
        peak=float(np.abs(samples).max()),
        clipped_ratio=clipped_ratio,
        snr_db=float(loud_dbfs - quiet_dbfs),
        loudness_dbfs=_mean_dbfs(levels_dbfs[speech]),
        bandwidth_hz=_bandwidth_hz(samples, sample_rate_hz),
    )


def check(report: ClipReport) -> None:
    """raises ReferenceSilent, ReferenceTooShort, ReferenceClipped, ReferenceNoisy"""
    silence_ratio = 1 - report.speech_s / report.duration_s
    if report.peak < MIN_PEAK:
        raise ReferenceSilent(f"the clip is silent: its peak is {report.peak:.5f}, at least {MIN_PEAK:g} is accepted")
    if report.speech_s < MIN_SPEECH_S:
        raise ReferenceTooShort(
            f"the clip has {report.speech_s:.1f} s of speech in {report.duration_s:.1f} s; "
            f"at least {MIN_SPEECH_S:g} s are accepted"
        )
    if silence_ratio > MAX_SILENCE_RATIO:
        raise ReferenceSilent(
            f"{silence_ratio:.0%} of the clip is silence; at most {MAX_SILENCE_RATIO:.0%} is accepted"
        )
    if report.clipped_ratio >= MAX_CLIPPED_RATIO:
        raise ReferenceClipped(
            f"the clip is overdriven: {report.clipped_ratio:.2%} of it stands at its peak; "
            f"less than {MAX_CLIPPED_RATIO:.2%} is accepted"
        )
    if report.snr_db < MIN_SNR_DB:
        raise ReferenceNoisy(
            f"the speech is {report.snr_db:.1f} dB louder than its noise; at least {MIN_SNR_DB:g} dB are accepted"
        )


def _levels_dbfs(samples: FloatArray, *, frame: int) -> npt.NDArray[np.float64]:
    """RMS of each frame; the last one is filled up with silence."""
    padded = np.pad(samples.astype(np.float64), (0, -len(samples) % frame))
    power: npt.NDArray[np.float64] = np.square(padded).reshape(-1, frame).mean(axis=1)
    levels_dbfs: npt.NDArray[np.float64] = 10 * np.log10(np.maximum(power, 10 ** (FLOOR_DBFS / 10)))
    return levels_dbfs


def _mean_dbfs(levels_dbfs: npt.NDArray[np.float64]) -> float:
    """The level of the frames together: power is averaged, not decibels."""
    return float(10 * np.log10(np.mean(10 ** (levels_dbfs / 10)))) if len(levels_dbfs) else FLOOR_DBFS


def _bandwidth_hz(samples: FloatArray, sample_rate_hz: int) -> float:
    """The frequency below which ENERGY_SHARE of the energy lies, to 1/2048 of the rate."""
    size = 2048
    blocks = np.pad(samples, (0, -len(samples) % size)).reshape(-1, size) * np.hanning(size).astype(np.float32)
    energy = np.square(np.abs(np.fft.rfft(blocks))).sum(axis=0)
    below = np.searchsorted(np.cumsum(energy), ENERGY_SHARE * energy.sum())
    return float(below) * sample_rate_hz / size
