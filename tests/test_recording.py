"""A recording is the same bytes whether memory or a file holds it."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tts_core.audio.encode import Encoder
from tts_core.errors import DiskFull
from tts_core.service import delivery
from tts_core.service.delivery import Recording
from tts_core.types import AudioFormat

BOUND = 1000


@pytest.fixture(autouse=True)
def small_bound(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(delivery, "MEMORY_BYTES", BOUND)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("sizes", [(0, 10, 990), (999, 1, 1), (1001,), (600, 600, 600)])
def test_what_was_written_is_read_from_anywhere(sizes: tuple[int, ...]) -> None:
    recording, written = Recording("pcm"), b""
    for number, size in enumerate(sizes):
        recording.write(bytes([number]) * size)
        written += bytes([number]) * size
        assert (recording.read(0), recording.size_bytes) == (written, len(written))
    assert recording.read(len(written) // 2) == written[len(written) // 2 :]
    recording.close()


@pytest.mark.parametrize(("size", "files"), [(BOUND, 0), (BOUND + 1, 1)])
def test_a_file_is_made_for_what_is_large(small_bound: Path, size: int, files: int) -> None:
    recording = Recording("pcm")
    recording.write(b"x" * size)
    assert len(list(small_bound.iterdir())) == files
    recording.close()
    assert list(small_bound.iterdir()) == []


@pytest.mark.parametrize("format", ["wav", "flac"])
@pytest.mark.parametrize("seconds", [0.01, 1.0])
def test_lengths_are_written_into_either(format: AudioFormat, seconds: float) -> None:
    noise = np.random.default_rng(0).uniform(-1, 1, round(24_000 * seconds)).astype(np.float32)
    recording, encoder = Recording(format), Encoder(format, source_rate_hz=24_000, sample_rate_hz=24_000)
    recording.write(encoder.write(noise))
    recording.write(encoder.finish())
    recording.seal()
    assert soundfile.info(io.BytesIO(recording.read(0))).frames == len(noise)
    recording.close()


@pytest.mark.parametrize("how", ["write", "read", "seal"])
def test_a_full_disk_is_told_as_such_and_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    full = Path("/dev/full").open("w+b")  # noqa: SIM115  closed by the recording
    monkeypatch.setattr("tempfile.NamedTemporaryFile", lambda **_: full)
    recording = Recording("wav")
    with pytest.raises(DiskFull, match="No space left"):
        if how == "write":
            recording.write(b"x" * 100_000)
        recording.write(b"x" * (BOUND + 1))
        recording.read(0) if how == "read" else recording.seal()
    recording.close()
    assert full.closed


def test_no_place_for_files_is_a_full_disk_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(DiskFull, match="No such file"):
        Recording("pcm").write(b"x" * (BOUND + 1))
