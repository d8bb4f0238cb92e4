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

from tts_core.xtts.linear import MakeLinear
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
    def max_positions(self) -> int:
        return PREFIX_POSITIONS + self.max_text + self.max_codes


class Layer:
    """Weights of attention and of what follows it, each with the norm before it."""

    def __init__(self, weights: Mapping[str, Tensor], name: str, *, linear: MakeLinear) -> None:
        self.norm_1 = _scale_and_shift(weights, f"{name}.ln_1")
        self.qkv, self.out = linear(weights, f"{name}.attn.c_attn"), linear(weights, f"{name}.attn.c_proj")
        self.norm_2 = _scale_and_shift(weights, f"{name}.ln_2")
        self.up, self.down = linear(weights, f"{name}.mlp.c_fc"), linear(weights, f"{name}.mlp.c_proj")


class Gpt:
    """Weights and KV slots; every method is one launch of the device and waits for nothing."""

    def __init__(
        self, weights: Mapping[str, Tensor], sizes: GptSizes, *, slots: int, precision: Precision = EXACT
    ) -> None:
        """weights: as the checkpoint names them, `gpt.` removed, matrices [out, in]; on the device, in its precision"""
        self.sizes = sizes
        self._weights = weights
        self._layers = _layers(weights, sizes.layers, precision)
        self._norm_1, self._norm_2 = _scale_and_shift(weights, "gpt.ln_f"), _scale_and_shift(weights, "final_norm")
        self._head = precision.linear(weights, "mel_head")
        table = weights["mel_embedding.weight"]
        self.device, self.dtype = table.device, table.dtype
        shape = (sizes.layers, slots, sizes.max_positions, sizes.heads, sizes.width // sizes.heads)
        self.keys = _zeros(shape, self.device, precision.cache)
        self.values = _zeros(shape, self.device, precision.cache)

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
        # One behind the other, without padding: a row of a matrix product needs to know nothing of the others, and each
        # prompt attends to itself alone, so that what is prefilled beside it changes no bit of it.
        lengths = [prompt_positions(text) - PREFIX_POSITIONS for text in texts]
        ends = torch.tensor(lengths, device=self.device).cumsum(0) - 1
        for slot, (key, value) in zip(slots, prefixes, strict=True):
            self.keys[:, slot, :PREFIX_POSITIONS] = key
            self.values[:, slot, :PREFIX_POSITIONS] = value
        longest = max(lengths)
        causal = torch.ones(longest, PREFIX_POSITIONS + longest, dtype=torch.bool, device=self.device)
        causal.tril_(PREFIX_POSITIONS)

        def attend(layer: int, *qkv: Tensor) -> Tensor:
            attended, own = [], zip(*(torch.split(each, lengths, dim=2) for each in qkv), strict=True)
            for slot, (query, key, value) in zip(slots, own, strict=True):
                end = PREFIX_POSITIONS + query.shape[2]
                keys, values = self.keys[layer, slot, :end], self.values[layer, slot, :end]
                keys[PREFIX_POSITIONS:], values[PREFIX_POSITIONS:] = key[0].transpose(0, 1), value[0].transpose(0, 1)
                past = keys.transpose(0, 1)[None], values.transpose(0, 1)[None]
                mask = causal[: query.shape[2], :end]
                attended.append(functional.scaled_dot_product_attention(query, *past, attn_mask=mask))
            return torch.cat(attended, dim=2)

        return self._read(self._run(self._prompts(texts, ends)[None], attend)[0, ends])

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
        mask = torch.zeros(is_later.shape, device=self.device, dtype=self.keys.dtype).masked_fill_(is_later, -torch.inf)
        # Views of all layers at once: of a step's time on a CPU, making them one by one is a percent.
        all_keys, all_values = (kept.flatten(1, 2).unbind() for kept in (self.keys, self.values))
        keys, values = (kept[:, :rows, :span].transpose(2, 3).unbind() for kept in (self.keys, self.values))

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            all_keys[layer].index_copy_(0, places, key[:, :, 0])
            all_values[layer].index_copy_(0, places, value[:, :, 0])
            return functional.scaled_dot_product_attention(query, keys[layer], values[layer], attn_mask=mask)

        return self._read(self._run(x[:, None], attend)[:, 0])

    def _prompts(self, texts: Sequence[Sequence[int]], ends: Tensor) -> Tensor:
        """[positions of all, width], with a START at each of `ends`"""
        weights, sizes = self._weights, self.sizes
        rows = [[sizes.start_text, *text, sizes.stop_text] for text in texts]
        # What stands at the ends is overwritten.
        ids = torch.tensor([number for row in rows for number in (*row, 0)], device=self.device)
        places = torch.tensor([place for row in rows for place in (*range(len(row)), 0)], device=self.device)
        x = weights["text_embedding.weight"][ids] + weights["text_pos_embedding.emb.weight"][places]
        x[ends] = weights["mel_embedding.weight"][sizes.start_code] + weights["mel_pos_embedding.emb.weight"][0]
        return x

    def _run(self, x: Tensor, attend: Callable[[int, Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        """x [n, positions, width] through all layers; `attend` gets [n, heads, positions, head_width] each."""
        for number, layer in enumerate(self._layers):
            qkv = layer.qkv(_norm(x, layer.norm_1)).to(self.keys.dtype).reshape(*x.shape[:2], 3, self.sizes.heads, -1)
            query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind()
            attended = attend(number, query, key, value).transpose(1, 2).flatten(2)
            x = x + layer.out(attended.to(x.dtype))
            x = x + layer.down(functional.gelu(layer.up(_norm(x, layer.norm_2)), approximate="tanh"))
        return x

    def _read(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [n, width] -> latents and logits; the latents are what the vocoder wants, no second pass is needed."""
        latents = _norm(_norm(x, self._norm_1), self._norm_2)
        return latents.float(), self._head(latents).float()


def _zeros(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """On a CPU mapped: pages cost nothing until a position is used, where torch writes all of them at once.

    numpy's zeros would be mapped too, but in pages of 2 MB: the first prompt of each slot then takes 0.8 s.
    """
    if device.type != "cpu":
        return torch.zeros(shape, device=device, dtype=dtype)
    return torch.frombuffer(mmap.mmap(-1, dtype.itemsize * math.prod(shape)), dtype=dtype).view(shape)


def _layers(weights: Mapping[str, Tensor], count: int, precision: Precision) -> Sequence[Layer]:
    make = partial(Layer, weights, linear=precision.linear)
    names = [f"gpt.h.{number}" for number in range(count)]
    if not precision.packers:
        return [make(name) for name in names]
    with ThreadPoolExecutor(precision.packers) as pool:
        return list(pool.map(make, names))


def _scale_and_shift(weights: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    return weights[f"{name}.weight"].float(), weights[f"{name}.bias"].float()


def _norm(x: Tensor, weights: tuple[Tensor, Tensor]) -> Tensor:
    """In float32 whatever the precision of the rest; 1e-5 is GPT-2's and torch's own epsilon."""
    return functional.layer_norm(x.float(), (x.shape[-1],), *weights).to(x.dtype)
