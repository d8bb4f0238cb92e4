"""The files of an XTTS-v2 model, official or converted: read without running their pickles, and never written to.

Both give the same tensors under the official names, except that the GPT's matrices are [out, in], that weight norm
is folded into the vocoder's weights, and that what only training needs is left out.
"""

import hashlib
import json
import logging
import os
import pickle
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode
from TTS.tts.layers.xtts.tokenizer import VoiceBpeTokenizer

from tts_core.errors import StartupError
from tts_core.xtts.weights import RANDOM_WEIGHTS_MARK

if TYPE_CHECKING:
    from TTS.tts.models.xtts import Xtts

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

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

FINGERPRINT_BYTES = 1_000_000
"""Of each end of a .pth: its start holds the names and shapes, its end the zip directory with every tensor's CRC."""

MAX_REASON_CHARS = 1000
"""Of torch's list of tensors that do not fit: a model of another depth has hundreds."""


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


@dataclass(frozen=True, slots=True)
class Config:
    """What speaking needs of config.json, by its names there. No defaults: coqui's are those of XTTS-v1."""

    gpt_layers: int
    gpt_n_model_channels: int
    gpt_n_heads: int
    gpt_max_audio_tokens: int
    gpt_max_text_tokens: int
    gpt_num_audio_tokens: int
    gpt_start_audio_token: int
    gpt_stop_audio_token: int
    gpt_code_stride_len: int
    gpt_use_perceiver_resampler: bool
    input_sample_rate: int
    output_sample_rate: int
    output_hop_length: int
    decoder_input_dim: int
    d_vector_dim: int
    cond_d_vector_in_each_upsampling_layer: bool
    gpt_cond_len: int
    gpt_cond_chunk_len: int
    max_ref_len: int
    sound_norm_refs: bool


def read_config(folder: Path) -> Config:
    """raises StartupError if config.json cannot be read, or lacks or misspells a field"""
    try:
        saved = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise StartupError(f"config.json of the XTTS-v2 model cannot be used: {exc}") from exc
    if not isinstance(saved, dict) or not isinstance(saved.get("model_args"), dict):
        raise StartupError("config.json of the XTTS-v2 model has no 'model_args'")
    values = saved | saved["model_args"]
    # An int must be one: `True` and 24.0 are typing errors of whoever edited the file.
    if wrong := [field.name for field in fields(Config) if type(values.get(field.name)) is not field.type]:
        raise StartupError(f"config.json lacks, or has of another type: {', '.join(wrong)}")
    config = Config(**{field.name: values[field.name] for field in fields(Config)})
    _check_config(config)
    return config


def _check_config(config: Config) -> None:
    numbers = {field.name: getattr(config, field.name) for field in fields(Config) if field.type is int}
    if wrong := [name for name, value in numbers.items() if value < (0 if name.endswith("_token") else 1)]:
        raise StartupError(f"config.json: {', '.join(wrong)} must be positive")
    if not config.gpt_use_perceiver_resampler:
        raise StartupError("config.json is of XTTS-v1 (gpt_use_perceiver_resampler is false): XTTS-v2 is needed")
    if config.gpt_n_model_channels % config.gpt_n_heads:
        raise StartupError("config.json: gpt_n_model_channels is no multiple of gpt_n_heads")
    if max(config.gpt_start_audio_token, config.gpt_stop_audio_token) >= config.gpt_num_audio_tokens:
        raise StartupError("config.json: the start or stop token is not among gpt_num_audio_tokens")


def read_tokenizer(folder: Path) -> VoiceBpeTokenizer:
    """raises StartupError if vocab.json cannot be read or has no start and stop"""
    path = folder / "vocab.json"
    try:
        tokenizer = VoiceBpeTokenizer(vocab_file=path)
    except Exception as exc:  # what the tokenizers library raises is Exception itself
        raise StartupError(f"{path.name} cannot be read: {exc}") from exc
    if missing := [name for name in ("[START]", "[STOP]") if tokenizer.tokenizer.token_to_id(name) is None]:
        raise StartupError(f"{path.name} lacks the tokens {', '.join(missing)}")
    return tokenizer


# Converted files.


def converted_file(folder: Path, precision: torch.dtype) -> Path | None:
    """The file to load for a precision, the one of float32 if need be; None if the folder is an official one.

    raises  StartupError if there are converted files, but none that is precise enough
    """
    found = {PRECISIONS[name]: path for name in PRECISIONS if (path := folder / f"xtts-{name}.safetensors").is_file()}
    if not found:
        return None
    if chosen := found.get(precision) or found.get(torch.float32):
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


def fingerprint(folder: Path) -> str:
    """Changes with the weights, the config, the vocabulary or the built-in voices; reads 4 MB at most."""
    digest = hashlib.sha256()
    for name in ("config.json", "vocab.json", "model.pth", "speakers_xtts.pth"):
        if (folder / name).is_file():
            digest.update(f"{name} {(folder / name).stat().st_size} ".encode())
            digest.update(_both_ends(folder / name))
    marked = (folder / RANDOM_WEIGHTS_MARK).is_file()
    return digest.hexdigest()[:16] + ("-random-weights" if marked else "")


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


# coqui's own model, which the engine before this one runs on.


def load(folder: Path, device: str) -> "Xtts":
    """The model of coqui, ready to speak.

    device  "cpu", "cuda", or "auto": CUDA where there is one
    raises  StartupError if a file cannot be read, names code, or does not fit its own config.json
    """
    from TTS.tts.models.xtts import Xtts

    # transformers warns on every construction of a GPT-2 about token ids that XTTS does not use.
    logging.getLogger("transformers").setLevel(logging.ERROR)
    tokenizer = read_tokenizer(folder)
    with NoRandomFill():
        model = Xtts(_coqui_config(folder, tokenizer))
    model.tokenizer = tokenizer
    # Half precision would be taken over as it is.
    _fill(model, {name: tensor.float() for name, tensor in state_dict(folder).items()})
    model.eval()
    _fold_weight_norm(model.hifigan_decoder.waveform_decoder)
    return model.to("cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu"))


def _coqui_config(folder: Path, tokenizer: VoiceBpeTokenizer) -> Any:
    from TTS.tts.configs.xtts_config import XttsConfig

    config = XttsConfig()
    try:
        config.load_json(folder / "config.json")
    except (ValueError, TypeError) as exc:
        raise StartupError(f"config.json of the XTTS-v2 model cannot be used: {exc}") from exc
    # As coqui does on loading: the vocabulary decides, whatever config.json says.
    config.model_args.gpt_number_text_tokens = tokenizer.get_number_tokens()
    config.model_args.gpt_start_text_token = tokenizer.tokenizer.token_to_id("[START]")
    config.model_args.gpt_stop_text_token = tokenizer.tokenizer.token_to_id("[STOP]")
    return config


def _fill(model: "Xtts", tensors: dict[str, Tensor]) -> None:
    try:
        model.load_state_dict(tensors, strict=True, assign=True)
    except RuntimeError as exc:  # torch names each missing, unexpected and misshapen tensor
        raise StartupError(f"model.pth does not fit config.json: {str(exc)[:MAX_REASON_CHARS]}") from exc


def _fold_weight_norm(module: torch.nn.Module) -> None:
    """Once for all, where coqui computes it again for every window of the vocoder."""
    for part in module.modules():
        if parametrize.is_parametrized(part, "weight"):
            parametrize.remove_parametrizations(part, "weight")
