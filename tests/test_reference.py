"""Real files through real child processes: the clip, the refusal, and what /proc says of the child."""

import asyncio
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from tests import clips
from tts_core.audio import decode_child, reference
from tts_core.audio.decode_child import SAMPLE_RATE_HZ, ClipMeter
from tts_core.audio.measure import measure
from tts_core.audio.reference import ReferenceReader
from tts_core.errors import (
    ReferenceClipped,
    ReferenceNoisy,
    ReferenceNotAudio,
    ReferenceRefused,
    ReferenceSilent,
    ReferenceTooLarge,
    ReferenceTooLong,
    ReferenceTooShort,
    StartupError,
)
from tts_core.types import AudioFormat, FloatArray

MAX_BYTES = 6_000_000
GOOD = clips.encoded(clips.speech(5))
STEREO_48K = clips.speech(5, rate_hz=48_000)

SDP = b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 5004 RTP/AVP 0\r\n"


@pytest_asyncio.fixture(loop_scope="class", scope="class")
async def reader() -> AsyncIterator[ReferenceReader]:
    """One for a whole class: none of its files may spoil it for the next."""
    reader = ReferenceReader(max_bytes=MAX_BYTES)
    yield reader
    await reader.close()


@pytest_asyncio.fixture
async def own_reader() -> AsyncIterator[ReferenceReader]:
    """One child, started, for tests that do it harm."""
    reader = ReferenceReader(max_bytes=MAX_BYTES, children=1, timeout_s=5.0)
    await reader.start()
    yield reader
    await reader.close()


def children_of(pid: int | str) -> set[int]:
    """Decoding children of a process, those that have ended left out."""
    listed = [task.read_text().split() for task in Path(f"/proc/{pid}/task").glob("*/children")]
    return {int(child) for part in listed for child in part if is_decoder(int(child))}


def is_decoder(pid: int) -> bool:
    try:
        return b"decode_child.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.asyncio(loop_scope="class")
class TestAFile:
    @pytest.mark.parametrize("format", ["wav", "mp3", "opus", "flac", "aac"])
    async def test_of_ours_is_read(self, reader: ReferenceReader, format: AudioFormat) -> None:
        expect_the_speech(await self.clip(reader, clips.encoded(clips.speech(5), format)))

    @pytest.mark.parametrize(
        ("muxer", "codec"),
        [
            ("ipod", "aac"),
            ("mp4", "aac"),
            ("mov", "alac"),
            ("webm", "libopus"),
            ("matroska", "flac"),
            ("mp3", "libmp3lame"),
            ("aiff", "pcm_s16be"),
            ("caf", "pcm_s16be"),
            ("wav", "pcm_u8"),
            ("wav", "pcm_s24le"),
            ("wav", "pcm_f32le"),
            ("wav", "pcm_mulaw"),
            ("wav", "adpcm_ms"),
        ],
    )
    async def test_that_people_have_is_read(self, reader: ReferenceReader, muxer: str, codec: str) -> None:
        expect_the_speech(await self.clip(reader, clips.muxed(STEREO_48K, muxer, codec)))

    @pytest.mark.parametrize(("muxer", "codec"), [("mp4", "aac"), ("webm", "libopus"), ("mp3", "libmp3lame")])
    async def test_with_pictures_gives_its_sound(self, reader: ReferenceReader, muxer: str, codec: str) -> None:
        picture = {"mp4": "mpeg4", "webm": "libvpx", "mp3": "png"}[muxer]
        file = clips.muxed(STEREO_48K, muxer, codec, picture=picture)
        expect_the_speech(await self.clip(reader, file))
        kinds = {"mp4": "video/mp4", "webm": "video/webm", "mp3": "audio/mpeg"}
        assert (await reader.read(file)).content_type == kinds[muxer]

    async def test_at_a_telephones_rate_is_read_and_its_bandwidth_told(self, reader: ReferenceReader) -> None:
        hiss = clips.noise(5 * 8000, level_dbfs=-30) * (clips.speech(5, rate_hz=8000, noise_dbfs=-120) != 0)
        narrow = clips.as_float32(clips.speech(5, rate_hz=8000) + hiss)
        clip = await reader.read(clips.encoded(narrow, "wav", rate_hz=8000))
        assert 1_000 < clip.report.bandwidth_hz < 4_100

    async def test_loud_in_both_channels_is_not_clipped_by_mixing_them(self, reader: ReferenceReader) -> None:
        loud = clips.as_float32(STEREO_48K / np.abs(STEREO_48K).max() * 0.98)
        clip = await reader.read(clips.muxed(loud, "wav", "pcm_s16le"))
        assert clip.report.peak == pytest.approx(0.98, abs=0.01)
        assert clip.report.clipped_ratio == 0

    async def test_cut_off_in_transfer_counts_for_what_it_holds(self, reader: ReferenceReader) -> None:
        whole = clips.encoded(clips.speech(12), "flac")
        clip = await reader.read(whole[: len(whole) // 2])
        assert 4 < clip.report.duration_s < 8

    async def test_of_59_seconds_is_read(self, reader: ReferenceReader) -> None:
        assert (await reader.read(clips.encoded(np.tile(clips.speech(1), 59)))).report.duration_s == pytest.approx(59)

    @staticmethod
    async def clip(reader: ReferenceReader, data: bytes) -> FloatArray:
        clip = await reader.read(data)
        assert clip.sample_rate_hz == SAMPLE_RATE_HZ
        assert clip.report.duration_s == len(clip.samples) / SAMPLE_RATE_HZ
        return clip.samples


def expect_the_speech(heard: FloatArray) -> None:
    """The five seconds of `clips.speech`, delayed by a codec's priming or not."""
    assert heard.dtype == np.float32
    assert heard.flags.writeable
    assert 5 <= len(heard) / SAMPLE_RATE_HZ < 5.1
    wanted = clips.speech(5, rate_hz=SAMPLE_RATE_HZ)
    spectrum = np.fft.rfft(heard[: len(wanted)]) * np.conj(np.fft.rfft(wanted))
    likeness = np.fft.irfft(spectrum).max() / np.linalg.norm(heard) / np.linalg.norm(wanted)
    assert likeness > 0.95
    assert np.linalg.norm(heard) == pytest.approx(np.linalg.norm(wanted), rel=0.1)


@pytest.mark.asyncio(loop_scope="class")
class TestARefusal:
    """Each with the value that was measured and what is accepted."""

    @pytest.mark.parametrize(
        ("samples", "error", "message"),
        [
            (clips.speech(2), ReferenceTooShort, r"1\.7 s of speech in 2\.0 s; at least 3 s"),
            (np.tile(np.append(clips.speech(1), np.zeros(72_000)), 2), ReferenceTooShort, r"2\.\d s of speech in 8"),
            (np.tile(clips.speech(2), 31), ReferenceTooLong, "longer than the 60 s"),
            (np.zeros(240_000), ReferenceSilent, r"its peak is 0\.00000"),
            (clips.noise(240_000, level_dbfs=-80), ReferenceSilent, "the clip is silent"),
            (
                np.append(clips.speech(6), np.zeros(240_000)),
                ReferenceSilent,
                "6[89]% of the clip is silence; at most 50%",
            ),
            (clips.clipped(6), ReferenceClipped, r"2\d\.\d\d% of it stands at its peak; less than 0\.10%"),
            (clips.noisy(6, snr_db=5), ReferenceNoisy, r"9\.\d dB louder than its noise; at least 15 dB"),
            (clips.noise(144_000, level_dbfs=-20), ReferenceNoisy, r"1\.\d dB louder"),
        ],
    )
    async def test_of_a_bad_clip(
        self, reader: ReferenceReader, samples: np.ndarray, error: type[ReferenceRefused], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            await reader.read(clips.encoded(clips.as_float32(samples)))

    async def test_spares_what_is_just_good_enough(self, reader: ReferenceReader) -> None:
        await reader.read(clips.encoded(clips.noisy(6, snr_db=20)))
        await reader.read(clips.encoded(clips.speech(4)))
        await reader.read(clips.encoded(np.append(clips.speech(6), clips.as_float32(np.zeros(90_000)))))

    async def test_sees_clipping_that_resampling_and_mp3_have_rounded_off(self, reader: ReferenceReader) -> None:
        flat = clips.as_float32(np.clip(STEREO_48K * 6, -0.5, 0.5))
        for data in (clips.muxed(flat, "wav", "pcm_s24le"), clips.encoded(clips.clipped(6) / np.float32(0.9), "mp3")):
            with pytest.raises(ReferenceClipped):
                await reader.read(data)

    async def test_of_too_many_bytes_comes_before_all_else(self, reader: ReferenceReader) -> None:
        with pytest.raises(ReferenceTooLarge, match="6,000,001 bytes; at most 6,000,000"):
            await reader.read(bytes(MAX_BYTES + 1))
        with pytest.raises(ReferenceNotAudio):
            await reader.read(bytes(MAX_BYTES))

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"RIFF",
            b"hello " * 1000,
            SDP,
            b"ffconcat version 1.0\nfile /etc/passwd\n",
            clips.encoded(clips.as_float32(np.zeros(0))),
            clips.muxed(STEREO_48K, "mp4", "ac3"),
            clips.muxed(STEREO_48K, "au", "pcm_s16be"),
            clips.muxed(STEREO_48K, "adts", "aac")[:3],
            clips.muxed(clips.as_float32(STEREO_48K * np.nan), "wav", "pcm_f32le"),
            clips.encoded(clips.speech(5)).replace((24_000).to_bytes(4, "little"), b"\1\0\0\0", 1),
            clips.encoded(clips.speech(5)).replace((24_000).to_bytes(4, "little"), b"\xff\xff\xff\x7f", 1),
        ],
        ids=lambda data: f"{data[:12]!r}-{len(data)}",
    )
    async def test_of_what_is_no_sound_we_decode(self, reader: ReferenceReader, data: bytes) -> None:
        with pytest.raises(ReferenceNotAudio, match="no sound that can be decoded"):
            await reader.read(data)

    @pytest.mark.parametrize("hours", [0.02, 2])
    async def test_of_a_bomb(self, reader: ReferenceReader, hours: float) -> None:
        bomb = clips.flac_bomb(hours)
        assert len(bomb) < MAX_BYTES
        with pytest.raises(ReferenceTooLong):
            await reader.read(bomb)


async def test_no_damaged_file_spoils_the_reader(own_reader: ReferenceReader) -> None:
    rng = np.random.default_rng(0)
    sound = clips.speech(4, rate_hz=48_000)
    wholes = [clips.muxed(sound, *kind) for kind in (("ipod", "aac"), ("webm", "libopus"), ("mp3", "libmp3lame"))]
    wholes += [clips.encoded(clips.speech(4), format) for format in ("wav", "opus", "flac", "aac")]
    before = children_of("self")
    outcomes = await asyncio.gather(
        *(own_reader.read(damaged(wholes[i % len(wholes)], rng)) for i in range(105)), return_exceptions=True
    )
    assert {type(o) for o in outcomes if isinstance(o, BaseException) and not isinstance(o, ReferenceRefused)} == set()
    assert any(isinstance(o, ReferenceNotAudio) for o in outcomes)
    assert (await own_reader.read(GOOD)).report.duration_s == pytest.approx(5)
    assert children_of("self") == before, "a child broke off, which none of these files has made it do before"


def damaged(whole: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes changed, mostly in the headers; a third of the files cut off as well."""
    data = bytearray(whole)
    reach = len(data) if rng.random() < 0.3 else min(len(data), 600)
    for at in rng.integers(0, reach, rng.integers(1, 30)):
        data[at] = rng.integers(0, 256)
    return bytes(data[: rng.integers(1, len(data))] if rng.random() < 0.3 else data)


async def test_a_playlist_is_not_followed(own_reader: ReferenceReader) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/clip.aac".encode()
        playlist = b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n" + url + b"\n#EXT-X-ENDLIST\n"
        with pytest.raises(ReferenceNotAudio):
            await own_reader.read(playlist)
        assert decode_child._looked_into(playlist)[0]["verdict"] == "not_audio"  # where sockets can be opened
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.mark.usefixtures("own_reader")
async def test_a_child_has_nothing_to_lose() -> None:
    (pid,) = children_of("self")
    assert Path(f"/proc/{pid}/environ").read_bytes() == b"OPENBLAS_NUM_THREADS=1\0"
    files = {entry.name: os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    assert files.keys() == {"0", "1", "2"}
    assert files["0"].startswith("pipe:")
    assert files["1"].startswith("pipe:")
    assert files["2"] == "/dev/null"
    limits = Path(f"/proc/{pid}/limits").read_text()
    for name, value in [("open files", 3), ("processes", 0), ("core file size", 0), ("file size", 0)]:
        assert f"Max {name} {value} {value}" in " ".join(limits.split())
    assert f"Max address space {1 << 30}" in " ".join(limits.split())
    assert os.getuid() != 0 or "Uid: 65534 65534" in " ".join(Path(f"/proc/{pid}/status").read_text().split())


async def test_a_child_that_was_killed_is_replaced_before_anyone_notices(own_reader: ReferenceReader) -> None:
    (killed,) = children_of("self")
    os.kill(killed, signal.SIGKILL)
    await asyncio.to_thread(os.waitid, os.P_PID, killed, os.WEXITED | os.WNOWAIT)
    assert (await own_reader.read(GOOD)).report.duration_s == pytest.approx(5)
    assert len(children_of("self")) == 1
    assert not is_decoder(killed)


async def test_a_child_that_dies_at_work_costs_one_read(own_reader: ReferenceReader) -> None:
    (stopped,) = children_of("self")
    os.kill(stopped, signal.SIGSTOP)
    first = asyncio.create_task(own_reader.read(GOOD))
    second = asyncio.create_task(own_reader.read(GOOD))
    await asyncio.sleep(0)
    os.kill(stopped, signal.SIGKILL)
    with pytest.raises(ReferenceNotAudio, match="broke off"):
        await first
    assert (await second).report.duration_s == pytest.approx(5)


async def test_a_child_that_hangs_is_killed() -> None:
    reader = ReferenceReader(max_bytes=MAX_BYTES, children=2, timeout_s=4.0)
    await reader.start()
    hanging = max(children_of("self"))
    os.kill(hanging, signal.SIGSTOP)
    outcomes = await asyncio.gather(reader.read(GOOD), reader.read(GOOD), return_exceptions=True)
    assert [isinstance(o, ReferenceNotAudio) and "longer than 4 s" in str(o) for o in outcomes].count(True) == 1
    assert (await reader.read(GOOD)).report.duration_s == pytest.approx(5)
    assert hanging not in children_of("self")
    await reader.close()


async def test_a_read_that_is_given_up_does_not_answer_the_next(own_reader: ReferenceReader) -> None:
    (stopped,) = children_of("self")
    os.kill(stopped, signal.SIGSTOP)
    given_up = asyncio.create_task(own_reader.read(clips.encoded(clips.speech(10))))
    await asyncio.sleep(0)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    assert (await own_reader.read(GOOD)).report.duration_s == pytest.approx(5)


def answering(header: bytes, samples: bytes = b"") -> str:
    """A child that has been taken over: it answers the same to every file."""
    answer = b"".join(len(part).to_bytes(8, "little") + part for part in (header, samples))
    return f"""
import sys
sys.stdin.buffer.read(int.from_bytes(sys.stdin.buffer.read(8), "little"))
sys.stdout.buffer.write({answer!r})
sys.stdout.flush()
sys.stdin.read()
"""


def header(**changed: object) -> bytes:
    return json.dumps({"verdict": "audio", "clipped_ratio": 0.0, "content_type": "audio/wav"} | changed).encode()


@pytest.mark.parametrize(
    "program",
    [
        "raise SystemExit",
        "import nothing_of_the_kind",
        "import sys; sys.stdin.read(8); sys.stdout.write('x' * 9); sys.stdout.flush(); input()",
        answering(b"x" * 150),
        answering(b"x" * 100_000),
        answering(b"[" * 200),
        answering(b"\xff"),
        answering(header(verdict="good")),
        answering(header(clipped_ratio=np.nan)),
        answering(header(content_type="text/html")),
        answering(b'{"verdict": "audio", "clipped_ratio": 0.0}'),
        answering(header(), b"123"),
        answering(header(), np.full(9, np.nan, np.float32).tobytes()),
        answering(header(), np.full(9, 2.0, np.float32).tobytes()),
    ],
)
async def test_an_answer_that_is_nonsense_is_not_believed(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "CHILD", [sys.executable, "-c", program])
    reader = ReferenceReader(max_bytes=MAX_BYTES, children=1)
    with pytest.raises(ReferenceNotAudio, match="broke off"):
        await reader.read(GOOD)
    with pytest.raises(StartupError, match="decoder of reference clips does not work"):
        await reader.start()
    monkeypatch.undo()
    assert (await reader.read(GOOD)).report.duration_s == pytest.approx(5)
    await reader.close()


async def test_no_child_is_left_after_close() -> None:
    before = children_of("self")
    reader = ReferenceReader(max_bytes=MAX_BYTES)
    await reader.start()
    assert len(children_of("self") - before) == 2
    under_way = asyncio.create_task(reader.read(GOOD))
    await asyncio.sleep(0)
    await reader.close()
    assert children_of("self") == before
    await asyncio.wait([under_way])
    assert children_of("self") == before


PARENT = """
import asyncio, time
from tts_core.audio.reference import ReferenceReader
asyncio.run(ReferenceReader(max_bytes=1000).start())
print("started", flush=True)
time.sleep(600)
"""


def test_children_do_not_outlive_a_worker_that_is_killed() -> None:
    root = Path(decode_child.__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, cwd=root) as parent:
        assert parent.stdout
        assert parent.stdout.readline() == b"started\n"
        orphans = children_of(parent.pid)
        assert len(orphans) == 2
        watched = [os.pidfd_open(pid) for pid in orphans]
        parent.kill()
    for pidfd in watched:
        with os.fdopen(pidfd) as orphan:
            assert ended_within(orphan.fileno(), seconds=10)


def ended_within(pidfd: int, *, seconds: float) -> bool:
    """Readable is what a pidfd becomes when its process has ended."""
    return bool(select.select([pidfd], [], [], seconds)[0])


class TestTheMeasures:
    def test_know_speech_from_pauses(self) -> None:
        report = measure(clips.speech(10), sample_rate_hz=clips.RATE_HZ, clipped_ratio=0.0)
        assert report.duration_s == 10
        assert report.speech_s == pytest.approx(8.5, abs=0.2)
        assert report.peak == pytest.approx(0.5, abs=0.01)

    @pytest.mark.parametrize("snr_db", [10, 20, 30, 40])
    def test_estimate_the_noise(self, snr_db: float) -> None:
        """Some decibels above the truth: the loud level is not the mean of the speech but its loudest frames."""
        report = measure(clips.noisy(10, snr_db=snr_db), sample_rate_hz=clips.RATE_HZ, clipped_ratio=0.0)
        assert snr_db + 3 < report.snr_db < snr_db + 6

    @pytest.mark.parametrize("top_hz", [1000, 3500, 7000])
    def test_find_the_upper_edge(self, top_hz: int) -> None:
        spectrum = np.fft.rfft(clips.noise(100_000, level_dbfs=-20))
        spectrum[np.fft.rfftfreq(100_000, 1 / clips.RATE_HZ) > top_hz] = 0
        report = measure(clips.as_float32(np.fft.irfft(spectrum)), sample_rate_hz=clips.RATE_HZ, clipped_ratio=0.0)
        assert report.bandwidth_hz == pytest.approx(top_hz, rel=0.03)

    def test_tell_the_level_of_the_speech_alone(self) -> None:
        tone = clips.as_float32(0.1 * np.sin(np.arange(48_000)))
        padded = np.append(tone, clips.as_float32(np.zeros(48_000)))
        report = measure(padded, sample_rate_hz=clips.RATE_HZ, clipped_ratio=0.0)
        assert report.loudness_dbfs == pytest.approx(-23.0, abs=0.1)

    @pytest.mark.parametrize("samples", [1, 2, 479, 481])
    def test_take_any_length(self, samples: int) -> None:
        measure(clips.noise(samples, level_dbfs=-20), sample_rate_hz=clips.RATE_HZ, clipped_ratio=0.0)

    def test_count_flat_peaks_in_the_worst_channel_only(self) -> None:
        clean, flat = clips.speech(2), clips.clipped(2)
        meter = ClipMeter()
        for start in range(0, len(clean), 1000):
            meter.add(np.stack([clean[start : start + 1000], flat[start : start + 1000]]))
        share = float((np.abs(flat) >= 0.9).mean())
        assert meter.ratio == pytest.approx(share, rel=0.1)

    def test_forget_flat_places_that_were_not_the_peak(self) -> None:
        """A plateau at half the level is the shape of the sound, not of the input's limit."""
        meter = ClipMeter()
        meter.add(np.full((1, 100), 0.5, np.float32))
        assert meter.ratio == 1
        meter.add(np.array([[0.0, 1.0, 0.0, 0.0]], np.float32))
        assert meter.ratio == 0
