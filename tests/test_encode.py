"""Every file is read back by a program that is not ours: soundfile where it can, FFmpeg for the rest."""

import io
import struct

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import clips
from tts_core.audio import encode
from tts_core.audio.encode import Encoder, check_rate, content_type, default_rate_hz, seal
from tts_core.errors import InvalidInput
from tts_core.types import AudioFormat, FloatArray

FORMATS: list[AudioFormat] = ["wav", "pcm", "mp3", "opus", "flac", "aac", "ulaw", "alaw"]
LENGTH_KEEPING: list[AudioFormat] = ["wav", "pcm", "flac", "opus", "ulaw", "alaw"]
RAW_SUBTYPES = {"pcm": "PCM_16", "ulaw": "ULAW", "alaw": "ALAW"}
ALL = [(format, rate_hz) for format in FORMATS for rate_hz in encode.CODECS[format].rates_hz]


def encoded(samples: FloatArray, format: AudioFormat, *, rate_hz: int, splits: list[int] | None = None) -> bytes:
    encoder = Encoder(format, source_rate_hz=clips.RATE_HZ, sample_rate_hz=rate_hz)
    parts = [encoder.write(part) for part in np.split(samples, sorted(splits or []))]
    return b"".join([*parts, encoder.finish()])


def decoded(data: bytes, format: AudioFormat, *, rate_hz: int) -> FloatArray:
    if format in RAW_SUBTYPES:
        raw = {"samplerate": rate_hz, "channels": 1, "format": "RAW", "subtype": RAW_SUBTYPES[format]}
        return clips.as_float32(soundfile.read(io.BytesIO(data), **raw)[0])
    if format == "aac":
        return decoded_by_ffmpeg(data, rate_hz=rate_hz)
    whole = io.BytesIO(data)
    seal(whole, format)  # soundfile cannot read a flac that does not tell its length
    with soundfile.SoundFile(io.BytesIO(whole.getvalue())) as file:
        assert (file.samplerate, file.channels) == (rate_hz, 1)
        return clips.as_float32(file.read())


def decoded_by_ffmpeg(data: bytes, *, rate_hz: int) -> FloatArray:
    with av.open(io.BytesIO(data), "r") as container:
        frames = list(container.decode(audio=0))
    assert {frame.sample_rate for frame in frames} <= {rate_hz}
    return clips.as_float32(np.concatenate([np.zeros(0), *(frame.to_ndarray()[0] for frame in frames)]))


def at_rate(samples: FloatArray, rate_hz: int) -> FloatArray:
    """Resampled exactly, by way of the whole spectrum."""
    spectrum = np.fft.rfft(samples)
    length = len(samples) * rate_hz // clips.RATE_HZ
    return clips.as_float32(np.fft.irfft(spectrum[: length // 2 + 1], length) * length / len(samples))


def snr_db(got: FloatArray, wanted: FloatArray) -> float:
    """Over the middle of the clip, after moving `got` by the delay that fits best (up to 0.1 s)."""
    padded = np.concatenate([got, np.zeros(len(wanted))])
    correlation = np.fft.irfft(np.fft.rfft(padded[: len(wanted)]) * np.conj(np.fft.rfft(wanted)), len(wanted))
    lag = int(np.argmax(correlation[: len(wanted) // 10]))
    middle = slice(len(wanted) // 10, -len(wanted) // 10)
    error = padded[lag : lag + len(wanted)][middle] - wanted[middle]
    return float(10 * np.log10(np.mean(wanted[middle] ** 2) / np.mean(error**2)))


@pytest.fixture(scope="module")
def tone() -> FloatArray:
    """One second below 3 kHz, so that every rate can carry it; long enough for codecs to settle."""
    t = np.arange(clips.RATE_HZ) / clips.RATE_HZ
    sound = sum(np.sin(2 * np.pi * hz * t + hz) for hz in (150, 300, 450, 900, 1500, 2400))
    return clips.as_float32(sound * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * t)) / 12)


@pytest.mark.parametrize(("format", "rate_hz"), ALL)
def test_what_was_written_is_what_a_reader_hears(tone: FloatArray, format: AudioFormat, rate_hz: int) -> None:
    heard = decoded(encoded(tone, format, rate_hz=rate_hz), format, rate_hz=rate_hz)
    floor_db = {"wav": 60, "pcm": 60, "flac": 60, "ulaw": 30, "alaw": 30}.get(format, 9)
    assert snr_db(heard, at_rate(tone, rate_hz)) > floor_db


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_how_the_samples_are_split_changes_no_byte(format: AudioFormat, data: st.DataObject) -> None:
    samples = clips.speech(0.4, noise_dbfs=-30)
    rate_hz = data.draw(st.sampled_from(encode.CODECS[format].rates_hz))
    splits = data.draw(st.lists(st.integers(0, len(samples)), max_size=30))
    whole = encoded(samples, format, rate_hz=rate_hz)
    assert encoded(samples, format, rate_hz=rate_hz, splits=splits) == whole


@pytest.mark.parametrize("format", LENGTH_KEEPING)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_no_sample_is_lost_or_added(format: AudioFormat, data: st.DataObject) -> None:
    rate_hz = data.draw(st.sampled_from(encode.CODECS[format].rates_hz))
    length = data.draw(st.integers(1, 9000))
    samples = clips.noise(length, level_dbfs=-20)
    heard = decoded(encoded(samples, format, rate_hz=rate_hz), format, rate_hz=rate_hz)
    assert abs(len(heard) - length * rate_hz / clips.RATE_HZ) <= 1


@pytest.mark.parametrize("format", ["wav", "pcm", "flac"])
def test_sixteen_bit_samples_pass_through_unchanged(format: AudioFormat) -> None:
    numbers = np.concatenate([np.arange(-32768, 32768, 7), [32767]]).astype(np.int16)
    heard = decoded(encoded(clips.as_float32(numbers / 32768), format, rate_hz=24_000), format, rate_hz=24_000)
    assert np.array_equal(heard * 32768, numbers)


@pytest.mark.parametrize("format", FORMATS)
def test_too_loud_is_clipped_and_does_not_wrap(format: AudioFormat) -> None:
    loud = clips.as_float32(3 * np.sin(2 * np.pi * 100 * np.arange(24_000) / 24_000))
    heard = decoded(encoded(loud, format, rate_hz=24_000), format, rate_hz=24_000)
    assert snr_db(heard, np.clip(loud, -1, 1)) > 12
    assert np.abs(heard).max() < 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_sample_that_is_no_number_is_our_own_mistake(bad: float) -> None:
    encoder = Encoder("wav", source_rate_hz=24_000, sample_rate_hz=24_000)
    with pytest.raises(ValueError, match="finite"):
        encoder.write(clips.as_float32(np.array([0.0, bad])))


@pytest.mark.parametrize("format", FORMATS)
def test_without_a_sample_there_is_no_file_or_a_valid_one(format: AudioFormat) -> None:
    empty = encoded(clips.as_float32(np.zeros(0)), format, rate_hz=24_000)
    file = io.BytesIO(empty)
    seal(file, format)
    assert file.getvalue() == empty or format == "wav"
    assert len(decoded(empty, format, rate_hz=24_000) if format == "wav" else empty) == 0


@pytest.mark.parametrize("format", [format for format in FORMATS if format not in ("wav", "pcm")])
def test_speech_comes_out_while_it_is_spoken(format: AudioFormat) -> None:
    encoder = Encoder(format, source_rate_hz=24_000, sample_rate_hz=24_000)
    parts = [encoder.write(clips.speech(0.1, noise_dbfs=-30)) for _ in range(10)]
    heard = decoded_by_ffmpeg_as_far_as_it_goes(b"".join(parts), format)
    assert len(heard) >= 0.75 * 24_000


def test_a_stream_begins_with_sound_and_not_with_tags_or_padding() -> None:
    silence = clips.as_float32(np.zeros(2400))
    mp3 = encoded(silence, "mp3", rate_hz=24_000)
    assert int.from_bytes(mp3[:2], "big") >> 5 == 0x7FF, "not the sync word of a frame"
    assert len(encoded(silence, "flac", rate_hz=24_000)) < 100


@pytest.mark.parametrize("format", ["wav", "pcm"])
def test_pcm_is_held_back_by_the_resampler_only(format: AudioFormat) -> None:
    encoder = Encoder(format, source_rate_hz=24_000, sample_rate_hz=48_000)
    header_bytes = encode.WAV_HEADER_BYTES if format == "wav" else 0
    first = encoder.write(clips.speech(0.01))
    assert len(first) - header_bytes >= 2 * (480 - 40)


def test_pcm_at_its_own_rate_is_not_held_back_at_all() -> None:
    encoder = Encoder("pcm", source_rate_hz=24_000, sample_rate_hz=24_000)
    assert len(encoder.write(clips.speech(0.01))) == 480
    assert encoder.finish() == b""


def test_a_streamed_wav_says_its_length_is_unknown_and_a_sealed_one_knows_it() -> None:
    data = encoded(clips.speech(0.5), "wav", rate_hz=24_000)
    assert struct.unpack_from("<I", data, 4) == struct.unpack_from("<I", data, 40) == (0xFFFFFFFF,)
    file = io.BytesIO(data)
    seal(file, "wav")
    assert struct.unpack_from("<I", file.getvalue(), 4) == (len(data) - 8,)
    assert struct.unpack_from("<I", file.getvalue(), 40) == (len(data) - 44,)
    assert file.tell() == len(data)


@pytest.mark.parametrize("format", ["wav", "flac"])
@pytest.mark.parametrize("rate_hz", [8000, 44_100])
def test_a_sealed_file_has_the_length_in_its_header(format: AudioFormat, rate_hz: int) -> None:
    data = encoded(clips.speech(1.5), format, rate_hz=rate_hz)
    file = io.BytesIO(data)
    seal(file, format)
    with soundfile.SoundFile(io.BytesIO(file.getvalue())) as sealed:
        heard = decoded_by_ffmpeg(data, rate_hz=rate_hz) / (32768 if format in ("wav", "flac") else 1)
        assert sealed.frames == 1.5 * rate_hz
        assert np.array_equal(clips.as_float32(sealed.read()), heard)


@pytest.mark.parametrize("format", sorted(set(FORMATS) - {"wav", "flac"}))
def test_sealing_leaves_other_formats_alone(format: AudioFormat) -> None:
    data = encoded(clips.speech(0.3), format, rate_hz=24_000)
    file = io.BytesIO(data)
    seal(file, format)
    assert file.getvalue() == data


@pytest.mark.parametrize(("format", "rate_hz"), [("opus", 44_100), ("wav", 24_001), ("ulaw", 0), ("mp3", -8000)])
def test_a_rate_the_format_does_not_take_is_refused_with_those_it_does(format: AudioFormat, rate_hz: int) -> None:
    with pytest.raises(InvalidInput, match=rf"sample_rate {rate_hz}.*8000, 16000.*48000"):
        check_rate(format, rate_hz)
    with pytest.raises(InvalidInput, match="sample_rate"):
        Encoder(format, source_rate_hz=24_000, sample_rate_hz=rate_hz)


def test_every_format_has_a_rate_and_a_type_of_its_own() -> None:
    assert {format: default_rate_hz(format) for format in FORMATS if default_rate_hz(format) != 24_000} == {
        "ulaw": 8000,
        "alaw": 8000,
    }
    assert len({content_type(format) for format in FORMATS}) == len(FORMATS)


def decoded_by_ffmpeg_as_far_as_it_goes(data: bytes, format: AudioFormat) -> FloatArray:
    """What a player has so far: a file cut short ends in an error, after all that came before it."""
    muxer = encode.CODECS[format].muxer
    raw = {"sample_rate": "24000", "ch_layout": "mono"} if format in RAW_SUBTYPES else {}
    parts = [np.zeros(0)]
    with av.open(io.BytesIO(data), "r", format={"adts": "aac"}.get(muxer, muxer), options=raw) as container:
        try:
            parts += [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
        except av.error.FFmpegError:
            return clips.as_float32(np.concatenate(parts))
    return clips.as_float32(np.concatenate(parts))
