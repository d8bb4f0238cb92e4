"""`make run` itself: the words heard in its file are the text's, whole and streamed alike."""

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.listening import dtw_faults, heard_words, word_errors
from tts_core.audio.reference import ReferenceReader
from tts_core.espeak import EspeakEngine
from tts_core.types import Audience, FloatArray, Manner, Utterance

ROOT = Path(__file__).parent.parent
JOB: dict[str, Any] = json.loads((ROOT / "test_input.json").read_text())["input"]


def run(tmp_path: Path, *args: str, stdin: str = "") -> tuple[dict[str, Any], FloatArray, int]:
    """The summary, the audio and its rate, of one run of handler.py as a user starts it."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("XTTS_", "RUNPOD_"))}
    done = subprocess.run(
        [sys.executable, "handler.py", "--out", str(tmp_path / "out"), *args],
        cwd=ROOT,
        env=ours | {"XTTS_DATA_DIR": str(tmp_path / "data")},
        input=stdin,
        capture_output=True,
        text=True,
        check=True,
    )
    summary = json.loads(done.stdout.splitlines()[-1])
    samples, rate_hz = soundfile.read(summary["audio_path"], dtype="float32")
    return summary, np.asarray(samples), rate_hz


def own_rendering(text: str) -> tuple[FloatArray, int]:
    """What the engine makes of the whole text in one go, without our planning, joining and encoding."""

    async def render() -> tuple[FloatArray, int]:
        reader, engine = ReferenceReader(max_bytes=10_000_000), EspeakEngine()
        try:
            clip = await reader.read((ROOT / "samples/nova.flac").read_bytes())
            manner = Manner(await engine.clone([clip]), "en")
            stream = engine.speak(Utterance(text, 0, len(text)), manner, Audience())
            return np.concatenate([chunk.samples async for chunk in stream]), engine.sample_rate_hz
        finally:
            await reader.close()
            await engine.close()

    return asyncio.run(render())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], FloatArray, int]:
    return run(tmp_path_factory.mktemp("run"))


def test_the_summary_says_what_happened(whole: tuple[dict[str, Any], FloatArray, int]) -> None:
    summary, samples, rate_hz = whole
    assert (summary["status"], summary["engine"], summary["text"]) == ("success", "espeak", JOB["text"])
    assert len(samples) / rate_hz == pytest.approx(summary["duration"], abs=0.001)
    assert summary["audio_path"].endswith(f"{summary['request_id']}.wav")
    assert list(summary["timings_ms"]) == ["prepared", "first_audio", "spoken", "kept"]


def test_the_words_heard_are_the_texts(whole: tuple[dict[str, Any], FloatArray, int]) -> None:
    _, samples, rate_hz = whole
    expected, expected_rate_hz = own_rendering(JOB["text"])
    assert dtw_faults(samples, expected, rate_hz, expected_rate_hz=expected_rate_hz) == []
    errors = word_errors(heard_words(samples, rate_hz, JOB["text"]), JOB["text"])
    assert errors.dropped == ()


@pytest.mark.parametrize("word", ["welcome", "dining", "ticket", "pleasant"])
def test_a_dropped_word_is_heard(whole: tuple[dict[str, Any], FloatArray, int], word: str) -> None:
    _, samples, rate_hz = whole
    faulty, faulty_rate_hz = own_rendering(JOB["text"].replace(f"{word} ", "", 1))
    assert dtw_faults(samples, faulty, rate_hz, expected_rate_hz=faulty_rate_hz) != []


def test_a_dropped_sentence_is_missed_by_the_recogniser() -> None:
    sentence = "Please keep your ticket ready, because the conductor will pass through shortly after departure."
    assert sentence in JOB["text"]
    faulty, rate_hz = own_rendering(JOB["text"].replace(sentence, ""))
    dropped = word_errors(heard_words(faulty, rate_hz, JOB["text"]), JOB["text"]).dropped
    assert len(dropped) > len(sentence.split()) / 2


def test_streamed_and_whole_audio_are_identical(whole: tuple[dict[str, Any], FloatArray, int], tmp_path: Path) -> None:
    body = JOB | {"streaming": True, "reference_audio_base64": f"@{ROOT}/samples/nova.flac"}
    summary, samples, rate_hz = run(tmp_path, "--job", "-", stdin=json.dumps({"input": body}))
    assert summary["chunks"] > 3
    assert rate_hz == whole[2]
    np.testing.assert_array_equal(samples, whole[1])


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_job_has_its_summary_and_its_usage_row(tmp_path: Path, stop: signal.Signals) -> None:
    job = {"text": "The quick brown fox jumps over the lazy dog. " * 400, "progress": True, "language": "en"}
    command = [sys.executable, "handler.py", "--job", "-", "--out", str(tmp_path / "out")]
    env = dict(os.environ) | {"XTTS_DATA_DIR": str(tmp_path / "data")}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, env=env, text=True, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(job))
        process.stdin.close()
        while "utterances" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(stop)
        assert json.loads(process.stdout.read().splitlines()[-1]) == {"status": "cancelled"}
        assert process.wait() == 1
    with sqlite3.connect(tmp_path / "data" / "store.db") as database:
        ((status, seconds),) = database.execute("select status, audio_seconds from usage_logs")
    database.close()
    assert status == "cancelled"
    assert seconds > 0


def test_the_alignments_are_written_beside_the_audio(whole: tuple[dict[str, Any], FloatArray, int]) -> None:
    items = json.loads(Path(whole[0]["alignments_path"]).read_text())
    assert next(item["text"] for item in items if item["type"] == "sentence").startswith("Good morning")


def test_a_refused_job_exits_with_1_and_says_why(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        run(tmp_path, "--job", "-", stdin='{"text": ""}')
    assert failed.value.returncode == 1
    assert json.loads(failed.value.stdout.splitlines()[-1])["error"]["code"] == "text_empty"


@pytest.mark.parametrize("stdin", ["", "nonsense", "[" * 5000])
def test_a_file_that_is_no_job_exits_with_2(tmp_path: Path, stdin: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        run(tmp_path, "--job", "-", stdin=stdin)
    assert failed.value.returncode == 2
    assert failed.value.stderr.startswith("invalid_input")
