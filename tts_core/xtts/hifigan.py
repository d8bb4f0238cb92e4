"""The HiFi-GAN generator of XTTS-v2 over plain tensors: frames of latents in, samples out.

Time lies in the first of two image dimensions, channels innermost in memory: oneDNN then convolves without moving
anything, 2 to 5 times as fast in bfloat16 as 1-d convolutions; and it compiles a kernel for each width of an image, not
for each height, so that a window of a new length is no event. On CPUs without AVX-512 there is no bfloat16, and in
float32 1-d convolutions are 1.6 times as fast as images there: these it is then. Source: `benchmarks/LOG.md`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

UPSAMPLING = ((8, 16), (8, 16), (2, 4), (2, 4))
"""Factor and kernel of each transposed convolution."""

FIRST_CHANNELS = 512
"""Before the first of them; each halves their number."""

KERNELS = (3, 7, 11)
DILATIONS = (1, 3, 5)
"""Of the residual blocks behind each. Source of all of these: coqui `HifiDecoder`; config.json does not tell them."""

EDGE_KERNEL = 7
"""Of the first and the last convolution."""

HOP = 256
"""Samples of a frame: the product of the factors."""

SLOPE, LAST_SLOPE = 0.1, 0.01
"""Of the leaky ReLUs. Source: coqui `HifiganGenerator`, which gives the last one torch's default."""

Shapes = dict[str, tuple[int, ...]]


def generator_shapes(*, latent_width: int, embedding_width: int, conditioned: bool) -> Shapes:
    """Of its tensors by the official names, weight norm folded.

    conditioned  whether each upsampling layer gets the speaker's embedding, too
    """
    shapes: Shapes = {
        **_pair("conv_pre", FIRST_CHANNELS, latent_width, EDGE_KERNEL),
        **_pair("cond_layer", FIRST_CHANNELS, embedding_width, 1),
    }
    channels = FIRST_CHANNELS
    for level, (_, kernel) in enumerate(UPSAMPLING):
        channels //= 2
        # A transposed convolution's weight is [in, out, kernel].
        shapes |= {f"ups.{level}.weight": (2 * channels, channels, kernel), f"ups.{level}.bias": (channels,)}
        if conditioned:
            shapes |= _pair(f"conds.{level}", channels, embedding_width, 1)
        for block, width in enumerate(KERNELS, start=level * len(KERNELS)):
            for place in range(len(DILATIONS)):
                shapes |= _pair(f"resblocks.{block}.convs1.{place}", channels, channels, width)
                shapes |= _pair(f"resblocks.{block}.convs2.{place}", channels, channels, width)
    return shapes | {"conv_post.weight": (1, channels, EDGE_KERNEL)}


def _pair(name: str, *shape: int) -> Shapes:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


class _Conv(Protocol):
    """A convolution over [n, in, t, 1], to [n, out, t, 1], or to [n, out, factor * t, 1]."""

    @property
    def weight(self) -> Tensor: ...

    def __call__(self, x: Tensor, *, dilation: int = 1) -> Tensor: ...

    def upsampled(self, x: Tensor, *, factor: int) -> Tensor: ...


@dataclass(frozen=True, slots=True, eq=False)
class _SequenceConv:
    """weight [out, in, kernel, 1], or [in, out, kernel, 1] of a transposed one"""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor, *, dilation: int = 1) -> Tensor:
        padding = self.weight.shape[2] // 2 * dilation
        return functional.conv1d(x[..., 0], self.weight[..., 0], self.bias, padding=padding, dilation=dilation)[
            ..., None
        ]

    def upsampled(self, x: Tensor, *, factor: int) -> Tensor:
        padding = (self.weight.shape[2] - factor) // 2
        y = functional.conv_transpose1d(x[..., 0], self.weight[..., 0], self.bias, stride=factor, padding=padding)
        return y[..., None]


@dataclass(frozen=True, slots=True, eq=False)
class _ImageConv:
    """weight [out, in, kernel, 1], or [in, out, kernel, 1] of a transposed one, the second dimension innermost"""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor, *, dilation: int = 1) -> Tensor:
        """Every dilation-th moment is a column of its own, and nothing is dilated then: views of the same memory."""
        time = x.shape[2]
        if missing := -time % dilation:
            x = functional.pad(x, (0, 0, 0, missing))
        n, channels, moments, _ = x.shape
        columns = x.permute(0, 2, 3, 1).reshape(n, moments // dilation, dilation, channels).permute(0, 3, 1, 2)
        y = functional.conv2d(columns, self.weight, self.bias, padding=(self.weight.shape[2] // 2, 0))
        return y.permute(0, 2, 3, 1).flatten(1, 2)[:, :time, None].permute(0, 3, 1, 2)

    def upsampled(self, x: Tensor, *, factor: int) -> Tensor:
        padding = (self.weight.shape[2] - factor) // 2
        return functional.conv_transpose2d(x, self.weight, self.bias, stride=(factor, 1), padding=(padding, 0))


class Generator:
    """Holds the weights, in one precision on one device."""

    def __init__(
        self, weights: Mapping[str, Tensor], *, dtype: torch.dtype = torch.float32, as_images: bool | None = None
    ) -> None:
        """
        weights    as `generator_shapes` names them
        dtype      of weights and all between them
        as_images  how they are convolved, see above; None: as is faster
        """
        if as_images is None:
            as_images = _images_are_faster(dtype, weights["conv_pre.weight"].device)
        self._lay_out = _as_image if as_images else _as_sequence
        conv = _ImageConv if as_images else _SequenceConv
        self.device = weights["conv_pre.weight"].device
        self._dtype = dtype
        self._weights = weights
        self._convs: dict[str, _Conv] = {
            name.removesuffix(".weight"): conv(self._lay_out(weight.to(dtype)), self._bias(name))
            for name, weight in weights.items()
            if name.endswith(".weight")
        }
        self._conditioned = "conds.0" in self._convs

    def __call__(self, frames: Tensor, embeddings: Tensor) -> Tensor:
        """
        frames      [n, latent width, t] float32
        embeddings  [n, embedding width] float32
        returns     [n, HOP * t] float32
        source      coqui `HifiganGenerator.forward`
        """
        speaker = embeddings[:, :, None, None].to(self._dtype)
        x = self._convs["conv_pre"](self._lay_out(frames.to(self._dtype))) + self._convs["cond_layer"](speaker)
        for level, (factor, _) in enumerate(UPSAMPLING):
            x = self._convs[f"ups.{level}"].upsampled(functional.leaky_relu(x, SLOPE), factor=factor)
            if self._conditioned:
                x += self._convs[f"conds.{level}"](speaker)
            first, *others = range(level * len(KERNELS), (level + 1) * len(KERNELS))
            mean = self._residual(x, first)
            for block in others:
                mean += self._residual(x, block)
            x = mean.div_(len(KERNELS))
        x = self._convs["conv_post"](functional.leaky_relu(x, LAST_SLOPE))
        return x[:, 0, :, 0].float().tanh()

    def _residual(self, x: Tensor, block: int) -> Tensor:
        for place, dilation in enumerate(DILATIONS):
            y = self._convs[f"resblocks.{block}.convs1.{place}"](functional.leaky_relu(x, SLOPE), dilation=dilation)
            x = x + self._convs[f"resblocks.{block}.convs2.{place}"](functional.leaky_relu_(y, SLOPE))
        return x

    def _bias(self, weight_name: str) -> Tensor | None:
        bias = self._weights.get(weight_name.removesuffix("weight") + "bias")
        return None if bias is None else bias.to(self._dtype)


def _images_are_faster(dtype: torch.dtype, device: torch.device) -> bool:
    return device.type != "cpu" or dtype != torch.float32 or bool(torch.cpu.get_capabilities().get("avx512_f"))


def _as_sequence(values: Tensor) -> Tensor:
    """[a, b, t] -> [a, b, t, 1]"""
    return values[..., None]


def _as_image(values: Tensor) -> Tensor:
    """[a, b, t] -> [a, b, t, 1] with b innermost in memory"""
    return values[..., None].contiguous(memory_format=torch.channels_last)
