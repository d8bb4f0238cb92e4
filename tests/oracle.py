"""coqui's own model, for tests and benchmarks to compare with: read the safe way, and never part of the worker."""

import logging
from pathlib import Path

import torch
from torch.nn.utils import parametrize
from TTS.tts.configs.xtts_config import XttsConfig
from TTS.tts.models.xtts import Xtts

from tts_core.xtts import files
from tts_core.xtts.reading import coqui_tokenizer


def coqui_model(folder: Path) -> Xtts:
    """The model of an official folder, on the CPU, in float32, ready to speak; weight norm is folded.

    raises  RuntimeError if the weights do not fit, StartupError if a file cannot be read or names code
    """
    # transformers warns on every construction of a GPT-2 about token ids that XTTS does not use.
    logging.getLogger("transformers").setLevel(logging.ERROR)
    tokenizer = coqui_tokenizer(files.read_tokenizer(folder))
    config = XttsConfig()
    config.load_json(folder / "config.json")
    # As coqui does on loading: the vocabulary decides, whatever config.json says.
    config.model_args.gpt_number_text_tokens = tokenizer.get_number_tokens()
    config.model_args.gpt_start_text_token = tokenizer.tokenizer.token_to_id("[START]")
    config.model_args.gpt_stop_text_token = tokenizer.tokenizer.token_to_id("[STOP]")
    with files.NoRandomFill():
        model = Xtts(config)
    model.tokenizer = tokenizer
    tensors = {name: tensor.float() for name, tensor in files.state_dict(folder).items()}
    model.load_state_dict(tensors, strict=True, assign=True)
    _fold_weight_norm(model.hifigan_decoder.waveform_decoder)
    model.eval()  # returns nothing
    return model


def _fold_weight_norm(module: torch.nn.Module) -> None:
    for part in module.modules():
        if parametrize.is_parametrized(part, "weight"):
            parametrize.remove_parametrizations(part, "weight")
