"""Which device, with how many slots."""

import os

import torch

from tts_core.errors import StartupError
from tts_core.xtts.gpt import GptSizes

MAX_SLOTS = {"cpu": 16, "cuda": 64}
"""A CPU of two cores makes 1.4 times the codes with 16 rows that it makes with 8; CUDA's was never measured."""

MAX_WINDOWS = {"cpu": 2, "cuda": 16}
"""Vocoder windows in one step. A CPU gains nothing from several, and others wait longer; CUDA's was never measured."""

MEMORY_SHARE = 0.5
"""Of what is free once the model is loaded: the rest is for the vocoder's windows and prefills."""


def choose_device(wanted: str) -> torch.device:
    """raises StartupError if CUDA was asked for and is not there: nothing falls back in silence"""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise StartupError("XTTS_DEVICE=cuda, but there is no CUDA device that torch can use")
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)


def slot_bytes(sizes: GptSizes, cache: torch.dtype) -> int:
    """Keys and values of one slot, and its latents in float32."""
    kept_bytes = 2 * sizes.layers * sizes.max_positions * sizes.width * cache.itemsize
    return kept_bytes + 4 * sizes.max_codes * sizes.width


def slots_for(sizes: GptSizes, device: torch.device, cache: torch.dtype) -> int:
    """raises StartupError if not even one fits"""
    slots = min(MAX_SLOTS[device.type], int(_free_bytes(device) * MEMORY_SHARE / slot_bytes(sizes, cache)))
    if slots < 1:
        raise StartupError(f"not enough memory on {device}: one slot needs {slot_bytes(sizes, cache) >> 20} MiB")
    return slots


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
