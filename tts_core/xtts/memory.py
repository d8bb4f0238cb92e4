"""Which device, in which precision, with how many slots."""

import os
from dataclasses import dataclass

import torch

from tts_core.errors import StartupError
from tts_core.xtts.gpt import GptSizes
from tts_core.xtts.linear import (
    MakeLinear,
    dense,
    has_fast_bf16,
    has_fast_int8,
    prepacked_bf16,
    prepacked_int8,
)

MAX_SLOTS = {"cpu": 8, "cuda": 32}
"""A CPU of two cores makes no more codes a second with 16 rows than with 8. Source: `benchmarks.decode`."""

MEMORY_SHARE = 0.5
"""Of what is free once the model is loaded: the rest is for the vocoder's windows and prefills."""


def choose_device(wanted: str) -> torch.device:
    """raises StartupError if CUDA was asked for and is not there: nothing falls back in silence"""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise StartupError("XTTS_DEVICE=cuda, but there is no CUDA device that torch can use")
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)


@dataclass(frozen=True, slots=True)
class Precision:
    """name: told in the engine's revision; dtype: of weights and cache; linear: how the matrices are multiplied."""

    name: str
    dtype: torch.dtype
    linear: MakeLinear = dense


def choose_precision(wanted: str, device: torch.device) -> Precision:
    """`auto`: bfloat16 on CUDA (float16 on cards without it), float32 on a CPU, where it is the exact path.

    raises  StartupError where the device cannot do what was asked for, or only slowly
    """
    if wanted == "fp32" or (wanted == "auto" and device.type == "cpu"):
        return Precision("fp32", torch.float32)
    if device.type == "cuda":
        if wanted == "int8":
            raise StartupError("XTTS_PRECISION=int8 is for CPUs")
        has_bf16 = torch.cuda.is_bf16_supported()
        return Precision("bf16", torch.bfloat16) if has_bf16 else Precision("fp16", torch.float16)
    has_it, linear = (has_fast_bf16(), prepacked_bf16) if wanted == "bf16" else (has_fast_int8(), prepacked_int8)
    if not has_it:
        raise StartupError(f"XTTS_PRECISION={wanted}: this CPU has no fast instructions for it, take fp32")
    return Precision(wanted, torch.float32, linear)


def slot_bytes(sizes: GptSizes, precision: torch.dtype) -> int:
    """Keys and values of one slot, and its latents in float32."""
    cache = 2 * sizes.layers * sizes.max_positions * sizes.width * precision.itemsize
    return cache + 4 * sizes.max_codes * sizes.width


def slots_for(sizes: GptSizes, device: torch.device, precision: torch.dtype) -> int:
    """raises StartupError if not even one fits"""
    slots = min(MAX_SLOTS[device.type], int(_free_bytes(device) * MEMORY_SHARE / slot_bytes(sizes, precision)))
    if slots < 1:
        raise StartupError(f"not enough memory on {device}: one slot needs {slot_bytes(sizes, precision) >> 20} MiB")
    return slots


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
