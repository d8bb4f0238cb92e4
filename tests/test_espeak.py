"""The embedded engine: exact, parallel, stoppable, and deaf to orders hidden in a text."""

import asyncio
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from tts_core.errors import Cancelled, ReferenceTooShort, StartupError, TextUnspeakable, VoiceNotFound
from tts_core.espeak import EspeakEngine
from tts_core.espeak.clone import measure, voiced_pitches_hz
from tts_core.espeak.engine import LANGUAGE_VOICES, VARIANTS
from tts_core.espeak.kana import KanaReader
from tts_core.espeak.library import Block, EspeakLibrary, Mark, Setting
from tts_core.espeak.words import SpokenText, WordTimer
from tts_core.types import (
    Audience,
    AudioChunk,
    ClipReport,
    FloatArray,
    Language,
    Manner,
    ReferenceClip,
    Speaker,
    Utterance,
    WordTiming,
)

NOVA = Speaker(builtin="nova")

TEXTS: dict[Language, str] = {
    "en": "The old man walks slowly through the forest, and nobody knows the reason.",
    "es": "El perro corre por la casa grande y nadie sabe por qué.",
    "fr": "Le chat dort sur la table de la cuisine, et personne ne sait pourquoi.",
    "de": "Der alte Mann geht langsam durch den Wald, und niemand kennt den Grund.",
    "it": "Il gatto dorme sul tavolo della cucina e nessuno sa perché.",
    "pt": "O gato dorme na mesa da cozinha e ninguém sabe por quê.",
    "pl": "Stary człowiek idzie powoli przez las i nikt nie wie dlaczego.",
    "tr": "Yaşlı adam ormanda yavaşça yürüyor ve kimse nedenini bilmiyor.",
    "ru": "Старый человек медленно идёт через лес, и никто не знает почему.",
    "nl": "De oude man loopt langzaam door het bos en niemand weet waarom.",
    "cs": "Starý muž jde pomalu lesem a nikdo neví proč.",
    "ar": "الرجل العجوز يمشي ببطء في الغابة ولا أحد يعرف لماذا.",
    "zh": "老人慢慢地走过森林，没有人知道为什么。",
    "hu": "Az öreg ember lassan megy az erdőben, és senki sem tudja, miért.",
    "ko": "노인이 숲속을 천천히 걷고 있는데 아무도 이유를 모릅니다.",
    "ja": "老人は森の中をゆっくり歩いています。誰も理由を知りません。",
    "hi": "बूढ़ा आदमी जंगल में धीरे धीरे चल रहा है और कोई नहीं जानता क्यों।",
}

LONG_TEXT = "This sentence goes on and on without ever coming to an end. " * 200

ROOT = Path(__file__).parents[1]

PARENT = """
import sys, threading, time
from functools import partial
from tts_core.espeak.library import EspeakLibrary, Setting

library = EspeakLibrary()
spoken = threading.Semaphore(0)

def stall(block):
    spoken.release()
    time.sleep(600)

for _ in range(int(sys.argv[1])):
    speak = partial(library.render, "On and on it goes. " * 40_000, Setting("en-us"), deliver=stall)
    threading.Thread(target=speak, daemon=True).start()
    spoken.acquire()
print("started", flush=True)
time.sleep(600)
"""


@pytest.fixture
async def engine() -> AsyncIterator[EspeakEngine]:
    engine = EspeakEngine()
    yield engine
    await engine.close()


async def say(
    engine: EspeakEngine, text: str, *, speaker: Speaker = NOVA, language: Language = "en", speed: float = 1.0
) -> AudioChunk:
    """All chunks of one utterance as one."""
    utterance = Utterance(text, 0, len(text))
    stream = engine.speak(utterance, Manner(speaker, language, speed), Audience())
    chunks = [chunk async for chunk in stream]
    words = tuple(word for chunk in chunks for word in chunk.words)
    return AudioChunk(np.concatenate([chunk.samples for chunk in chunks]), words)


async def spoken_words(engine: EspeakEngine, text: str, language: Language) -> list[str]:
    chunk = await say(engine, text, language=language)
    return [text[word.start : word.end] for word in chunk.words]


def a_clip(samples: FloatArray, sample_rate_hz: int = 22_050) -> ReferenceClip:
    length_s = len(samples) / sample_rate_hz
    return ReferenceClip(samples, sample_rate_hz, ClipReport(length_s, length_s, 0.7, 0.0, 30.0, -20.0, 8000.0))


def median_pitch_hz(samples: FloatArray) -> float:
    return float(np.median(voiced_pitches_hz(samples, 22_050)))


def children(parent: int | str = "self") -> set[int]:
    """Processes that have eSpeak loaded; other tests of this process may have children of their own."""
    tasks = Path(f"/proc/{parent}/task").iterdir()
    pids = {int(pid) for task in tasks for pid in (task / "children").read_text().split()}
    return {pid for pid in pids if b"espeak/child.py" in Path(f"/proc/{pid}/cmdline").read_bytes()}


def forks() -> set[int]:
    """Those in which it speaks."""
    return {fork for child in children() for fork in children(child)}


def all_forks_end() -> bool:
    return all(has_ended(fork) for fork in forks())


def has_ended(pid: int) -> bool:
    """Within ten seconds; readable is what a pidfd becomes when its process has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    with os.fdopen(pidfd) as process:
        return bool(select.select([process], [], [], 10)[0])


def level(samples: FloatArray) -> float:
    return float(np.sqrt(np.mean(np.square(samples))))


@pytest.mark.parametrize("text", ["7", "I", "Plan B", "or a", "or a.", "a b c"])
async def test_a_last_word_of_one_character_is_timed_too(engine: EspeakEngine, text: str) -> None:
    chunk = await say(engine, text, language="en")
    assert [text[word.start : word.end] for word in chunk.words] == text.rstrip(".").split()


@pytest.mark.parametrize("language", list(LANGUAGE_VOICES))
async def test_every_language_is_spoken_and_its_words_cover_the_text(engine: EspeakEngine, language: Language) -> None:
    text = TEXTS[language]
    chunk = await say(engine, text, language=language)
    seconds = len(chunk.samples) / engine.sample_rate_hz
    assert chunk.samples.dtype == np.float32
    assert level(chunk.samples) > 0.02
    assert np.abs(chunk.samples).max() < 1.0
    assert 2.0 < seconds < 8.0

    told = "".join(text[word.start : word.end] for word in chunk.words)
    assert [c for c in told if not c.isspace()] == [c for c in text if not c.isspace() and c not in ".,，。।"]
    edges = [edge for word in chunk.words for edge in (word.start_s, word.end_s)]
    assert edges == sorted(edges)
    assert edges[0] == 0.0
    assert seconds - 0.15 < edges[-1] <= seconds


async def test_the_same_arguments_give_the_same_samples_beside_others_and_at_another_time(
    engine: EspeakEngine,
) -> None:
    first = [await say(engine, TEXTS["de"], speaker=Speaker(voice.id), language="de") for voice in engine.voices()]
    await asyncio.sleep(1.0)  # eSpeak itself seeds its noise with the second of the day
    speakers = [Speaker(voice.id) for voice in engine.voices()] * 2
    again = await asyncio.gather(*(say(engine, TEXTS["de"], speaker=speaker, language="de") for speaker in speakers))
    for number, chunk in enumerate(again):
        assert np.array_equal(chunk.samples, first[number % len(first)].samples)
        assert chunk.words == first[number % len(first)].words
    assert len({chunk.samples.tobytes() for chunk in again}) == len(engine.voices())


async def test_nothing_is_left_behind(engine: EspeakEngine) -> None:
    await asyncio.gather(*(say(engine, "Warm up.") for _ in range(4)))
    descriptors = set(os.listdir("/proc/self/fd"))
    await asyncio.gather(*(say(engine, "Nothing is left behind.") for _ in range(12)))
    assert set(os.listdir("/proc/self/fd")) == descriptors
    assert all_forks_end()


async def test_audio_arrives_in_blocks(engine: EspeakEngine) -> None:
    text = TEXTS["en"]
    stream = engine.speak(Utterance(text, 0, len(text)), Manner(NOVA, "en"), Audience())
    sizes = [len(chunk.samples) async for chunk in stream]
    assert len(sizes) > 8
    assert max(sizes) <= engine.sample_rate_hz // 4 + 1


async def test_closing_the_stream_stops_the_work(engine: EspeakEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = 0
    original = WordTimer.feed

    def counting(self: WordTimer, block: Block) -> tuple[WordTiming, ...]:
        nonlocal blocks
        blocks += 1
        time.sleep(0.001)  # gives the reader its turn
        return original(self, block)

    monkeypatch.setattr(WordTimer, "feed", counting)
    stream = engine.speak(Utterance(LONG_TEXT, 0, len(LONG_TEXT)), Manner(NOVA, "en"), Audience())
    await anext(stream)
    await stream.aclose()
    stopped_at = blocks
    assert stopped_at < 400, "the whole text has more than 2,500 blocks"
    assert all_forks_end()
    await say(engine, "Still alive.")


async def test_closing_the_engine_cuts_short_and_refuses() -> None:
    engine = EspeakEngine(threads=1)
    stream = engine.speak(Utterance(LONG_TEXT, 0, len(LONG_TEXT)), Manner(NOVA, "en"), Audience())
    await anext(stream)
    await engine.close()
    with pytest.raises(Cancelled):
        async for _ in stream:
            pass
    with pytest.raises(Cancelled):
        await say(engine, "Too late.")


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ("one <break time='5s'/> two", ["one <", "break", "time", "=", "5s", ">", "two"]),
        ("one <audio src='/etc/passwd'/> two", ["one <", "audio", "src", "=", "etc", "passwd", ">", "two"]),
        ("one &lt; two", ["one", "lt", "two"]),
        ("one [[h@'loU w'3:ld]] two", ["one", "h", "loU", "w", "3", "ld", "two"]),
        ("one \x0199P\x01400S two", ["one", "99P", "400S", "two"]),
        ("one \x00 two", ["one", "two"]),
        ("one \ue001\uf8ff two", ["one", "two"]),
    ],
)
async def test_orders_in_a_text_are_read_out(engine: EspeakEngine, order: str, words: list[str]) -> None:
    """Each word of the order is spoken, and the last word sounds as it does without the order."""
    obeyed, plain = await say(engine, order), await say(engine, "one and then it is two")
    assert [order[word.start : word.end] for word in obeyed.words] == words
    lengths_s = [chunk.words[-1].end_s - chunk.words[-1].start_s for chunk in (obeyed, plain)]
    assert lengths_s[0] == pytest.approx(lengths_s[1], rel=0.15)
    assert median_pitch_hz(obeyed.samples) == pytest.approx(median_pitch_hz(plain.samples), rel=0.15)


def test_a_text_that_brings_espeak_down_takes_nothing_else_with_it() -> None:
    library = EspeakLibrary()
    for text, voice in (("\u28ff", "ar"), ("s'" * 220, "en-us")):
        with pytest.raises(TextUnspeakable):
            library.render(text, Setting(voice), deliver=lambda block: True)
        assert library.render(SpokenText.of(text).text, Setting(voice), deliver=lambda block: True)


def test_the_child_knows_none_of_our_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "of ours")
    before = children()
    library = EspeakLibrary()
    (child,) = children() - before
    assert Path(f"/proc/{child}/environ").read_bytes() == b""
    files = {entry.name: os.readlink(entry) for entry in Path(f"/proc/{child}/fd").iterdir()}
    assert files.pop("0").startswith("socket:")
    assert files == {"1": "/dev/null", "2": "/dev/null"}
    library.close()
    assert child not in children()


async def test_a_fork_cannot_take_the_orders_of_others(engine: EspeakEngine) -> None:
    stream = engine.speak(Utterance(LONG_TEXT, 0, len(LONG_TEXT)), Manner(NOVA, "en"), Audience())
    await anext(stream)
    (fork,) = forks()
    sockets = {entry.name for entry in Path(f"/proc/{fork}/fd").iterdir() if "socket:" in os.readlink(entry)}
    assert len(sockets) == 1
    assert "0" not in sockets
    await stream.aclose()


async def test_a_child_that_was_killed_is_replaced_before_anyone_notices() -> None:
    others = children()
    engine = EspeakEngine()
    before = await say(engine, TEXTS["en"])
    (child,) = children() - others
    os.kill(child, signal.SIGKILL)
    again = await asyncio.gather(*(say(engine, TEXTS["en"]) for _ in range(4)))
    assert all(np.array_equal(chunk.samples, before.samples) for chunk in again)
    await engine.close()


@pytest.mark.parametrize("asked", [0, 1])
def test_children_do_not_outlive_a_worker_that_is_killed(asked: int) -> None:
    """asked: texts that are being spoken meanwhile"""
    with subprocess.Popen([sys.executable, "-c", PARENT, str(asked)], stdout=subprocess.PIPE, cwd=ROOT) as parent:
        assert parent.stdout
        assert parent.stdout.readline() == b"started\n"
        orphans = children(parent.pid)
        orphans |= {fork for child in orphans for fork in children(child)}
        assert len(orphans) == 1 + asked
        parent.kill()
    assert all(has_ended(orphan) for orphan in orphans)


def test_what_espeak_cannot_take_is_left_out_without_losing_its_place() -> None:
    spoken = SpokenText.of("a\x01b \u28ff " + "x" * 50 + " é你")
    assert spoken.text == "a b   " + "x" * 40 + " " + "x" * 10 + " é你"
    assert [spoken.source[spoken.origin[spoken.text.index(char)]] for char in "abé你"] == list("abé你")
    assert len(spoken.origin) == len(spoken.text)


async def test_a_text_with_nothing_to_say_is_all_but_empty(engine: EspeakEngine) -> None:
    for text in ("", "   ", "...", "\x00", "\ud800"):
        chunk = await say(engine, text)
        assert len(chunk.samples) < 0.01 * engine.sample_rate_hz
        assert chunk.words == ()


async def test_speed_divides_the_length_within_what_espeak_can(engine: EspeakEngine) -> None:
    lengths = [len((await say(engine, TEXTS["en"], speed=speed)).samples) for speed in (0.1, 0.5, 1.0, 2.0, 9.0)]
    assert lengths[1] == pytest.approx(2 * lengths[2], rel=0.1)
    assert lengths[3] == pytest.approx(lengths[2] / 2, rel=0.1)
    assert lengths[1] < lengths[0] < 2.3 * lengths[2]
    assert lengths[2] / 2.7 < lengths[4] < lengths[3]


async def test_words_of_english_stand_where_they_sound(engine: EspeakEngine) -> None:
    text = 'He said: "Some of the cats, 23 of them, don\'t sleep…"'
    assert await spoken_words(engine, text, "en") == [
        *("He", "said", "Some", "of the", "cats", "23", "of", "them", "don't", "sleep")
    ]


async def test_a_word_ends_before_the_pause_after_it(engine: EspeakEngine) -> None:
    chunk = await say(engine, "Stop. Go.")
    stop, go = chunk.words
    assert go.start_s - stop.end_s > 0.1


async def test_words_are_told_by_the_time_they_have_sounded(engine: EspeakEngine) -> None:
    text = TEXTS["en"]
    stream = engine.speak(Utterance(text, 0, len(text)), Manner(NOVA, "en"), Audience())
    heard_s = 0.0
    async for chunk in stream:
        heard_s += len(chunk.samples) / engine.sample_rate_hz
        assert all(word.end_s <= heard_s for word in chunk.words)


async def test_japanese_words_stand_in_the_text_with_kanji(engine: EspeakEngine) -> None:
    assert await spoken_words(engine, "東京で猫を2匹飼った。", "ja") == [
        *("東京", "で", "猫", "を", "2", "匹", "飼っ", "た")
    ]


async def test_kanji_are_spoken_as_their_kana(engine: EspeakEngine) -> None:
    kanji, kana = [(await say(engine, text, language="ja")).samples for text in ("東京", "とうきょう")]
    assert len(kanji) == pytest.approx(len(kana), abs=500)


def test_kana_reading_keeps_what_is_not_japanese_and_every_place() -> None:
    text = "今日は\U0001f44b\U0001f3fd\n彼は東京へ。Hello, 々 world!"
    spoken = KanaReader().read(text)
    assert spoken.text == "きょう わ    かれ わ とうきょう え 。Hello, 々  world!"
    assert len(spoken.origin) == len(spoken.text)
    assert list(spoken.origin) == sorted(spoken.origin)
    assert [text[spoken.origin[spoken.text.index(word)]] for word in ("とうきょう", "Hello", "world")] == list("東Hw")


def test_kana_reading_keeps_the_kanji_it_does_not_know() -> None:
    spoken = KanaReader().read("東京鲲ヹ猫")
    assert spoken.text == "とうきょう 鲲 ヹ ねこ "
    assert spoken.origin == [0] * 6 + [2] * 2 + [3] * 2 + [4] * 3


def test_an_event_inside_a_word_or_before_the_last_one_does_not_count() -> None:
    text = "abc 123 def"
    timer = WordTimer(SpokenText(text, text, range(len(text))), sample_rate_hz=10)
    marks = [Mark("word", *at) for at in ((0, 0), (4, 10), (5, 15), (6, 17), (4, 18), (8, 20), (99, 25))]
    words = timer.feed(Block(np.full(30, 0.5, np.float32), (*marks, Mark("end", 11, 30))))
    assert [(text[w.start : w.end], w.start_s, w.end_s) for w in words] == [
        *(("abc", 0.0, 1.0), ("123", 1.0, 2.0), ("def", 2.0, 3.0))
    ]


async def test_voices_have_the_gender_they_claim(engine: EspeakEngine) -> None:
    assert engine.voices()[0].id == "nova"
    assert {voice.id for voice in engine.voices()} == set(VARIANTS)
    for voice in engine.voices():
        pitch_hz = median_pitch_hz((await say(engine, TEXTS["en"], speaker=Speaker(voice.id))).samples)
        assert (voice.gender == "male") == (pitch_hz < 150), voice.id


@pytest.mark.parametrize(("variant", "pitch"), [("m3", 10), ("Alex", 60), ("f1", 35), ("Annie", 40), ("f5", 80)])
async def test_a_cloned_voice_has_the_pitch_of_its_clip(engine: EspeakEngine, variant: str, pitch: int) -> None:
    clip = rendered(TEXTS["en"], Setting(f"en-us+{variant}", 175, pitch))
    speaker = await engine.clone([a_clip(clip)])
    assert {key: value.shape for key, value in speaker.conditioning.items()} == {"pitch_hz": (1,), "pace_per_s": (1,)}
    for language in ("en", "zh", "fr"):
        again = (await say(engine, TEXTS[language], speaker=speaker, language=language)).samples
        assert median_pitch_hz(again) == pytest.approx(median_pitch_hz(clip), rel=0.15)


async def test_a_higher_or_faster_clip_makes_a_higher_or_faster_voice(engine: EspeakEngine) -> None:
    settings = [Setting("en-us+f2", rate, pitch) for rate, pitch in ((140, 20), (140, 80), (230, 20))]
    speakers = [await engine.clone([a_clip(rendered(TEXTS["en"], setting))]) for setting in settings]
    base, higher, faster = [(await say(engine, TEXTS["en"], speaker=speaker)).samples for speaker in speakers]
    assert median_pitch_hz(higher) > 1.5 * median_pitch_hz(base)
    assert len(faster) < 0.85 * len(base)


async def test_clips_are_measured_together_whatever_their_rate(engine: EspeakEngine) -> None:
    clip = rendered(TEXTS["en"], Setting("en-us+f2", 175, 50))
    slow = a_clip(clip[::2].copy(), 11_025)
    both, one = measure([a_clip(clip), slow]), measure([a_clip(clip)])
    assert both.conditioning["pitch_hz"] == pytest.approx(one.conditioning["pitch_hz"], rel=0.02)
    assert both.conditioning["pace_per_s"] == pytest.approx(one.conditioning["pace_per_s"], rel=0.05)


@pytest.mark.parametrize("kind", ["silence", "noise", "short", "empty", "none"])
async def test_clips_without_a_second_of_voice_are_refused(engine: EspeakEngine, kind: str) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 66_150).astype(np.float32)
    silence = np.zeros(66_150, np.float32)
    short = np.concatenate((silence, rendered("Oh no.", Setting("en-us"))))
    samples = {"silence": silence, "noise": noise, "short": short, "empty": silence[:0]}
    clips = [] if kind == "none" else [a_clip(samples[kind])]
    with pytest.raises(ReferenceTooShort):
        await engine.clone(clips)


async def test_speakers_of_no_voice_or_another_engine_are_refused(engine: EspeakEngine) -> None:
    foreign = Speaker(conditioning={"gpt_latents": np.zeros((32, 1024), np.float32)})
    for speaker in (Speaker("Claribel Dervla"), foreign, Speaker()):
        with pytest.raises(VoiceNotFound):
            await say(engine, "Hello.", speaker=speaker)


async def test_a_failure_in_the_thread_reaches_the_reader(
    engine: EspeakEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: WordTimer, block: Block) -> tuple[WordTiming, ...]:
        raise ValueError("broken on purpose")

    monkeypatch.setattr(WordTimer, "feed", broken)
    with pytest.raises(ValueError, match="on purpose"):
        await say(engine, "Hello.")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "espeakng_loader", None)
    with pytest.raises(StartupError, match="espeakng-loader"):
        EspeakEngine()


def test_the_revision_names_every_part(engine: EspeakEngine) -> None:
    assert engine.revision.startswith("espeak-ng 1.52")
    assert "pykakasi 2." in engine.revision
    assert engine.sample_rate_hz == 22_050


def rendered(text: str, setting: Setting) -> FloatArray:
    blocks: list[FloatArray] = []

    def keep(block: Block) -> bool:
        blocks.append(block.samples)
        return True

    assert EspeakLibrary().render(text, setting, deliver=keep)
    return np.concatenate(blocks)
