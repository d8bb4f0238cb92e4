"""What the command line does with files, good and bad."""

import base64
from pathlib import Path

import pytest

from tests.processes import room_for
from tts_core.cli import _Sink
from tts_core.errors import InvalidInput
from tts_core.jobs.files import with_files


def test_a_disk_that_fills_up_leaves_no_half_file(tmp_path: Path) -> None:
    sink = _Sink(tmp_path)
    sink.take({"request_id": "r", "format": "pcm", "audio_base64": base64.b64encode(bytes(100_000)).decode()})
    with room_for(bytes=40_000), pytest.raises(OSError, match="File too large"):
        sink.summary()
    assert list(tmp_path.iterdir()) == []
    assert Path(str(sink.summary()["audio_path"])).stat().st_size == 100_000


def test_a_name_that_no_file_can_have_is_invalid_input(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="reference_audio_base64"):
        with_files({"reference_audio_base64": "@a\0b"}, tmp_path)
