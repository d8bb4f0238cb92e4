"""What a take is kept under: every field of a request is in it, or says why not."""

import base64
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.local import open_local
from tests.cached_worker import Event, TwoVoices, Worker
from tts_core.errors import ReferenceUnreachable
from tts_core.jobs import CacheSeed, Synthesize, parse
from tts_core.service import Service
from tts_core.settings import Settings

CLIP = base64.b64encode(Path("samples/nova.flac").read_bytes()).decode()

CHANGES: dict[str, Event] = {
    "text": {"text": "abd"},
    "language": {"language": "de"},
    "voice_id": {"voice_id": "onyx"},
    "reference_audio_base64": {"reference_audio_base64": CLIP, "consent": "synthetic"},
    "format": {"format": "mp3"},
    "sample_rate": {"sample_rate": 48000},
    "speed": {"speed": 1.25},
    "temperature": {"temperature": 0.7},
    "top_k": {"top_k": 40},
    "top_p": {"top_p": 0.8},
    "repetition_penalty": {"repetition_penalty": 5.0},
    "seed": {"seed": 1},
    "ssml": {"ssml": True},
}
"""Fields that decide how something sounds, each with another value."""

WITHOUT_SOUND = {
    "action": "is the same for all of them",
    "tenant_key": "decides whose pool is looked into, not what is in it",
    "idempotency_key": "names the request",
    "consent": "is a statement about clips, which are in the key themselves",
    "reference_audio_url": "is fetched, and what comes is in the key like what is sent",
    "persona_id": "names a voice, which is in the key",
    "user_id": "says on whose behalf",
    "streaming": "says how it leaves: streamed and whole audio are one file",
    "output": "says how it leaves",
    "keep": "says what becomes of it",
    "include_alignments": "is always kept with the take",
    "cache": "says whether the key is looked up",
    "progress": "says what is told on the way",
    "metadata": "is the caller's own",
}


async def no_network(url: str) -> bytes:
    raise ReferenceUnreachable("no network in this test")


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[Worker]:
    store = await open_local(tmp_path)
    key = await store.create_tenant("acme", scopes=("synthesize", "voices"))
    service = Service(TwoVoices(), store, settings=Settings(data_dir=tmp_path), fetch=no_network)
    yield Worker(service, key)
    await service.close()


async def key_of(worker: Worker, **fields: object) -> str:
    request = parse({"text": "abc", "language": "en", **{k: v for k, v in fields.items() if k != "ssml"}})
    assert isinstance(request, Synthesize)
    if "ssml" in fields:
        request = request.model_copy(update={"ssml": fields["ssml"]})  # not on the wire yet
    brief = await worker.service._synthesis.brief(request, worker.key.tenant)
    return brief.resolved(worker.engine).content_hash


def test_every_field_of_a_request_is_in_the_key_or_says_why_not() -> None:
    assert CHANGES.keys() | WITHOUT_SOUND.keys() == Synthesize.model_fields.keys()
    assert not CHANGES.keys() & WITHOUT_SOUND.keys()


async def test_every_field_that_changes_a_sample_changes_the_key(worker: Worker) -> None:
    keys = {"": await key_of(worker)}
    for field, change in CHANGES.items():
        keys[field] = await key_of(worker, **change)
    assert len(set(keys.values())) == len(keys), Counter(keys.values())


async def test_no_other_field_changes_the_key(worker: Worker) -> None:
    plain = await key_of(worker)
    for change in (
        {"idempotency_key": "k"},
        {"streaming": True},
        {"output": "url"},
        {"include_alignments": True},
        {"cache": "refresh"},
        {"progress": True},
        {"metadata": {"a": 1}},
        {"tenant_key": "k"},
        {"consent": "yes"},
    ):
        assert await key_of(worker, **change) == plain, change


async def test_what_is_left_out_is_the_same_as_its_default(worker: Worker) -> None:
    plain = await key_of(worker)
    spelled_out = {"voice_id": "nova", "sample_rate": 24000, "speed": 1, "format": "wav", "language": "en-US"}
    assert await key_of(worker, **spelled_out) == plain


async def test_a_change_of_engine_texts_or_encoder_changes_the_key(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [await key_of(worker)]
    for target in ("tts_core.cache.key.TEXT_REVISION", "tts_core.cache.key.ENCODER_REVISION"):
        monkeypatch.setattr(target, "another")
        keys.append(await key_of(worker))
    for attribute in ("name", "revision"):
        monkeypatch.setattr(worker.engine, attribute, "another")
        keys.append(await key_of(worker))
    assert len(set(keys)) == len(keys)


async def test_another_version_of_a_voice_has_other_takes(worker: Worker) -> None:
    made = await worker.ask("voices.create", name="Ada", consent="synthetic", reference_audio_base64=CLIP)
    first = await key_of(worker, voice_id=made["id"])
    await worker.ask("voices.update", voice_id=made["id"], consent="synthetic", reference_audio_base64=CLIP)
    assert await key_of(worker, voice_id=made["id"]) != first
    assert await key_of(worker, voice_id=f"{made['id']}@1") == first


async def test_a_seeds_take_has_the_key_of_the_request_it_is_for(worker: Worker) -> None:
    manner = {"format": "mp3", "sample_rate": 44100, "speed": 0.9, "top_k": 3, "seed": 5, "language": "de"}
    seed = parse({"action": "cache.seed", "texts": ["abc"], "voices": ["onyx"], **manner})
    assert isinstance(seed, CacheSeed)
    (take,) = seed.takes()
    brief = await worker.service._synthesis.brief(take, worker.key.tenant)
    assert brief.resolved(worker.engine).content_hash == await key_of(worker, voice_id="onyx", **manner)
