"""Decode steps recorded as CUDA graphs: one launch in place of a thousand, which is what a step on a fast card costs.

Never run on CUDA so far: no GPU was at hand. A CPU runs the same steps one by one, and is what tests compare.
"""

import logging
from collections.abc import Callable, Sequence
from itertools import product

import torch
from torch import Tensor

from tts_core.errors import scrubbed

log = logging.getLogger(__name__)

Step = Callable[[int, int], Tensor]
"""(rows, span) -> codes [rows]; works in place on tensors that stay where they are."""

ROWS = (1, 2, 4, 8, 16, 32, 64)

SPANS = (128, 192, 256, 384, 512, 768)
"""KV positions that attention may look at, besides all of them: few, so that each can be a graph."""

SPAN_STEP = 32
"""Of a CPU, which needs no graphs: attention to positions that are not there takes as long as to others."""

REHEARSALS = 3
"""Of a step before it is recorded, as torch asks: libraries choose their kernels on the first ones."""


class StepGraphs:
    """Runs a step from its graph where there is one, else as it is; few sizes, whose spare rows nobody reads."""

    def __init__(self, step: Step, *, device: torch.device, slots: int, max_positions: int) -> None:
        """None is recorded before `record_next`; the most wanted ones are first."""
        self._step = step
        self._device = device
        records = device.type == "cuda"
        self._rows = sorted({min(rows, slots) for rows in ROWS}) if records else []
        self._spans = (*(SPANS if records else range(SPAN_STEP, max_positions, SPAN_STEP)), max_positions)
        self._wanted = list(product(self._rows, self._spans))
        self._graphs: dict[tuple[int, int], tuple[torch.cuda.CUDAGraph, Tensor]] = {}

    def run(self, rows: int, positions: int) -> Tensor:
        """Codes [rows or more] of the slots from 0 on, the longest of so many positions; valid until the next run."""
        size = _next_larger(rows, self._rows), _next_larger(positions, self._spans)
        if (recorded := self._graphs.get(size)) is None:
            return self._step(*size)
        graph, codes = recorded
        graph.replay()
        return codes

    def record_next(self) -> bool:
        """Record one graph, while nobody's slot is in use; False if there is none left to record."""
        if not self._wanted:
            return False
        size = self._wanted.pop(0)
        try:
            self._graphs[size] = self._recorded(*size)
        except RuntimeError as exc:
            self._wanted.clear()
            log.warning("decoding goes on without more CUDA graphs: %s", scrubbed(exc))
        return True

    def _recorded(self, rows: int, span: int) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        aside = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(aside):
            for _ in range(REHEARSALS):
                self._step(rows, span)
        torch.cuda.current_stream(self._device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            codes = self._step(rows, span)
        return graph, codes


def _next_larger(wanted: int, sizes: Sequence[int]) -> int:
    return next((size for size in sizes if size >= wanted), wanted)
