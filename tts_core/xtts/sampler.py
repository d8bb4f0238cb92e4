"""Which code comes next. Every draw is a function of (seed, position) alone: neighbours never change a result.

The order, and the quirk that START and text id 1 count as already said, are the reference's (coqui-tts through
transformers): penalty, temperature, top-k, top-p.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tts_core.types import Sampling

MASK32 = 0xFFFFFFFF


class SamplingRows(NamedTuple):
    """One row per sequence, all [rows]: temperature, top_p, repetition_penalty float32; top_k, seed int64."""

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    repetition_penalty: Tensor
    seed: Tensor

    @classmethod
    def of(cls, rows: Sequence[Sampling], device: torch.device) -> "SamplingRows":
        return cls(*(torch.tensor([getattr(row, name) for row in rows], device=device) for name in cls._fields))


def scores_of(logits: Tensor, *, seen: Tensor, sampling: SamplingRows) -> Tensor:
    """What can be drawn, and how likely it is.

    logits   [rows, codes] float32
    seen     [rows, codes] bool, codes already drawn, START and 1
    returns  [rows, codes] float32 scores; -inf is never drawn
    source   transformers RepetitionPenalty-, Temperature-, TopK-, TopPLogitsWarper, in this order
    """
    penalty = sampling.repetition_penalty[:, None]
    penalised = torch.where(logits < 0, logits * penalty, logits / penalty)
    scores = torch.where(seen, penalised, logits) / sampling.temperature[:, None]
    ascending, order = scores.sort(dim=-1)
    kth = ascending.gather(1, (scores.shape[1] - sampling.top_k).clamp(min=0)[:, None])
    kept = ascending.masked_fill(ascending < kth, -torch.inf)
    unlikely = kept.softmax(dim=-1).cumsum(dim=-1) <= 1 - sampling.top_p[:, None]
    unlikely[:, -1] = False  # the best one stays, whatever top_p is
    kept = kept.masked_fill(unlikely, -torch.inf)
    return torch.empty_like(scores).scatter_(1, order, kept)


def draw(scores: Tensor, noise: Tensor) -> Tensor:
    """One code per row: argmax(p / q) with q ~ Exp(1) is a draw from p, and what torch.multinomial does.

    noise    [rows, codes] float32, positive
    returns  [rows] int64
    """
    return (scores.softmax(dim=-1) / noise).argmax(dim=-1)


def exponential_noise(seeds: Tensor, positions: Tensor, *, codes: int) -> Tensor:
    """Exp(1) noise of each (seed, position), the same on every device up to its logarithm.

    seeds, positions  [rows] int64
    returns           [rows, codes] float32, in 5.9e-8..16.7
    """
    row_keys = _mixed(_mixed(seeds & MASK32) ^ _mixed((seeds >> 32) & MASK32) ^ _mixed(positions + 0x9E3779B9))
    columns = torch.arange(codes, dtype=torch.int64, device=seeds.device)
    bits = _mixed(row_keys[:, None] ^ _mixed(columns * 0x85EBCA6B + 1)[None])
    # 23 bits and a half: exact in float32, and never 0 or 1
    uniform = ((bits >> 9).to(torch.float32) + 0.5) * 2.0**-23
    return -uniform.log()


def _mixed(bits: Tensor) -> Tensor:
    """A bijection of 32-bit numbers that scatters them. Source: the constants of Ettinger's `lowbias32` search."""
    bits = bits & MASK32
    bits = ((bits ^ (bits >> 16)) * 0x21F0AAAD) & MASK32
    bits = ((bits ^ (bits >> 15)) * 0xD35A2D97) & MASK32
    return bits ^ (bits >> 15)
