"""The XTTS path against coqui-tts itself, on random weights in the official files. Nothing here is about quality."""

import asyncio
import hashlib
import json
import os
import shutil
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from TTS.tts.models.xtts import Xtts

from tests.tiny_xtts import build
from tts_core.errors import Cancelled, ReferenceTooShort, StartupError, TextTooLong, VoiceNotFound
from tts_core.types import (
    AudioChunk,
    ClipReport,
    FloatArray,
    Language,
    ReferenceClip,
    Sampling,
    Speaker,
    Utterance,
)
from tts_core.xtts import checkpoint, coqui, weights
from tts_core.xtts.engine import XttsEngine
from tts_core.xtts.reading import HINDI_POINT, read
from tts_core.xtts.vocoder import WindowedVocoder, settled_outputs, stretched

SENTENCES: dict[Language, str] = {
    "en": "We met 23 people.",
    "es": "Vimos a 23 personas.",
    "fr": "Nous avons vu 23 personnes.",
    "de": "Wir sahen 23 Leute.",
    "it": "Abbiamo visto 23 persone.",
    "pt": "Vimos 23 pessoas.",
    "pl": "Widzieliśmy 23 osoby.",
    "tr": "23 kişi gördük.",
    "ru": "Мы видели 23 человека.",
    "nl": "We zagen 23 mensen.",
    "cs": "Viděli jsme 23 lidí.",
    "ar": "رأينا 23 شخصا.",
    "zh": "我们看到了23个人。",
    "hu": "23 embert láttunk.",
    "ko": "우리는 23명을 보았다.",
    "ja": "私たちは23人に会いました。",
    "hi": "हमने 23 लोगों को देखा।",
}

GREEDY = Sampling(top_k=1)
"""Never draws the stop code of the random weights: such an utterance lasts until its budget of codes is spent."""

EXACT = 5e-5
"""Largest difference of two samples computed in windows and at once, in float32."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "xtts_v2"
    build(folder)
    return folder


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[XttsEngine]:
    engine = XttsEngine(folder, device="cpu")
    yield engine
    asyncio.run(engine.close())


def speak(
    engine: XttsEngine,
    text: str,
    *,
    speaker: Speaker | None = None,
    language: Language = "en",
    speed: float = 1.0,
    sampling: Sampling = GREEDY,
) -> AsyncGenerator[AudioChunk]:
    return engine.speak(
        Utterance(text, 0, len(text)),
        speaker=speaker or Speaker(builtin="nova-noise"),
        language=language,
        speed=speed,
        sampling=sampling,
    )


async def whole(chunks: AsyncGenerator[AudioChunk]) -> FloatArray:
    return np.concatenate([chunk.samples async for chunk in chunks])


async def first_chunk(chunks: AsyncGenerator[AudioChunk]) -> AsyncGenerator[AudioChunk]:
    async with aclosing(chunks):
        yield await anext(chunks)


@contextmanager
def before_each_code(engine: XttsEngine, action: Callable[[int], None]) -> Iterator[list[int]]:
    """Calls `action` with 1 before the first code that is computed, and so on; yields the numbers so far."""
    numbers: list[int] = []

    def hook(*_: object) -> None:
        numbers.append(len(numbers) + 1)
        action(numbers[-1])

    handle = engine.model.gpt.gpt_inference.register_forward_pre_hook(hook)
    try:
        yield numbers
    finally:
        handle.remove()


def voice_of(engine: XttsEngine, folder: Path, name: str = "Nova Noise") -> coqui.Voice:
    tensors = checkpoint.load_speakers(folder)[name]
    return coqui.Voice(gpt_latents=tensors["gpt_cond_latent"], speaker_embedding=tensors["speaker_embedding"])


def short_take(engine: XttsEngine, folder: Path, text: str, *, above: int = 0) -> Sampling:
    """The first sampling of a text whose stop code comes after a few more than `above` codes."""
    reading = read(engine.model.tokenizer, text, "en")
    for seed in range(above, 1000):
        sampling = Sampling(seed=seed)
        request = coqui.Request(text, "en", voice_of(engine, folder), speed=1.0, sampling=sampling)
        if above < len(list(islice(coqui.latents(engine.model, request, reading), above + 11))) <= above + 10:
            return sampling
    raise AssertionError("no seed stops early")


# Files.


def put_model_files(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names or weights.REQUIRED_FILES:
        (folder / name).touch()
    return folder


def test_weights_are_found_in_the_order_of_the_design(tmp_path: Path) -> None:
    baked, volume = tmp_path / "baked", tmp_path / "volume"
    repository = volume / "huggingface-cache/hub/models--coqui--XTTS-v2"

    def find(model_path: Path | None = None) -> Path | None:
        return weights.find(model_path, baked=baked, runpod_volume=volume)

    assert find() is None
    on_volume = put_model_files(volume / "xtts_v2")
    assert find() == on_volume
    older = put_model_files(repository / "snapshots/aaa")
    newer = put_model_files(repository / "snapshots/bbb")
    assert find() == older
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("bbb\n")
    assert find() == newer
    put_model_files(baked)
    assert find() == baked
    named = put_model_files(tmp_path / "named")
    assert find(named) == named


def test_an_incomplete_folder_is_an_error_and_never_passed_over(tmp_path: Path) -> None:
    baked, volume = tmp_path / "baked", tmp_path / "volume"
    put_model_files(volume / "xtts_v2")
    put_model_files(baked, "config.json")
    with pytest.raises(StartupError, match=r"of the image lacks model\.pth, vocab\.json"):
        weights.find(None, baked=baked, runpod_volume=volume)
    with pytest.raises(StartupError, match=r"XTTS_MODEL_PATH lacks config\.json, model\.pth, vocab\.json"):
        weights.find(tmp_path / "nowhere", baked=volume / "xtts_v2", runpod_volume=volume)


def test_the_licence_is_asked_for_unless_the_weights_are_random(tmp_path: Path, folder: Path) -> None:
    weights.require_licence(folder, agreed=False)
    weights.require_licence(tmp_path, agreed=True)
    with pytest.raises(StartupError, match="COQUI_TOS_AGREED=1"):
        weights.require_licence(tmp_path, agreed=False)


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_loading_changes_no_file(folder: Path) -> None:
    pickled = torch.load(folder / "model.pth", weights_only=False)
    assert type(pickled["config"]).__name__ == "XttsConfig", "coqui re-saves only files that pickle their config"
    before = hashes(folder)
    folder.chmod(0o555)
    checkpoint.load(folder, "cpu")
    folder.chmod(0o755)
    assert hashes(folder) == before


class Evil:
    """Runs a command when it is unpickled by someone careless."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def sibling(folder: Path, directory: Path, *, model: object) -> Path:
    """A copy of the folder with another model.pth."""
    directory.mkdir()
    for name in ("config.json", "vocab.json", "speakers_xtts.pth"):
        shutil.copy(folder / name, directory)
    torch.save(model, directory / "model.pth")
    return directory


def test_a_checkpoint_that_names_code_is_refused_and_not_run(folder: Path, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    poisoned = sibling(folder, tmp_path / "poisoned", model={"config": Evil(f"touch {proof}"), "model": {}})
    with pytest.raises(StartupError, match=r"model\.pth was refused: it names .*system"):
        checkpoint.load(poisoned, "cpu")
    (poisoned / "model.pth").rename(poisoned / "speakers_xtts.pth")
    with pytest.raises(StartupError, match=r"speakers_xtts\.pth was refused"):
        checkpoint.load_speakers(poisoned)
    assert not proof.exists()


def test_missing_misshapen_and_unexpected_tensors_are_named(folder: Path, tmp_path: Path) -> None:
    tensors = torch.load(folder / "model.pth", weights_only=False)["model"]
    del tensors["gpt.final_norm.bias"]
    tensors["mel_stats"] = torch.ones(81)
    tensors["gpt.surprise"] = torch.ones(1)
    broken = sibling(folder, tmp_path / "broken", model={"model": tensors})
    with pytest.raises(StartupError) as caught:
        checkpoint.load(broken, "cpu")
    message = str(caught.value)
    assert all(name in message for name in ("gpt.final_norm.bias", "mel_stats", "gpt.surprise"))


def test_a_fine_tuned_checkpoint_is_loaded_and_tells_itself_apart(folder: Path, tmp_path: Path) -> None:
    official = torch.load(folder / "model.pth", weights_only=False)["model"]
    tensors = {f"xtts.{name}": tensor for name, tensor in official.items()}
    tensors["xtts.gpt.mel_head.bias"] = official["gpt.mel_head.bias"] + 1
    tensors["xtts.gpt.gpt.wte.weight"] = official["gpt.mel_embedding.weight"]
    tensors["xtts.gpt.gpt_inference.final_norm.bias"] = official["gpt.final_norm.bias"]
    tensors["xtts.gpt.final_norm.bias"] = official["gpt.final_norm.bias"].half()
    tensors["dvae.codebook"] = torch.ones(1)
    tuned = sibling(folder, tmp_path / "tuned", model={"model": tensors})
    model = checkpoint.load(tuned, "cpu")
    assert torch.equal(model.gpt.mel_head.bias, official["gpt.mel_head.bias"] + 1)
    assert model.gpt.final_norm.bias.dtype == torch.float32

    plain = sibling(folder, tmp_path / "plain", model={"model": official})
    official["gpt.mel_head.bias"][7] += 1
    nudged = sibling(folder, tmp_path / "nudged", model={"model": official})
    assert (plain / "model.pth").stat().st_size == (nudged / "model.pth").stat().st_size
    fingerprints = {checkpoint.fingerprint(each) for each in (folder, tuned, plain, nudged)}
    assert len(fingerprints) == 4
    assert checkpoint.fingerprint(folder).endswith("-random-weights")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", "{"),
        ("config.json", "[]"),
        ("vocab.json", "{}"),
        ("vocab.json", json.dumps({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}})),
        ("model.pth", "no zip"),
    ],
)
def test_a_broken_file_is_named(folder: Path, tmp_path: Path, name: str, content: str) -> None:
    broken = sibling(folder, tmp_path / "broken", model={"model": {}})
    (broken / name).write_text(content)
    with pytest.raises(StartupError, match=name):
        checkpoint.load(broken, "cpu")


# Text.


@pytest.mark.parametrize("language", sorted(set(SENTENCES) - {"hi"}))
def test_text_is_read_as_coqui_reads_it(engine: XttsEngine, language: Language) -> None:
    tokenizer = engine.model.tokenizer
    reading = read(tokenizer, f" {SENTENCES[language]}", language)
    assert reading.text_ids == tokenizer.encode(SENTENCES[language].lower(), "zh-cn" if language == "zh" else language)
    assert tokenizer.tokenizer.token_to_id("[UNK]") not in reading.text_ids


@pytest.mark.parametrize(
    ("language", "text", "words"),
    [
        (
            "hi",
            "दर 12.50 है",
            f"दर एक दो {HINDI_POINT} पाँच शून्य है",
        ),
        ("cs", "bylo to v roce 1989.", "bylo to v roce tisíc devětset osmdesát devět ."),
        ("es", f"son {'9' * 40} y más", f"son {'nueve ' * 40}y más"),
    ],
)
def test_numbers_that_coqui_fails_on_are_spoken_all_the_same(
    engine: XttsEngine, language: Language, text: str, words: str
) -> None:
    tokenizer = engine.model.tokenizer
    with pytest.raises((NotImplementedError, OverflowError)):
        tokenizer.encode(text, language)
    said = tokenizer.decode(read(tokenizer, text, language).text_ids)
    assert said == f"[{language}]{words}"


# The vocoder.


@pytest.mark.parametrize("scale", [4.0, 24_000 / 22_050, 1 / 0.7, 1 / 0.95, 1 / 1.9])
@pytest.mark.parametrize("count", [1, 7, 40, 333])
def test_settled_values_are_those_that_more_input_does_not_change(scale: float, count: int) -> None:
    inputs = torch.rand(1, 1, 2500, generator=torch.Generator().manual_seed(0))
    part, whole = stretched(inputs[..., :count], scale), stretched(inputs, scale)
    settled = settled_outputs(count, scale)
    assert torch.equal(part[..., :settled], whole[..., :settled])
    assert (count - 0.5) * scale - settled < 1.6, "and hardly any of them waits"
    reference = torch.nn.functional.interpolate(inputs, scale_factor=scale, mode="linear")
    np.testing.assert_allclose(whole.numpy(), reference.numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("sizes", "speed"),
    [((8, 4, 7), 1.0), ((8, 13), 0.95), ((8, 6), 0.7), ((8, 7, 10), 1.9), ((9, 0), 1.0), ((1,), 3.0)],
)
def test_windows_make_the_samples_of_the_whole(
    engine: XttsEngine, folder: Path, sizes: tuple[int, ...], speed: float
) -> None:
    decoder = engine.model.hifigan_decoder
    embedding = voice_of(engine, folder).speaker_embedding
    latents = torch.randn(sum(sizes), decoder.waveform_decoder.conv_pre.in_channels, generator=torch.Generator())
    vocoder = WindowedVocoder(decoder, speaker_embedding=embedding, speed=speed)
    rows = iter(latents[:, None])
    pushes = [[next(rows) for _ in range(size)] for size in sizes]
    chunks = [vocoder.push(push, last=push is pushes[-1]) for push in pushes]

    stretched = latents.T[None]
    if speed != 1.0 and len(latents) > 1:
        stretched = torch.nn.functional.interpolate(stretched, scale_factor=1 / speed, mode="linear")
    with torch.inference_mode():
        expected = decoder(stretched.transpose(1, 2), g=embedding)[0, 0].numpy()
    np.testing.assert_allclose(np.concatenate(chunks), expected, atol=EXACT, rtol=0)
    assert expected.std() > 0.1, "a constant would prove nothing"


# The engine.


@pytest.mark.parametrize("speed", [1.0, 1.3])
async def test_streamed_speech_is_what_coqui_makes_of_the_whole(engine: XttsEngine, folder: Path, speed: float) -> None:
    text, voice = "Hello there, how are you?", voice_of(engine, folder)
    sampling = short_take(engine, folder, text, above=8)
    torch.manual_seed(sampling.seed)
    expected = engine.model.inference(text, "en", voice.gpt_latents, voice.speaker_embedding, speed=speed)
    chunks = [chunk.samples async for chunk in speak(engine, text, sampling=sampling, speed=speed)]
    assert len(chunks) > 1
    np.testing.assert_allclose(np.concatenate(chunks), expected["wav"], atol=EXACT, rtol=0)


async def test_latents_drawn_are_those_of_coquis_second_pass(engine: XttsEngine, folder: Path) -> None:
    sampling = short_take(engine, folder, "Hello.", above=8)
    request = coqui.Request("Hello.", "en", voice_of(engine, folder), speed=1.0, sampling=sampling)
    rows = list(coqui.latents(engine.model, request, read(engine.model.tokenizer, "Hello.", "en")))
    torch.manual_seed(sampling.seed)
    expected = engine.model.inference("Hello.", "en", request.voice.gpt_latents, request.voice.speaker_embedding)
    np.testing.assert_allclose(torch.cat(rows).numpy(), expected["gpt_latents"][0], atol=1e-5)


async def test_seed_decides(engine: XttsEngine) -> None:
    takes = [await whole(first_chunk(speak(engine, "Hello.", sampling=Sampling(seed=seed)))) for seed in (1, 1, 2)]
    assert np.array_equal(takes[0], takes[1])
    assert not np.array_equal(takes[0], takes[2])


async def test_first_chunk_arrives_before_the_rest_is_computed(engine: XttsEngine) -> None:
    released = threading.Event()

    def hold(number: int) -> None:
        if number == 13:
            assert released.wait(timeout=60)

    with before_each_code(engine, hold) as numbers:
        async with aclosing(speak(engine, "Hello.")) as chunks:
            first = await anext(chunks)
            assert not released.is_set()
            assert max(numbers) <= 13
            released.set()
            second = await anext(chunks)
    assert len(second.samples) > len(first.samples) >= 2048


async def test_utterances_at_once_are_those_spoken_alone(engine: XttsEngine, folder: Path) -> None:
    takes = {text: short_take(engine, folder, text, above=8) for text in ("Good morning.", "Guten Abend, meine Damen.")}
    alone = [await whole(speak(engine, text, sampling=sampling)) for text, sampling in takes.items()]
    together = await asyncio.gather(
        *(whole(speak(engine, text, sampling=sampling)) for text, sampling in takes.items())
    )
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))


async def test_nothing_is_computed_for_a_listener_that_left(engine: XttsEngine) -> None:
    left = threading.Event()

    def hold(number: int) -> None:
        if number == 13:
            assert left.wait(timeout=60)

    with before_each_code(engine, hold) as numbers:
        await whole(first_chunk(speak(engine, "Hello.")))
        left.set()
        await engine.clone([a_clip(seconds=1.0)])  # waits for the thread
        assert max(numbers) <= 13


async def test_an_error_ends_its_own_utterance_only(engine: XttsEngine, folder: Path) -> None:
    sampling = short_take(engine, folder, "Hello.")
    alone = await whole(speak(engine, "Hello.", sampling=sampling))

    def fail(number: int) -> None:
        if number == 10:
            raise RuntimeError("CUDA says no")

    with before_each_code(engine, fail), pytest.raises(RuntimeError, match="CUDA says no"):
        await whole(speak(engine, "Hello."))
    with pytest.raises(TextTooLong, match="the model takes 401"):
        await whole(speak(engine, "1 " * 300))
    assert np.array_equal(await whole(speak(engine, "Hello.", sampling=sampling)), alone)


async def test_a_runaway_ends_with_its_budget(engine: XttsEngine) -> None:
    with before_each_code(engine, lambda _: None) as numbers:
        await whole(speak(engine, "Hi.", speed=4.0))
    assert max(numbers) == coqui.code_budget(len("hi.")) == 50


@pytest.mark.parametrize("language", get_args(Language))
async def test_every_language_is_spoken(engine: XttsEngine, language: Language) -> None:
    samples = await whole(first_chunk(speak(engine, SENTENCES[language], language=language)))
    assert samples.dtype == np.float32
    assert 0.05 < samples.std() < 1
    assert engine.max_chars(language) >= len(SENTENCES[language])


# Voices.


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


async def test_a_clone_is_what_coqui_computes_from_files(
    engine: XttsEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = [a_clip(seconds=5.2, rate_hz=24_000), a_clip(seconds=3.1, rate_hz=44_100, seed=1)]
    paths = [tmp_path / f"{index}.wav" for index in range(len(clips))]
    for path, clip in zip(paths, clips, strict=True):
        soundfile.write(path, clip.samples, clip.sample_rate_hz, subtype="FLOAT")
    clone = await engine.clone(clips)

    def load_wav(path: Path) -> tuple[torch.Tensor, int]:
        samples, rate_hz = soundfile.read(path, dtype="float32")
        return torch.tensor(samples)[None], rate_hz

    monkeypatch.setattr(torchaudio, "load", load_wav)
    model: Xtts = engine.model
    latents, embedding = model.get_conditioning_latents(paths, max_ref_length=30, gpt_cond_len=30, gpt_cond_chunk_len=4)
    np.testing.assert_allclose(clone.conditioning["gpt_latents"], latents[0].numpy(), atol=1e-5)
    np.testing.assert_allclose(clone.conditioning["speaker_embedding"], embedding[0, :, 0].numpy(), atol=1e-5)
    assert clone.conditioning["gpt_latents"].dtype == clone.conditioning["speaker_embedding"].dtype == np.float32


async def test_a_cloned_voice_speaks_with_its_own_sound(engine: XttsEngine) -> None:
    speakers = [await engine.clone([a_clip(seconds=2.0, seed=seed)]) for seed in (0, 3)]
    first, other = [await whole(first_chunk(speak(engine, "Hello.", speaker=speaker))) for speaker in speakers]
    assert np.abs(first - other).max() > 1e-3


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
        await whole(speak(engine, "Hello.", speaker=Speaker(builtin="somebody")))


async def test_closing_ends_what_is_spoken_and_refuses_the_rest(folder: Path, tmp_path: Path) -> None:
    nameless = sibling(folder, tmp_path / "nameless", model=torch.load(folder / "model.pth", weights_only=False))
    (nameless / "speakers_xtts.pth").unlink()
    engine = XttsEngine(nameless, device="auto")
    assert list(engine.voices()) == []
    speaker = await engine.clone([a_clip(seconds=1.0)])
    spoken, waiting = (asyncio.create_task(whole(speak(engine, "Hello.", speaker=speaker))) for _ in range(2))
    await asyncio.sleep(0)
    await engine.close()
    for cut_off in (spoken, waiting, whole(speak(engine, "Hello.", speaker=speaker))):
        with pytest.raises(Cancelled):
            await cut_off
