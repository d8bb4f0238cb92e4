"""What `benchmarks.capacity` says is in the README as it says it, and follows from its inputs."""

import json
from pathlib import Path

import pytest

from benchmarks import capacity
from benchmarks.endpoint import Settings
from benchmarks.gpus import GPUS, REAL_TIME_MARGIN, Gpu

README = Path(__file__).parent.parent / "README.md"

FLOORS_US = {
    "L4": {1: 2608, 16: 3837, 64: 7769},
    "RTX A5000": {1: 1019, 16: 1499, 64: 3035},
    "RTX 4090": {1: 776, 16: 1142, 64: 2312},
    "H100": {1: 234, 16: 344, 64: 696},
}
"""Weights and 200 positions of keys and values in bf16 (758 MB, and 24.6 MB a row) over the bandwidth."""


def test_the_readme_has_what_the_program_prints() -> None:
    text = README.read_text()
    assert all(table in text for table in capacity.readme().split("\n\n"))


@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.name)
def test_a_step_is_what_it_reads_over_the_bandwidth(gpu: Gpu) -> None:
    (floors,) = (floors for name, floors in FLOORS_US.items() if gpu.name.startswith(name))
    for rows, floor_us in floors.items():
        assert gpu.fixed_us + rows * gpu.row_us == pytest.approx(floor_us, rel=0.002)
        assert floor_us == pytest.approx((758e6 + rows * 24.6e6) / (gpu.bandwidth_gb_s * 1e3), rel=0.01)


@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.name)
def test_every_stream_is_made_fast_enough(gpu: Gpu) -> None:
    most = gpu.concurrency("graphs")
    assert gpu.speed(most, "graphs") >= REAL_TIME_MARGIN
    assert gpu.dollars_per_audio_hour(most, "graphs") < gpu.dollars_per_audio_hour(1, "graphs")
    assert gpu.dollars_per_audio_hour(most, "graphs") <= gpu.dollars_per_audio_hour(most, "eager")


@pytest.mark.parametrize("traffic", capacity.TRAFFICS)
def test_jobs_come_as_often_as_they_are_said_to(traffic: capacity.Traffic) -> None:
    jobs = capacity.in_order(capacity.arrivals(traffic, 100_000, jobs=20_000))
    assert len(jobs) == 20_000
    assert jobs[-1].at_s == pytest.approx(20_000 / 100_000 * capacity.SECONDS_A_DAY, rel=0.1)
    assert sum(job.audio_s for job in jobs) / len(jobs) == pytest.approx(capacity.MEAN_AUDIO_S, rel=0.05)
    assert jobs == sorted(jobs, key=lambda job: job.at_s)


def test_what_is_recommended_is_prompt_where_anything_is_and_never_cheaper_than_the_cheapest() -> None:
    best = capacity.recommend(GPUS[0], "graphs", traffic="bursts", per_day=10_000)
    cheap = capacity.cheapest(GPUS[0], "graphs", traffic="bursts", per_day=10_000)
    assert best.is_prompt
    assert not cheap.is_prompt
    assert cheap.dollars_per_audio_hour < best.dollars_per_audio_hour


def test_where_nothing_is_prompt_the_shortest_wait_is_recommended(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = [Settings(1, "request_count", value, 5.0, cold_start_s=20.0) for value in (1, 50)]
    monkeypatch.setattr(capacity, "choices", lambda *_args, **_more: slow)
    best = capacity.recommend(GPUS[0], "graphs", traffic="bursts", per_day=10_000)
    assert (best.is_prompt, best.value) == (False, 1)


def test_the_last_line_is_for_machines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "PER_DAY", (1_000,))
    capacity.main(["--gpu", "H100", "--path", "eager"])
    lines = capsys.readouterr().out.splitlines()
    assert "SCALED BY BANDWIDTH, NOT MEASURED" in lines[0]
    told = json.loads(lines[-1])
    assert told["gpu"]["inputs"] == "scaled, not measured"
    assert [row["traffic"] for row in told["recommended"]] == ["poisson", "bursts"]


def test_an_unknown_gpu_is_refused() -> None:
    with pytest.raises(SystemExit):
        capacity.main(["--gpu", "abacus"])
