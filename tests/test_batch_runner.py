"""Retries, waits, resumption and what is shown, with a site that answers as it is told."""

import argparse
import asyncio
import io
import json
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from tests.test_readme import README
from tts_core.batch import command, report, runner
from tts_core.batch.__main__ import main
from tts_core.batch.command import INTERRUPTED, carry_out
from tts_core.batch.events import Assembly
from tts_core.batch.failures import CODES, STOPS, LineFailed
from tts_core.batch.lines import Line, plan
from tts_core.batch.manifest import NAME, Manifest
from tts_core.batch.options import add_arguments
from tts_core.batch.pace import CLEAN_ROW, Pace
from tts_core.batch.part import ALIGNMENTS, Part
from tts_core.batch.progress import shown
from tts_core.batch.reading import Row
from tts_core.batch.retry import MAX_WAIT_S, Policy, judge
from tts_core.batch.runner import Ask, Runner, Spoken
from tts_core.batch.tally import Failed, Tally

BUSY = LineFailed("overloaded", "try later", retryable=True)
BAD = LineFailed("text_unspeakable", "no letter")
EXPIRED = LineFailed("result_expired", "gone")


class Scripted:
    """Fails lines as their text's script says, then speaks. asked: text, key and adopted job of every attempt"""

    def __init__(self, **scripts: Sequence[Exception]) -> None:
        self.scripts = {text: deque(script) for text, script in scripts.items()}
        self.asked: list[tuple[str, str, str | None]] = []

    async def speak(self, ask: Ask) -> Spoken:
        text = ask.body["text"]
        self.asked.append((text, ask.body["idempotency_key"], ask.job_id))
        if not ask.job_id:
            await ask.queued(f"job-{len(self.asked)}")
        if script := self.scripts.get(text):
            raise script.popleft()
        ask.part.write(text.encode())
        ask.part.beside(ALIGNMENTS, f"of {text}".encode())
        return Spoken({"format": "pcm", "duration": 2.0}, 500)


def lines(*texts: str) -> Sequence[Line]:
    return plan([Row(n, {"text": text}) for n, text in enumerate(texts, start=1)], {"format": "pcm"}, base=Path())


async def run(folder: Path, site: Scripted, *texts: str, parallel: int = 2) -> Tally:
    return await run_lines(folder, site, lines(*texts), parallel=parallel)


async def run_lines(folder: Path, site: Scripted, todo: Sequence[Line], *, parallel: int = 2) -> Tally:
    tally = Tally(len(todo), sum(line.chars for line in todo))
    with closing(Manifest.open(folder)) as manifest:
        policy = Policy(attempts=3, first_wait_s=0.001)
        batch = Runner(site, manifest, folder, policy=policy, tally=tally, told=lambda: None)
        await batch.run(todo, parallel=parallel)
    return tally


def spoken(folder: Path) -> list[str]:
    return [path.read_text() for path in sorted(folder.glob("*.pcm"))]


async def test_what_may_pass_is_tried_again_under_the_same_key(tmp_path: Path) -> None:
    site = Scripted(a=[BUSY, BUSY], b=[BUSY] * 3, c=[BAD])
    tally = await run(tmp_path, site, "a", "b", "c", "d")
    assert Counter(text for text, _, _ in site.asked) == {"a": 3, "b": 3, "c": 1, "d": 1}
    assert len({key for _, key, _ in site.asked}) == 4
    assert [(f.number, f.code, f.attempts) for f in sorted(tally.failures, key=lambda f: f.number)] == [
        (2, "overloaded", 3),
        (3, "text_unspeakable", 1),
    ]
    assert spoken(tmp_path) == ["a", "d"]


async def test_the_next_run_asks_for_what_failed_only(tmp_path: Path) -> None:
    await run(tmp_path, Scripted(b=[BAD]), "a", "b", "c")
    site = Scripted()
    tally = await run(tmp_path, site, "a", "b", "c")
    assert [text for text, _, _ in site.asked] == ["b"]
    assert (tally.done, tally.done_before, tally.audio_s, tally.spent_ms) == (3, 2, 6.0, 1500)


async def test_a_line_whose_file_is_gone_or_changed_is_asked_for_again(tmp_path: Path) -> None:
    await run(tmp_path, Scripted(), "a", "b", "c")
    first, second, _ = sorted(tmp_path.glob("*.pcm"))
    first.unlink()
    second.write_text("B")
    site = Scripted()
    await run(tmp_path, site, "a", "b", "c")
    assert sorted(text for text, _, _ in site.asked) == ["a", "b"]
    assert spoken(tmp_path) == ["a", "b", "c"]


async def test_a_changed_line_with_a_key_of_its_own_is_asked_for_again(tmp_path: Path) -> None:
    site = Scripted()
    for text in ("a", "b"):
        todo = plan([Row(1, {"text": text, "idempotency_key": "mine"})], {"format": "pcm"}, base=Path())
        await run_lines(tmp_path, site, todo)
    assert [(text, key) for text, key, _ in site.asked] == [("a", "mine"), ("b", "mine")]


async def test_lines_that_moved_move_their_files(tmp_path: Path) -> None:
    await run(tmp_path, Scripted(), "a", "b", "b", "c")
    site = Scripted()
    await run(tmp_path, site, "new", "c", "a", "b", "b")
    assert [text for text, _, _ in site.asked] == ["new"]
    assert spoken(tmp_path) == ["new", "c", "a", "b", "b"]
    beside = {path.name: path.read_text() for path in tmp_path.glob(f"*{ALIGNMENTS}")}
    assert beside == {f"{path.name}{ALIGNMENTS}": f"of {path.read_text()}" for path in tmp_path.glob("*.pcm")}


async def test_a_result_that_is_no_longer_kept_is_asked_for_under_another_key(tmp_path: Path) -> None:
    site = Scripted(a=[EXPIRED])
    await run(tmp_path, site, "a")
    (_, first, _), (_, second, _) = site.asked
    assert second == f"{first}.1"
    next(tmp_path.glob("*.pcm")).unlink()
    await run(tmp_path, site, "a")
    assert site.asked[-1][1] == second


async def test_a_job_that_was_on_its_way_is_waited_for_and_not_queued_again(tmp_path: Path) -> None:
    with pytest.raises(ExceptionGroup):
        await run(tmp_path, Scripted(a=[KeyError()]), "a")
    site = Scripted(a=[LineFailed.ours("job_lost")])
    await run(tmp_path, site, "a")
    assert [job_id for _, _, job_id in site.asked] == ["job-1", None]


async def test_a_job_of_which_nothing_could_be_learned_is_waited_for_by_the_next_run(tmp_path: Path) -> None:
    untold = LineFailed.ours("runpod_unreachable")
    untold.job_id = "job-1"
    await run(tmp_path, Scripted(a=[untold]), "a")
    site = Scripted()
    await run(tmp_path, site, "a")
    assert [job_id for _, _, job_id in site.asked] == ["job-1"]


@pytest.mark.parametrize("code", sorted(STOPS))
async def test_what_all_lines_would_fail_with_stops_everything(tmp_path: Path, code: str) -> None:
    site = Scripted(c=[LineFailed(code, "no", retryable=True)])
    tally = await run(tmp_path, site, *"abcdefgh", parallel=1)
    assert [text for text, _, _ in site.asked] == ["a", "b", "c"]
    assert (tally.stopped, tally.done, tally.failures, tally.left) == (f"{code}: no", 2, [], 6)


async def test_a_full_disk_stops_everything(tmp_path: Path) -> None:
    tally = await run(tmp_path, Scripted(a=[OSError(28, "No space left on device", "x.wav")]), "a", "b", parallel=1)
    assert (tally.stopped, tally.left) == ("x.wav: No space left on device", 2)


async def test_a_second_ctrl_c_waits_for_what_is_being_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first line's note is held up on its way to the disk, while the second one is told to stop, twice."""
    loop, fsync, close = asyncio.get_running_loop(), os.fsync, os.close
    noting, closed, overtaken = asyncio.Event(), threading.Event(), list[bool]()
    add_arguments(parser := argparse.ArgumentParser())

    class Stopped(Scripted):
        async def speak(self, ask: Ask) -> Spoken:
            if ask.body["text"] == "b":
                await noting.wait()
                for _ in range(2):
                    signal.raise_signal(signal.SIGINT)
                await asyncio.Event().wait()
            return await super().speak(ask)

    def slow(fd: int) -> None:
        if b'"done"' in (tmp_path / NAME).read_bytes():
            monkeypatch.setattr(os, "close", lambda closing: closed.set() if closing == fd else close(closing))
            loop.call_soon_threadsafe(noting.set)
            overtaken.append(closed.wait(0.3))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", slow)
    args = parser.parse_args(["-", "--out", str(tmp_path)])
    assert await carry_out(args, lines("a", "b"), Stopped(), drains=True) == INTERRUPTED
    assert overtaken == [False]


async def test_ctrl_c_while_the_folder_is_read_goes_by_the_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    await run(tmp_path, Scripted(), "a", "b", "c")
    looked_at, heard = list[Path](), threading.Event()
    add_arguments(parser := argparse.ArgumentParser())

    def looks(path: Path, _: object) -> bool:
        looked_at.append(path)
        signal.raise_signal(signal.SIGINT)
        return heard.wait(5.0)

    monkeypatch.setattr(runner, "is_whole", looks)
    monkeypatch.setattr(command, "note", lambda _: heard.set())
    args, site = parser.parse_args(["-", "--out", str(tmp_path)]), Scripted()
    assert await carry_out(args, lines("a", "b", "c", "d"), site, drains=True) == INTERRUPTED
    summary = json.loads(capsys.readouterr().out)
    assert (summary["status"], summary["done_before"], summary["left"]) == ("interrupted", 3, 1)
    assert (len(looked_at), site.asked) == (1, [])


async def test_a_folder_that_cannot_be_made_is_told_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_arguments(parser := argparse.ArgumentParser())
    (tmp_path / "out").write_bytes(b"")
    args = parser.parse_args(["-", "--out", str(tmp_path / "out")])
    assert await carry_out(args, lines("a"), Scripted(), drains=True) == command.WRONG
    assert capsys.readouterr() == ("", f"{tmp_path / 'out'}: File exists\n")


@pytest.mark.parametrize("key", ["rpa_\u201cx\u201d", "rpa_x\n", "rpa x", ""])
def test_a_key_that_no_header_can_hold_is_refused_before_anything_is_sent(
    tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    env = {"RUNPOD_API_KEY": key, "TTS_TENANT_KEY": "t", "RUNPOD_ENDPOINT_ID": "e"}
    with pytest.raises(SystemExit) as wrong:
        main([str(tmp_path / "in.txt"), "--out", str(tmp_path)], env)
    said = capsys.readouterr().err
    assert (wrong.value.code, "RUNPOD_API_KEY" in said) == (command.WRONG, True)
    assert not key or key not in said


def test_an_address_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.txt").write_text("Hello.")
    env = {"RUNPOD_API_KEY": "k", "TTS_TENANT_KEY": "t", "RUNPOD_ENDPOINT_ID": "e"}
    env |= {"RUNPOD_ENDPOINT_BASE_URL": "http://[::1/v2"}
    assert main([str(tmp_path / "in.txt"), "--out", str(tmp_path)], env) == command.WRONG
    assert "RUNPOD_ENDPOINT_BASE_URL" in capsys.readouterr().err


async def test_a_rate_limit_costs_no_attempts(tmp_path: Path) -> None:
    slow = LineFailed("rate_limited", "slow down", retryable=True, retry_after_s=0.001)
    tally = await run(tmp_path, Scripted(a=[*[slow] * 10, BUSY, BUSY]), "a")
    assert (tally.done, tally.failures) == (1, [])


def test_lines_come_back_as_fast_as_a_rate_limit_lets_them() -> None:
    """Sixteen lines at once against a bucket of one a second, which is empty: few are refused in vain."""
    pace, tokens, now_s, refused, accepted = Pace(), 0.0, 0.0, 0, 0
    waiting = deque([0.0] * 16)
    while accepted < 100:
        at_s = waiting.popleft()
        tokens, now_s = min(60.0, tokens + at_s - now_s), at_s
        if tokens >= 1.0 - 1e-9:
            tokens, accepted = tokens - 1.0, accepted + 1
            pace.accepted()
        else:
            refused += 1
            pace.refused(now_s, retry_after_s=1.0 - tokens)
        waiting = deque(sorted([*waiting, pace.departure_s(now_s)]))
    assert refused < 16 + 3 * 100 / CLEAN_ROW
    assert now_s < 1.1 * 100


def test_waits_grow_and_are_never_the_same() -> None:
    policy = Policy(attempts=9, first_wait_s=1.0)
    assert [policy.wait_s(attempt, 1.0) for attempt in (1, 2, 3, 50)] == [1.0, 2.0, 4.0, MAX_WAIT_S]
    assert policy.wait_s(3, 0.0) == 2.0
    patient = LineFailed("request_running", "", retryable=True, retry_after_s=7.0)
    assert judge(patient, attempt=1, policy=policy, chance=0.5).wait_s == 7.0


@pytest.mark.parametrize(
    ("error", "code", "retryable"),
    [
        ('{"code": "overloaded", "message": "x", "retryable": true}', "overloaded", True),
        ('{"code": "invalid_input", "message": "x", "retryable": false}', "invalid_input", False),
        ({"code": "overloaded", "retryable": True}, "overloaded", True),
        ("Traceback: boom", "job_failed", True),
        ('{"error_type": "X"}', "job_failed", True),
        (None, "job_failed", True),
        ("[1]", "job_failed", True),
    ],
)
def test_the_error_of_a_failed_job(error: object, code: str, retryable: bool) -> None:
    failure = LineFailed.told(error)
    assert (failure.code, failure.retryable) == (code, retryable)


@pytest.mark.parametrize(
    "events",
    [
        [],
        [{"event": "audio", "seq": 0, "audio_base64": "QUJD"}],
        [{"event": "audio", "seq": 1, "audio_base64": "QUJD"}],
        [{"event": "audio", "seq": 0, "audio_base64": "QUJD"}] * 2,
        [{"event": "audio", "seq": 0, "audio_base64": "QUJD"}, {"event": "done", "chunks": 2, "status": "success"}],
        [
            {"event": "audio", "seq": 1, "audio_base64": "QUJD"},
            {"event": "audio", "seq": 0, "audio_base64": "QUJD"},
            {"event": "done", "chunks": 2, "status": "success"},
        ],
        [{"event": "done", "chunks": 1, "status": "success"}],
        [{"status": "success"}],
        [{"status": "success", "audio_base64": "?"}],
        ["text"],
        [None],
    ],
)
async def test_what_is_missing_is_noticed(tmp_path: Path, events: list[object]) -> None:
    with Part(tmp_path / "a.wav") as part, pytest.raises(LineFailed) as failed:
        assembly = Assembly(part, fetch_nothing)
        for event in events:
            await assembly.take(event)
        await assembly.finish()
    assert (failed.value.code, failed.value.retryable) == ("result_incomplete", True)


async def fetch_nothing(url: str, part: Part) -> None:
    raise AssertionError(url)


def test_the_time_left_is_told_by_characters_and_the_cost_as_a_limit() -> None:
    tally = Tally(4, 100, price_per_s=0.5)
    assert "time left unknown" in tally.line(10.0)
    tally.count_done(40, 30.0, from_before=True)
    assert tally.left_s(10.0) is None
    tally.count_done(20, 30.0)
    tally.spent_ms = 3000
    assert (tally.left, tally.left_s(10.0), tally.cost) == (2, 20.0, 1.5)
    assert tally.line(10.0) == "0 failed, 1.0 min of audio, at most $1.50, 0:20 left"


def test_the_table_of_failures_is_in_the_files_order_and_ends() -> None:
    failures = [Failed(number, f"{number}.wav", "overloaded", 5, "try later") for number in (300, *range(1, 100))]
    told = report.table(failures).splitlines()
    assert told[:2] == [
        "line  code        attempts  file    message",
        "1     overloaded  5         1.wav   try later",
    ]
    assert len(told) == 1 + report.MAX_ROWS + 1
    assert told[-1] == "… and 50 more"


@pytest.fixture
def terminal() -> Iterator[io.StringIO]:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    with Terminal() as out:
        yield out


def test_a_terminal_sees_a_bar(terminal: io.StringIO) -> None:
    tally = Tally(4, 40)
    with shown(tally, out=terminal) as told:
        tally.count_done(10, 60.0)
        told()
        assert "25%" in terminal.getvalue()
        assert "1/4, 0 failed, 1.0 min of audio" in terminal.getvalue()


def test_our_codes_are_in_the_readme_and_are_none_of_the_workers() -> None:
    rows = [f"| `{code}` | {meaning} |" for code, meaning in CODES.items()]
    assert [row for row in rows if row not in README] == []
    assert not [code for code in CODES if README.count(f"| `{code}` |") != 1]


def test_the_summary_is_json() -> None:
    tally = Tally(2, 2, price_per_s=0.1, failures=[Failed(1, "x", "c", 1, "m")])
    assert json.loads(report.summary(tally, "failed"))["cost_at_most"] == 0.0
