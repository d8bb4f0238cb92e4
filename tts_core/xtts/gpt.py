"""The GPT of XTTS-v2 over static KV slots: prompts in, then one code and one latent per step for every slot.

Weights are plain tensors; nothing here decides who is decoded. Rows of a decode are the slots 0..rows-1: a free one
among them is decoded along and never read.
"""

import math
import mmap
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from tts_core.xtts.linear import Linear, MakeLinear
from tts_core.xtts.precision import EXACT, Precision

PREFIX_POSITIONS = 32
"""Latents of the perceiver that stand before the text: the voice."""


def prompt_positions(text_ids: Sequence[int]) -> int:
    """Voice, START_TEXT, text, STOP_TEXT, START."""
    return PREFIX_POSITIONS + len(text_ids) + 3


@dataclass(frozen=True, slots=True)
class GptSizes:
    """From the checkpoint's config.json; the real ones are 30, 1024, 16, 608 and 404, 1026."""

    layers: int
    width: int
    heads: int
    max_codes: int
    max_text: int
    codes: int
    start_code: int
    stop_code: int
    start_text: int
    stop_text: int

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def max_positions(self) -> int:
        return PREFIX_POSITIONS + self.max_text + self.max_codes


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    norm_1: tuple[Tensor, Tensor]
    qkv: Linear
    out: Linear
    norm_2: tuple[Tensor, Tensor]
    up: Linear
    down: Linear


class Gpt:
    """Weights and KV slots; every method is one launch of the device and waits for nothing."""

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        sizes: GptSizes,
        *,
        slots: int,
        precision: Precision = EXACT,
    ) -> None:
        """weights: as the checkpoint names them, `gpt.` removed, matrices [out, in]; on the device, in its precision"""
        self.sizes = sizes
        self._weights = weights
        self._layers = _layers(weights, sizes.layers, precision)
        self._head = precision.linear(weights, "mel_head")
        table = weights["mel_embedding.weight"]
        self.device, self.dtype = table.device, table.dtype
        shape = (sizes.layers, slots, sizes.max_positions, sizes.heads, sizes.head_width)
        self.keys = _zeros(shape, self.device, self.dtype)
        self.values = _zeros(shape, self.device, self.dtype)

    @torch.inference_mode()
    def prefix(self, gpt_latents: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a voice, once per voice.

        gpt_latents  [32, width] float32
        returns      two [layers, 32, heads, head_width]
        """
        keys, values = [], []

        def attend(_: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            keys.append(key[0].transpose(0, 1))
            values.append(value[0].transpose(0, 1))
            return functional.scaled_dot_product_attention(query, key, value, is_causal=True)

        self._run(gpt_latents[None].to(self.device, self.dtype), attend)
        return torch.stack(keys), torch.stack(values)

    @torch.inference_mode()
    def prefill(
        self, texts: Sequence[Sequence[int]], prefixes: Sequence[tuple[Tensor, Tensor]], slots: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Fill slots with prompts: voice, START_TEXT, text, STOP_TEXT, START.

        returns  latents [n, width] and logits [n, codes], float32, at START: where code 0 is predicted
        """
        lengths = torch.tensor([len(text) + 3 for text in texts], device=self.device)
        x = self._prompts(texts, longest=max(len(text) for text in texts) + 3)
        rows = torch.tensor(list(slots), device=self.device)
        end = PREFIX_POSITIONS + x.shape[1]
        for slot, (key, value) in zip(slots, prefixes, strict=True):
            self.keys[:, slot, :PREFIX_POSITIONS] = key
            self.values[:, slot, :PREFIX_POSITIONS] = value
        causal = torch.ones(x.shape[1], end, dtype=torch.bool, device=self.device).tril(PREFIX_POSITIONS)

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            # Prompts are padded on the right: what lies behind a shorter one is masked or overwritten when decoding.
            self.keys[layer, rows, PREFIX_POSITIONS:end] = key.transpose(1, 2)
            self.values[layer, rows, PREFIX_POSITIONS:end] = value.transpose(1, 2)
            keys, values = (kept[layer, rows, :end].transpose(1, 2) for kept in (self.keys, self.values))
            return functional.scaled_dot_product_attention(query, keys, values, attn_mask=causal)

        x = self._run(x, attend)
        return self._read(x[torch.arange(len(texts), device=self.device), lengths - 1])

    @torch.inference_mode()
    def decode(self, codes: Tensor, *, counts: Tensor, lengths: Tensor, span: int) -> tuple[Tensor, Tensor]:
        """One step for the slots 0..rows-1.

        codes    [rows] int64, the last code of each
        counts   [rows] int64, how many codes it has: its place among them
        lengths  [rows] int64, KV positions filled so far; this step fills the next
        span     positions that attention looks at; above all lengths
        returns  latents [rows, width] and logits [rows, codes], float32
        """
        rows = codes.shape[0]
        places = torch.arange(rows, device=self.device) * self.sizes.max_positions + lengths
        x = self._weights["mel_embedding.weight"][codes] + self._weights["mel_pos_embedding.emb.weight"][counts]
        is_later = (torch.arange(span, device=self.device)[None] > lengths[:, None])[:, None, None]
        # As numbers: of a mask in bool each layer would make them anew.
        mask = torch.zeros(is_later.shape, device=self.device, dtype=self.dtype).masked_fill_(is_later, -torch.inf)

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            self.keys[layer].flatten(0, 1).index_copy_(0, places, key[:, :, 0])
            self.values[layer].flatten(0, 1).index_copy_(0, places, value[:, :, 0])
            keys, values = (kept[layer, :rows, :span].transpose(1, 2) for kept in (self.keys, self.values))
            return functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask)

        return self._read(self._run(x[:, None], attend)[:, 0])

    def _prompts(self, texts: Sequence[Sequence[int]], *, longest: int) -> Tensor:
        """[n, longest, width]; padding is whatever STOP_TEXT looks like"""
        weights, sizes = self._weights, self.sizes
        ids = torch.full((len(texts), longest), sizes.stop_text, device=self.device)
        for row, text in enumerate(texts):
            ids[row, : len(text) + 1] = torch.tensor([sizes.start_text, *text], device=self.device)
        places = torch.arange(longest, device=self.device).clamp(max=sizes.max_text - 1)
        x = weights["text_embedding.weight"][ids] + weights["text_pos_embedding.emb.weight"][places]
        start = weights["mel_embedding.weight"][sizes.start_code] + weights["mel_pos_embedding.emb.weight"][0]
        for row, text in enumerate(texts):
            x[row, len(text) + 2] = start
        return x

    def _run(self, x: Tensor, attend: Callable[[int, Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        """x [n, positions, width] through all layers; `attend` gets [n, heads, positions, head_width] each."""
        for number, layer in enumerate(self._layers):
            query, key, value = self._heads(layer.qkv(_norm(x, layer.norm_1)))
            attended = attend(number, query, key, value).transpose(1, 2).flatten(2)
            x = x + layer.out(attended)
            x = x + layer.down(functional.gelu(layer.up(_norm(x, layer.norm_2)), approximate="tanh"))
        return x

    def _heads(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[n, positions, 3 * width] -> three [n, heads, positions, head_width]"""
        shape = (*qkv.shape[:2], 3, self.sizes.heads, self.sizes.head_width)
        split = qkv.reshape(shape).permute(2, 0, 3, 1, 4)
        return split[0], split[1], split[2]

    def _read(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [n, width] -> latents and logits; the latents are what the vocoder wants, no second pass is needed."""
        weights = self._weights
        latents = _norm(x, (weights["gpt.ln_f.weight"], weights["gpt.ln_f.bias"]))
        latents = _norm(latents, (weights["final_norm.weight"], weights["final_norm.bias"]))
        return latents.float(), self._head(latents).float()


def _zeros(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """On a CPU mapped: pages cost nothing until a position is used, where torch writes all of them at once.

    numpy's zeros would be mapped too, but in pages of 2 MB: the first prompt of each slot then takes 0.8 s.
    """
    if device.type != "cpu":
        return torch.zeros(shape, device=device, dtype=dtype)
    return torch.frombuffer(mmap.mmap(-1, dtype.itemsize * math.prod(shape)), dtype=dtype).view(shape)


def _layers(weights: Mapping[str, Tensor], count: int, precision: Precision) -> Sequence[Layer]:
    make = partial(_layer, weights, linear=precision.linear)
    if not precision.packers:
        return [make(number) for number in range(count)]
    with ThreadPoolExecutor(precision.packers) as pool:
        return list(pool.map(make, range(count)))


def _layer(weights: Mapping[str, Tensor], number: int, *, linear: MakeLinear) -> Layer:
    name = f"gpt.h.{number}"
    return Layer(
        norm_1=(weights[f"{name}.ln_1.weight"], weights[f"{name}.ln_1.bias"]),
        qkv=linear(weights, f"{name}.attn.c_attn"),
        out=linear(weights, f"{name}.attn.c_proj"),
        norm_2=(weights[f"{name}.ln_2.weight"], weights[f"{name}.ln_2.bias"]),
        up=linear(weights, f"{name}.mlp.c_fc"),
        down=linear(weights, f"{name}.mlp.c_proj"),
    )


def _norm(x: Tensor, weights: tuple[Tensor, Tensor]) -> Tensor:
    """In float32 whatever the precision of the rest; 1e-5 is GPT-2's and torch's own epsilon."""
    scale, shift = weights
    return functional.layer_norm(x.float(), (x.shape[-1],), scale.float(), shift.float()).to(x.dtype)
