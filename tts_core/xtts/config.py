"""What config.json of an XTTS-v2 model says, checked."""

import json
from dataclasses import dataclass, fields
from pathlib import Path

from tts_core.errors import StartupError


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
