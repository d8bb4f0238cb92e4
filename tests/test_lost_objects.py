"""A store that does not take objects: no audio that was spoken is lost for it."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.local import open_local
from storage.supabase import open_supabase
from tests.stores import Project
from tests.supabase_server import Kind
from tests.test_kept import Event, Worker, error_of
from tts_core.store import Store

OBJECTS = "/storage/v1/object/"
ALL = 10_000


class Breakable:
    """A store whose objects can be taken away from it, rows working on."""

    def __init__(self, store: Store, folder: Path, project: Project | None) -> None:
        self.store = store
        self._objects = folder / "objects"
        self._project = project

    def lose_objects(self, kind: Kind = Kind.UNAVAILABLE) -> None:
        if self._project is None:
            self._objects.write_bytes(b"a file where the folder should be")
        else:
            self._project.server.faults.next(ALL, kind, prefix=OBJECTS)

    def mend(self) -> None:
        if self._project is None:
            self._objects.unlink()
        else:
            self._project.server.faults.clear()


@pytest.fixture(params=["local", "supabase"])
def project_or_none(request: pytest.FixtureRequest) -> Project | None:
    return None if request.param == "local" else request.getfixturevalue("project")


@pytest.fixture
async def broken(project_or_none: Project | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Breakable:
    monkeypatch.setattr("storage.supabase.client.PAUSES_S", (0.0, 0.0))
    project = project_or_none
    if project is None:
        return Breakable(await open_local(tmp_path), tmp_path, None)
    return Breakable(await open_supabase(project.server.url, project.server.service_key), tmp_path, project)


@pytest.fixture
async def worker(broken: Breakable, tmp_path: Path) -> AsyncIterator[Worker]:
    worker = await Worker(broken.store, tmp_path / "worker").sign_up()
    broken.lose_objects()
    yield worker
    await worker.service.close()


def warned_of(result: Event) -> list[str]:
    return [warning["code"] for warning in result["warnings"]]


@pytest.mark.parametrize("fields", [{}, {"output": "url"}, {"keep": True}, {"output": "inline"}], ids=str)
@pytest.mark.parametrize("cache", ["use", "bypass"])
async def test_small_audio_is_in_the_result(worker: Worker, fields: Event, cache: str) -> None:
    result = await worker.speak("abc", cache=cache, **fields)
    assert (result["status"], warned_of(result)) == ("success", ["audio_not_kept"])
    assert len(base64.b64decode(result["audio_base64"])) == 44 + 2 * 7_200
    assert "audio_url" not in result


@pytest.mark.parametrize("output", ["auto", "url"])
async def test_larger_audio_comes_in_parts(worker: Worker, output: str) -> None:
    events = await worker.events({"text": "abcdefghi " * 60, "language": "en", "output": output, "keep": False})
    *parts, result = events
    assert (result["event"], result["chunks"], warned_of(result)) == ("done", len(parts), ["audio_not_kept"])
    audio = b"".join(base64.b64decode(part["audio_base64"]) for part in parts)
    assert len(audio) == 44 + round(result["duration"] * 24_000) * 2


async def test_a_stream_ends_as_always(worker: Worker) -> None:
    *parts, result = await worker.events({"text": "abcdef", "language": "en", "streaming": True})
    assert (result["event"], result["chunks"], warned_of(result)) == ("done", len(parts), ["audio_not_kept"])


async def test_what_is_too_large_to_be_told_can_be_asked_for_again(worker: Worker, broken: Breakable) -> None:
    body = {"text": "abcdefghi " * 60, "language": "en", "sample_rate": 48_000, "keep": True, "idempotency_key": "k"}
    (failed,) = await worker.events(body)
    error = error_of(failed)
    assert (error["code"], error["retryable"]) == ("store_unavailable", True)
    await worker.settled()
    broken.mend()
    (result,) = await worker.events(body, "again")
    assert result["status"] == "success"
    assert (await worker.job(result["request_id"]))["audio_url"].split("?")[0] == result["audio_url"].split("?")[0]


async def test_it_cannot_be_told_again(worker: Worker) -> None:
    for expected in (None, "result_expired"):
        answer = await worker.speak("abc", cache="bypass", idempotency_key="k")
        assert (error_of(answer)["code"] if "error" in answer else None) == expected
        await worker.settled()


async def test_a_kept_job_is_completed_without_an_address(worker: Worker, broken: Breakable) -> None:
    result = await worker.speak("abc", keep=True, include_alignments=True)
    assert result["alignments"]
    job = await worker.job(result["request_id"])
    assert (job["status"], job["audio_url"], job["alignments_url"]) == ("completed", None, None)


async def test_a_long_text_is_spoken_though_its_chunks_are_not_kept(worker: Worker) -> None:
    *parts, result = await worker.events({"text": "abcdefghi " * 190, "language": "en", "format": "ulaw", "keep": True})
    assert (result["event"], warned_of(result)) == ("done", ["audio_not_kept"])
    assert sum(len(base64.b64decode(part["audio_base64"])) for part in parts) == round(result["duration"] * 8_000)


async def test_an_address_that_is_not_to_be_had(project: Project, tmp_path: Path) -> None:
    """Kept, but not signed: the audio is in the answer, and is told again later."""
    worker = await Worker(await open_supabase(project.server.url, project.server.service_key), tmp_path).sign_up()
    project.server.faults.next(3, Kind.UNAVAILABLE, prefix=f"{OBJECTS}sign/")
    result = await worker.speak("abc", output="url", idempotency_key="k")
    assert (warned_of(result), "audio_base64" in result) == (["audio_url_missing"], True)
    await worker.settled()
    again = await worker.speak("abc", output="url", idempotency_key="k")
    assert again["audio_url"].startswith("http")
    await worker.service.close()


@pytest.mark.parametrize("kind", [Kind.RESET, Kind.HTML, Kind.HALF])
async def test_an_upload_whose_answer_is_lost_is_no_loss(project: Project, tmp_path: Path, kind: Kind) -> None:
    worker = await Worker(await open_supabase(project.server.url, project.server.service_key), tmp_path).sign_up()
    project.server.faults.next(2, kind, carried_out=True, prefix=f"{OBJECTS}audio/")
    result = await worker.speak("abc", output="url", cache="bypass")
    assert (result["warnings"], result["audio_url"].startswith("http")) == ([], True)
    await worker.service.close()
