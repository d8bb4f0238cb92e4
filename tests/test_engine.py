"""The XTTS engine as others see it, on tiny random weights: batched, streamed, bounded."""

import asyncio
import math
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.oracle import coqui_model
from tests.sentences import SENTENCES
from tests.tiny_xtts import build
from tts_core.errors import Cancelled, EngineLost, Overloaded, ReferenceTooShort, StartupError, VoiceNotFound
from tts_core.types import (
    Audience,
    AudioChunk,
    ClipReport,
    FloatArray,
    Language,
    Manner,
    Quality,
    ReferenceClip,
    Sampling,
    Speaker,
    Utterance,
)
from tts_core.xtts import engine as engine_module
from tts_core.xtts import runner
from tts_core.xtts.engine import XttsEngine
from tts_core.xtts.gpt import Gpt
from tts_core.xtts.guard import code_budget
from tts_core.xtts.linear import has_fast_bf16, has_fast_int8, has_narrow_int8
from tts_core.xtts.runner import Runner
from tts_core.xtts.voice_encoder import VoiceEncoder

EXACT = 5e-5
"""Largest difference of two samples computed alone and in company, or here and by coqui, in float32."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    build(folder)
    return folder


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[XttsEngine]:
    engine = XttsEngine(folder, device="cpu", slots=4)
    yield engine
    asyncio.run(engine.close())


def speak(
    engine: XttsEngine,
    text: str = "Hello.",
    *,
    speaker: Speaker | None = None,
    language: Language = "en",
    speed: float = 1.0,
    seed: int = 0,
    due_s: float = math.inf,
) -> AsyncGenerator[AudioChunk]:
    manner = Manner(speaker or Speaker("nova-noise"), language, speed, Sampling(seed=seed))
    return engine.speak(Utterance(text, 0, len(text)), manner, Audience("tenant", due_s))


async def whole(chunks: AsyncGenerator[AudioChunk]) -> FloatArray:
    return np.concatenate([np.zeros(0, np.float32), *[chunk.samples async for chunk in chunks]])


async def first_chunk(chunks: AsyncGenerator[AudioChunk]) -> FloatArray:
    async with aclosing(chunks):
        return (await anext(chunks)).samples


@contextmanager
def before_each_decode(engine: XttsEngine, action: Callable[[int], None]) -> Iterator[list[int]]:
    """Calls `action` with 1 before the first decode step, and so on; yields the rows of each step so far."""
    rows: list[int] = []
    decode = engine.gpt.decode

    def held(codes: Tensor, **how: Any) -> tuple[Tensor, Tensor]:
        rows.append(len(codes))
        action(len(rows))
        return decode(codes, **how)

    engine.gpt.decode = held  # type: ignore[method-assign]
    try:
        yield rows
    finally:
        engine.gpt.decode = decode  # type: ignore[method-assign]


async def test_greedy_speech_is_coquis(engine: XttsEngine, folder: Path) -> None:
    """Tokens, prompt, decoding, latents, windows and their joins, all at once: the only draw that needs no luck."""
    text, budget = "Hello there.", code_budget(len("hello there."))
    coqui = coqui_model(folder)
    coqui.gpt.max_gen_mel_tokens = budget
    speaker = torch.load(folder / "speakers_xtts.pth", weights_only=True)["Nova Noise"]
    latents, embedding = speaker["gpt_cond_latent"], speaker["speaker_embedding"]
    expected = coqui.inference(text, "en", latents, embedding, do_sample=False, repetition_penalty=10.0)["wav"]
    manner = Manner(Speaker("nova-noise"), "en", sampling=Sampling(top_k=1))
    ours = await whole(engine.speak(Utterance(text, 0, len(text)), manner, Audience()))
    assert len(ours) == len(expected)
    np.testing.assert_allclose(ours, expected, atol=EXACT, rtol=0)


async def test_the_seed_decides(engine: XttsEngine) -> None:
    one, again, other = [await whole(speak(engine, seed=seed)) for seed in (1, 1, 2)]
    assert np.array_equal(one, again)
    assert len(one) != len(other) or np.abs(one - other).max() > 0.01


async def test_a_stream_is_the_whole(engine: XttsEngine) -> None:
    text = "How are you all today?"
    chunks = [chunk.samples async for chunk in speak(engine, text, seed=3, due_s=time.monotonic())]
    assert len(chunks) > 1
    np.testing.assert_allclose(np.concatenate(chunks), await whole(speak(engine, text, seed=3)), atol=EXACT)


async def test_speech_in_changing_company_is_that_spoken_alone(engine: XttsEngine) -> None:
    """Five utterances over four slots: they join and leave at different steps, streamed and whole, at two speeds."""
    due = [time.monotonic() if n % 2 else math.inf for n in range(5)]
    plan = [(f"No. {n}!", n, 1.0 if n % 3 else 1.2, due[n]) for n in range(5)]
    alone = [await whole(speak(engine, text, seed=seed, speed=speed)) for text, seed, speed, _ in plan]
    with before_each_decode(engine, lambda _: None) as rows:
        takes = (whole(speak(engine, text, seed=seed, speed=speed, due_s=due_s)) for text, seed, speed, due_s in plan)
        together = await asyncio.gather(*takes)
    assert max(rows) == 4
    for one, other in zip(alone, together, strict=True):
        assert len(one) == len(other)
        np.testing.assert_allclose(one, other, atol=EXACT)


async def test_the_first_chunk_arrives_before_the_rest_is_computed(engine: XttsEngine) -> None:
    released = threading.Event()

    def hold(number: int) -> None:
        if number == 12:  # the prefill has made one code, this step would make the thirteenth
            assert released.wait(timeout=60)

    with before_each_decode(engine, hold):
        async with aclosing(speak(engine, "Hello there, all of you.", due_s=time.monotonic())) as chunks:
            first = await anext(chunks)
            assert not released.is_set()
            released.set()
            second = await anext(chunks)
    assert len(second.samples) > len(first.samples) >= 2048


async def test_nothing_is_computed_for_a_listener_that_left(engine: XttsEngine) -> None:
    with before_each_decode(engine, lambda _: None) as rows:
        await first_chunk(speak(engine, "Hello there, all of you.", due_s=time.monotonic()))
        await engine.clone([a_clip(seconds=1.0)])  # the inbox is read in order
        made = len(rows)
        await engine.clone([a_clip(seconds=1.0)])
        assert len(rows) <= made + 1  # the step that was in flight


async def test_an_error_ends_those_in_its_step_only(engine: XttsEngine) -> None:
    alone = await whole(speak(engine, seed=5))

    def fail(number: int) -> None:
        if number == 10:
            raise RuntimeError("CUDA says no")

    with before_each_decode(engine, fail), pytest.raises(RuntimeError, match="CUDA says no"):
        await whole(speak(engine, "Hello there, all of you."))
    assert np.array_equal(await whole(speak(engine, seed=5)), alone)


async def test_a_device_that_is_lost_ends_everybody_s_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path / "model")
    engine = XttsEngine(tmp_path / "model", device="cpu")

    def lost(*_: object) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(Runner, "launch", lost)
    monkeypatch.setattr(Runner, "wash", lost)
    telling = asyncio.create_task(engine.lost())
    for _ in range(3):
        with pytest.raises(EngineLost):
            await asyncio.wait_for(whole(speak(engine)), timeout=60)
    with pytest.raises(EngineLost):
        await engine.clone([])
    await asyncio.wait_for(telling, timeout=60)
    await engine.close()


@pytest.mark.parametrize("is_lost", [False, True])
async def test_a_fault_while_a_voice_is_read_is_judged_as_one_in_a_step(
    folder: Path, monkeypatch: pytest.MonkeyPatch, is_lost: bool
) -> None:
    def fault(*_: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    engine = XttsEngine(folder, device="cpu", slots=1)
    with monkeypatch.context() as patch:
        patch.setattr(VoiceEncoder, "encode", fault)
        if is_lost:
            patch.setattr(Runner, "wash", fault)
        with pytest.raises(EngineLost if is_lost else RuntimeError):
            await engine.clone([a_clip(seconds=1.0)])
    if is_lost:
        await asyncio.wait_for(engine.lost(), timeout=60)
        with pytest.raises(EngineLost):
            await whole(speak(engine))
    else:
        assert len(await whole(speak(engine)))
    await engine.close()


async def test_audio_that_is_not_finite_is_an_error(engine: XttsEngine) -> None:
    def poison(number: int) -> None:
        if number == 5:
            engine.gpt.values[:, 0] = torch.nan

    with before_each_decode(engine, poison), pytest.raises(ArithmeticError, match="not finite"):
        await whole(speak(engine, "Hello there, all of you."))
    assert np.isfinite(await whole(speak(engine))).all()  # the next one in this slot is not spoiled


async def test_steps_that_do_not_fit_the_memory_are_taken_in_halves(
    engine: XttsEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = [await whole(speak(engine, seed=seed)) for seed in range(3)]
    prefill, sizes = engine.gpt.prefill, []

    def short_of_memory(texts: list[Any], prefixes: list[Any], slots: list[int]) -> tuple[Tensor, Tensor]:
        sizes.append(len(slots))
        if len(slots) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return prefill(texts, prefixes, slots)

    with monkeypatch.context() as patch:
        patch.setattr(engine.gpt, "prefill", short_of_memory)
        with before_each_decode(engine, lambda _: time.sleep(0.01)):  # so that the others arrive while one decodes
            together = await asyncio.gather(*(whole(speak(engine, seed=seed)) for seed in range(3)))
    assert max(sizes) > 1
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, atol=EXACT)


async def test_a_model_that_speaks_nothing_finite_does_not_start(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(gpt: Gpt, codes: Tensor, **_: Any) -> tuple[Tensor, Tensor]:
        return torch.full((len(codes), gpt.sizes.width), torch.nan), torch.zeros(len(codes), gpt.sizes.codes)

    monkeypatch.setattr(Gpt, "decode", broken)
    with pytest.raises(StartupError, match="not finite"):
        XttsEngine(folder, device="cpu", slots=1)


def of_a_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def of_a_cpu() -> None:
    torch.empty(1 << 60, dtype=torch.uint8)


@pytest.mark.parametrize("method", ["__init__", "prefill"])
@pytest.mark.parametrize("lack", [of_a_gpu, of_a_cpu])
async def test_a_model_too_large_for_the_memory_does_not_start(
    folder: Path, monkeypatch: pytest.MonkeyPatch, method: str, lack: Callable[[], None]
) -> None:
    def too_large(*_: object, **__: object) -> None:
        lack()

    monkeypatch.setattr(Gpt, method, too_large)
    with pytest.raises(StartupError, match="does not fit into the memory"):
        XttsEngine(folder, device="cpu", slots=1)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
async def test_the_fast_precisions_speak_too_and_say_so(folder: Path, precision: str) -> None:
    if not (has_fast_bf16() if precision == "bf16" else has_fast_int8() or has_narrow_int8()):
        with pytest.raises(StartupError, match=precision):
            XttsEngine(folder, device="cpu", slots=1, precision=precision)
        return
    engine = XttsEngine(folder, device="cpu", slots=1, precision=precision)
    assert f"-{engine.precision}-" in engine.revision
    assert engine.precision.name == precision
    assert len(await whole(speak(engine)))
    await engine.close()


async def test_a_full_waiting_room_refuses_and_says_when_to_come_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "MAX_WAITING", 2)
    engine = XttsEngine(folder, device="cpu", slots=1)
    done = await asyncio.gather(*(whole(speak(engine, seed=seed)) for seed in range(8)), return_exceptions=True)
    refused = [take for take in done if isinstance(take, Overloaded)]
    spoken = [take for take in done if isinstance(take, np.ndarray)]
    assert refused
    assert len(spoken) >= 2
    assert len(refused) + len(spoken) == 8
    await engine.close()


@contextmanager
def drawing(engine: XttsEngine, code_of: Callable[[int, int], int]) -> Iterator[None]:
    """Makes `code_of(take, n)` the n-th code of each take, both counted from 0; one utterance at a time."""
    take, place, prefill, decode = -1, 0, engine.gpt.prefill, engine.gpt.decode

    def forced(latents: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        logits = torch.full_like(logits, -1e6)
        logits[:, code_of(take, place)] = 1e6
        return latents, logits

    def first(*args: Any) -> tuple[Tensor, Tensor]:
        nonlocal take, place
        take, place = take + 1, 0
        return forced(*prefill(*args))

    def later(*args: Any, **how: Any) -> tuple[Tensor, Tensor]:
        nonlocal place
        place += 1
        return forced(*decode(*args, **how))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.gpt, "prefill", first)
        patch.setattr(engine.gpt, "decode", later)
        yield


@pytest.fixture(scope="module")
def guarded(folder: Path) -> Iterator[XttsEngine]:
    engine = XttsEngine(folder, device="cpu", slots=2, guarded=True)
    yield engine
    asyncio.run(engine.close())


TEXT = "This is a sentence of an ordinary length."
LENGTH = round(len(TEXT) / 15 * 22050 / 1024)
STOP = 1025


def well(place: int) -> int:
    """No loop and no stall, and an end when it is time."""
    return STOP if place == LENGTH else (place * place * 37 + 11 * place) % 1000


async def judged(engine: XttsEngine, *, due_s: float = math.inf) -> tuple[float, Quality | None]:
    """Seconds of audio, and the verdict."""
    chunks = [chunk async for chunk in speak(engine, TEXT, due_s=due_s)]
    return sum(len(chunk.samples) for chunk in chunks) / engine.sample_rate_hz, chunks[-1].quality


async def test_a_good_take_is_kept(guarded: XttsEngine) -> None:
    with drawing(guarded, lambda _, place: well(place)):
        seconds, quality = await judged(guarded)
    assert quality == Quality("ok", 0)
    assert seconds == pytest.approx((LENGTH + 1) * 1024 / 22050, abs=0.02)


async def test_a_bad_take_of_which_nothing_was_heard_is_spoken_anew(guarded: XttsEngine) -> None:
    with drawing(guarded, lambda take, place: 7 if take == 0 else well(place)):
        seconds, quality = await judged(guarded)
    assert quality == Quality("ok", 1)
    assert seconds == pytest.approx((LENGTH + 1) * 1024 / 22050, abs=0.02)


async def test_where_all_takes_are_bad_the_best_is_kept_and_the_verdict_says_so(guarded: XttsEngine) -> None:
    def code_of(take: int, place: int) -> int:
        if take == 1:  # a stall is lighter than a loop
            return well(place) if place < 30 else 7
        return place % 12

    with drawing(guarded, code_of):
        seconds, quality = await judged(guarded)
    assert quality == Quality("stall", 2)
    assert seconds == pytest.approx((30 + 26) * 1024 / 22050, abs=0.1)


async def test_a_stream_that_has_been_heard_is_cut_and_reported(guarded: XttsEngine) -> None:
    with drawing(guarded, lambda _, place: well(place) if place < 30 else 7):
        seconds, quality = await judged(guarded, due_s=time.monotonic())
    assert quality == Quality("stall", 0)
    assert seconds == pytest.approx((30 + 26) * 1024 / 22050, abs=0.1)


async def test_a_sentence_full_of_numbers_is_spoken_in_parts(engine: XttsEngine) -> None:
    text = "It cost $1,234,567.89, then $2,345,678.91, then $3,456,789.12, and $4,567,891.23, never $5,678,912.34."
    samples = await first_chunk(speak(engine, text, due_s=time.monotonic()))
    assert len(samples)


@pytest.mark.parametrize("language", get_args(Language))
async def test_every_language_is_spoken(engine: XttsEngine, language: Language) -> None:
    samples = await first_chunk(speak(engine, SENTENCES[language], language=language, due_s=time.monotonic()))
    assert samples.dtype == np.float32
    assert 0.05 < samples.std() < 1
    assert engine.max_chars(language) >= len(SENTENCES[language])


def a_clip(*, seconds: float, rate_hz: int = 22_050, seed: int = 0) -> ReferenceClip:
    """A buzz with noise: harmonics that wander."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(int(seconds * rate_hz)) / rate_hz
    pitch_hz = (100 + 40 * seed) * (1 + 0.1 * np.sin(2 * np.pi * 2 * time_s))
    phase = 2 * np.pi * np.cumsum(pitch_hz) / rate_hz
    buzz = sum(np.sin(phase * harmonic) / harmonic for harmonic in range(1, 12))
    samples = (0.2 * buzz + 0.01 * rng.standard_normal(len(time_s))).astype(np.float32)
    report = ClipReport(seconds, seconds, peak=0.5, clipped_ratio=0, snr_db=30, loudness_dbfs=-20, bandwidth_hz=8000)
    return ReferenceClip(samples=samples, sample_rate_hz=rate_hz, report=report)


async def test_a_cloned_voice_speaks_with_its_own_sound(engine: XttsEngine) -> None:
    speakers = [await engine.clone([a_clip(seconds=2.0, seed=seed)]) for seed in (0, 3)]
    first, other = [await first_chunk(speak(engine, speaker=speaker)) for speaker in speakers]
    common = min(len(first), len(other))
    assert np.abs(first[:common] - other[:common]).max() > 1e-3


async def test_a_voice_is_prepared_once_and_dropped_for_one_that_is_heard_now(
    engine: XttsEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    nova, remy, uta = (Speaker(name) for name in ("nova-noise", "remy-random", "uta-uniform"))
    prefix, prepared = engine.gpt.prefix, []

    def counted(gpt_latents: Tensor) -> tuple[Tensor, Tensor]:
        prepared.append(gpt_latents)
        return prefix(gpt_latents)

    monkeypatch.setattr(engine.gpt, "prefix", counted)
    keys, values = prefix(engine.model.speakers["Nova Noise"].gpt_latents)
    monkeypatch.setattr(runner, "PREFIX_BYTES", 2 * (keys.nbytes + values.nbytes))
    counts = []
    for speaker in (nova, remy, nova, uta, nova, remy):
        await first_chunk(speak(engine, speaker=speaker))
        counts.append(len(prepared))
    assert [count - counts[1] for count in counts[2:]] == [0, 1, 1, 2]


async def test_a_clip_too_short_is_refused(engine: XttsEngine) -> None:
    with pytest.raises(ReferenceTooShort, match=r"0\.33 s"):
        await engine.clone([a_clip(seconds=5.0), a_clip(seconds=0.2)])


async def test_built_in_voices_are_those_of_the_file(engine: XttsEngine) -> None:
    assert [(voice.id, voice.name) for voice in engine.voices()] == [
        ("nova-noise", "Nova Noise"),
        ("remy-random", "Rémy Random"),
        ("uta-uniform", "Uta Uniform"),
    ]
    with pytest.raises(VoiceNotFound, match="'somebody'"):
        await whole(speak(engine, speaker=Speaker(builtin="somebody")))


async def test_closing_ends_what_is_spoken_and_refuses_the_rest(folder: Path) -> None:
    engine = XttsEngine(folder, device="cpu")
    spoken, waiting = (asyncio.create_task(whole(speak(engine, seed=seed))) for seed in range(2))
    await asyncio.sleep(0)  # they have begun to be read; a model this small may be done in 50 ms
    await engine.close()
    for cut_off in (spoken, waiting):
        with pytest.raises(Cancelled):
            await cut_off
    with pytest.raises(Cancelled):
        await whole(speak(engine))
