"""Two judges of speech: one compares it with a reference rendering, the other writes down its English words."""

import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Literal

import av
import numpy as np
import numpy.typing as npt
from pocketsphinx import Decoder, get_model_path
from pocketsphinx.lm import ArpaBoLM  # type: ignore[import-untyped,unused-ignore]

from tts_core.types import FloatArray

Floats = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]
Side = Literal["missing", "extra"]

RATE_HZ = 8000
HOP = 80
WINDOW = 200
"""10 ms and 25 ms."""
MEL_BANDS = 23
CEPSTRA = 13

SPEECH_DB = -30.0
"""A frame is speech above this level, relative to the loud frames (95th percentile)."""
FLOOR_DB = -45.0
"""Below this level all sounds are alike."""
MIN_FAULT_FRAMES = 4

GAP_COST = 2.2
SILENT_GAP_COST = 0.2
OPEN_COST = 6.0
"""Leaving out a frame, a silent frame, and beginning to leave out, in units of the distance of two frames: the same
sound of two renderings is about 0.5 apart, two different ones 4."""
BAND_FRAMES = 600
"""How far the two may drift apart beyond their difference in length."""

MATCH, EXTRA, MISSING = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Fault:
    """Speech on one side only, in seconds of the side that has it: `expected` if missing, `heard` if extra."""

    start_s: float
    end_s: float
    side: Side


def dtw_faults(
    heard: FloatArray, expected: FloatArray, sample_rate_hz: int, *, expected_rate_hz: int | None = None
) -> list[Fault]:
    """Where `heard` lacks speech of `expected`, or has speech that `expected` has not. Silences may differ.

    An alignment of 13 MFCC and their deltas every 10 ms, with affine gaps; 40 ms of speech within a gap are a fault.
    Both must come from the same voice. Limits as measured: a cut of 150 ms or a dropped "a" may pass unnoticed, and
    noise within 30 dB of the speech counts as speech.
    """
    ours = _Sound.of(heard, sample_rate_hz)
    theirs = _Sound.of(expected, expected_rate_hz or sample_rate_hz)
    steps = _align(ours, theirs)
    extra = _faults([i for i, _, state in steps if state == EXTRA], ours.speech, "extra")
    missing = _faults([j for _, j, state in steps if state == MISSING], theirs.speech, "missing")
    return sorted([*extra, *missing], key=lambda fault: fault.start_s)


@dataclass(frozen=True, slots=True, eq=False)
class _Sound:
    """features [n, 26]; speech [n] whether the frame is speech"""

    features: Floats
    speech: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, samples: FloatArray, sample_rate_hz: int) -> "_Sound":
        low = resample(samples, sample_rate_hz, RATE_HZ).astype(np.float64)
        padded = np.concatenate((low, np.zeros(WINDOW)))
        frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP] * np.hanning(WINDOW)
        power = np.square(np.abs(np.fft.rfft(frames, 256)))
        energy_db = 10 * np.log10(power.sum(axis=1) + 1e-10)
        loud_db = float(np.percentile(energy_db, 95))
        speech = energy_db > max(loud_db + SPEECH_DB, -40.0)
        cepstra = _cepstra(power, floor=10 ** ((loud_db + FLOOR_DB) / 10))
        cepstra -= cepstra[speech].mean(axis=0) if speech.any() else 0.0
        return cls(np.hstack((cepstra, _delta(cepstra))), speech)

    @property
    def gap_costs(self) -> Floats:
        return np.where(self.speech, GAP_COST, SILENT_GAP_COST)


def _cepstra(power: Floats, *, floor: float) -> Floats:
    """[n, 13] from power spectra [n, 129], scaled so that each coefficient weighs about the same."""
    mel = power @ _mel_filters().T + floor / MEL_BANDS
    band = np.arange(MEL_BANDS)
    basis = np.cos(np.pi / MEL_BANDS * np.outer(np.arange(CEPSTRA), band + 0.5))
    lifter = 1 + 0.5 * np.arange(CEPSTRA)
    lifter[0] = 0.3
    cepstra: Floats = np.log(mel) @ basis.T / MEL_BANDS * lifter
    return cepstra


def _mel_filters() -> Floats:
    """[bands, 129] triangles between 80 and 4000 Hz."""
    lowest, highest = (2595 * float(np.log10(1 + hz / 700)) for hz in (80, 4000))
    mel = np.linspace(lowest, highest, MEL_BANDS + 2)
    edges = (700 * (10 ** (mel / 2595) - 1))[:, None]
    hz = np.arange(129) * RATE_HZ / 256
    rising = (hz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hz) / (edges[2:] - edges[1:-1])
    filters: Floats = np.clip(np.minimum(rising, falling), 0, None)
    return filters


def _delta(cepstra: Floats) -> Floats:
    """The slope over 50 ms, times two."""
    padded = np.pad(cepstra, ((2, 2), (0, 0)), mode="edge")
    slope: Floats = (2 * (padded[4:] - padded[:-4]) + padded[3:-1] - padded[1:-3]) / 10
    return 2 * slope


def _align(ours: _Sound, theirs: _Sound) -> list[tuple[int, int, int]]:
    """The cheapest way through both: (our frame, their frame, MATCH | EXTRA | MISSING) in order of time.

    One row per frame of ours: the cost of ending there with a match, with a gap here, or with a gap there (Gotoh
    1982). A gap along the row is a running minimum over costs less the gap's own sum, so rows need no inner loop.
    """
    rows, columns = len(ours.features), len(theirs.features)
    gaps = np.concatenate(([0.0], np.cumsum(theirs.gap_costs)))
    costs = np.full((3, columns + 1), np.inf)
    costs[MATCH, 0] = 0.0
    costs[MISSING, 1:] = OPEN_COST + gaps[1:]
    came_from: list[tuple[int, Bytes]] = [(0, np.full((3, columns + 1), MISSING, np.uint8))]
    came_from[0][1][MISSING, 1] = MATCH
    for row, (low, high) in enumerate(_band(rows, columns), start=1):
        frame, gap = ours.features[row - 1], ours.gap_costs[row - 1]
        costs, choice = _row(costs, frame=frame, gap=gap, theirs=theirs.features, gaps=gaps, span=(low, high))
        came_from.append((low, choice))
    return _trace(came_from, last=int(np.argmin(costs[:, columns])), columns=columns)


def _band(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    """For each row the columns worth a look, `low` to `high` exclusive, of columns + 1."""
    reach = abs(rows - columns) + BAND_FRAMES
    for row in range(1, rows + 1):
        middle = row * columns // rows
        yield max(0, middle - reach), min(columns + 1, middle + reach + 1)


def _row(
    before: Floats, *, frame: Floats, gap: float, theirs: Floats, gaps: Floats, span: tuple[int, int]
) -> tuple[Floats, Bytes]:
    """Costs [3, columns + 1] after one more frame of ours, and the state each came from, within the span."""
    low, high = span
    costs = np.full_like(before, np.inf)
    choice = np.zeros((3, high - low), np.uint8)
    start = max(low, 1)
    distance = np.sqrt(np.square(theirs[start - 1 : high - 1] - frame).sum(axis=1))
    entry = before[:, start - 1 : high - 1]
    choice[MATCH, start - low :] = entry.argmin(axis=0)
    costs[MATCH, start:high] = entry.min(axis=0) + distance

    opened = before[:, low:high] + np.array([[OPEN_COST], [0.0], [OPEN_COST]])
    choice[EXTRA] = opened.argmin(axis=0)
    costs[EXTRA, low:high] = opened.min(axis=0) + gap

    begun = costs[:MISSING, low:high] + OPEN_COST
    best = begun.min(axis=0) - gaps[low:high]
    running = np.minimum.accumulate(best)
    costs[MISSING, low + 1 : high] = running[:-1] + gaps[low + 1 : high]
    fresh = best[:-1] <= running[:-1]
    choice[MISSING, 1:] = np.where(fresh, begun.argmin(axis=0)[:-1], MISSING)
    return costs, choice


def _trace(came_from: Sequence[tuple[int, Bytes]], *, last: int, columns: int) -> list[tuple[int, int, int]]:
    """Walk back from the end of both."""
    row, column, state = len(came_from) - 1, columns, last
    steps: list[tuple[int, int, int]] = []
    while row or column:
        low, choice = came_from[row]
        steps.append((row - 1, column - 1, state))
        origin = int(choice[state, column - low])
        row -= state in (MATCH, EXTRA)
        column -= state in (MATCH, MISSING)
        state = origin
    return steps[::-1]


def _faults(frames: Sequence[int], speech: npt.NDArray[np.bool_], side: Side) -> list[Fault]:
    """Runs of consecutive left out frames that are speech, if long enough."""
    spoken = np.array([frame for frame in frames if speech[frame]], int)
    runs = np.split(spoken, np.flatnonzero(np.diff(spoken) > 1) + 1)
    return [
        Fault(int(run[0]) * HOP / RATE_HZ, int(run[-1] + 1) * HOP / RATE_HZ, side)
        for run in runs
        if len(run) >= MIN_FAULT_FRAMES
    ]


def resample(samples: FloatArray, from_hz: int, to_hz: int) -> FloatArray:
    if from_hz == to_hz or not samples.size:
        return samples
    resampler = av.AudioResampler(format="flt", layout="mono", rate=to_hz)
    frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="flt", layout="mono")
    frame.sample_rate = from_hz
    parts = [part.to_ndarray()[0] for given in (frame, None) for part in resampler.resample(given)]
    return np.concatenate(parts).astype(np.float32)


NOISE_DB = -28.0
"""White noise under the speech, relative to its RMS: the recogniser was trained on rooms, eSpeak has none."""
ASR_RATE_HZ = 16_000


@dataclass(frozen=True, slots=True)
class WordErrors:
    """Words of the text that were not heard, and words heard that the text has not, in order."""

    dropped: tuple[str, ...]
    added: tuple[str, ...]

    @property
    def count(self) -> int:
        return len(self.dropped) + len(self.added)


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower().replace("’", "'"))


def heard_words(audio: FloatArray, sample_rate_hz: int, text: str) -> list[str]:
    """What an English recogniser hears, given that the words are those of `text` in about this order.

    It cannot hear other words, and its language model prefers the text: it notices words that are left out or said
    twice, but not a wrong sound in a word.

    raises  KeyError if a word of the text is not in the recogniser's dictionary
    """
    with tempfile.TemporaryDirectory() as folder:
        dictionary, model = Path(folder, "words.dict"), Path(folder, "text.lm")
        dictionary.write_text(_pronunciations(set(words_of(text))))
        language_model = ArpaBoLM(text=" ".join(words_of(text)), add_start=True)
        language_model.compute()
        language_model.write_file(str(model))
        decoder = Decoder(hmm=get_model_path("en-us/en-us"), lm=str(model), dict=str(dictionary), loglevel="FATAL")
    decoder.start_utt()
    decoder.process_raw(_pcm_with_noise(audio, sample_rate_hz), full_utt=True)
    decoder.end_utt()
    heard = [str(segment.word) for segment in decoder.seg() or ()]
    return [re.sub(r"\(\d+\)$", "", word) for word in heard if word[0] not in "<[+"]


def word_errors(heard: Sequence[str], text: str) -> WordErrors:
    """The fewest words to leave out and to add that turn the text into what was heard."""
    expected = words_of(text)
    dropped: list[str] = []
    added: list[str] = []
    matcher = SequenceMatcher(None, expected, heard, autojunk=False)
    for kind, start, end, heard_start, heard_end in matcher.get_opcodes():
        if kind != "equal":
            dropped += expected[start:end]
            added += heard[heard_start:heard_end]
    return WordErrors(tuple(dropped), tuple(added))


def _pronunciations(words: set[str]) -> str:
    """The lines of the recogniser's dictionary for these words, with their variants."""
    lines = Path(get_model_path("en-us/cmudict-en-us.dict")).read_text().splitlines()
    wanted = [line for line in lines if re.sub(r"\(\d+\)$", "", line.split(" ", 1)[0]) in words]
    unknown = words - {line.split(" ", 1)[0] for line in wanted}
    if unknown:
        raise KeyError(f"the recogniser has no pronunciation of {sorted(unknown)}")
    return "\n".join(wanted) + "\n"


def _pcm_with_noise(audio: FloatArray, sample_rate_hz: int) -> bytes:
    """16-bit PCM at the recogniser's rate, at a common level, with half a second of quiet at both ends."""
    speech = np.pad(resample(audio, sample_rate_hz, ASR_RATE_HZ), ASR_RATE_HZ // 2)
    level = float(np.sqrt(np.mean(np.square(speech)))) or 1.0
    noise = np.random.default_rng(0).normal(0, 10 ** (NOISE_DB / 20), len(speech))
    loud: FloatArray = np.clip(0.08 * (speech / level + noise), -1, 1)
    return (loud * 32767).astype("<i2").tobytes()
