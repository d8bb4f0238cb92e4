"""The judges themselves: they let clean speech pass, and find what is left out, said twice or cut."""

import asyncio
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest

from tests.listening import Fault, dtw_faults, heard_words, resample, word_errors, words_of
from tts_core.espeak import EspeakEngine
from tts_core.types import Audience, FloatArray, Language, Manner, Speaker, Utterance

RATE_HZ = 22_050

ENGLISH = (
    ("The library opens early on Tuesday.", "Please return every borrowed book before Friday evening!"),
    ("Seven sailors crossed the frozen harbour at dawn.", "Their captain carried a lantern.", "Nobody spoke."),
    ("Could you send me the latest report, please?", "The numbers from March look strange."),
)

SENTENCES: dict[Language, tuple[str, str]] = {
    "en": ("Electric trains are quiet and fast.", "However, the old station needs a new roof."),
    "es": ("La biblioteca abre temprano los martes.", "Nadie quiere pagar otra multa este invierno."),
    "fr": ("La bibliothèque ouvre tôt le mardi.", "Personne ne veut payer une autre amende."),
    "de": ("Die Bücherei öffnet dienstags sehr früh.", "Niemand möchte noch eine Strafe bezahlen."),
    "it": ("La biblioteca apre presto il martedì.", "Nessuno vuole pagare un'altra multa."),
    "pt": ("A biblioteca abre cedo na terça.", "Ninguém quer pagar outra multa agora."),
    "pl": ("Biblioteka otwiera się wcześnie we wtorek.", "Nikt nie chce płacić kolejnej kary."),
    "tr": ("Kütüphane salı günleri erken açılır.", "Kimse bir ceza daha ödemek istemez."),
    "ru": ("Библиотека открывается рано утром.", "Никто не хочет платить новый штраф."),
    "nl": ("De bibliotheek opent vroeg op dinsdag.", "Niemand wil nog een boete betalen."),
    "cs": ("Knihovna otevírá brzy každé úterý.", "Nikdo nechce platit další pokutu."),
    "ar": ("تفتح المكتبة أبوابها مبكرا.", "لا أحد يريد دفع غرامة أخرى."),
    "zh": ("图书馆 星期二 早上 开门。", "没有人 想再 付 罚款。"),
    "hu": ("A könyvtár kedden korán nyit.", "Senki sem akar újabb bírságot fizetni."),
    "ko": ("도서관은 화요일에 일찍 문을 엽니다.", "아무도 벌금을 내고 싶어하지 않습니다."),
    "ja": ("としょかんは かようびに はやく ひらきます。", "だれも ばっきんを はらいたく ありません。"),
    "hi": ("पुस्तकालय मंगलवार को जल्दी खुलता है।", "कोई भी दूसरा जुर्माना नहीं देना चाहता।"),
}
"""The second word of each first sentence is long: it is what the tests leave out."""

VOICES = ("nova", "onyx", "shimmer", "ash", "coral", "echo", "alloy", "fable")


@pytest.fixture(scope="module")
def engine() -> Iterator[EspeakEngine]:
    engine = EspeakEngine()
    yield engine
    asyncio.run(engine.close())


class Reader:
    """Reads in one voice: a text at once, as the reference, or sentence by sentence with pauses, as the product."""

    def __init__(self, engine: EspeakEngine, voice: str, language: Language = "en") -> None:
        self.engine, self.voice, self.language = engine, voice, language

    async def at_once(self, text: str) -> FloatArray:
        utterance = Utterance(text, 0, len(text))
        speaker = Speaker(self.voice)
        stream = self.engine.speak(utterance, Manner(speaker, self.language), Audience())
        return np.concatenate([chunk.samples async for chunk in stream])

    async def by_sentence(self, sentences: tuple[str, ...], *, pause_s: float = 0.5) -> FloatArray:
        """Another rate, a little noise, and longer pauses: nothing that a listener would call a fault."""
        pause = np.zeros(round(pause_s * RATE_HZ), np.float32)
        parts = [part for sentence in sentences for part in (await self.at_once(sentence), pause)]
        audio = resample(np.concatenate([pause, *parts]), RATE_HZ, 24_000)
        noise = np.random.default_rng(1).normal(0, 5e-4, len(audio))
        return (0.5 * audio + noise).astype(np.float32)

    async def faults(self, spoken: tuple[str, ...], *, expected: tuple[str, ...]) -> list[Fault]:
        heard, reference = await self.by_sentence(spoken), await self.at_once(" ".join(expected))
        return dtw_faults(heard, reference, 24_000, expected_rate_hz=RATE_HZ)


def without_word(sentence: str, index: int) -> str:
    words = sentence.split()
    return " ".join(words[:index] + words[index + 1 :])


def with_word_twice(sentence: str, index: int) -> str:
    words = sentence.split()
    return " ".join(words[: index + 1] + words[index:])


def total_s(faults: list[Fault], side: str) -> float:
    return sum(fault.end_s - fault.start_s for fault in faults if fault.side == side)


@pytest.mark.parametrize("text", ENGLISH, ids=[text[0][:11] for text in ENGLISH])
@pytest.mark.parametrize("voice", VOICES[:4])
async def test_clean_speech_has_no_faults(engine: EspeakEngine, voice: str, text: tuple[str, ...]) -> None:
    assert await Reader(engine, voice).faults(text, expected=text) == []


@pytest.mark.parametrize(("number", "language"), list(enumerate(SENTENCES)))
async def test_a_word_left_out_or_said_twice_is_heard_in_every_language(
    engine: EspeakEngine, number: int, language: Language
) -> None:
    reader, text = Reader(engine, VOICES[number % len(VOICES)], language), SENTENCES[language]
    assert await reader.faults(text, expected=text) == []
    missing = await reader.faults((without_word(text[0], 1), text[1]), expected=text)
    extra = await reader.faults((with_word_twice(text[0], 1), text[1]), expected=text)
    assert total_s(missing, "missing") > 0.1
    assert total_s(extra, "extra") > 0.1


@pytest.mark.parametrize("voice", VOICES[4:])
async def test_sentences_left_out_said_twice_or_swapped_are_heard(engine: EspeakEngine, voice: str) -> None:
    reader, text = Reader(engine, voice), ENGLISH[1]
    assert total_s(await reader.faults((text[0], text[2]), expected=text), "missing") > 0.8
    assert total_s(await reader.faults((*text, text[2]), expected=text), "extra") > 0.4
    swapped = await reader.faults((text[1], text[0], text[2]), expected=text)
    assert total_s(swapped, "missing") > 0.8
    assert total_s(swapped, "extra") > 0.8


async def test_another_word_is_heard(engine: EspeakEngine) -> None:
    text = ENGLISH[0]
    other = (text[0].replace("library", "harbour"), text[1])
    faults = await Reader(engine, "nova").faults(other, expected=text)
    assert {fault.side for fault in faults} == {"missing", "extra"}


@pytest.mark.parametrize("voice", VOICES[:4])
async def test_a_cut_end_or_beginning_is_heard_where_it_is(engine: EspeakEngine, voice: str) -> None:
    whole = await Reader(engine, voice).at_once(" ".join(ENGLISH[2]))
    cut, quiet = round(0.3 * RATE_HZ), np.zeros(RATE_HZ, np.float32)
    end_s = len(whole) / RATE_HZ
    (end, *_) = dtw_faults(np.concatenate((whole[:-cut], quiet)), whole, RATE_HZ)
    (beginning, *_) = dtw_faults(np.concatenate((quiet, whole[cut:])), whole, RATE_HZ)
    assert end.side == beginning.side == "missing"
    assert end.start_s > end_s - 0.45
    assert beginning.end_s < 0.45


async def test_silence_lacks_everything_and_nothing_lacks_nothing(engine: EspeakEngine) -> None:
    whole, silence = await Reader(engine, "nova").at_once(ENGLISH[0][0]), np.zeros(RATE_HZ, np.float32)
    length_s = len(whole) / RATE_HZ
    assert total_s(dtw_faults(silence, whole, RATE_HZ), "missing") > 0.8 * length_s
    assert total_s(dtw_faults(whole, silence, RATE_HZ), "extra") > 0.8 * length_s
    assert dtw_faults(silence[:0], silence, RATE_HZ) == []
    assert len(dtw_faults(whole[:0], whole, RATE_HZ)) > 0


async def test_a_minute_is_judged_in_bounded_memory(engine: EspeakEngine) -> None:
    text = tuple(sentence for _ in range(3) for lines in (*ENGLISH, SENTENCES["en"]) for sentence in lines)
    reader = Reader(engine, "nova")
    heard, reference = await reader.by_sentence(text[:12] + text[13:]), await reader.at_once(" ".join(text))
    assert len(reference) > 60 * RATE_HZ
    tracemalloc.start()
    faults = dtw_faults(heard, reference, 24_000, expected_rate_hz=RATE_HZ)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 75e6
    assert total_s(faults, "missing") > 0.8
    assert total_s(faults, "extra") == 0


@pytest.mark.parametrize(("voice", "text"), list(zip(VOICES, ENGLISH, strict=False)), ids=VOICES[:3])
async def test_the_recogniser_hears_the_words_of_a_clean_text(
    engine: EspeakEngine, voice: str, text: tuple[str, ...]
) -> None:
    words = " ".join(text)
    audio = await Reader(engine, voice).by_sentence(text)
    assert heard_words(audio, 24_000, words) == words_of(words)


async def test_the_recogniser_notices_words_left_out(engine: EspeakEngine) -> None:
    text = " ".join(ENGLISH[0])
    spoken = "The opens early on Tuesday. Please return every borrowed before evening!"
    audio = await Reader(engine, "nova").at_once(spoken)
    errors = word_errors(heard_words(audio, RATE_HZ, text), text)
    assert set(errors.dropped) >= {"library", "book", "friday"}
    assert len(errors.dropped) <= 5


async def test_the_recogniser_notices_a_sentence_left_out_or_said_twice(engine: EspeakEngine) -> None:
    text, reader = ENGLISH[1], Reader(engine, "onyx")
    without = await reader.at_once(" ".join((text[0], text[2])))
    errors = word_errors(heard_words(without, RATE_HZ, " ".join(text)), " ".join(text))
    assert errors.dropped == ("their", "captain", "carried", "a", "lantern")
    twice = await reader.at_once(" ".join((text[0], *text)))
    errors = word_errors(heard_words(twice, RATE_HZ, " ".join(text)), " ".join(text))
    assert len(errors.added) == 8


def test_a_word_without_pronunciation_is_named() -> None:
    with pytest.raises(KeyError, match="zyxgrb"):
        heard_words(np.zeros(1600, np.float32), 16_000, "Hello zyxgrb")


def test_silence_has_no_words() -> None:
    heard = heard_words(np.zeros(16_000, np.float32), 16_000, "Seven sailors crossed the frozen harbour")
    assert word_errors(heard, "Seven sailors").dropped == ("seven", "sailors")


def test_word_errors_are_the_fewest() -> None:
    errors = word_errors(["one", "two", "two", "four"], "One, two; three - four!")
    assert (errors.dropped, errors.added, errors.count) == (("three",), ("two",), 2)
    assert word_errors(["don't"], "Don’t").count == 0
