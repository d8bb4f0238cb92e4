"""Where the weights of XTTS-v2 lie, and whether they may be used. Knows no torch: a worker without any asks it too."""

from collections.abc import Iterator
from pathlib import Path

from tts_core.errors import StartupError

REQUIRED_FILES = ("config.json", "model.pth", "vocab.json")
"""Beside them `speakers_xtts.pth` holds the built-in voices; a model without it speaks cloned ones only."""

CONVERTED_FILES = "xtts-*.safetensors"
"""What `convert` makes of model.pth."""

RANDOM_WEIGHTS_MARK = "RANDOM_WEIGHTS"
"""An empty file of this name tells that the folder was made for tests and speaks noise."""

BAKED_FOLDER = Path("/models/xtts_v2")
"""Where our image build puts the weights, if it was told to."""

RUNPOD_VOLUME = Path("/runpod-volume")
"""Where RunPod mounts both its cached models and a network volume."""


def find(model_path: Path | None, *, baked: Path = BAKED_FOLDER, runpod_volume: Path = RUNPOD_VOLUME) -> Path | None:
    """The folder of the model: `model_path`, baked, RunPod's cached model, network volume; None if there is none.

    raises  StartupError if `model_path`, or the first place with any file of a model, lacks others
    """
    if model_path is not None:
        return _complete(model_path, place="XTTS_MODEL_PATH")
    candidates = (
        ("the model folder of the image", baked),
        *(("RunPod's cached model", snapshot) for snapshot in _cached_snapshots(runpod_volume)),
        ("xtts_v2 on the network volume", runpod_volume / "xtts_v2"),
    )
    for place, folder in candidates:
        if len(_missing(folder)) < len(REQUIRED_FILES):
            return _complete(folder, place=place)
    return None


def require_licence(folder: Path, *, agreed: bool) -> None:
    """raises StartupError unless the operator has accepted the licence of the weights, or they are random"""
    if agreed or (folder / RANDOM_WEIGHTS_MARK).is_file():
        return
    raise StartupError(
        "the XTTS-v2 weights are under the Coqui Public Model License (non-commercial, https://coqui.ai/cpml): "
        "read it, then set COQUI_TOS_AGREED=1 to accept it"
    )


def _missing(folder: Path) -> list[str]:
    is_converted = any(folder.glob(CONVERTED_FILES))
    required = [name for name in REQUIRED_FILES if not (is_converted and name == "model.pth")]
    return [name for name in required if not (folder / name).is_file()]


def _complete(folder: Path, *, place: str) -> Path:
    if missing := _missing(folder):
        raise StartupError(f"{place} lacks {', '.join(missing)}")
    return folder


def _cached_snapshots(runpod_volume: Path) -> Iterator[Path]:
    """Hugging Face's cache layout: a commit per folder, the wanted one named in refs/main."""
    repository = runpod_volume / "huggingface-cache/hub/models--coqui--XTTS-v2"
    main = repository / "refs/main"
    if main.is_file():
        yield repository / "snapshots" / main.read_text(encoding="utf-8").strip()
    else:
        yield from sorted((repository / "snapshots").glob("*"))
