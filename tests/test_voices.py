"""`voices.*` through the whole service: what is told and kept, who may speak, and what is left afterwards.

The local store keeps the voices, save in the last test: that every body keeps them alike is test_store_voices.py's.
"""

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
from safetensors.numpy import load

from storage.local import open_local
from tests import clips
from tests.scripted_engine import ScriptedEngine
from tests.stores import Clock, Place
from tts_core.errors import ReferenceUnreachable, StoreUnavailable
from tts_core.service import Service
from tts_core.settings import Settings
from tts_core.store import NewKey, Scope, Store
from tts_core.types import Manner, ReferenceClip, Speaker

Event = dict[str, Any]
SCOPES: Sequence[Scope] = ("synthesize", "voices", "personas", "cache")


class Voiced(ScriptedEngine):
    """Remembers whose voice it was told to speak with."""

    def __init__(self, revision: str = "scripted 1, r2") -> None:
        super().__init__()
        self.revision = revision
        self.cloned = 0
        self.heard: list[Speaker] = []

    async def clone(self, clips: Sequence[ReferenceClip]) -> Speaker:
        self.cloned += 1
        return await super().clone(clips)

    def speak(self, utterance: Any, manner: Manner, audience: Any) -> Any:
        self.heard.append(manner.speaker)
        return super().speak(utterance, manner, audience)

    @property
    def last_seconds(self) -> list[float]:
        """Of the clips whose voice was heard last."""
        return [round(float(seconds), 1) for seconds in self.heard[-1].conditioning["seconds"]]


class Worker:
    """One worker's service, its engine, and which objects it read."""

    def __init__(self, store: Store, folder: Path, *, engine: Voiced | None = None, **settings: Any) -> None:
        self.engine = engine or Voiced()
        self.store = store
        self.read: list[str] = []
        self.service = Service(
            self.engine, store, settings=Settings(data_dir=folder, **settings), fetch=self._no_network
        )

    async def events(self, key: NewKey, body: Event, job_id: str) -> list[Event]:
        return [event async for event in self.service.answer({"tenant_key": key.secret, **body}, job_id=job_id)]

    async def ask(self, key: NewKey, body: Event, job_id: str = "") -> Event:
        events = await self.events(key, body, job_id or _digest(body))
        await asyncio.gather(*(run.owner for run in self.service._runs.values()))
        assert "error" not in events[-1], events[-1]
        return events[-1]

    async def refused(self, key: NewKey, body: Event, job_id: str = "") -> Event:
        events = await self.events(key, body, job_id or f"refused {_digest(body)}")
        await asyncio.gather(*(run.owner for run in self.service._runs.values()))
        error: Event = json.loads(events[-1]["error"])
        return error

    async def close(self) -> None:
        """Without its store, which another worker may have too."""
        await self.service._cache.close()
        await self.service._reader.close()

    async def _no_network(self, url: str) -> bytes:
        raise ReferenceUnreachable("no network in this test")


def _digest(body: Event) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await open_local(tmp_path)
    yield store
    await store.close()


@pytest.fixture
async def worker(store: Store, tmp_path: Path) -> AsyncIterator[Worker]:
    worker = Worker(store, tmp_path)
    yield worker
    await worker.close()


@pytest.fixture
async def acme(store: Store) -> NewKey:
    return await store.create_tenant("acme", scopes=SCOPES)


@pytest.fixture
async def other(store: Store) -> NewKey:
    return await store.create_tenant("other", scopes=SCOPES)


@cache
def sound(seconds: float) -> bytes:
    return clips.encoded(clips.speech(seconds), "flac")


@cache
def film(muxer: str, codec: str, picture: str) -> bytes:
    return clips.muxed(clips.speech(4, rate_hz=48_000), muxer, codec, picture=picture)


def sent(*files: bytes) -> Event:
    return {"reference_audio_base64": [base64.b64encode(file).decode() for file in files], "consent": "I agree."}


def create(*files: bytes, **fields: object) -> Event:
    return {"action": "voices.create", "name": "Ada", **sent(*files or (sound(4),)), **fields}


def of(action: str, voice_id: str, **fields: object) -> Event:
    return {"action": f"voices.{action}", "voice_id": voice_id, **fields}


def say(voice_id: str, text: str = "abc", **fields: object) -> Event:
    return {"text": text, "language": "en", "voice_id": voice_id, **fields}


async def downloaded(url: str) -> bytes:
    with await asyncio.to_thread(urlopen, url) as answer:
        return bytes(answer.read())


async def paths_of(store: Store, call: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """First arguments of all such calls from now on."""
    seen: list[str] = []
    original = getattr(store, call)

    async def counted(path: str, *args: Any, **kwargs: Any) -> Any:
        seen.append(path)
        return await original(path, *args, **kwargs)

    monkeypatch.setattr(store, call, counted)
    return seen


def latents_of(read: Sequence[str]) -> list[bool]:
    return [path.endswith(".safetensors") for path in read if path.startswith("voices/")]


class TestCreate:
    async def test_the_voice_is_told_with_all_that_is_known_of_it(self, worker: Worker, acme: NewKey) -> None:
        said = {
            "description": "a clear one",
            "language": "en-US",
            "gender": "female",
            "accent": "Leeds",
            "tags": ["calm", "news", "calm"],
            "user_id": "auth0|4711",
        }
        made = await worker.ask(acme, create(sound(4), sound(5), **said))
        expected = said | {"language": "en", "tags": ["calm", "news"], "name": "Ada", "file_type": "audio"}
        assert {field: made[field] for field in expected} == expected
        assert (made["version"], made["versions"], made["builtin"], made["shared"]) == (1, [1], False, False)
        assert [round(report["duration_s"]) for report in made["report"]] == [4, 5]
        assert (made["consent"], made["consent_at"]) == ("I agree.", made["created_at"])
        assert made["consent_request_id"] == made["request_id"] == made["id"]
        got = await worker.ask(acme, of("get", made["id"]))
        assert {field: got[field] for field in made if field != "request_id"} == {
            field: value for field, value in made.items() if field != "request_id"
        }

    @pytest.mark.parametrize(
        ("kind", "file_type", "content_type"),
        [
            (("mp4", "aac", "mpeg4"), "video", "video/mp4"),
            (("webm", "libopus", "libvpx"), "video", "video/webm"),
            (("ipod", "aac", ""), "audio", "audio/mp4"),
            (("mp3", "libmp3lame", "png"), "audio", "audio/mpeg"),
        ],
    )
    async def test_a_videos_sound_track_is_a_reference(
        self, worker: Worker, acme: NewKey, kind: tuple[str, str, str], file_type: str, content_type: str
    ) -> None:
        made = await worker.ask(acme, create(film(*kind)))
        assert made["file_type"] == file_type
        assert made["report"][0]["duration_s"] == pytest.approx(4, abs=0.1)
        (clip,) = (await worker.ask(acme, of("get", made["id"])))["clips"]
        assert (clip["file_type"], clip["content_type"]) == (file_type, content_type)
        await worker.ask(acme, say(made["id"]))
        assert worker.engine.last_seconds == [pytest.approx(4, abs=0.1)]

    async def test_without_consent_nothing_is_heard_or_kept(self, worker: Worker, acme: NewKey) -> None:
        body = create() | {"consent": None}
        assert (await worker.refused(acme, body))["code"] == "consent_required"
        assert worker.engine.cloned == 0
        assert (await worker.ask(acme, {"action": "voices.list"}))["count"] == 1

    async def test_a_tenant_has_so_many_and_no_more(
        self, store: Store, acme: NewKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        worker = Worker(store, tmp_path, max_voices_per_tenant=1)
        await worker.ask(acme, create())
        put, deleted = (
            await paths_of(store, "put_object", monkeypatch),
            await paths_of(store, "delete_object", monkeypatch),
        )
        error = await worker.refused(acme, create(name="Eve"))
        assert (error["code"], error["retryable"]) == ("limit_reached", False)
        assert put
        assert deleted == put
        await worker.close()

    async def test_its_answer_does_not_outlive_it(self, worker: Worker, acme: NewKey) -> None:
        made = await worker.ask(acme, create(), "1")
        await worker.ask(acme, of("update", made["id"], name="Eve"), "2")
        assert (await worker.ask(acme, create(), "1"))["name"] == "Eve"
        assert worker.engine.cloned == 1
        await worker.ask(acme, of("delete", made["id"]), "3")
        for body, job_id in ((create(), "1"), (of("update", made["id"], name="Eve"), "2")):
            assert (await worker.refused(acme, body, job_id))["code"] == "voice_not_found"
        assert [row.status for row in await worker.store.usage(acme.tenant.id)] == ["success"] * 3

    async def test_what_is_done_to_voices_is_in_the_usage_rows(self, worker: Worker, acme: NewKey) -> None:
        made = await worker.ask(acme, create())
        await worker.ask(acme, say(f"{made['id']}@1"))
        await worker.ask(acme, of("delete", made["id"]))
        rows = await worker.store.usage(acme.tenant.id)
        assert {(row.action, row.voice_id, row.status) for row in rows} == {
            (action, made["id"], "success") for action in ("voices.create", "synthesize", "voices.delete")
        }


class TestLatents:
    async def test_a_new_worker_speaks_a_known_voice_without_touching_the_clip(
        self, worker: Worker, store: Store, acme: NewKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = await worker.ask(acme, create(sound(4), sound(5)))
        read = await paths_of(store, "get_object", monkeypatch)
        second = Worker(store, tmp_path)
        await second.ask(acme, say(made["id"]))
        await second.ask(acme, say(made["id"], "another text"))
        assert second.engine.cloned == 0
        assert second.engine.last_seconds == [4.0, 5.0]
        assert latents_of(read) == [True]
        await second.close()

    async def test_the_worker_that_made_it_reads_nothing_at_all(
        self, worker: Worker, store: Store, acme: NewKey, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = await worker.ask(acme, create())
        read = await paths_of(store, "get_object", monkeypatch)
        await worker.ask(acme, say(made["id"]))
        assert (latents_of(read), worker.engine.cloned) == ([], 1)

    async def test_another_engine_computes_its_own_once(
        self, worker: Worker, store: Store, acme: NewKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = await worker.ask(acme, create())
        read = await paths_of(store, "get_object", monkeypatch)
        newer = [Worker(store, tmp_path, engine=Voiced("scripted 2")) for _ in range(2)]
        for n, each in enumerate(newer):
            await each.ask(acme, say(made["id"], f"text {n}"))
            await each.close()
        assert [each.engine.cloned for each in newer] == [1, 0]
        assert latents_of(read) == [True, False, True]

    async def test_they_are_safetensors_beside_the_clip(
        self, worker: Worker, store: Store, acme: NewKey, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put = await paths_of(store, "put_object", monkeypatch)
        made = await worker.ask(acme, create())
        folder = f"voices/{acme.tenant.id}/{made['id']}"
        assert put == [f"{folder}/{made['id']}-0", f"{folder}/v1/latents-scripted-1-r2.safetensors"]
        (seconds,) = load(await store.get_object(put[1])).values()
        np.testing.assert_array_equal(seconds, np.array([made["report"][0]["duration_s"]], np.float32))

    @pytest.mark.parametrize("damage", [b"", b"\x80\x04N.", b"\x08" + bytes(15)])
    async def test_damaged_ones_are_computed_anew(
        self, worker: Worker, store: Store, acme: NewKey, tmp_path: Path, damage: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put = await paths_of(store, "put_object", monkeypatch)
        made = await worker.ask(acme, create())
        whole = await store.get_object(put[1])
        await store.put_object(put[1], damage, content_type="application/octet-stream")
        second = Worker(store, tmp_path)
        await second.ask(acme, say(made["id"]))
        assert second.engine.last_seconds == [4.0]
        assert await store.get_object(put[1]) == whole
        await second.close()

    async def test_of_a_voice_deleted_meanwhile_none_are_left(
        self, worker: Worker, store: Store, acme: NewKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = await worker.ask(acme, create())
        put_object = store.put_object

        async def slow(path: str, data: Any, *, content_type: str) -> None:
            if path.endswith(".safetensors"):
                await worker.ask(acme, of("delete", made["id"]))
            await put_object(path, data, content_type=content_type)

        monkeypatch.setattr(store, "put_object", slow)
        second = Worker(store, tmp_path, engine=Voiced("scripted 2"))
        await second.ask(acme, say(made["id"]))
        path = f"voices/{acme.tenant.id}/{made['id']}/v1/latents-scripted-2.safetensors"
        with pytest.raises(KeyError):
            await store.get_object(path)
        await second.close()

    async def test_a_store_that_will_not_keep_them_costs_no_speech(
        self, worker: Worker, store: Store, acme: NewKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = await worker.ask(acme, create())

        async def gone(*args: Any, **kwargs: Any) -> bool:
            raise StoreUnavailable("the store did not answer")

        monkeypatch.setattr(store, "note_latents", gone)
        second = Worker(store, tmp_path, engine=Voiced("scripted 2"))
        await second.ask(acme, say(made["id"]))
        assert second.engine.last_seconds == [4.0]
        await second.close()


class TestUpdate:
    async def test_what_is_named_changes_and_null_takes_away(self, worker: Worker, acme: NewKey) -> None:
        made = await worker.ask(acme, create(accent="Leeds", gender="male", user_id="u1", tags=["a"], language="en"))
        changed = await worker.ask(acme, of("update", made["id"], name="Eve", accent=None, language="pt-BR"))
        kept = {"gender": "male", "user_id": "u1", "tags": ["a"], "version": 1, "created_at": made["created_at"]}
        for field, value in (kept | {"name": "Eve", "accent": None, "language": "pt"}).items():
            assert changed[field] == value
        bare = await worker.ask(acme, of("update", made["id"], gender=None, user_id=None, tags=[], language=None))
        assert [bare[field] for field in ("gender", "user_id", "tags", "language")] == [None, None, [], None]

    async def test_a_new_clip_speaks_from_then_on_and_the_old_one_by_its_number(
        self, worker: Worker, acme: NewKey
    ) -> None:
        made = await worker.ask(acme, create(sound(4)))
        newer = await worker.ask(acme, of("update", made["id"], **sent(sound(5))))
        assert (newer["version"], newer["versions"]) == (2, [1, 2])
        assert newer["consent_request_id"] == newer["request_id"] != made["request_id"]
        for spoken, seconds in (("", 5.0), ("@2", 5.0), ("@1", 4.0)):
            result = await worker.ask(acme, say(made["id"] + spoken))
            assert result["voice_id"] == made["id"]
            assert worker.engine.last_seconds == [seconds]
        for version in ("@3", "@0", "@01", "@", "@x", "@-1", "@1@1"):
            assert (await worker.refused(acme, say(made["id"] + version)))["code"] == "voice_not_found"

    async def test_what_was_cached_of_one_version_is_not_told_for_another(self, worker: Worker, acme: NewKey) -> None:
        made = await worker.ask(acme, create(sound(4)))
        assert not (await worker.ask(acme, say(made["id"]), "1"))["cached"]
        assert (await worker.ask(acme, say(made["id"]), "2"))["cached"]
        await worker.ask(acme, of("update", made["id"], **sent(sound(5))))
        assert not (await worker.ask(acme, say(made["id"]), "3"))["cached"]
        assert (await worker.ask(acme, say(f"{made['id']}@1"), "4"))["cached"]

    async def test_a_clip_needs_consent_again(self, worker: Worker, acme: NewKey) -> None:
        made = await worker.ask(acme, create())
        body = of("update", made["id"], **sent(sound(5)) | {"consent": None})
        assert (await worker.refused(acme, body))["code"] == "consent_required"
        assert (await worker.ask(acme, of("get", made["id"])))["versions"] == [1]

    async def test_a_version_is_deleted_alone(self, worker: Worker, acme: NewKey) -> None:
        made = await worker.ask(acme, create(sound(4)))
        await worker.ask(acme, of("update", made["id"], **sent(sound(5))))
        gone = await worker.ask(acme, of("delete", f"{made['id']}@2"))
        assert gone["receipt"]["objects"] == 2
        assert (await worker.refused(acme, say(f"{made['id']}@2")))["code"] == "voice_not_found"
        await worker.ask(acme, say(made["id"]))
        assert worker.engine.last_seconds == [4.0]
        assert (await worker.refused(acme, of("delete", f"{made['id']}@1")))["code"] == "invalid_input"

    @pytest.mark.parametrize("action", ["update", "share", "unshare"])
    async def test_versions_cannot_be_changed(self, worker: Worker, acme: NewKey, action: str) -> None:
        made = await worker.ask(acme, create())
        fields = {"name": "Eve"} if action == "update" else {"tenant_id": "t"}
        error = await worker.refused(acme, of(action, f"{made['id']}@1", **fields))
        assert (error["code"], error["message"].split(":")[0]) == ("invalid_input", "voice_id")


class TestGet:
    async def test_the_owner_hears_the_clips_as_they_were_sent(self, worker: Worker, acme: NewKey) -> None:
        made = await worker.ask(acme, create(sound(4), film("mp4", "aac", "mpeg4")))
        told = (await worker.ask(acme, of("get", made["id"])))["clips"]
        heard = [await downloaded(clip["audio_url"]) for clip in told]
        assert heard == [sound(4), film("mp4", "aac", "mpeg4")]
        assert [clip["bytes"] for clip in told] == [len(file) for file in heard]

    async def test_a_repeated_request_gets_addresses_of_its_own(self, worker: Worker, acme: NewKey) -> None:
        made = await worker.ask(acme, create())
        await worker.ask(acme, of("get", made["id"]), "1")
        await worker.ask(acme, of("update", made["id"], name="Eve"))
        assert (await worker.ask(acme, of("get", made["id"]), "1"))["name"] == "Eve"


class TestList:
    async def test_pages_go_on_from_saved_voices_to_built_in_ones(self, worker: Worker, acme: NewKey) -> None:
        made = [(await worker.ask(acme, create(name=f"{n}")))["id"] for n in range(3)]
        whole = await worker.ask(acme, {"action": "voices.list"})
        ids = [voice["id"] for voice in whole["voices"]]
        assert (set(ids[:3]), ids[3:]) == (set(made), ["nova"])
        assert (whole["count"], whole["next_cursor"]) == (4, None)
        for limit in (1, 2, 3, 4):
            assert await self.read(worker, acme, limit=limit) == ids

    @staticmethod
    async def read(worker: Worker, key: NewKey, **asked: object) -> list[str]:
        found: list[str] = []
        page: Event = {"next_cursor": None}
        while not found or page["next_cursor"]:
            page = await worker.ask(key, {"action": "voices.list", "cursor": page["next_cursor"], **asked})
            assert page["count"] == len(page["voices"]) <= 4
            found += [voice["id"] for voice in page["voices"]]
        return found

    async def test_filters(self, worker: Worker, acme: NewKey) -> None:
        ada = await worker.ask(acme, create(name="Ada", user_id="u1", tags=["calm"], language="pt"))
        eve = await worker.ask(acme, create(name="Eve", user_id="u2", tags=["calm"], language="en"))
        for asked, found in (
            ({"user_id": "u1"}, {ada["id"]}),
            ({"tag": "calm"}, {ada["id"], eve["id"]}),
            ({"tag": "loud"}, set()),
            ({"language": "pt-BR"}, {ada["id"], "nova"}),
            ({"language": "en", "tag": "calm"}, {eve["id"]}),
        ):
            listed = await worker.ask(acme, {"action": "voices.list", **asked})
            assert {voice["id"] for voice in listed["voices"]} == found, asked

    async def test_a_personas_voice(self, worker: Worker, acme: NewKey) -> None:
        ada, eve = [await worker.ask(acme, create(name=name)) for name in ("Ada", "Eve")]
        user = await worker.ask(acme, {"action": "users.put", "external_id": "auth0|1"})
        persona = {"action": "personas.create", "user_id": user["id"], "name": "Echo"}
        for voice_id in (ada["id"], "nova", None):
            echo = await worker.ask(acme, persona | {"voice_id": voice_id})
            listed = await worker.ask(acme, {"action": "voices.list", "persona_id": echo["id"]})
            assert [voice["id"] for voice in listed["voices"]] == [voice_id] * (voice_id is not None)
        assert eve["id"] != ada["id"]
        unknown = {"action": "voices.list", "persona_id": "none"}
        assert (await worker.refused(acme, unknown))["code"] == "persona_not_found"


class TestShare:
    async def test_the_other_tenant_speaks_it_and_knows_no_more_than_it_must(
        self, worker: Worker, acme: NewKey, other: NewKey
    ) -> None:
        made = await worker.ask(acme, create(user_id="u1", description="clear"))
        shared = await worker.ask(acme, of("share", made["id"], tenant_id=other.tenant.id))
        assert shared["shared_with"] == [other.tenant.id]
        seen = await worker.ask(other, of("get", made["id"]))
        assert (seen["name"], seen["description"], seen["shared"], seen["clips"]) == ("Ada", "clear", True, [])
        hidden = ("user_id", "consent", "consent_at", "consent_request_id")
        assert [seen[field] for field in hidden] == [None] * 4
        assert seen["shared_with"] == []
        assert made["id"] not in json.dumps(await worker.ask(other, {"action": "voices.list"}))
        listed = await worker.ask(other, {"action": "voices.list", "include_shared": True})
        assert [voice["id"] for voice in listed["voices"]] == [made["id"], "nova"]
        assert (await worker.ask(other, say(made["id"])))["voice_id"] == made["id"]
        assert worker.engine.last_seconds == [4.0]

    async def test_it_may_not_change_it_and_is_told_what_a_stranger_is(
        self, worker: Worker, acme: NewKey, other: NewKey
    ) -> None:
        made = await worker.ask(acme, create())
        await worker.ask(acme, of("share", made["id"], tenant_id=other.tenant.id))
        for action, fields in (
            ("update", {"name": "mine"}),
            ("update", sent(sound(5))),
            ("delete", {}),
            ("share", {"tenant_id": "t3"}),
            ("unshare", {"tenant_id": "t3"}),
        ):
            answers = [await worker.refused(other, of(action, voice_id, **fields)) for voice_id in (made["id"], "none")]
            assert [answer["message"] for answer in answers] == [f"no voice '{made['id']}'", "no voice 'none'"]
            assert {answer["code"] for answer in answers} == {"voice_not_found"}
        assert worker.engine.cloned == 1
        assert (await worker.ask(acme, of("get", made["id"])))["name"] == "Ada"

    @pytest.mark.parametrize("end", ["unshare", "delete"])
    async def test_it_ends_at_once(
        self, worker: Worker, store: Store, acme: NewKey, other: NewKey, tmp_path: Path, end: str
    ) -> None:
        made = await worker.ask(acme, create())
        await worker.ask(acme, of("share", made["id"], tenant_id=other.tenant.id))
        theirs = Worker(store, tmp_path / "theirs")
        await theirs.ask(other, say(made["id"]), "1")
        assert (await theirs.ask(other, say(made["id"]), "2"))["cached"]
        fields = {"tenant_id": other.tenant.id} if end == "unshare" else {}
        await worker.ask(acme, of(end, made["id"], **fields))
        for body in (say(made["id"]), say(f"{made['id']}@1"), of("get", made["id"])):
            assert (await theirs.refused(other, body, str(body)))["code"] == "voice_not_found"
        assert (await store.cache_totals(other.tenant.id)).entries == 0
        await theirs.close()

    async def test_a_new_worker_of_the_other_tenant_does_not_touch_the_clip_either(
        self, worker: Worker, store: Store, acme: NewKey, other: NewKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = await worker.ask(acme, create())
        await worker.ask(acme, of("share", made["id"], tenant_id=other.tenant.id))
        read = await paths_of(store, "get_object", monkeypatch)
        theirs = Worker(store, tmp_path / "theirs")
        await theirs.ask(other, say(made["id"]))
        assert latents_of(read) == [True]
        await theirs.close()

    async def test_with_oneself_is_refused(self, worker: Worker, acme: NewKey) -> None:
        made = await worker.ask(acme, create())
        error = await worker.refused(acme, of("share", made["id"], tenant_id=acme.tenant.id))
        assert (error["code"], error["message"].split(":")[0]) == ("invalid_input", "tenant_id")


class TestDelete:
    async def test_nothing_is_left_and_the_receipt_says_what_there_was(
        self, worker: Worker, store: Store, acme: NewKey, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put = await paths_of(store, "put_object", monkeypatch)
        made = await worker.ask(acme, create(sound(4), sound(5)))
        await worker.ask(acme, of("update", made["id"], **sent(sound(4))))
        voices = [path for path in put if path.startswith("voices/")]
        size_bytes = sum([len(await store.get_object(path)) for path in voices])
        await worker.ask(acme, say(made["id"]))
        totals = await store.cache_totals(acme.tenant.id)
        receipt = (await worker.ask(acme, of("delete", made["id"]), "d"))["receipt"]
        assert receipt == {
            "rows": 5,  # the voice, its two versions, the latents of each
            "objects": 5,
            "bytes": size_bytes,
            "cached_entries": 1,
            "cached_bytes": totals.bytes,
        }
        for path in voices + [path for path in put if path.startswith("tts-cache/")]:
            with pytest.raises(KeyError):
                await store.get_object(path)
        assert (await worker.refused(acme, say(made["id"])))["code"] == "voice_not_found"
        assert (await worker.ask(acme, of("delete", made["id"]), "d"))["receipt"] == receipt
        assert (await worker.refused(acme, of("delete", made["id"])))["code"] == "voice_not_found"

    async def test_one_that_broke_off_is_finished_by_the_same_request(
        self, worker: Worker, store: Store, acme: NewKey, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put = await paths_of(store, "put_object", monkeypatch)
        made = await worker.ask(acme, create())

        async def gone(path: str) -> None:
            raise StoreUnavailable("the store did not answer")

        with monkeypatch.context() as patch:
            patch.setattr(store, "delete_object", gone)
            assert (await worker.refused(acme, of("delete", made["id"]), "d"))["retryable"]
        assert (await worker.refused(acme, say(made["id"])))["code"] == "voice_not_found"
        assert (await worker.ask(acme, of("delete", made["id"]), "d"))["receipt"]["objects"] == 2
        for path in put:
            with pytest.raises(KeyError):
                await store.get_object(path)

    async def test_a_built_in_voice_stays(self, worker: Worker, acme: NewKey) -> None:
        assert (await worker.refused(acme, of("delete", "nova")))["code"] == "voice_not_found"
        assert (await worker.ask(acme, say("nova")))["voice_id"] == "nova"


async def test_a_voice_from_its_making_to_its_end_on_every_body(place: Place, clock: Clock, tmp_path: Path) -> None:
    stores = [await place.open(clock) for _ in range(2)]
    first, second = (Worker(store, tmp_path / str(n)) for n, store in enumerate(stores))
    acme, other = [await stores[0].create_tenant(name, scopes=SCOPES) for name in ("acme", "other")]
    made = await first.ask(acme, create(film("mp4", "aac", "mpeg4"), tags=["calm"]))
    await second.ask(acme, of("update", made["id"], **sent(sound(5))))
    await first.ask(acme, of("share", made["id"], tenant_id=other.tenant.id))
    for version, seconds in (("@1", [pytest.approx(4, abs=0.1)]), ("", [5.0])):
        await second.ask(other, say(made["id"] + version))
        assert second.engine.last_seconds == seconds
    assert second.engine.cloned == 1
    (clip,) = (await second.ask(acme, of("get", f"{made['id']}@1")))["clips"]
    assert await downloaded(clip["audio_url"]) == film("mp4", "aac", "mpeg4")
    listed = await second.ask(acme, {"action": "voices.list", "tag": "calm", "limit": 1})
    assert [voice["id"] for voice in listed["voices"]] == [made["id"]]
    receipt = (await second.ask(acme, of("delete", made["id"])))["receipt"]
    assert (receipt["rows"], receipt["objects"], receipt["cached_entries"]) == (6, 4, 2)
    for worker, key in ((first, acme), (first, other), (second, other)):
        assert (await worker.refused(key, say(made["id"])))["code"] == "voice_not_found"
    for worker in (first, second):
        await worker.close()
        await worker.store.close()
