"""Packed linear layers against float32: how far off, and whether a row knows of its neighbours."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tts_core.xtts import linear
from tts_core.xtts.linear import (
    LAYOUT,
    PACKED,
    SCALE,
    Linear,
    MakeLinear,
    narrow_int8,
    packed_bytes,
    prepacked_bf16,
    prepacked_int8,
    quantized,
)

SHAPES = ((3072, 1024), (1024, 1024), (4096, 1024), (1024, 4096), (1026, 1024), (192, 64))
"""[out, in] of the real model, its head (not a multiple of 16), and a tiny one."""

ROW_COUNTS = (1, 2, 4, 8, 16, 32)

LAST_BIT = 2**-7
"""Of bfloat16, relative to the value: what another order of summing may cost."""


@dataclass(frozen=True)
class Kind:
    """
    error  relative, of normal weights and inputs
    works  whether this CPU can
    """

    maker: MakeLinear
    error: float
    works: bool

    def make(self, weight: Tensor, bias: Tensor | None) -> Linear:
        return made(self.maker, weight, bias)


def made(maker: MakeLinear, weight: Tensor, bias: Tensor | None) -> Linear:
    return maker({"layer.weight": weight} | ({} if bias is None else {"layer.bias": bias}), "layer")


ALL_KINDS = {
    # AVX-512 without instructions for bfloat16 emulates them, slowly; oneDNN packs none for less than that.
    "bf16": Kind(prepacked_bf16, error=0.004, works=torch.ops.mkldnn._is_mkldnn_bf16_supported()),
    "int8": Kind(prepacked_int8, error=0.015, works=linear.has_fast_int8()),
    "narrow": Kind(narrow_int8, error=0.022, works=linear.has_narrow_int8()),
}
KINDS = {name: kind for name, kind in ALL_KINDS.items() if kind.works}
IN_8_BITS = [name for name in KINDS if name != "bf16"]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture(params=IN_8_BITS)
def in_8_bits(request: pytest.FixtureRequest) -> MakeLinear:
    return KINDS[request.param].maker


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def a_weight(shape: tuple[int, int]) -> Tensor:
    return noise(*shape) / math.sqrt(shape[1])


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_close_to_float32(kind: Kind, shape: tuple[int, int], biased: bool) -> None:
    weight, x = a_weight(shape), noise(8, shape[1], seed=1)
    bias = noise(shape[0], seed=2) if biased else None
    y = kind.make(weight, bias)(x)
    wanted = functional.linear(x, weight, bias)
    assert y.dtype == torch.float32
    assert (y - wanted).norm() < kind.error * wanted.norm()


@pytest.mark.parametrize("leading", [(), (1,), (0,), (3,), (2, 5), (2, 0)])
def test_any_leading_shape(kind: Kind, leading: tuple[int, ...]) -> None:
    assert kind.make(a_weight((192, 64)), noise(192))(noise(*leading, 64)).shape == (*leading, 192)


def test_a_strided_input_and_weight_are_read_as_they_look(kind: Kind) -> None:
    weight, x = a_weight((64, 192)).T, noise(64, 4).T
    copied = kind.make(weight.contiguous(), None)(x.contiguous())
    assert torch.equal(kind.make(weight, None)(x), copied)


def test_the_bias_keeps_its_precision(kind: Kind) -> None:
    bias = 1000 + noise(192)
    assert torch.equal(kind.make(a_weight((192, 64)), bias)(torch.zeros(2, 64)), bias.expand(2, 192))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rows", ROW_COUNTS)
def test_what_neighbours_hold_changes_nothing(kind: Kind, shape: tuple[int, int], rows: int) -> None:
    apply = kind.make(a_weight(shape), noise(shape[0]))
    row = noise(1, shape[1], seed=1)
    quiet, loud = (
        torch.cat([noise(rows - 1, shape[1], seed=seed) * size, row]) for seed, size in ((2, 0.01), (3, 1000.0))
    )
    assert torch.equal(apply(quiet)[-1], apply(loud)[-1])


@pytest.mark.parametrize("shape", SHAPES)
def test_8_bits_give_a_row_the_same_bits_among_any_number(in_8_bits: MakeLinear, shape: tuple[int, int]) -> None:
    apply = made(in_8_bits, a_weight(shape), noise(shape[0]))
    x = noise(max(ROW_COUNTS), shape[1], seed=1)
    alone = torch.cat([apply(row[None]) for row in x])
    for rows in ROW_COUNTS:
        assert torch.equal(apply(x[:rows]), alone[:rows])


@pytest.mark.parametrize("shape", SHAPES)
def test_a_row_is_the_same_among_any_number_but_for_a_last_bit(kind: Kind, shape: tuple[int, int]) -> None:
    """Of bfloat16: with AMX the bits are the same; without, it sums in an order that depends on the number of rows."""
    apply = kind.make(a_weight(shape), None)
    x = noise(max(ROW_COUNTS), shape[1], seed=1)
    alone = torch.cat([apply(row[None]) for row in x])
    for rows in ROW_COUNTS:
        y = apply(x[:rows])
        torch.testing.assert_close(y, alone[:rows], rtol=LAST_BIT, atol=1e-5)
        assert (y != alone[:rows]).float().mean() < 0.01


@pytest.mark.parametrize("sign", [1, -1])
def test_8_bits_hold_the_largest_sums(in_8_bits: MakeLinear, sign: int) -> None:
    """All inputs and weights at their peaks: what sums pairs of products in 16 bits must not saturate."""
    weight = torch.ones(64, 1024)
    assert torch.equal(made(in_8_bits, weight, None)(sign * torch.ones(1, 1024)), torch.full((1, 64), sign * 1024.0))


def test_8_bits_ignore_how_loud_a_row_or_an_output_is(in_8_bits: MakeLinear) -> None:
    weight, x = a_weight((192, 64)), noise(4, 64, seed=1)
    y = made(in_8_bits, weight, None)(x)
    row_gain, output_gain = torch.tensor([[1e-6], [1.0], [64.0], [1e6]]), 2.0 ** torch.arange(-96, 96)[:, None] / 2**20
    louder = made(in_8_bits, weight * output_gain, None)(x * row_gain)
    torch.testing.assert_close(louder, y * row_gain * output_gain.T, rtol=1e-5, atol=0)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_broken_row_is_not_finite_and_alone(kind: Kind, poison: float) -> None:
    x = noise(3, 64, seed=1)
    apply = kind.make(a_weight((192, 64)), noise(192))
    healthy = apply(x)
    x[1, 5] = poison
    y = apply(x)
    assert not y[1].isfinite().any()
    assert torch.equal(y[[0, 2]], healthy[[0, 2]])


def test_a_silent_row_or_output_is_zero(kind: Kind) -> None:
    weight = a_weight((192, 64))
    weight[7] = 0
    y = kind.make(weight, None)(torch.cat([torch.zeros(1, 64), noise(1, 64)]))
    assert not y[0].any()
    assert y[1].count_nonzero() == 191
    assert y[1, 7] == 0


@pytest.mark.parametrize(
    ("capabilities", "bf16", "int8", "narrow"),
    [
        ({"avx2": True}, False, False, True),
        ({"avx2": True, "avx512_f": True, "avx512_vnni": True, "avx512_bf16": False}, False, True, True),
        ({"avx2": True, "avx512_vnni": True, "avx512_bf16": True}, True, True, True),
        ({"avx2": True, "amx_bf16": True, "amx_int8": True}, True, True, True),
        ({"neon": True, "bf16": True, "architecture": "aarch64"}, False, False, False),
    ],
)
def test_fast_only_where_the_cpu_has_the_instructions(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, object], bf16: bool, int8: bool, narrow: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert linear.has_fast_bf16() is bf16
    assert linear.has_fast_int8() is int8
    assert linear.has_narrow_int8() is narrow


def test_torch_still_knows_these_capabilities() -> None:
    """A name that torch drops would turn the fast path off without a word."""
    if torch.cpu.get_capabilities()["architecture"] == "x86_64":
        assert torch.cpu.get_capabilities().keys() >= {"avx512_bf16", "amx_bf16", "avx512_vnni", "amx_int8", "avx2"}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_weight_saved_as_int8_is_the_one_rounded_at_load(in_8_bits: MakeLinear, shape: tuple[int, int]) -> None:
    weight, bias, x = a_weight(shape), noise(shape[0]), noise(3, shape[1], seed=1)
    small, scales = quantized(weight)
    saved = {"layer.weight": small, "layer.weight" + SCALE: scales, "layer.bias": bias}
    assert small.dtype == torch.int8
    assert torch.equal(in_8_bits(saved, "layer")(x), made(in_8_bits, weight, bias)(x))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_weight_packed_before_is_the_one_packed_at_load(shape: tuple[int, int]) -> None:
    small, scales = quantized(a_weight(shape))
    data, layout = packed_bytes(small)
    x = noise(3, shape[1], seed=1)
    plain = {"layer.weight": small, "layer.weight" + SCALE: scales}
    wanted = prepacked_int8(plain, "layer")(x)
    # Without the plain weight's values only what was packed can give the same.
    packed = plain | {"layer.weight" + PACKED: data, "layer.weight" + LAYOUT: layout}
    assert torch.equal(prepacked_int8(packed | {"layer.weight": torch.zeros_like(small)}, "layer")(x), wanted)
    for foreign in ({"layer.weight" + LAYOUT: layout.flip(0)}, {"layer.weight" + PACKED: data[:-1]}):
        assert torch.equal(prepacked_int8(packed | foreign, "layer")(x), wanted)
