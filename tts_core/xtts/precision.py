"""In what numbers the model is kept and computed."""

from dataclasses import dataclass

import torch

from tts_core.errors import StartupError
from tts_core.xtts.linear import (
    MakeLinear,
    dense,
    has_fast_bf16,
    has_fast_int8,
    has_narrow_int8,
    narrow_int8,
    prepacked_bf16,
    prepacked_int8,
)


@dataclass(frozen=True, slots=True)
class Precision:
    """
    name     of the GPT's matrices: fp32, bf16, fp16 or int8
    dtype    of the GPT's other weights
    linear   how its matrices are multiplied
    packers  threads that pack them side by side; 0: the thread that computes does, which shares one team of OpenMP
    kind     tells two ways to multiply that have one name
    vocoder  of all of the vocoder. In bfloat16 its waveform has 42 to 47 dB over the difference to float32's: measured
             on random weights made as lively as speech, see `benchmarks/LOG.md`
    """

    name: str
    dtype: torch.dtype = torch.float32
    linear: MakeLinear = dense
    vocoder: torch.dtype = torch.float32
    packers: int = 0
    kind: str = ""

    @property
    def cache(self) -> torch.dtype:
        """Of the GPT's keys and values: in half precision where the vocoder is.

        Beside matrices in 8 bits it costs nothing (latents 2.2 % off, as without) and spares 27 % of a step of 16 rows.
        """
        return self.vocoder

    def __str__(self) -> str:
        """`int8-bf16`: GPT, then vocoder. Whatever can change a sample is in it."""
        return f"{self.name}{self.kind}-{NAMES[self.vocoder]}"


NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}

EXACT = Precision("fp32")


def choose_precision(wanted: str, device: torch.device) -> Precision:
    """
    wanted  fp32, bf16, int8; `auto`: half precision on CUDA, the exact path on a CPU; `fast`: what the device is
            fastest in, which on a CPU is int8 or else bf16, where it has instructions for them
    raises  StartupError where the device cannot do what was asked for, or only slowly
    """
    if wanted == "fp32":
        return EXACT
    if device.type == "cuda":
        return _on_cuda(wanted)
    vocoder = torch.bfloat16 if has_fast_bf16() else torch.float32
    fast = {}
    if has_fast_int8():
        fast["int8"] = Precision("int8", linear=prepacked_int8, vocoder=vocoder)
    elif has_narrow_int8():
        fast["int8"] = Precision("int8", linear=narrow_int8, vocoder=vocoder, packers=2, kind="x7")
    if has_fast_bf16():
        fast["bf16"] = Precision("bf16", linear=prepacked_bf16, vocoder=vocoder)
    if wanted in ("auto", "fast"):
        return next(iter(fast.values()), EXACT) if wanted == "fast" else EXACT
    if wanted not in fast:
        raise StartupError(f"XTTS_PRECISION={wanted}: this CPU has no fast instructions for it, take fp32")
    return fast[wanted]


def _on_cuda(wanted: str) -> Precision:
    """bfloat16, and float16 on cards without it."""
    if wanted == "int8":
        raise StartupError("XTTS_PRECISION=int8 is for CPUs")
    dtype = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return Precision(NAMES[dtype], dtype, vocoder=dtype)
