"""The load benchmark notices what it is there to notice, and runs."""

import base64
import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.load import run
from benchmarks.load.balance import Tables, Told, discrepancies, read_sqlite
from benchmarks.load.clients import Story
from benchmarks.load.hearing import Piece, brief, deliveries, differ, underruns
from benchmarks.load.hearing import Told as Result
from benchmarks.load.site import Size
from benchmarks.load.verdict import judge, rss_slope
from tests import ledger

A, B, C = (Piece(seq, letter * 1000) for seq, letter in enumerate((b"a", b"b", b"c")))


def result(audio: bytes) -> Result:
    told = brief([{"event": "audio", "seq": 0, "audio_base64": base64.b64encode(audio).decode()}, {"event": "done"}])
    assert isinstance(told, Result)
    return told


WHOLE = result(A.audio + B.audio + C.audio)


def sorted_out(*pieces: tuple[str, Piece], may_skip: bool = False) -> tuple[list[tuple[str, list[int], bool]], int]:
    found, strays = deliveries([(who, 0.0, piece) for who, piece in pieces], may_skip=may_skip)
    return [(each.worker_id, [piece.seq for _, piece in each.pieces], each.has_gaps) for each in found], strays


def test_pieces_of_several_workers_are_told_apart() -> None:
    pieces = [("w", A), ("v", A), ("w", B), ("v", B), ("v", C)]
    assert sorted_out(*pieces) == ([("w", [0, 1], False), ("v", [0, 1, 2], False)], 0)


def test_a_worker_may_begin_again_and_two_readings_of_it_may_be_mixed() -> None:
    assert sorted_out(("w", A), ("w", B), ("w", A), ("w", B), ("w", C))[0][1] == ("w", [0, 1, 2], False)
    assert sorted_out(("w", A), ("w", A), ("w", B), ("w", B)) == ([("w", [0, 1], False)] * 2, 0)


def test_a_piece_out_of_its_place_is_a_stray() -> None:
    assert sorted_out(("w", A), ("w", C), ("w", B))[1] == 1
    assert sorted_out(("w", B))[1] == 1


def test_what_the_platform_refused_is_a_gap() -> None:
    assert sorted_out(("w", A), ("w", C), may_skip=True) == ([("w", [0, 2], True)], 0)
    assert sorted_out(("w", B), ("w", C), may_skip=True) == ([("w", [1, 2], True)], 0)


@pytest.mark.parametrize(
    ("pieces", "results", "are_two"),
    [
        ([A, B, C], [WHOLE, WHOLE], False),
        ([A, B, C, A, B], [WHOLE], False),
        ([A, B], [WHOLE], False),
        ([A, B, C], [], False),
        ([A, B, replace(C, audio=b"x" * 1000)], [WHOLE], True),
        ([A, B, C, A, replace(B, audio=b"x" * 1000)], [WHOLE], True),
        ([], [WHOLE, result(b"another")], True),
    ],
)
def test_two_readings_of_a_job_are_the_same_bytes(pieces: list[Piece], results: list[Result], are_two: bool) -> None:
    found, _ = deliveries([("w", 0.0, piece) for piece in pieces], may_skip=False)
    assert differ(found, results) is are_two


def test_a_chunk_is_late_when_all_before_it_have_been_played() -> None:
    """Of a second each."""
    pieces = [("w", at_s, piece) for at_s, piece in zip((5.0, 5.9, 7.5), (A, B, C), strict=True)]
    (delivery,), _ = deliveries(pieces, may_skip=False)
    assert underruns(delivery, bytes_per_s=1000) == 1
    assert underruns(delivery, bytes_per_s=800) == 0


def request(**fields: Any) -> dict[str, Any]:
    row = {"request_id": "r", "identity": "job:j", "status": "success", "fence": 1, "held_s": 9.0}
    return row | {"audio_seconds": 2.0, "cached": 0} | fields


def usage(**fields: Any) -> dict[str, Any]:
    return {"request_id": "r", "fence": 1, "status": "success", "audio_seconds": 2.0, "cached": 0} | fields


BALANCED = Tables([request()], [usage()], [{"used_s": 2.0}], [{"requests": 1, "audio_seconds": 2.0}])
TOLD = {"j": Told(2.0), "never finished": Told(None)}
KILLED = usage(status="abandoned", audio_seconds=0.0)


@pytest.mark.parametrize(
    "tables",
    [
        BALANCED,
        replace(
            BALANCED,
            requests=[request(fence=2)],
            usage=[KILLED, usage(fence=2)],
            daily=[{"requests": 2, "audio_seconds": 2.0}],
        ),
    ],
)
def test_books_that_balance(tables: Tables) -> None:
    assert discrepancies(tables, TOLD) == []
    assert tables.held_s == 0


@pytest.mark.parametrize(
    ("tables", "told", "wrong"),
    [
        (replace(BALANCED, requests=[request(status="running")]), {"j": Told(None)}, "still runs, and holds 9.0 s"),
        (replace(BALANCED, usage=[]), TOLD, "1 attempts have ended"),
        (replace(BALANCED, requests=[request(fence=2)]), TOLD, "2 attempts have ended"),
        (replace(BALANCED, usage=[usage(), usage(request_id="s")]), TOLD, "s: usage rows without a request"),
        (replace(BALANCED, requests=[request(fence=2)], usage=[usage(), usage(fence=2)]), TOLD, "more than once"),
        (replace(BALANCED, usage=[usage(status="failed")]), TOLD, "says otherwise"),
        (replace(BALANCED, used=[{"used_s": 4.0}]), TOLD, "4.000000 s were charged"),
        (replace(BALANCED, daily=[]), TOLD, "days come to 0 requests"),
        (BALANCED, TOLD | {"k": Told(1.0)}, "k: was told a success that no request has"),
        (BALANCED, {"j": Told(2.5)}, "was told 2.5 s"),
        (BALANCED, {}, "a request of no job"),
    ],
)
def test_books_that_do_not_balance(tables: Tables, told: dict[str, Told], wrong: str) -> None:
    assert any(wrong in each for each in discrepancies(tables, told))


def test_a_job_is_judged_by_what_came_of_it() -> None:
    books, stories = ledger.Ledger(), []
    for number, outcome in enumerate(("success", "cancelled", "failed", "lost")):
        books.jobs[str(number)] = ledger.JobRecord({})
        stories.append(Story(str(number), "stream", asked_s=0.0, outcome=outcome))  # type: ignore[arg-type]
    mixed_up = books.jobs["3"]
    mixed_up.chunks, mixed_up.arrivals = [A, C], [ledger.Arrival("w", 0.0)] * 2
    row = judge("load", stories, books, settled_s={}, audio_format="ulaw", minutes=1.0)
    assert (row.told, row.cancelled, row.failed, row.lost, row.reordered) == (1, 1, 2, 1, 1)
    assert row.failure_rate == pytest.approx(2 / 3)


def test_what_the_platform_waits_for_is_not_the_settlement_s() -> None:
    books = ledger.Ledger(jobs={"j": ledger.JobRecord({})})
    last = {"duration": 1.0, "timings_ms": {"prepared": 100, "spoken": 600}}
    story = Story("j", "short", asked_s=0.0, outcome="success", told=Result(last, "", 0), told_s=20.0)
    row = judge("load", [story], books, settled_s={"job:j": 1.25}, audio_format="ulaw", minutes=1.0)
    assert (row.short_p95_ms, row.settled_p95_ms) == (19_500, 750)


def test_growth_is_told_per_thousand_jobs_and_not_of_the_beginning() -> None:
    steady = [Size("w", jobs, 100_000_000 + 2_000 * jobs, 0) for jobs in range(0, 1000, 10)]
    beginning = [Size("w", 0, 10_000_000 * second, 0) for second in range(40)]
    assert rss_slope([*beginning, *steady]) == pytest.approx(2.0)
    assert rss_slope([Size("idle", 0, 1, 0)]) is None


async def test_a_store_of_ours_can_be_read(tmp_path: Path) -> None:
    from storage.local import open_local

    await (await open_local(tmp_path)).close()
    assert read_sqlite(tmp_path / "store.db") == Tables([], [], [], [])
    with closing(sqlite3.connect(tmp_path / "store.db")) as database:
        assert database.execute("select count(*) from tenants").fetchone()


@pytest.mark.parametrize("more", [[], ["--faults", "done_400", "cancels"]], ids=["load", "faults"])
def test_a_load_runs(capsys: pytest.CaptureFixture[str], more: list[str]) -> None:
    shape = ["--streams", "2", "--concurrency", "4", "--workers", "1", "--minutes", "0.05", "--sentences", "1", "1"]
    run.main([*shape, *more])
    told: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["jobs"] >= 3
    assert [told[name] for name in ("lost", "doubled", "reordered", "unbalanced", "sdk_faults", "held_s")] == [0] * 6
    assert {"underruns", "rss_slope_mb_per_1000_jobs", "added_latency_ms", "short_ms", "failure_rate"} <= told.keys()
