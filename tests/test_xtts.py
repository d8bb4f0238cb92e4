"""The XTTS path against coqui-tts itself, on random weights in the official files. Nothing here is about quality."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from TTS.tts.layers.xtts.tokenizer import VoiceBpeTokenizer

from tests.tiny_xtts import build
from tts_core.errors import StartupError
from tts_core.types import (
    Language,
)
from tts_core.xtts import checkpoint, weights
from tts_core.xtts.reading import HINDI_POINT, read

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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "xtts_v2"
    build(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> VoiceBpeTokenizer:
    return checkpoint.read_tokenizer(folder)


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
def test_text_is_read_as_coqui_reads_it(tokenizer: VoiceBpeTokenizer, language: Language) -> None:
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
    tokenizer: VoiceBpeTokenizer, language: Language, text: str, words: str
) -> None:
    with pytest.raises((NotImplementedError, OverflowError)):
        tokenizer.encode(text, language)
    said = tokenizer.decode(read(tokenizer, text, language).text_ids)
    assert said == f"[{language}]{words}"
