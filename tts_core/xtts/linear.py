"""Linear layers for CPU decoding, where reading the weights is most of the time: fewer bytes per weight, packed once.

Each maker takes the tensors of a checkpoint and the name of a layer, whose weight [out, in] and bias [out] or none are
float32, and returns a function from float32 [*, in] to float32 [*, out]. A row's result does not depend on what its
neighbours hold; where it depends on how many they are, the maker says so.
"""

import ctypes
from collections.abc import Callable, Mapping
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

Linear = Callable[[Tensor], Tensor]
MakeLinear = Callable[[Mapping[str, Tensor], str], Linear]

SCALE = "_scale"
"""Behind the name of a weight that was saved as int8: the name of its scales [out], float32."""

PACKED, LAYOUT = "_packed", "_layout"
"""Likewise: its bytes as oneDNN wants them on one kind of CPU, and which layout that is; both uint8."""

MKLDNN = torch.ops.mkldnn

INT8_PEAK = 127

NARROW_PEAK, NARROW_ZERO = 63, 64
"""Of inputs in 7 bits: two products with weights in 8 add up to 2 x 127 x 127 at most, which 16 bits hold."""

PER_INT8_PEAK, PER_NARROW_PEAK = torch.tensor(1 / INT8_PEAK), torch.tensor(1 / NARROW_PEAK)
"""Tensors: a number would be made one each time."""

FBGEMM = "fbgemm"

UINT8_ZERO = 128
"""Inputs are shifted to unsigned: without AMX, oneDNN multiplies signed ones one by one, 200 times slower."""

ROWS_HINT = 1
"""What oneDNN packs the weights for: its choice for one row is as fast at 16, and on AMX it sums in the same order
however many rows come; what it packs for more rows does not."""


def has_fast_bf16() -> bool:
    """oneDNN emulates bf16 on older CPUs, slower than float32."""
    return _any_of("avx512_bf16", "amx_bf16")


def has_fast_int8() -> bool:
    """Without these, int8 products are summed in 16 bits and can saturate."""
    return _any_of("avx512_vnni", "amx_int8")


def has_narrow_int8() -> bool:
    """FBGEMM sums products of 7 and 8 bits in 16, which hold them."""
    return _any_of("avx2") and FBGEMM in torch.backends.quantized.supported_engines


def dense(weights: Mapping[str, Tensor], name: str) -> Linear:
    """As they are, in whatever precision and on whatever device."""
    weight, bias = weights[f"{name}.weight"], weights.get(f"{name}.bias")
    return lambda x: functional.linear(x, weight, bias)


def prepacked_bf16(weights: Mapping[str, Tensor], name: str) -> Linear:
    """Weights and inputs rounded to bfloat16, sums in float32, rounded to bfloat16 before the bias: 0.3 % off.

    With AMX a row is the same, bit by bit, among 1 to 64 rows. With AVX-512 alone it is in all but the widest input
    (4096), where the order of the sum changes with the number of rows: a last bit of bfloat16 in few places.
    """
    weight, bias = weights[f"{name}.weight"], weights.get(f"{name}.bias")
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.bfloat16().contiguous(), ROWS_HINT)

    def apply(x: Tensor) -> Tensor:
        y: Tensor = MKLDNN._linear_pointwise.default(x.bfloat16(), packed, None, "none", [], "")
        # Added here, float32 costs the bias no precision and the result no second pass.
        return y.float() if bias is None else y + bias

    return apply


def quantized(weight: Tensor) -> tuple[Tensor, Tensor]:
    """float32 [out, in] -> int8 [out, in], and a scale for each output, float32 [out]"""
    scales = (weight.abs().amax(1) / INT8_PEAK).clamp(min=torch.finfo(weight.dtype).tiny)
    # Contiguous: the packing reads a strided matrix as if it were, and says nothing.
    return (weight / scales[:, None]).round().to(torch.int8).contiguous(), scales


def prepacked_int8(weights: Mapping[str, Tensor], name: str) -> Linear:
    """Weights in 8 bits with a scale per output, inputs with a scale per row, sums exact: 1.1 % off.

    The weight may have been saved as int8, its scales beside it.

    Sums of integers have no order: a row is the same, bit by bit, among any number of others. Nothing finite comes
    out of a row that is not.
    """
    weight, scales, bias = _in_8_bits(weights, name)
    packed = _as_saved(weights, name, tuple(weight.shape))
    if packed is None:
        packed = torch.ops.onednn.qlinear_prepack(weight, None)
    zeros, zero = torch.zeros(len(scales), dtype=torch.int64), torch.tensor(UINT8_ZERO + 0.5)
    # Named in full: looking among its overloads takes as long as a small operation. So do steps taken one by one.
    multiply = torch.ops.onednn.qlinear_pointwise.default

    def apply(x: Tensor) -> Tensor:
        steps = _steps(x, PER_INT8_PEAK)
        rows = (x / steps).add_(zero).to(torch.uint8)  # which cuts off: so halves are rounded up
        y: Tensor = multiply(rows, 1.0, UINT8_ZERO, packed, scales, zeros, None, 1.0, 0, torch.float32, "none", [], "")
        return y * steps if bias is None else torch.addcmul(bias, y, steps)

    return apply


def narrow_int8(weights: Mapping[str, Tensor], name: str) -> Linear:
    """As `prepacked_int8` for CPUs with AVX2 alone, inputs in 7 bits: 1.9 % off, and 3 times as fast as float32.

    Its packing has no form that a file could hold, and takes one thread 2 s for the whole model.
    """
    weight, scales, bias = _in_8_bits(weights, name)
    height, width = weight.shape
    torch.backends.quantized.engine = FBGEMM  # of the process; nothing else here asks for one
    # Scaled by us: packed with a scale for each output, it takes half as long again.
    packed = torch.ops.quantized.linear_prepack(torch._make_per_tensor_quantized_tensor(weight, 1.0, 0), None)
    multiply = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32.default

    def apply(x: Tensor) -> Tensor:
        steps = _steps(x, PER_NARROW_PEAK)
        y: Tensor = multiply((x / steps).view(-1, width), 1.0, NARROW_ZERO, packed).view(*x.shape[:-1], height)
        y.mul_(scales)
        return y.mul_(steps) if bias is None else torch.addcmul(bias, y, steps)

    return apply


def _steps(x: Tensor, per_peak: Tensor) -> Tensor:
    """What 1 stands for in each row [*, 1]; `vector_norm`, which says the same, takes up to 8 times as long."""
    return x.abs().amax(-1, keepdim=True).mul_(per_peak).clamp_(min=torch.finfo(x.dtype).tiny)


def packed_bytes(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 [out, in] -> its bytes as `prepacked_int8` uses them on this CPU, and their layout; both uint8

    Packing takes a second for the whole model, copying what was packed before half of that.
    """
    packed = torch.ops.onednn.qlinear_prepack(weight, None)
    data = torch.empty(MKLDNN._nbytes(packed), dtype=torch.uint8)
    ctypes.memmove(data.data_ptr(), MKLDNN.data_ptr(packed), len(data))
    return data, MKLDNN._get_mkldnn_serialized_md(packed)


def _in_8_bits(weights: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor, Tensor | None]:
    """Weight and scales as they were saved, or rounded now; and the bias."""
    weight, scales, bias = (weights.get(name + end) for end in (".weight", ".weight" + SCALE, ".bias"))
    assert weight is not None
    if scales is None:
        weight, scales = quantized(weight)
    return weight, scales, bias


def _as_saved(weights: Mapping[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor | None:
    """What `packed_bytes` saved; None if it did not, or on a CPU (or for a oneDNN) that wants another layout."""
    data, layout = (weights.get(f"{name}.weight{end}") for end in (PACKED, LAYOUT))
    if data is None or layout is None:
        return None
    blank = _blank(shape)
    if not torch.equal(layout, MKLDNN._get_mkldnn_serialized_md(blank)) or len(data) != MKLDNN._nbytes(blank):
        return None
    packed = blank.clone()
    ctypes.memmove(MKLDNN.data_ptr(packed), data.data_ptr(), len(data))
    return packed


@lru_cache(maxsize=8)
def _blank(shape: tuple[int, ...]) -> Tensor:
    """Memory of the layout this CPU wants: torch makes none but by packing."""
    packed: Tensor = torch.ops.onednn.qlinear_prepack(torch.zeros(shape, dtype=torch.int8), None)
    return packed


def _any_of(*names: str) -> bool:
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in names)
