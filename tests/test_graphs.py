"""Which sizes of a decode step there are graphs of, and that each is run for the steps it fits. No GPU is needed."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tts_core.xtts.graphs import StepGraphs

CODES = torch.arange(64)


class Graph:
    """In place of CUDA's."""

    def __init__(self) -> None:
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1


class Steps:
    """Keeps the (rows, span) of each step that was run as it is."""

    def __init__(self, device: str, *, slots: int) -> None:
        self.run: list[tuple[int, int]] = []
        self.graphs = StepGraphs(self._step, device=torch.device(device), slots=slots, max_positions=1044)

    def _step(self, rows: int, span: int) -> Tensor:
        self.run.append((rows, span))
        return CODES[:rows]


def test_a_cpu_runs_the_rows_it_needs_and_hardly_more_positions() -> None:
    steps = Steps("cpu", slots=16)
    assert not steps.graphs.record_next()
    for rows, positions in ((1, 40), (3, 128), (3, 129), (11, 1038)):
        assert len(steps.graphs.run(rows, positions)) == rows
    assert steps.run == [(1, 64), (3, 128), (3, 160), (11, 1044)]


def test_a_gpu_runs_the_next_larger_size_from_its_graph_once_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: dict[tuple[int, int], Graph] = {}

    def record(_: StepGraphs, rows: int, span: int) -> tuple[Any, Tensor]:
        recorded[rows, span] = Graph()
        return recorded[rows, span], -CODES[:rows]

    monkeypatch.setattr(StepGraphs, "_recorded", record)
    steps = Steps("cuda", slots=6)
    assert steps.graphs.record_next()
    assert len(steps.graphs.run(3, 150)) == 4
    assert steps.run == [(4, 192)]
    while steps.graphs.record_next():
        pass
    spans = (128, 192, 256, 384, 512, 768, 1044)
    assert list(recorded) == [(rows, span) for rows in (1, 2, 4, 6) for span in spans]
    assert steps.graphs.run(3, 150).tolist() == [0, -1, -2, -3]
    assert steps.graphs.run(5, 769).tolist() == [0, -1, -2, -3, -4, -5]
    assert [size for size, graph in recorded.items() if graph.replays] == [(4, 192), (6, 1044)]
    assert steps.run == [(4, 192)]


def test_what_cannot_be_recorded_is_run_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("CUDA says no")

    monkeypatch.setattr(StepGraphs, "_recorded", refuse)
    steps = Steps("cuda", slots=6)
    assert steps.graphs.record_next()
    assert not steps.graphs.record_next()
    assert len(steps.graphs.run(1, 1)) == 1
