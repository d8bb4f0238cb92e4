"""The files of an XTTS-v2 model, official or converted: read without running their pickles, and never written to.

Both give the same tensors under the official names, except that the GPT's matrices are [out, in], that weight norm
is folded into the vocoder's weights, and that what only training needs is left out.
"""

import hashlib
import logging
import os
import pickle
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tts_core.errors import StartupError

log = logging.getLogger(__name__)

TRAINER_ONLY = ("torch_mel_spectrogram_style_encoder.", "torch_mel_spectrogram_dvae.", "dvae.")
"""Tensors that coqui's trainer saves beside the model."""

ALIASES = ("gpt.gpt_inference.", "gpt.gpt.wte.")
"""Second names of tensors of the GPT, saved by whoever saved a model that had been made ready to speak."""

SILENT = ("gpt.text_head.",)
"""Learned beside the rest and never used to speak."""

TRANSPOSED = re.compile(r"gpt\.gpt\.h\.\d+\.(attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj)\.weight")
"""Saved as [in, out]. Source: `Conv1D` of the transformers library."""

WEIGHT_NORM = {
    ".weight_g": ".weight_v",
    ".parametrizations.weight.original0": ".parametrizations.weight.original1",
}
"""Names of a weight's length and its direction: those of the official file, and those of torch since 2.0."""

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.float32}
"""Of a converted file: of the GPT, or all but the matrices of it, which `int8` has in 8 bits."""

PACKED_FILE = "packed-int8.safetensors"

FINGERPRINT_BYTES = 1_000_000
"""Of each end of a .pth: its start holds the names and shapes, its end the zip directory with every tensor's CRC."""


class _Inert:
    """Stands for the config classes that the official model.pth pickles: takes any state, does nothing."""


INERT_GLOBALS: list[Any] = [
    *(
        (_Inert, name)
        for name in (
            "TTS.tts.configs.xtts_config.XttsConfig",
            "TTS.tts.configs.xtts_config.XttsArgs",
            "TTS.tts.configs.xtts_config.XttsAudioConfig",
            "TTS.tts.models.xtts.XttsArgs",
            "TTS.tts.models.xtts.XttsAudioConfig",
            "TTS.config.shared_configs.BaseDatasetConfig",
        )
    ),
    defaultdict,
    dict,
]
"""All that a .pth may name beside what tensors need. Source: the allow-list of coqui-tts 0.28 for the official file."""


class NoRandomFill(TorchFunctionMode):
    """Leaves new tensors unfilled: the random start, which the checkpoint replaces, takes 8 s for the real model."""

    FILLS = frozenset({"normal_", "uniform_", "trunc_normal_", "kaiming_normal_", "kaiming_uniform_", "xavier_normal_"})

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.__name__ in self.FILLS:
            return args[0] if args else kwargs["tensor"]
        if func is torch.randn:
            return torch.empty(*args, **kwargs)
        return func(*args, **kwargs)


def read_tokenizer(folder: Path) -> Tokenizer:
    """raises StartupError if vocab.json cannot be read or has no start and stop"""
    path = folder / "vocab.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as exc:  # what the tokenizers library raises is Exception itself
        raise StartupError(f"{path.name} cannot be read: {exc}") from exc
    if missing := [name for name in ("[START]", "[STOP]") if tokenizer.token_to_id(name) is None]:
        raise StartupError(f"{path.name} lacks the tokens {', '.join(missing)}")
    return tokenizer


# Converted files.


def converted_file(folder: Path, precision: str) -> Path | None:
    """The file to load for a precision, the one of float32 if need be; None if the folder is an official one.

    precision  of PRECISIONS
    raises     StartupError if there are converted files, but none that is precise enough
    """
    found = {name: path for name in PRECISIONS if (path := folder / f"xtts-{name}.safetensors").is_file()}
    if not found:
        return None
    if chosen := found.get(precision) or found.get("fp32"):
        return chosen
    names = ", ".join(path.name for path in found.values())
    raise StartupError(f"the model folder has {names} only, which cannot be used in {precision}: convert it again")


def open_converted(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors, paged in from the file when they are first touched, and the file's metadata."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as exc:
        raise StartupError(f"{path.name} is damaged or no safetensors file ({exc})") from exc


def open_packed(folder: Path, *, weights_digest: str) -> dict[str, Tensor]:
    """Matrices in 8 bits as one kind of CPU wants them; none if nobody packed them, or they are not to be used.

    They only save time: a file that is damaged, or of other weights, is as good as none.
    """
    path = folder / PACKED_FILE
    if not path.is_file():
        return {}
    try:
        tensors, metadata = open_converted(path)
    except StartupError as exc:
        log.warning("%s; the matrices are packed anew", exc)
        return {}
    if metadata != packed_metadata(tensors, weights_digest=weights_digest):
        log.warning("%s is damaged or of other weights; the matrices are packed anew", path.name)
        return {}
    return tensors


def packed_metadata(tensors: Mapping[str, Tensor], *, weights_digest: str) -> dict[str, str]:
    """What such a file says of itself: its sum finds parts that were lost or copied wrong, at the speed of memory."""
    total = sum(int(tensor.view(torch.int32).sum(dtype=torch.int64)) for tensor in tensors.values())
    return {"weights_digest": weights_digest, "sum": str(total)}


# Official files.


def open_official(folder: Path) -> dict[str, Tensor]:
    """Tensors of model.pth, paged in from the file when they are first touched, under the names of this module.

    raises  StartupError if the file cannot be read or names code
    """
    tensors = {name: _uniform(name, tensor) for name, tensor in _folded(state_dict(folder)).items()}
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(SILENT)}


def state_dict(folder: Path) -> dict[str, Tensor]:
    """Tensors of model.pth as coqui's own model names them; raises StartupError as `open_official`."""
    path = folder / "model.pth"
    checkpoint = _unpickle(path)
    if not isinstance(checkpoint, Mapping) or not isinstance(checkpoint.get("model"), Mapping):
        raise StartupError(f"{path.name} has no 'model' with tensors in it")
    return dict(_model_tensors(checkpoint["model"]))


def load_speakers(folder: Path) -> dict[str, dict[str, Tensor]]:
    """The built-in voices by name, in the order of the file: `gpt_cond_latent` and `speaker_embedding` of each."""
    path = folder / "speakers_xtts.pth"
    return _unpickle(path) if path.is_file() else {}


def weights_digest(folder: Path) -> str:
    """Changes with model.pth; reads 2 MB at most."""
    path = folder / "model.pth"
    return hashlib.sha256(f"{path.stat().st_size} ".encode() + _both_ends(path)).hexdigest()


def _both_ends(path: Path) -> bytes:
    with path.open("rb") as file:
        start = file.read(FINGERPRINT_BYTES)
        file.seek(max(file.tell(), path.stat().st_size - FINGERPRINT_BYTES), os.SEEK_SET)
        return start + file.read()


def _unpickle(path: Path) -> Any:
    with torch.serialization.safe_globals(INERT_GLOBALS):
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except pickle.UnpicklingError as exc:
            raise StartupError(f"{path.name} was refused: {_refused_globals(path) or exc}") from exc
        except (RuntimeError, EOFError, OSError, ValueError) as exc:
            raise StartupError(f"{path.name} is damaged or no file of torch.save ({type(exc).__name__})") from exc


def _refused_globals(path: Path) -> str:
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    return f"it names {', '.join(sorted(names))}" if names else ""


def _model_tensors(saved: Mapping[Any, Any]) -> Iterator[tuple[str, Tensor]]:
    for saved_name, tensor in saved.items():
        name = str(saved_name).removeprefix("xtts.")  # coqui's trainer wraps the model
        if not isinstance(tensor, Tensor):
            raise StartupError(f"model.pth: {name} is no tensor")
        if not name.startswith(TRAINER_ONLY + ALIASES):
            yield name, tensor.detach()


def _folded(saved: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """With weight norm folded once for all, where coqui computes it again for every window of the vocoder."""
    tensors = dict(saved)
    for length_name in saved:
        suffix = next((suffix for suffix in WEIGHT_NORM if length_name.endswith(suffix)), None)
        if suffix is None:
            continue
        stem = length_name.removesuffix(suffix)
        if (direction := tensors.pop(stem + WEIGHT_NORM[suffix], None)) is None:
            raise StartupError(f"model.pth lacks {stem}{WEIGHT_NORM[suffix]}")
        tensors[f"{stem}.weight"] = _with_length(direction.float(), tensors.pop(length_name).float(), name=stem)
    return tensors


def _with_length(direction: Tensor, length: Tensor, *, name: str) -> Tensor:
    """direction [a, ...], length [a, 1, ...]"""
    if length.shape != (*direction.shape[:1], *(1 for _ in direction.shape[1:])):
        raise StartupError(
            f"model.pth: the weight norm of {name} has shapes {[*length.shape]} and {[*direction.shape]}"
        )
    return torch._weight_norm(direction, length, 0)


def _uniform(name: str, tensor: Tensor) -> Tensor:
    return tensor.T if TRANSPOSED.fullmatch(name) and tensor.dim() == 2 else tensor
