"""The files of an XTTS-v2 model as a model: read without running their pickles, and never written to."""

import hashlib
import logging
import os
import pickle
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode
from TTS.tts.configs.xtts_config import XttsConfig
from TTS.tts.layers.xtts.tokenizer import VoiceBpeTokenizer
from TTS.tts.models.xtts import Xtts

from tts_core.errors import StartupError
from tts_core.xtts.weights import RANDOM_WEIGHTS_MARK

TRAINER_ONLY = ("torch_mel_spectrogram_style_encoder.", "torch_mel_spectrogram_dvae.", "dvae.")
"""Tensors that coqui's trainer saves beside the model."""

ALIASES = ("gpt.gpt_inference.", "gpt.gpt.wte.")
"""Second names of tensors of the GPT, saved by whoever saved a model that had been made ready to speak."""

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


class _NoRandomFill(TorchFunctionMode):
    """Leaves new tensors unfilled: the random start, which the checkpoint replaces, takes 8 s for the real model."""

    FILLS = frozenset({"normal_", "uniform_", "trunc_normal_", "kaiming_normal_", "kaiming_uniform_", "xavier_normal_"})

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.__name__ in self.FILLS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def load(folder: Path, device: str) -> Xtts:
    """The model, ready to speak.

    device  "cpu", "cuda", or "auto": CUDA where there is one
    raises  StartupError if a file cannot be read, names code, or does not fit its own config.json
    """
    # transformers warns on every construction of a GPT-2 about token ids that XTTS does not use.
    logging.getLogger("transformers").setLevel(logging.ERROR)
    tokenizer = _tokenizer(folder / "vocab.json")
    with _NoRandomFill():
        model = Xtts(_config(folder, tokenizer))
    model.tokenizer = tokenizer
    _fill(model, _state_dict(folder / "model.pth"))
    model.eval()
    _fold_weight_norm(model.hifigan_decoder.waveform_decoder)
    return model.to("cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu"))


def load_speakers(folder: Path) -> dict[str, dict[str, Tensor]]:
    """The built-in voices by name, in the order of the file: `gpt_cond_latent` and `speaker_embedding` of each."""
    path = folder / "speakers_xtts.pth"
    return _unpickle(path) if path.is_file() else {}


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


def _tokenizer(path: Path) -> VoiceBpeTokenizer:
    try:
        tokenizer = VoiceBpeTokenizer(vocab_file=path)
    except Exception as exc:  # what the tokenizers library raises is Exception itself
        raise StartupError(f"{path.name} cannot be read: {exc}") from exc
    if missing := [name for name in ("[START]", "[STOP]") if tokenizer.tokenizer.token_to_id(name) is None]:
        raise StartupError(f"{path.name} lacks the tokens {', '.join(missing)}")
    return tokenizer


def _config(folder: Path, tokenizer: VoiceBpeTokenizer) -> XttsConfig:
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


def _state_dict(path: Path) -> dict[str, Tensor]:
    checkpoint = _unpickle(path)
    if not isinstance(checkpoint, Mapping) or not isinstance(checkpoint.get("model"), Mapping):
        raise StartupError(f"{path.name} has no 'model' with tensors in it")
    return dict(_model_tensors(checkpoint["model"]))


def _model_tensors(saved: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for saved_name, tensor in saved.items():
        name = saved_name.removeprefix("xtts.")  # coqui's trainer wraps the model
        if not name.startswith(TRAINER_ONLY + ALIASES):
            yield name, tensor.float()  # half precision would be taken over as it is


def _fill(model: Xtts, tensors: dict[str, Tensor]) -> None:
    try:
        model.load_state_dict(tensors, strict=True, assign=True)
    except RuntimeError as exc:  # torch names each missing, unexpected and misshapen tensor
        raise StartupError(f"model.pth does not fit config.json: {str(exc)[:MAX_REASON_CHARS]}") from exc


def _fold_weight_norm(module: torch.nn.Module) -> None:
    """Once for all, where coqui computes it again for every window of the vocoder."""
    for part in module.modules():
        if parametrize.is_parametrized(part, "weight"):
            parametrize.remove_parametrizations(part, "weight")
