"""Loading and voices against coqui-tts itself, on random weights. Nothing here is about quality."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from safetensors.torch import save_file
from torch import Tensor
from TTS.tts.models.xtts import Xtts

from tests.clips import speech
from tests.oracle import coqui_model
from tests.tiny_xtts import SPEAKERS, build
from tts_core.errors import ReferenceTooShort, StartupError
from tts_core.types import ClipReport, ReferenceClip
from tts_core.xtts import files, weights
from tts_core.xtts.checkpoint import convert, main
from tts_core.xtts.gpt import Gpt
from tts_core.xtts.linear import LAYOUT, PACKED, SCALE, narrow_int8, prepacked_int8, quantized
from tts_core.xtts.model import XttsModel, is_matrix, load_model
from tts_core.xtts.precision import Precision

CPU = torch.device("cpu")
EXACT = 1e-5
BF16 = Precision("bf16", torch.bfloat16, vocoder=torch.bfloat16)
FP16 = Precision("fp16", torch.float16, vocoder=torch.float16)
INT8 = Precision("int8", linear=prepacked_int8)
Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "xtts_v2"
    build(folder)
    return folder


@pytest.fixture(scope="module")
def converted(official: Path) -> Path:
    folder = official.with_name("converted")
    # As on a CPU with VNNI: what oneDNN packs can be packed, copied and compared on any other, too.
    with patch("tts_core.xtts.checkpoint.has_fast_int8", return_value=True):
        convert(official, folder, precisions=("fp32", "bf16", "int8"))
    return folder


@pytest.fixture(scope="module")
def oracle(official: Path) -> Xtts:
    return coqui_model(official)


@pytest.fixture(scope="module")
def model(converted: Path) -> XttsModel:
    return load_model(converted, device=CPU)


def all_tensors(model: XttsModel) -> Tensors:
    modules = {
        "speaker_encoder": model.voices._speaker_encoder,
        "conditioner": model.voices._conditioner,
    }
    named = {f"{part}.{name}": tensor for part in modules for name, tensor in modules[part].state_dict().items()}
    named |= {f"vocoder.{name}": tensor for name, tensor in vocoder_weights(model).items()}
    return named | {f"gpt.{name}": tensor for name, tensor in model.gpt.items()}


def vocoder_weights(model: XttsModel) -> Tensors:
    return dict(model.vocoder._generator._weights)


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def altered(folder: Path, target: Path, alter: Callable[[Tensors], object]) -> Path:
    """A copy of an official folder with other tensors."""
    target.mkdir(parents=True)
    for name in ("config.json", "vocab.json", "speakers_xtts.pth"):
        shutil.copy(folder / name, target)
    tensors = torch.load(folder / "model.pth", weights_only=False)["model"]
    alter(tensors)
    torch.save({"model": tensors}, target / "model.pth")
    return target


def edited(folder: Path, target: Path, **values: object) -> Path:
    """A copy of a folder whose config.json says something else; None takes a field away."""
    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text())
    for name, value in values.items():
        section = config["model_args"] if name in config["model_args"] else config
        section[name] = value
        if value is None:
            del section[name]
    (target / "config.json").write_text(json.dumps(config))
    return target


# Two kinds of folder, one model.


def test_a_converted_folder_is_the_official_one(official: Path, model: XttsModel) -> None:
    other = load_model(official, device=CPU)
    ours, theirs = all_tensors(model), all_tensors(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert all(tensor.dtype in (torch.float32, torch.int64) for tensor in ours.values())
    assert (model.sizes, model.fingerprint, model.is_random) == (other.sizes, other.fingerprint, True)
    assert list(model.speakers) == list(other.speakers) == list(SPEAKERS)
    for name in SPEAKERS:
        assert torch.equal(model.speakers[name].gpt_latents, other.speakers[name].gpt_latents)
        assert torch.equal(model.speakers[name].speaker_embedding, other.speakers[name].speaker_embedding)


def test_the_weights_are_those_that_coqui_loads(oracle: Xtts, model: XttsModel) -> None:
    saved = oracle.gpt.state_dict()
    for name, tensor in model.gpt.items():
        is_transposed = ".attn.c_" in name or ".mlp.c_" in name
        assert torch.equal(tensor, saved[name].T if is_transposed and tensor.dim() == 2 else saved[name]), name
    elsewhere = ("conditioning_", "text_head.", "gpt_inference.", "gpt.wte.")
    assert {name for name in saved if not name.startswith(elsewhere)} == model.gpt.keys()
    reference = oracle.hifigan_decoder.waveform_decoder.state_dict()
    vocoder = vocoder_weights(model)
    assert vocoder.keys() == reference.keys()
    assert all(torch.equal(vocoder[name], reference[name]) for name in reference)
    assert model.vocoder._upsampling == (1024 / 256, 24_000 / 22_050)
    assert model.sample_rate_hz == 24_000


def test_sizes_are_those_of_coqui(oracle: Xtts, model: XttsModel) -> None:
    gpt, sizes = oracle.gpt, model.sizes
    assert (sizes.layers, sizes.width, sizes.heads) == (gpt.layers, gpt.model_dim, gpt.heads)
    assert (sizes.max_codes, sizes.max_text) == (gpt.max_mel_tokens, gpt.max_text_tokens)
    assert (sizes.codes, sizes.start_code, sizes.stop_code) == (1026, gpt.start_audio_token, gpt.stop_audio_token)
    assert (sizes.start_text, sizes.stop_text) == (gpt.start_text_token, gpt.stop_text_token)


def test_a_gpt_of_these_weights_predicts(model: XttsModel) -> None:
    gpt = Gpt(model.gpt, model.sizes, slots=1)
    _, logits = gpt.prefill([[5, 6, 7]], [gpt.prefix(model.speakers[SPEAKERS[0]].gpt_latents)], [0])
    assert logits.shape == (1, model.sizes.codes)
    assert logits.isfinite().all()
    assert logits.std() > 0.1


def test_half_precision_is_that_of_the_gpts_weights_and_the_vocoders_work(
    official: Path, converted: Path, model: XttsModel
) -> None:
    for folder in (official, converted):
        half = load_model(folder, device=CPU, precision=BF16)
        assert all(torch.equal(half.gpt[name], tensor.bfloat16()) for name, tensor in model.gpt.items())
        assert {conv.weight.dtype for conv in half.vocoder._generator._convs.values()} == {torch.bfloat16}
        assert half.fingerprint == model.fingerprint
    rounded = load_model(converted, device=CPU, precision=FP16)  # from the file in float32
    assert all(torch.equal(rounded.gpt[name], tensor.half()) for name, tensor in model.gpt.items())


def test_matrices_are_saved_in_8_bits(converted: Path, model: XttsModel) -> None:
    small = load_model(converted, device=CPU, precision=INT8)
    assert small.fingerprint == model.fingerprint
    assert {name.removesuffix(PACKED) for name in small.gpt if name.endswith(PACKED)} == {
        name for name in model.gpt if is_matrix(f"gpt.{name}")
    }
    for name, tensor in model.gpt.items():
        if is_matrix(f"gpt.{name}"):
            ints, scales = quantized(tensor)
            assert torch.equal(small.gpt[name], ints)
            assert torch.equal(small.gpt[name + SCALE], scales)
        else:
            assert torch.equal(small.gpt[name], tensor)
    narrow = load_model(converted, device=CPU, precision=Precision("int8", linear=narrow_int8))
    assert narrow.gpt.keys() == {name for name in small.gpt if not name.endswith((PACKED, LAYOUT))}


def test_what_was_packed_of_other_weights_is_not_used(converted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(converted, folder)
    packed = files.open_converted(folder / files.PACKED_FILE)[0]
    save_file(packed, folder / files.PACKED_FILE, {"weights_digest": "another"})
    assert not any(name.endswith(PACKED) for name in load_model(folder, device=CPU, precision=INT8).gpt)


def middle_lost(data: bytes) -> bytes:
    third = len(data) // 3
    return data[:third] + b"\x55" * third + data[2 * third :]


@pytest.mark.parametrize("damage", [lambda data: data[:5000], middle_lost])
def test_a_damaged_file_of_packed_matrices_is_as_good_as_none(
    converted: Path, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(converted, folder)
    path = folder / files.PACKED_FILE
    path.write_bytes(damage(path.read_bytes()))
    assert not any(name.endswith(PACKED) for name in load_model(folder, device=CPU, precision=INT8).gpt)


def test_a_file_in_8_bits_is_not_taken_for_floats(converted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "int8"
    shutil.copytree(converted, folder)
    shutil.copyfile(folder / "xtts-int8.safetensors", folder / "xtts-fp32.safetensors")
    (folder / "xtts-int8.safetensors").unlink()
    with pytest.raises(StartupError, match="unexpected"):
        load_model(folder, device=CPU)


def test_a_file_not_precise_enough_is_refused(converted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bf16"
    shutil.copytree(converted, folder)
    for name in ("fp32", "int8"):
        (folder / f"xtts-{name}.safetensors").unlink()
    load_model(folder, device=CPU, precision=BF16)
    with pytest.raises(StartupError, match=r"xtts-bf16\.safetensors only, .*fp32"):
        load_model(folder, device=CPU)


def test_a_trainers_checkpoint_and_the_official_spelling_of_weight_norm(official: Path, tmp_path: Path) -> None:
    def respell(tensors: Tensors) -> None:
        for name in list(tensors):
            old = name.replace(".parametrizations.weight.original0", ".weight_g")
            old = old.replace(".parametrizations.weight.original1", ".weight_v")
            tensors[f"xtts.{old}"] = tensors.pop(name)
        tensors["dvae.codebook"] = torch.ones(1)
        tensors["xtts.gpt.gpt.wte.weight"] = tensors["xtts.gpt.mel_embedding.weight"]
        tensors["xtts.gpt.gpt_inference.final_norm.bias"] = tensors["xtts.gpt.final_norm.bias"]
        tensors["xtts.gpt.mel_head.bias"] = tensors["xtts.gpt.mel_head.bias"].half()

    tuned = load_model(altered(official, tmp_path / "tuned", respell), device=CPU)
    plain = load_model(official, device=CPU)
    ours, theirs = all_tensors(tuned), all_tensors(plain)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert tuned.gpt["mel_head.bias"].dtype == torch.float32
    assert not tuned.is_random
    assert tuned.fingerprint != plain.fingerprint


# Files that cannot be used.


def test_tensors_that_do_not_fit_are_named(official: Path, tmp_path: Path) -> None:
    def alter(tensors: Tensors) -> None:
        del tensors["gpt.final_norm.bias"]
        tensors["gpt.surprise"] = torch.ones(1)
        tensors["mel_stats"] = torch.ones(81)
        tensors["gpt.gpt.h.1.mlp.c_fc.weight"] = tensors["gpt.gpt.h.1.mlp.c_fc.weight"].T

    folder = altered(official, tmp_path / "broken", alter)
    for use in (lambda: load_model(folder, device=CPU), lambda: convert(folder, tmp_path / "converted")):
        with pytest.raises(StartupError) as caught:
            use()
        assert str(caught.value) == (
            "the weights of the XTTS-v2 model lack gpt.final_norm.bias; have unexpected gpt.surprise; do not fit "
            "config.json: gpt.gpt.h.1.mlp.c_fc.weight is [64, 256], not [256, 64], mel_stats is [81], not [80]"
        )
    assert [path.name for path in tmp_path.iterdir()] == ["broken"], "nothing half-made is left"


def test_values_that_are_not_finite_are_named(official: Path, tmp_path: Path) -> None:
    def alter(tensors: Tensors) -> None:
        tensors["gpt.gpt.h.0.ln_1.bias"][7] = torch.nan
        tensors["hifigan_decoder.speaker_encoder.fc.weight"][3, 5] = torch.inf
        tensors["gpt.mel_head.bias"][9] = -torch.inf

    folder = altered(official, tmp_path / "broken", alter)
    names = r"gpt\.mel_head\.bias, gpt\.gpt\.h\.0\.ln_1\.bias, hifigan_decoder\.speaker_encoder\.fc\.weight"
    with pytest.raises(StartupError, match=f"are not finite: {names}$"):
        load_model(folder, device=CPU)


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (
            lambda t: t.pop("hifigan_decoder.waveform_decoder.ups.0.parametrizations.weight.original1"),
            r"lacks hifigan_decoder\.waveform_decoder\.ups\.0\.parametrizations\.weight\.original1",
        ),
        (lambda t: t.update({"gpt.note": "text"}), r"gpt\.note is no tensor"),
    ],
)
def test_a_weight_without_direction_and_what_is_no_tensor_are_named(
    official: Path, tmp_path: Path, alter: Callable[[Tensors], object], message: str
) -> None:
    with pytest.raises(StartupError, match=message):
        load_model(altered(official, tmp_path / "broken", alter), device=CPU)


def test_large_weights_are_not_taken_for_infinite_ones(official: Path, tmp_path: Path) -> None:
    folder = altered(official, tmp_path / "large", lambda tensors: tensors["gpt.mel_head.bias"].fill_(3e38))
    assert load_model(folder, device=CPU).gpt["mel_head.bias"].isfinite().all()
    with pytest.raises(StartupError, match=r"not finite: gpt\.mel_head\.bias$"):
        load_model(folder, device=CPU, precision=FP16)


class Evil:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("name", ["model.pth", "speakers_xtts.pth"])
def test_files_that_name_code_are_refused_and_not_run(official: Path, tmp_path: Path, name: str) -> None:
    folder = altered(official, tmp_path / "poisoned", lambda tensors: None)
    torch.save({"model": Evil(f"touch {tmp_path}/proof")}, folder / name)
    for use in (lambda: load_model(folder, device=CPU), lambda: convert(folder, tmp_path / "converted")):
        with pytest.raises(StartupError, match=rf"{name} was refused: it names .*system"):
            use()
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gpt_num_audio_tokens": None, "gpt_cond_len": "30"}, "gpt_num_audio_tokens, gpt_cond_len"),
        ({"gpt_layers": True}, "gpt_layers"),
        ({"gpt_cond_chunk_len": 0}, "gpt_cond_chunk_len must be positive"),
        ({"gpt_n_heads": 5}, "no multiple of gpt_n_heads"),
        ({"gpt_use_perceiver_resampler": False}, "XTTS-v1"),
        ({"gpt_start_audio_token": 1026}, "start or stop token"),
        ({"gpt_layers": 3}, r"lack gpt\.gpt\.h\.2\.ln_1\.weight, .* and \d+ more|lack gpt\.gpt\.h\.2\.ln_1\.weight"),
        ({"gpt_num_audio_tokens": 1030}, r"gpt\.mel_embedding\.weight is \[1026, 64\], not \[1030, 64\]"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(
    converted: Path, tmp_path: Path, values: dict[str, object], message: str
) -> None:
    with pytest.raises(StartupError, match=message):
        load_model(edited(converted, tmp_path / "edited", **values), device=CPU)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", "{"),
        ("config.json", "[]"),
        ("vocab.json", "{}"),
        ("vocab.json", json.dumps({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}})),
        ("model.pth", "no zip"),
        ("model.pth", ""),
        ("speakers_xtts.pth", "no zip"),
    ],
)
def test_a_broken_file_of_an_official_folder_is_named(official: Path, tmp_path: Path, name: str, content: str) -> None:
    folder = shutil.copytree(official, tmp_path / "broken")
    (folder / name).write_text(content)
    with pytest.raises(StartupError, match=name):
        load_model(folder, device=CPU)


@pytest.mark.parametrize("name", ["config.json", "vocab.json", "xtts-fp32.safetensors", "speakers.safetensors"])
def test_a_broken_file_of_a_converted_folder_is_named(converted: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(converted, folder)
    os.truncate(folder / name, (folder / name).stat().st_size // 2)
    with pytest.raises(StartupError, match=name):
        load_model(folder, device=CPU)


def test_built_in_voices_of_another_model_are_refused(official: Path, tmp_path: Path) -> None:
    folder = altered(official, tmp_path / "mixed", lambda tensors: None)
    voice = {"gpt_cond_latent": torch.ones(1, 32, 64), "speaker_embedding": torch.ones(1, 512, 1)}
    for wrong, message in (
        (voice | {"gpt_cond_latent": torch.ones(1, 32, 1024)}, "'Alien' does not fit"),
        (voice | {"speaker_embedding": torch.full((1, 512, 1), torch.nan)}, "'Alien' has values that are not finite"),
        ({"gpt_cond_latent": torch.ones(1, 32, 64)}, "does not hold voices"),
    ):
        torch.save({"Alien": wrong}, folder / "speakers_xtts.pth")
        with pytest.raises(StartupError, match=message):
            load_model(folder, device=CPU)
    (folder / "speakers_xtts.pth").unlink()
    assert load_model(folder, device=CPU).speakers == {}


# Converting.


def test_converting_and_loading_leave_the_source_untouched(official: Path, tmp_path: Path) -> None:
    pickled = torch.load(official / "model.pth", weights_only=False)
    assert type(pickled["config"]).__name__ == "XttsConfig", "coqui re-saves only files that pickle their config"
    before = hashes(official)
    official.chmod(0o555)
    convert(official, tmp_path / "converted")
    load_model(official, device=CPU)
    official.chmod(0o755)
    assert hashes(official) == before


def test_a_converted_folder_is_found_complete_and_readable(official: Path, converted: Path) -> None:
    assert weights.find(converted) == converted
    modes = {path.stat().st_mode & 0o777 for path in converted.iterdir()}
    assert modes == {(official / "config.json").stat().st_mode & 0o777}
    assert not (converted / "model.pth").exists()


def test_no_folder_in_use_is_converted_into(official: Path, converted: Path, tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used/mine.txt").touch()
    for source, target, message in (
        (official, tmp_path / "used", "exists already"),
        (official, official / "inside", "never written to"),
        (converted, tmp_path / "again", r"lacks model\.pth"),
    ):
        with pytest.raises(StartupError, match=message):
            convert(source, target)
    (tmp_path / "empty").mkdir()
    convert(official, tmp_path / "empty")
    assert weights.find(tmp_path / "empty")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "used"]


def test_the_fingerprint_tells_models_apart(official: Path, converted: Path, tmp_path: Path) -> None:
    def nudge(tensors: Tensors) -> None:
        tensors["gpt.mel_head.bias"][7] += 1

    plain = altered(official, tmp_path / "plain", lambda tensors: None)
    nudged = altered(official, tmp_path / "nudged", nudge)
    assert (plain / "model.pth").stat().st_size == (nudged / "model.pth").stat().st_size
    convert(nudged, tmp_path / "converted")
    slower = edited(converted, tmp_path / "slower", gpt_cond_len=12)
    fewer = shutil.copytree(converted, tmp_path / "fewer")
    (fewer / "speakers.safetensors").unlink()
    marks = {load_model(folder, device=CPU).fingerprint for folder in (converted, plain, nudged, slower, fewer)}
    assert len(marks) == 5
    assert load_model(official, device=CPU).fingerprint.endswith("-random-weights")
    assert load_model(tmp_path / "converted", device=CPU).fingerprint in marks


# Voices.


def a_clip(duration_s: float, *, rate_hz: int = 24_000, seed: int = 0) -> ReferenceClip:
    samples = speech(duration_s, rate_hz=rate_hz, noise_dbfs=-40, seed=seed)[: int(duration_s * rate_hz)]
    samples = (samples * (1 + seed)).astype(np.float32)
    report = ClipReport(duration_s, duration_s, 0.5, 0, snr_db=30, loudness_dbfs=-20, bandwidth_hz=8000)
    return ReferenceClip(samples=samples, sample_rate_hz=rate_hz, report=report)


def from_files(
    oracle: Xtts, clips: Sequence[ReferenceClip], folder: Path, monkeypatch: pytest.MonkeyPatch, **how: Any
) -> tuple[Tensor, Tensor]:
    """What coqui computes of the clips as files."""
    paths = [folder / f"{index}.wav" for index in range(len(clips))]
    for path, clip in zip(paths, clips, strict=True):
        soundfile.write(path, clip.samples, clip.sample_rate_hz, subtype="FLOAT")

    def load_wav(path: Path) -> tuple[Tensor, int]:
        samples, rate_hz = soundfile.read(path, dtype="float32")
        return torch.tensor(samples)[None], rate_hz

    monkeypatch.setattr(torchaudio, "load", load_wav)
    how = {"max_ref_length": 30, "gpt_cond_len": 30, "gpt_cond_chunk_len": 4} | how
    latents, embedding = oracle.get_conditioning_latents(paths, **how)
    return latents[0], embedding[0, :, 0]


@pytest.mark.parametrize(
    "clips",
    [
        [a_clip(3.0)],
        [a_clip(4.2)],
        [a_clip(9.5, rate_hz=44_100)],
        [a_clip(5.2), a_clip(0.2), a_clip(3.1, rate_hz=44_100, seed=1)],
        [a_clip(21.0, seed=1), a_clip(11.0)],
    ],
    ids=["one", "a rest too short", "three chunks", "several", "more than is listened to"],
)
def test_voices_are_those_of_coqui(
    oracle: Xtts, model: XttsModel, clips: list[ReferenceClip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    voice = model.voices.encode(clips)
    latents, embedding = from_files(oracle, clips, tmp_path, monkeypatch)
    assert voice.gpt_latents.shape == (32, 64)
    assert voice.speaker_embedding.shape == (512,)
    np.testing.assert_allclose(voice.gpt_latents.numpy(), latents.numpy(), atol=EXACT)
    np.testing.assert_allclose(voice.speaker_embedding.numpy(), embedding.numpy(), atol=EXACT)
    other = model.voices.encode([a_clip(2.0, seed=3)])
    assert (voice.gpt_latents - other.gpt_latents).abs().max() > 100 * EXACT, "and they differ"
    assert (voice.speaker_embedding - other.speaker_embedding).abs().max() > 100 * EXACT


def test_listening_is_as_the_config_says(
    oracle: Xtts, converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = {"gpt_cond_len": 5, "gpt_cond_chunk_len": 2, "sound_norm_refs": True}
    folder = edited(converted, tmp_path / "other", max_ref_len=3, **how)
    clips = [a_clip(4.0), a_clip(4.0, seed=1)]
    voice = load_model(folder, device=CPU).voices.encode(clips)
    latents, embedding = from_files(oracle, clips, tmp_path, monkeypatch, max_ref_length=3, **how)
    np.testing.assert_allclose(voice.gpt_latents.numpy(), latents.numpy(), atol=EXACT)
    np.testing.assert_allclose(voice.speaker_embedding.numpy(), embedding.numpy(), atol=EXACT)


def test_clips_too_short_are_refused(model: XttsModel) -> None:
    with pytest.raises(ReferenceTooShort, match=r"0\.33 s"):
        model.voices.encode([a_clip(0.3)])


# What it takes.


LISTENER = """
import sys
from pathlib import Path
import numpy as np
import torch
from tts_core.types import ClipReport, ReferenceClip
from tts_core.xtts.model import load_model
state = torch.get_rng_state()
models = [load_model(Path(folder), device=torch.device("cpu")) for folder in sys.argv[1:]]
assert torch.equal(torch.get_rng_state(), state), "something was filled at random"
clip = np.random.default_rng(0).standard_normal(24000).astype(np.float32) / 10
report = ClipReport(1, 1, 0.5, 0, snr_db=30, loudness_dbfs=-20, bandwidth_hz=8000)
for model in models:
    assert model.voices.encode([ReferenceClip(clip, 24000, report)]).gpt_latents.isfinite().all()
print(sorted({"transformers", "TTS"} & sys.modules.keys()))
"""


def test_loading_and_cloning_import_neither_coqui_nor_transformers(official: Path, converted: Path) -> None:
    command = [sys.executable, "-c", LISTENER, str(official), str(converted)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    assert done.stdout == "[]\n", done.stderr


def test_converting_is_a_command(official: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["convert", str(official), str(tmp_path / "fp16"), "--precision", "fp16"]
    assert main(command) == 0
    assert load_model(tmp_path / "fp16", device=CPU, precision=FP16).gpt["mel_head.bias"].dtype == torch.half
    assert main(command) == 1
    assert capsys.readouterr() == ("", f"{tmp_path / 'fp16'} exists already\n")
