"""Decode steps recorded as CUDA graphs: one launch in place of a thousand, which is what a step on a fast card costs.

Never run on CUDA so far: no GPU was at hand. A CPU runs the same steps one by one, and is what tests compare.
"""

import logging
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from tts_core.errors import scrubbed

log = logging.getLogger(__name__)

Step = Callable[[int, int], Tensor]
"""(rows, span) -> codes [rows]; works in place on tensors that stay where they are."""

REHEARSALS = 3
"""Of a step before it is recorded, as torch asks: libraries choose their kernels on the first ones."""


class StepGraphs:
    """Runs a step from its graph where there is one, else as it is."""

    def __init__(self, step: Step, *, device: torch.device, sizes: Iterable[tuple[int, int]]) -> None:
        """sizes: (rows, span) to record, the most wanted ones first; none is recorded before `record_next`."""
        self._step = step
        self._device = device
        self._wanted = list(sizes) if device.type == "cuda" else []
        self._graphs: dict[tuple[int, int], tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        self._rows = sorted({rows for rows, _ in self._wanted})

    def rows_for(self, rows: int) -> int:
        """How many rows to run for these: those of the next larger graph, whose spare rows nobody reads."""
        return next((size for size in self._rows if size >= rows), rows)

    def run(self, rows: int, span: int) -> Tensor:
        """Codes [rows]; valid until the next run."""
        if (recorded := self._graphs.get((rows, span))) is None:
            return self._step(rows, span)
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
