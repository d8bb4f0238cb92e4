"""What eSpeak can take from a reference clip: how high the voice is, and how fast it speaks."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tts_core.errors import ReferenceTooShort
from tts_core.types import FloatArray, ReferenceClip, Speaker

Floats = npt.NDArray[np.float64]

MIN_SPEECH_S = 1.0
FRAME_S = 0.04
PITCH_RANGE_HZ = (60.0, 500.0)
VOICED = 0.6
"""Least periodicity, 0..1, of a frame whose pitch counts."""

FEMALE_FROM_HZ = 165.0
PITCH_STEPS = (0, 20, 40, 60, 80, 99)
MALE = ("m3", (71, 81, 95, 114, 140, 172))
FEMALE = ("f2", (126, 147, 174, 212, 259, 320))
"""Variant and the median pitch in Hz it has at PITCH_STEPS. Source: `median_pitch_hz` on two sentences in each of
the 17 languages, espeak-ng 1.52.0; the median language is given, and all but Mandarin are within 8 % of it."""

MANDARIN_PITCH = 0.88
"""The same measurement in Mandarin, relative to the others: its tones fall more than they rise."""

NORMAL_RATE_WPM = 175
NORMAL_PACE_PER_S = 5.2
"""Mean `pace_per_s` of both variants over en es ru ja zh hi hu at the normal rate; single ones differ by 20 %."""
PACE_RATIO_RANGE = (0.75, 1.35)
"""Further than this a language's own rhythm has been taken for the speaker's pace."""


def measure(clips: Sequence[ReferenceClip]) -> Speaker:
    """Median pitch and pace of the clips together: {"pitch_hz": [1], "pace_per_s": [1]}.

    raises  ReferenceTooShort if there is less than a second of speech, or none with a pitch
    """
    speech_s = sum(_speech_s(clip) for clip in clips)
    pitches_hz = [hz for clip in clips for hz in voiced_pitches_hz(clip.samples, clip.sample_rate_hz)]
    if speech_s < MIN_SPEECH_S or not pitches_hz:
        raise ReferenceTooShort(f"the reference has {speech_s:.1f} s of speech; {MIN_SPEECH_S:.0f} s are needed")
    peaks = sum(_syllables(clip) for clip in clips)
    pace = peaks / speech_s
    conditioning = {"pitch_hz": _one(float(np.median(pitches_hz))), "pace_per_s": _one(pace)}
    return Speaker(conditioning=conditioning)


def variant_for(pitch_hz: float, *, mandarin: bool) -> tuple[str, int]:
    """The variant and the pitch setting, 0..99, whose speech has this median pitch, or comes nearest."""
    name, steps_hz = FEMALE if pitch_hz >= FEMALE_FROM_HZ else MALE
    factor = MANDARIN_PITCH if mandarin else 1.0
    pitch = np.interp(np.log(pitch_hz), np.log(np.multiply(steps_hz, factor)), PITCH_STEPS)
    return name, round(float(pitch))


def rate_wpm_for(pace_per_s: float) -> float:
    return NORMAL_RATE_WPM * float(np.clip(pace_per_s / NORMAL_PACE_PER_S, *PACE_RATIO_RANGE))


def voiced_pitches_hz(samples: FloatArray, sample_rate_hz: int) -> Floats:
    """The pitch of each loud, periodic 40 ms frame, one every 10 ms.

    Autocorrelation of the windowed frame over that of the window (Boersma 1993), with a small cost per octave so that
    a period is not taken for two.
    """
    size = round(FRAME_S * sample_rate_hz)
    frames = _frames(samples, size=size, hop=size // 4)
    loudness = np.sqrt(np.mean(np.square(frames), axis=1))
    frames = frames[loudness > 0.1 * np.percentile(loudness, 95)] if len(frames) else frames
    shortest, longest = (round(sample_rate_hz / hz) for hz in reversed(PITCH_RANGE_HZ))
    periodicity = _autocorrelation(frames)[:, shortest : longest + 1]
    lags = np.arange(shortest, longest + 1)
    best = np.argmax(periodicity - 0.02 * np.log2(lags / shortest), axis=1)
    voiced = periodicity[np.arange(len(best)), best] > VOICED
    pitches: Floats = sample_rate_hz / lags[best[voiced]]
    return pitches


def _autocorrelation(frames: Floats) -> Floats:
    """Of each row, 1 at lag 0, corrected for the window; silent rows are all zero."""
    size = frames.shape[1]
    window = np.hanning(size)
    own = _raw_autocorrelation(window[None])
    raw = _raw_autocorrelation((frames - frames.mean(axis=1, keepdims=True)) * window)
    usable = size * 3 // 4  # beyond that the window's own is all but zero
    normal: Floats = raw[:, :usable] / np.maximum(raw[:, :1], 1e-12) / (own[:, :usable] / own[:, :1])
    return normal


def _raw_autocorrelation(rows: Floats) -> Floats:
    size = rows.shape[1]
    spectrum = np.fft.rfft(rows, 2 * size)
    raw: Floats = np.fft.irfft(np.square(np.abs(spectrum)), 2 * size)[:, :size]
    return raw


def _speech_s(clip: ReferenceClip) -> float:
    return float(np.count_nonzero(_speech_frames(_envelope(clip)))) / 100


def _syllables(clip: ReferenceClip) -> int:
    """Peaks of the energy envelope within speech: about one per syllable."""
    envelope = _envelope(clip)
    inner = envelope[1:-1]
    peaks = (inner > envelope[:-2]) & (inner >= envelope[2:]) & _speech_frames(envelope)[1:-1]
    return int(np.count_nonzero(peaks))


def _envelope(clip: ReferenceClip) -> Floats:
    """RMS per 10 ms, smoothed over about a syllable (170 ms Hann)."""
    size = clip.sample_rate_hz // 100
    level = np.sqrt(np.mean(np.square(_frames(clip.samples, size=size, hop=size)), axis=1))
    window = np.hanning(17)
    return np.convolve(level, window / window.sum(), mode="same") if len(level) > len(window) else level


def _speech_frames(envelope: Floats) -> npt.NDArray[np.bool_]:
    """Within 25 dB of the loud parts."""
    loud = np.percentile(envelope, 95) if envelope.size else 0.0
    frames: npt.NDArray[np.bool_] = envelope > max(loud * 10 ** (-25 / 20), 1e-4)
    return frames


def _frames(samples: FloatArray, *, size: int, hop: int) -> Floats:
    """[n, size] overlapping rows; none if the samples are fewer than one."""
    if len(samples) < size:
        return np.zeros((0, size))
    return np.lib.stride_tricks.sliding_window_view(samples.astype(np.float64), size)[::hop]


def _one(value: float) -> FloatArray:
    return np.array([value], np.float32)
