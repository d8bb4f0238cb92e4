"""Every benchmark runs on a model of two layers, and says what it measured in a line that a machine can read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import cold_start, common, decode, first_audio, long_text
from benchmarks.pair import Heard, heard, pair
from benchmarks.parts import copy_bandwidth_gb_s, step_bytes
from tests.tiny_xtts import build
from tts_core.xtts.memory import MAX_SLOTS

Main = Callable[[list[str]], None]
Measured = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    build(folder)
    return folder


@pytest.fixture
def measured(model: Path, capsys: pytest.CaptureFixture[str]) -> Measured:
    """Runs a benchmark's main in the precision that every machine has; returns its last line, read."""

    def run(main: Main, *more: str) -> dict[str, Any]:
        main(["--model", str(model), "--device", "cpu", "--precision", "fp32", "--quick", *more])
        said = capsys.readouterr()
        lines = said.out.splitlines()
        assert "RANDOM weights, 2 layers" in lines[0]
        assert "fp32 GPT, fp32 vocoder" in lines[1]
        assert "round 1 of 1, coqui" in said.err
        result: dict[str, Any] = json.loads(lines[-1])
        assert {"commit", "machine", "rounds", "codes", "rows"} <= set(result)
        assert result["weights"] == "RANDOM weights, 2 layers, 64 wide"
        assert (
            result["configuration"] | {"name": "fp32", "precision": "fp32", "slots": common.SLOTS["cpu"]}
            == result["configuration"]
        )
        assert len(lines) == 5 + len(result["rows"])
        assert all(is_sound(value) for row in result["rows"] for value in row.values())
        assert all(0 < value < 1e6 for value in result["ratios"].values())
        return result

    return run


def is_sound(value: object) -> bool:
    """A word, or a number that can have been measured; None is not told on a CPU."""
    if isinstance(value, int | float):
        return 0 <= value < 1e6
    return value is None or (isinstance(value, str) and value != "")


def test_decode_compares_an_utterance_and_each_batch_with_coqui(
    measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bandwidth is told of GPUs only; here it is made up."""
    monkeypatch.setattr("benchmarks.decode.bandwidth", lambda _args, _device: 10.0)
    result = measured(decode.main, "--codes", "4")
    assert set(result["ratios"]) == {
        "one_utterance",
        "one_utterance_of_new_length",
        "vocoder",
        *(f"decode_{batch}" for batch in (1, 2, 4, 8, 16)),
    }
    assert {row["codes_each"] for row in result["rows"]} == {4, 6}
    assert all(row["ratio"] == 1 for row in result["rows"] if row["who"] == "coqui")
    alone, _, of_new_length = [row for row in result["rows"] if row["batch"] == 1 and row["what"] != "codes"][:3]
    assert alone["codes_per_s"] == pytest.approx(4 / alone["total_s"])
    assert of_new_length["what"] == "new length"
    has_floor = [(row["what"], row["who"]) for row in result["rows"] if row["floor_share"] is not None]
    assert has_floor == [("codes", "ours")] * 5


def test_first_audio_tells_who_runs_dry_and_what_streaming_costs(
    measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_audio, "STREAMS", {"cpu": (1, 2)})
    result = measured(first_audio.main, "--codes", "23")
    assert set(result["ratios"]) == {"first_audio_equal_chunk", "first_audio_small_chunk"}
    assert [row["streams"] for row in result["rows"]] == [1, 1, 1, 2, 2]
    coqui, equal, shipped, *_ = result["rows"]
    assert shipped["first_audio_s"] < equal["first_audio_s"] < coqui["first_audio_s"]
    assert result["ratios"]["first_audio_equal_chunk"] == pytest.approx(
        coqui["first_p50_s"] / equal["first_p50_s"], abs=1e-3
    )
    assert 1 < result["streaming_vocoder_work"] < 3


def test_long_text_is_the_same_audio_on_both_sides(measured: Measured) -> None:
    result = measured(long_text.main, "--codes", "3")
    coqui, ours = result["rows"]
    assert set(result["ratios"]) == {"twenty_sentences"}
    assert (coqui["who"], ours["who"]) == ("coqui", "ours")
    assert coqui["audio_s"] == ours["audio_s"] == pytest.approx(20 * 3 * 1024 / 22_050, rel=0.1)
    assert coqui["sentences"] == ours["sentences"] == 20


def test_cold_start_tells_each_phase(measured: Measured, model: Path) -> None:
    result = measured(cold_start.main)
    coqui, ours = result["rows"]
    assert result["ratios"].keys() == {"ready", "first_audio"}
    assert result["ratios"]["ready"] == pytest.approx(coqui["ready_s"] / ours["ready_s"], abs=1e-3)
    assert coqui["warm_up_s"] is None
    assert 0 < ours["warm_up_s"] < ours["ready_s"] < ours["total_s"]
    assert coqui["peak_mib"] > 100
    assert ours["peak_mib"] > 100
    assert {path.name for path in model.parent.iterdir()} == {"tiny", "tiny-converted"}, "scratch files are left"


def test_unequal_work_is_noticed(measured: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop code that always comes, where none should."""
    monkeypatch.setattr("benchmarks.pair.NEVER", 1e4)
    with pytest.raises(AssertionError, match="the codes asked for"):
        measured(decode.main, "--codes", "4")


async def test_a_step_reads_all_matrices_and_each_utterance(model: Path) -> None:
    args = common.parse_args(["--model", str(model), "--device", "cpu", "--precision", "fp32"], None, codes=4)
    async with pair(args) as sides:
        one, two = (step_bytes(sides.engine, batch=batch, positions=10) for batch in (1, 2))
    assert two - one == 2 * 2 * 64 * 4 * 10, "keys and values, layers, width, bytes, positions"
    matrices = 2 * 12 * 64 * 64 + 1026 * 64
    assert one - (two - one) == pytest.approx(4 * matrices, rel=0.05), "and biases and norms"


def test_bandwidth_counts_what_is_read_and_what_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.parts.timed_s", lambda _work, _device: 0.001)
    assert copy_bandwidth_gb_s(torch.device("cpu"), copy_bytes=1_000_000) == pytest.approx(2.0)


def test_streams_wait_in_a_queue_for_all_those_before_them() -> None:
    alone = Heard(first_s=1.0, first_audio_s=0.5, total_s=3.0, audio_s=2.0, samples=100, underruns=1)
    assert [each.first_s for each in first_audio.queued(alone, 3)] == [1.0, 4.0, 7.0]
    assert [each.underruns for each in first_audio.queued(alone, 3)] == [1, 1, 1]


def test_a_listener_runs_dry_where_a_chunk_comes_after_the_last_one_ended() -> None:
    """Chunks of a second each; the one that came late moves the end of all that follow."""
    assert heard([(1.0, 10), (1.9, 10), (2.9, 10)], rate_hz=10).underruns == 0
    assert heard([(1.0, 10), (2.5, 10), (3.4, 10)], rate_hz=10).underruns == 1
    assert heard([(1.0, 10), (2.5, 10), (3.6, 10)], rate_hz=10).underruns == 2


def test_ratios_are_taken_within_rounds() -> None:
    """The second round was slow for both."""
    assert common.ratio([4.0, 40.0, 6.0], [2.0, 20.0, 1.0]) == 2.0


def test_percentiles_are_values_that_were_measured() -> None:
    values = [3.0, 1.0, 2.0, 10.0]
    assert [common.percentile(values, share) for share in (0.25, 0.5, 0.95)] == [1.0, 2.0, 10.0]


def test_quick_means_fewer_rounds_of_the_same(model: Path) -> None:
    quick, whole = (common.parse_args(["--model", str(model), *more], None, codes=60) for more in (["--quick"], []))
    assert (quick.rounds, whole.rounds) == (1, 3)
    assert quick.codes == whole.codes == 60
    assert quick.precision == whole.precision == "fast"


@pytest.mark.parametrize("wrong", [["--rounds", "0"], ["--codes", "1"]])
def test_arguments_without_meaning_are_refused(wrong: list[str], model: Path) -> None:
    with pytest.raises(SystemExit):
        common.parse_args(["--model", str(model), *wrong], None, codes=4)


def test_the_engine_is_measured_with_the_slots_it_ships_with() -> None:
    assert common.SLOTS == MAX_SLOTS
