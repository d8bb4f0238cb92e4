"""Every benchmark runs on a model of two layers, and says what it measured in a line that a machine can read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cold_start, common, decode, first_audio, long_text
from benchmarks.pair import Heard
from tests.tiny_xtts import build

Main = Callable[[list[str]], None]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    build(folder)
    return folder


@pytest.fixture
def measured(model: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Runs a benchmark's main; returns its last line, read."""

    def run(main: Main, *more: str) -> dict[str, Any]:
        main(["--model", str(model), "--device", "cpu", "--quick", *more])
        lines = capsys.readouterr().out.splitlines()
        assert "RANDOM weights, 2 layers" in lines[0]
        result: dict[str, Any] = json.loads(lines[-1])
        assert result["weights"] == "RANDOM weights, 2 layers, 64 wide"
        assert {"commit", "machine", "quick", "rounds", "codes", "rows"} <= set(result)
        assert len(lines) == 3 + len(result["rows"])
        assert all(is_sound(value) for row in result["rows"] for value in row.values())
        return result

    return run


def is_sound(value: object) -> bool:
    """A word, or a number that can have been measured."""
    return value != "" if isinstance(value, str) else isinstance(value, int | float) and 0 < value < 1e6


def test_decode_compares_each_batch_with_coqui(measured: Callable[..., dict[str, Any]]) -> None:
    result = measured(decode.main, "--codes", "4", "--rounds", "2")
    assert [(row["who"], row["batch"]) for row in result["rows"]] == [
        ("coqui", 1),
        *(("ours", batch) for batch in (1, 2, 4, 8, 16)),
    ]
    assert {row["codes_each"] for row in result["rows"]} == {4}
    assert result["rows"][0]["ratio"] == 1


def test_first_audio_has_coqui_beside_each_number_of_streams(measured: Callable[..., dict[str, Any]]) -> None:
    rows = measured(first_audio.main, "--codes", "9")["rows"]
    assert [row["streams"] for row in rows if row["who"] == "ours"] == [1, 2, 4, 8]
    assert len(rows) == 12
    assert all(row["first_p50_s"] <= row["first_p95_s"] <= row["all_s"] for row in rows)


def test_long_text_is_the_same_audio_on_both_sides(measured: Callable[..., dict[str, Any]]) -> None:
    coqui, ours = measured(long_text.main, "--codes", "3")["rows"]
    assert (coqui["who"], ours["who"]) == ("coqui", "ours")
    assert coqui["audio_s"] == ours["audio_s"] == pytest.approx(6 * 3 * 1024 / 22_050, rel=0.1)
    assert coqui["sentences"] == ours["sentences"] == 6


def test_cold_start_has_each_way_to_start(measured: Callable[..., dict[str, Any]], model: Path) -> None:
    rows = measured(cold_start.main)["rows"]
    assert [row["who"] for row in rows] == ["coqui", "ours, official files", "ours, converted"]
    assert all(row["imports_s"] + row["load_s"] < row["ready_s"] < row["total_s"] for row in rows)
    assert all(row["peak_mib"] > 100 for row in rows)
    assert [path.name for path in model.parent.iterdir()] == ["tiny"], "scratch files are left"


def test_unequal_work_is_noticed(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop code that always comes, where none should."""
    monkeypatch.setattr("benchmarks.pair.NEVER", 1e4)
    with pytest.raises(AssertionError, match="the codes asked for"):
        decode.main(["--model", str(model), "--device", "cpu", "--quick"])


def test_streams_wait_in_a_queue_for_all_those_before_them() -> None:
    alone = Heard(first_s=1.0, first_audio_s=0.5, total_s=3.0, samples=100)
    assert [heard.first_s for heard in first_audio.queued(alone, 3)] == [1.0, 4.0, 7.0]


def test_percentiles_are_values_that_were_measured() -> None:
    values = [3.0, 1.0, 2.0, 10.0]
    assert [common.percentile(values, share) for share in (0.25, 0.5, 0.95)] == [1.0, 2.0, 10.0]


@pytest.mark.parametrize("wrong", [["--rounds", "0"], ["--codes", "1"]])
def test_arguments_without_meaning_are_refused(wrong: list[str], model: Path) -> None:
    with pytest.raises(SystemExit):
        common.parse_args(["--model", str(model), *wrong], None, codes=4, quick_codes=2)
