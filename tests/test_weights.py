"""Where the weights are found, and whose licence is asked for."""

from pathlib import Path

import pytest

from tts_core.errors import StartupError
from tts_core.xtts import weights


def put_model_files(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names or weights.REQUIRED_FILES:
        (folder / name).touch()
    return folder


def test_weights_are_found_in_the_order_of_the_design(tmp_path: Path) -> None:
    baked, volume = tmp_path / "baked", tmp_path / "volume"
    repository = volume / "huggingface-cache/hub/models--coqui--XTTS-v2"

    def find(model_path: Path | None = None) -> Path | None:
        return weights.find(model_path, baked=baked, runpod_volume=volume)

    assert find() is None
    on_volume = put_model_files(volume / "xtts_v2")
    assert find() == on_volume
    older = put_model_files(repository / "snapshots/aaa")
    newer = put_model_files(repository / "snapshots/bbb")
    assert find() == older
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("bbb\n")
    assert find() == newer
    put_model_files(baked)
    assert find() == baked
    named = put_model_files(tmp_path / "named")
    assert find(named) == named


def test_an_incomplete_folder_is_an_error_and_never_passed_over(tmp_path: Path) -> None:
    baked, volume = tmp_path / "baked", tmp_path / "volume"
    put_model_files(volume / "xtts_v2")
    put_model_files(baked, "config.json")
    with pytest.raises(StartupError, match=r"of the image lacks model\.pth, vocab\.json"):
        weights.find(None, baked=baked, runpod_volume=volume)
    with pytest.raises(StartupError, match=r"XTTS_MODEL_PATH lacks config\.json, model\.pth, vocab\.json"):
        weights.find(tmp_path / "nowhere", baked=volume / "xtts_v2", runpod_volume=volume)


def test_the_licence_is_asked_for_unless_the_weights_are_random(tmp_path: Path) -> None:
    weights.require_licence(tmp_path, agreed=True)
    with pytest.raises(StartupError, match="COQUI_TOS_AGREED=1"):
        weights.require_licence(tmp_path, agreed=False)
    (tmp_path / weights.RANDOM_WEIGHTS_MARK).touch()
    weights.require_licence(tmp_path, agreed=False)


def test_converted_weights_stand_for_the_official_file_and_for_no_other(tmp_path: Path) -> None:
    folder = put_model_files(tmp_path / "converted", "config.json", "vocab.json", "xtts-fp16.safetensors")
    assert weights.find(folder) == folder
    (folder / "vocab.json").unlink()
    with pytest.raises(StartupError, match=r"lacks vocab\.json$"):
        weights.find(folder)
