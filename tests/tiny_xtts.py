"""Random weights in the files of XTTS-v2: what speaks is noise, but every shape, name and file is the official one.

python -m tests.tiny_xtts DIR           2 layers, 64 wide: loads in a second (vocoder and speaker encoder cannot shrink)
python -m tests.tiny_xtts DIR --full    30 layers, 1024 wide, 6,681 text tokens: 1.9 GB, for benchmarks
"""

import argparse
import logging
import string
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from torch.nn.utils import parametrize
from TTS.tts.configs.xtts_config import XttsArgs, XttsAudioConfig, XttsConfig
from TTS.tts.models.xtts import Xtts

from tts_core.types import Language
from tts_core.xtts.weights import RANDOM_WEIGHTS_MARK

SPEAKERS = ("Nova Noise", "Rémy Random", "Uta Uniform")

LANGUAGE_TAGS = tuple("zh-cn" if language == "zh" else language for language in get_args(Language))

START_TEXT_ID = 261
FULL_TEXT_TOKENS = 6681

TINY = {"gpt_layers": 2, "gpt_n_model_channels": 64, "gpt_n_heads": 4, "decoder_input_dim": 64}

LOGIT_STD = 2.3
STOP_LOGIT = 5.0
"""Gives the stop code a chance of about 1 in 40 at each step of default sampling, and none at top_k 1."""

LOUDNESS = 0.3
"""Standard deviation of the vocoder's output before its tanh."""


def build(directory: Path, *, full: bool = False, seed: int = 0) -> None:
    """Write config.json, model.pth, vocab.json, speakers_xtts.pth and the RANDOM_WEIGHTS mark; a seed decides all."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = vocabulary(full=full)
    config = XttsConfig(
        model_args=XttsArgs(
            **({} if full else TINY),
            gpt_number_text_tokens=tokenizer.get_vocab_size(),
            gpt_start_text_token=START_TEXT_ID,
            gpt_stop_text_token=0,
            gpt_num_audio_tokens=1026,
            gpt_start_audio_token=1024,
            gpt_stop_audio_token=1025,
            gpt_use_perceiver_resampler=True,
        ),
        temperature=0.75,
        repetition_penalty=5.0,
        gpt_cond_len=30,
        gpt_cond_chunk_len=4,
        max_ref_len=30,
    )
    # transformers warns on every construction of a GPT-2 about token ids that XTTS does not use.
    logging.getLogger("transformers").setLevel(logging.ERROR)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Xtts(config)
        enliven(model)
        speakers = {name: a_speaker(config.model_args.gpt_n_model_channels) for name in SPEAKERS}
    config.save_json(directory / "config.json")
    tokenizer.save(str(directory / "vocab.json"))
    torch.save(speakers, directory / "speakers_xtts.pth")
    with official_class_paths():
        torch.save({"config": config, "model": model.state_dict()}, directory / "model.pth")
    (directory / RANDOM_WEIGHTS_MARK).touch()


def vocabulary(*, full: bool) -> Tokenizer:
    """A BPE with the special tokens where the official vocabulary has them, the letters, and all Latin pairs merged."""
    characters = {chr(code) for first, last in CHARACTER_RANGES for code in range(first, last)} - {" "}
    pairs = [(first, second) for first in string.ascii_lowercase for second in string.ascii_lowercase]
    names = ["[STOP]", "[UNK]", "[SPACE]", *sorted(characters), *(a + b for a, b in pairs)]
    specials = ["[START]", *(f"[{tag}]" for tag in LANGUAGE_TAGS)]
    names[START_TEXT_ID:START_TEXT_ID] = specials
    names += [f"[unused{n}]" for n in range(FULL_TEXT_TOKENS - len(names) if full else 0)]
    ids = {name: index for index, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=pairs, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["[STOP]", "[UNK]", "[SPACE]", *specials])
    return tokenizer


CHARACTER_RANGES = ((0x20, 0x7F), (0xA1, 0x180), (0x400, 0x460), (0x600, 0x660), (0x900, 0x970), (0x2010, 0x2027))
"""ASCII, Latin with accents, Cyrillic, Arabic, Devanagari, typographic marks; the rest is read in Latin letters."""


def a_speaker(width: int) -> dict[str, Tensor]:
    embedding = nn.functional.normalize(torch.randn(1, 512, 1), dim=1)
    return {"gpt_cond_latent": torch.randn(1, 32, width), "speaker_embedding": embedding}


@torch.no_grad()
def enliven(model: Xtts) -> None:
    """Spread the weights so that text, voice and codes matter, and the sound is neither constant nor overdriven."""
    for parameter in model.gpt.gpt.h.parameters():
        if parameter.dim() == 2:
            parameter.normal_(std=parameter.shape[0] ** -0.5)
    model.gpt.mel_head.weight.normal_(std=LOGIT_STD * model.gpt.model_dim**-0.5)
    model.gpt.mel_head.weight[model.gpt.stop_audio_token] = 0
    model.gpt.mel_head.bias.zero_()[model.gpt.stop_audio_token] = STOP_LOGIT
    enliven_vocoder(model)
    enliven_constants(model)


def enliven_vocoder(model: Xtts) -> None:
    """Each convolution keeps the variance of what comes in; residual ones add a quarter of it."""
    vocoder = model.hifigan_decoder.waveform_decoder
    for part in vocoder.modules():
        if isinstance(part, nn.Conv1d):
            spread(part, inputs=part.in_channels * part.kernel_size[0], gain=0.7)
        elif isinstance(part, nn.ConvTranspose1d):
            spread(part, inputs=part.in_channels * part.kernel_size[0] / part.stride[0], gain=1.4)
    for part in (vocoder.cond_layer, *vocoder.conds):
        part.weight.normal_(std=0.3)
    overdriven: list[Tensor] = []
    hook = vocoder.conv_post.register_forward_hook(lambda _module, _inputs, output: overdriven.append(output))
    vocoder(torch.randn(1, vocoder.conv_pre.in_channels, 40), g=torch.zeros(1, 512, 1))
    hook.remove()
    vocoder.conv_post.weight *= LOUDNESS / overdriven[0].std()


def enliven_constants(model: Xtts) -> None:
    """A fresh model has scales of 1 and offsets of 0, and its conditioning attention adds 0: errors could hide."""
    for tensor in model.state_dict().values():
        if tensor.dim() == 1 and len(tensor) > 1 and tensor.min() == tensor.max():
            tensor += torch.empty_like(tensor).uniform_(-0.3, 0.3)
    for block in model.gpt.conditioning_encoder.attn:
        block.proj_out.weight.normal_(std=block.proj_out.in_channels**-0.5)


def spread(conv: nn.Conv1d | nn.ConvTranspose1d, *, inputs: float, gain: float) -> None:
    weight = torch.randn_like(conv.weight) * gain * inputs**-0.5
    if parametrize.is_parametrized(conv):
        conv.weight = weight
    else:
        conv.weight.copy_(weight)
    if conv.bias is not None:
        conv.bias.normal_(std=0.1)


@contextmanager
def official_class_paths() -> Iterator[None]:
    """The official file was pickled when these two classes lived beside the model."""
    moved: tuple[Any, ...] = (XttsArgs, XttsAudioConfig)
    homes = [a_class.__module__ for a_class in moved]
    try:
        for a_class in moved:
            a_class.__module__ = Xtts.__module__
        yield
    finally:
        for a_class, home in zip(moved, homes, strict=True):
            a_class.__module__ = home


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--full", action="store_true", help="the real size")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    build(args.directory, full=args.full, seed=args.seed)


if __name__ == "__main__":
    main()
