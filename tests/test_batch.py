"""The batch client as a user starts it, against the real worker under the real SDK loop, with RunPod played by us."""

import asyncio
import json
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import soundfile

from storage.local import open_local
from tests.fake_api import API_KEY, EXECUTION_MS, FakeApi
from tests.fake_platform import FakePlatform, worker
from tests.faulty_worker import HANGS
from tests.processes import until
from tts_core.batch.__main__ import make_parser, speak
from tts_core.batch.command import checked
from tts_core.batch.manifest import Manifest
from tts_core.store import Limits

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = Path(__file__).parent.parent
SENTENCE = "The quick brown fox jumps over the lazy dog. "


@dataclass(frozen=True)
class Ran:
    """How a client ended."""

    status: int
    summary: dict[str, Any]
    said: str


@dataclass(frozen=True)
class Site:
    """RunPod with one worker, and what a user of it has: a key, and a folder for each test."""

    api: FakeApi
    data_dir: Path
    key: str
    folder: Path
    capsys: pytest.CaptureFixture[str]

    async def start(self, *args: object, env: Mapping[str, str] = {}) -> asyncio.subprocess.Process:
        """`python -m tts_core.batch`, in a process of its own."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("XTTS_", "RUNPOD_"))}
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tts_core.batch", *map(str, args)),
            cwd=ROOT,
            env=ours | self.env() | dict(env),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )

    async def run(self, *args: object, job_timeout_s: float = 60.0, env: Mapping[str, str] = {}) -> Ran:
        """The same in this process, which need not be started."""
        everything = self.env() | dict(env)
        parsed = make_parser(everything).parse_args(["--backoff", "0.05", *map(str, args)])
        parsed.job_timeout = job_timeout_s
        lines = checked(parsed)
        status = lines if isinstance(lines, int) else await speak(parsed, lines, everything)
        out, said = self.capsys.readouterr()
        return Ran(status, json.loads(out.splitlines()[-1]) if out else {}, said)

    def env(self) -> dict[str, str]:
        return self.api.env() | {"TTS_TENANT_KEY": self.key, "RUNPOD_ENDPOINT_ID": "fake"}

    def file(self, lines: Sequence[dict[str, Any]]) -> Path:
        path = self.folder / "in.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return path

    def usage(self) -> list[str]:
        with closing(sqlite3.connect(next(self.data_dir.glob("*.db*")))) as database:
            return [status for (status,) in database.execute("select status from usage_logs order by rowid")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fake(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[FakeApi, Path, str]]:
    data_dir = tmp_path_factory.mktemp("data")
    key = await a_key(data_dir)
    env = {"XTTS_STORE": "local", "XTTS_DATA_DIR": str(data_dir), "PYTHONPATH": "."}
    async with (
        FakePlatform(hold_s=1.0) as platform,
        FakeApi(platform) as api,
        worker(platform, [sys.executable, "-m", "tests.faulty_worker"], env=env),
    ):
        yield api, data_dir, key
        assert platform.ledger.faults == []
        assert api.keys_leaked == 0


async def a_key(data_dir: Path, limits: Limits | None = None) -> str:
    store = await open_local(data_dir)
    made = await store.create_tenant("acme", scopes=("synthesize",), limits=limits or Limits())
    await store.close()
    return made.secret


@pytest.fixture
def site(fake: tuple[FakeApi, Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Site:
    api, data_dir, key = fake
    api.faults.clear()
    api.calls.clear()
    return Site(api, data_dir, key, tmp_path, capsys)


async def ended(client: asyncio.subprocess.Process) -> Ran:
    out, said = await client.communicate()
    assert client.returncode is not None
    return Ran(client.returncode, json.loads(out.decode().splitlines()[-1]), said.decode())


def lines(count: int, **fields: object) -> list[dict[str, Any]]:
    return [{"id": f"n{n}", "text": f"{SENTENCE}This is number {n}.", "language": "en"} | fields for n in range(count)]


def heard(out: Path) -> dict[str, float]:
    """Seconds of audio by file, each read to its end."""
    files = [path for path in sorted(out.iterdir()) if path.suffix not in (".jsonl", ".json")]
    return {path.name: len(soundfile.read(path)[0]) / soundfile.info(path).samplerate for path in files}


def audio_s(out: Path) -> float:
    records = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    return float(sum(record.get("audio_seconds", 0.0) for record in records))


async def test_every_line_is_spoken_once_whatever_goes_wrong_between(site: Site) -> None:
    """Faults of the API at every operation; a result in parts with a gap; an address whose time is over."""
    jobs = [
        *lines(10),
        *({"id": f"s{n}", "text": SENTENCE * 3 + f"Stream {n}.", "streaming": True} for n in range(4)),
        *({"id": f"u{n}", "text": f"{SENTENCE}Address {n}.", "output": "url", "format": "flac"} for n in range(4)),
        {"id": "nobody", "text": SENTENCE, "voice_id": "nobody"},
    ]
    site.api.faults |= {
        "run": [429, "no answer", 500],
        "status": [500, "lost", 429, "no answer", "gap", "no output"],
        "file": [403, "cut short"],
    }
    before, out = len(site.usage()), site.folder / "out"
    ran = await site.run(site.file(jobs), "--out", out, "--language", "en", "--price-per-second", "0.001")
    assert (ran.status, ran.summary["status"]) == (1, "failed"), ran.said
    assert [row.split()[:3] for row in ran.said.splitlines() if "nobody" in row] == [["19", "voice_not_found", "1"]]
    assert not any(site.api.faults.values())
    assert (ran.summary["done"], ran.summary["failed"], len(heard(out))) == (18, 1, 18), ran.said
    assert sum(heard(out).values()) == pytest.approx(audio_s(out), abs=0.01)
    assert site.usage()[before:].count("success") == 18
    assert ran.summary["cost_at_most"] == pytest.approx(ran.summary["execution_seconds"] * 0.001)
    assert ran.summary["execution_seconds"] >= 19 * EXECUTION_MS / 1000
    assert_says_no_secret(site, ran, out)


def assert_says_no_secret(site: Site, ran: Ran, out: Path) -> None:
    written = ran.said + json.dumps(ran.summary) + (out / "manifest.jsonl").read_text()
    assert not [secret for secret in (site.key, API_KEY, SENTENCE.strip()) if secret in written]


async def test_an_expired_job_is_sent_again_and_a_cancelled_one_in_the_next_run_only(site: Site) -> None:
    site.api.faults["run"] = ["expired", "cancelled"]
    path, out = site.file(lines(2)), site.folder / "out"
    ran = await site.run(path, "--out", out)
    assert (ran.status, ran.summary["done"], site.api.calls["run"]) == (1, 1, 3), ran.said
    assert "job_cancelled" in ran.said
    assert (await site.run(path, "--out", out)).summary["done"] == 2


async def test_one_odd_answer_makes_no_client_forget_a_job_that_runs(site: Site) -> None:
    site.api.faults["status"] = [404, 401, "html", "no gzip", "endless", 403]
    ran = await site.run(site.file(lines(3)), "--out", site.folder / "out", "--price-per-second", "0.001")
    assert (ran.status, ran.summary["done"], site.api.calls["run"]) == (0, 3, 3), ran.said
    assert not site.api.faults["status"]
    assert ran.summary["execution_seconds"] == 3 * EXECUTION_MS / 1000


async def test_a_job_that_takes_too_long_is_cancelled_on_runpod_and_costs_what_it_ran(site: Site) -> None:
    path = site.file([{"text": f"{SENTENCE}Now {HANGS}, as it happens.", "language": "en"}])
    args = ("--out", site.folder / "out", "--attempts", "1", "--price-per-second", "0.01")
    ran = await site.run(path, *args, job_timeout_s=2.0)
    assert (ran.status, "job_timed_out" in ran.said, site.api.calls["cancel"]) == (1, True, 1), ran.said
    assert site.api.policies[-1] == {"ttl": 62_000}
    assert ran.summary["cost_at_most"] == EXECUTION_MS / 1000 * 0.01


async def test_a_chunk_that_a_stream_lost_is_read_from_the_whole_output(site: Site) -> None:
    lost: list[str] = []

    def answer(kind: str, job_id: str) -> int:
        """RunPod refuses one chunk, not the first of its job."""
        if kind == "stream" and not lost and site.api.platform.ledger[job_id].chunks:
            lost.append(job_id)
            return 400
        return 200

    site.api.platform.answers = answer
    before, out = len(site.usage()), site.folder / "out"
    jobs = [{"text": SENTENCE * 3 + f"Streamed {n}.", "language": "en"} for n in range(3)]
    ran = await site.run(site.file(jobs), "--out", out, "--stream")
    site.api.platform.answers = lambda kind, job_id: 200
    assert (ran.status, len(lost), site.api.calls["run"], site.api.calls["status"] > 0) == (0, 1, 3, True), ran.said
    assert site.usage()[before:].count("success") == 3
    assert sum(heard(out).values()) == pytest.approx(audio_s(out), abs=0.01)


async def test_a_killed_client_goes_on_where_it_was(site: Site) -> None:
    """kill -9 while lines are on their way: the next run has every file once, and nothing was spoken twice."""
    path, out, before = site.file(lines(10, metadata={"test": "killed"})), site.folder / "out", len(site.usage())
    client = await site.start(path, "--out", out, "--parallel", "2", "--set", "cache=bypass")
    await until(lambda: len(list(out.glob("*.wav"))) >= 3)
    client.kill()
    await client.communicate()
    finished = {path.name for path in out.glob("*.wav")}
    assert len(finished) < 10
    ran = await site.run(path, "--out", out, "--set", "cache=bypass")
    assert (ran.status, ran.summary["done"], len(heard(out))) == (0, 10, 10), ran.said
    assert ran.summary["done_before"] >= len(finished) - 2  # those that had a file, and no time to say so
    assert site.usage()[before:].count("success") == 10
    assert not list(out.glob(".*"))


async def test_ctrl_c_waits_for_what_is_on_its_way_and_says_how_to_go_on(site: Site) -> None:
    path, out = site.file(lines(10, metadata={"test": "stopped"})), site.folder / "out"
    client = await site.start(path, "--out", out, "--parallel", "2")
    await until(lambda: bool(list(out.glob("*.wav"))))
    client.send_signal(signal.SIGINT)
    ran = await ended(client)
    assert (ran.status, ran.summary["status"]) == (130, "interrupted"), ran.said
    assert "the same command again" in ran.said
    assert 2 <= ran.summary["done"] < 10
    assert site.api.calls["run"] == ran.summary["done"]
    again = await site.run(path, "--out", out)
    assert (again.status, again.summary["done_before"], again.summary["done"]) == (0, ran.summary["done"], 10)


@pytest.mark.parametrize(
    ("env", "args", "code"),
    [
        ({"TTS_TENANT_KEY": "tts_live_abcdefgh_wrong"}, (), "unauthorized"),
        ({"RUNPOD_API_KEY": "wrong"}, (), "runpod_unauthorized"),
        ({"RUNPOD_ENDPOINT_ID": "other"}, (), "endpoint_not_found"),
        ({"RUNPOD_ENDPOINT_BASE_URL": "http://127.0.0.1:9"}, ("--backoff", "0"), "runpod_unreachable"),
    ],
)
async def test_what_every_line_would_fail_with_stops_the_batch(
    site: Site, env: dict[str, str], args: tuple[str, ...], code: str
) -> None:
    ran = await site.run(site.file(lines(40)), "--out", site.folder / "out", "--parallel", "2", *args, env=env)
    assert (ran.status, ran.summary["status"], ran.summary["failed"]) == (3, "stopped", 0)
    assert f"stopped: {code}" in ran.said
    assert site.api.calls["run"] <= 2


async def test_an_empty_quota_stops_the_batch_and_keeps_what_was_spoken(site: Site) -> None:
    key = await a_key(site.data_dir, Limits(quota_minutes=0.25))
    ran = await site.run(
        site.file(lines(20)), "--out", site.folder / "out", "--parallel", "1", env={"TTS_TENANT_KEY": key}
    )
    assert (ran.status, "stopped: quota_exceeded" in ran.said) == (3, True), ran.said
    assert 1 <= ran.summary["done"] == len(heard(site.folder / "out")) < 20
    assert site.api.calls["run"] == ran.summary["done"] + 1


async def test_nothing_is_sent_while_one_line_is_wrong(site: Site) -> None:
    jobs = [*lines(3), {"text": "x", "speed": 9}, {"text": " "}, {"txt": "x"}]
    ran = await site.run(site.file(jobs), "--out", site.folder / "out")
    assert ran.status == 2
    assert [line.split(":")[:2] for line in ran.said.splitlines()[1:]] == [
        ["line 4", " speed"],
        ["line 5", " text"],
        ["line 6", " text"],
    ]
    assert not site.api.calls
    assert not (site.folder / "out").exists()


async def test_two_runs_in_one_folder_are_refused(site: Site) -> None:
    (site.folder / "out").mkdir()
    with closing(Manifest.open(site.folder / "out")):
        ran = await site.run(site.file(lines(1)), "--out", site.folder / "out")
    assert (ran.status, "another batch" in ran.said, site.api.calls["run"]) == (2, True, 0)


async def test_the_same_file_is_spoken_on_this_machine(site: Site) -> None:
    jobs = [*lines(2), *lines(3, output="url")[2:]]
    path, out, data_dir = site.file(jobs), site.folder / "out", site.folder / "the data"
    env = {"XTTS_DATA_DIR": str(data_dir), "TTS_TENANT_KEY": "", "RUNPOD_API_KEY": ""}
    ran = await ended(await site.start(path, "--out", out, "--local", "--format", "flac", env=env))
    assert (ran.status, ran.summary["done"]) == (0, 3), ran.said
    assert list(heard(out)) == ["00001-n0.flac", "00002-n1.flac", "00003-n2.flac"]
    assert not site.api.calls


async def test_ctrl_c_on_this_machine_leaves_at_once_and_fails_no_line(site: Site) -> None:
    """As a terminal sends it: to eSpeak's processes, too."""
    jobs = [*lines(1), *lines(2, text=SENTENCE * 400, format="mp3")[1:]]
    path, out = site.file(jobs), site.folder / "out"
    env = {"XTTS_DATA_DIR": str(site.folder / "data"), "TTS_TENANT_KEY": ""}
    client = await site.start(path, "--out", out, "--local", "--parallel", "1", env=env)
    await until(lambda: bool(list(out.glob(".*.mp3.part"))))  # the first line is counted by then
    os.killpg(client.pid, signal.SIGINT)
    ran = await ended(client)
    assert (ran.status, ran.summary["done"], ran.summary["failed"], ran.summary["left"]) == (130, 1, 0, 1), ran.said
    assert "Traceback" not in ran.said
    assert not list(out.glob(".*"))
