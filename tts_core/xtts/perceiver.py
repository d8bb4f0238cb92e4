"""However much was listened to, 32 latents: a perceiver (https://arxiv.org/abs/2103.03206) as XTTS-v2 has it."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

LATENTS = 32
LAYERS = 2
HEADS, HEAD_WIDTH = 8, 64
"""Whatever the GPT has. Source of all of these: coqui `PerceiverResampler` as its `GPT` makes it."""


class Perceiver(nn.Module):
    """Parameters are named as in the checkpoint."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.empty(LATENTS, width))
        self.layers = nn.ModuleList(nn.ModuleList((_Attention(width), _feed_forward(width))) for _ in range(LAYERS))
        self.norm = _Norm(width)

    def forward(self, heard: Tensor) -> Tensor:
        """[n, frames, width] -> [n, 32, width]"""
        x = self.latents.expand(len(heard), -1, -1)
        for layer in self.layers:
            attention, feed_forward = layer.children()
            x = x + attention(x, heard)
            x = x + feed_forward(x)
        latents: Tensor = self.norm(x)
        return latents


class _Attention(nn.Module):
    """From the latents to what was heard, and to one another."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = HEADS * HEAD_WIDTH
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)

    def forward(self, latents: Tensor, heard: Tensor) -> Tensor:
        """latents [n, 32, width], heard [n, frames, width] -> [n, 32, width]"""
        query = self.to_q(latents).unflatten(2, (HEADS, HEAD_WIDTH)).transpose(1, 2)
        both = self.to_kv(torch.cat((latents, heard), dim=1)).unflatten(2, (2, HEADS, HEAD_WIDTH))
        key, value = both.transpose(1, 3).unbind(2)
        attended = functional.scaled_dot_product_attention(query, key, value)
        projected: Tensor = self.to_out(attended.transpose(1, 2).flatten(2))
        return projected


def _feed_forward(width: int) -> nn.Sequential:
    inner = width * 8 // 3  # 4 times, of which the gates take a third
    return nn.Sequential(nn.Linear(width, 2 * inner), _Gated(), nn.Linear(inner, width))


class _Gated(nn.Module):
    """[..., 2 * inner] -> [..., inner]"""

    def forward(self, x: Tensor) -> Tensor:
        values, gates = x.chunk(2, dim=-1)
        return values * functional.gelu(gates)


class _Norm(nn.Module):
    """Each row to a mean square of 1, then scaled; [..., width] -> the same"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        return functional.normalize(x, dim=-1) * (math.sqrt(len(self.gamma)) * self.gamma)
