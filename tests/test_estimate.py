"""The estimate of a text's length: what always holds of it, and that it covers what eSpeak takes."""

from collections.abc import AsyncIterator
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sentences import SENTENCES
from tts_core.espeak import EspeakEngine
from tts_core.service.estimate import CHARS_PER_S, SAFETY, estimate_s
from tts_core.types import Audience, Language, Manner, Speaker, Utterance

TAGS = st.sampled_from(["auto", "en", "zh-CN", "PT_br", "xx", "", *get_args(Language)])
SPEEDS = st.floats(0.5, 2.0)


@given(text=st.text(), more=st.text(), language=TAGS, speed=SPEEDS)
def test_more_text_never_takes_less(text: str, more: str, language: str, speed: float) -> None:
    shorter = estimate_s(text, language=language, speed=speed)
    assert 0 <= shorter <= estimate_s(text + more, language=language, speed=speed) + 1e-9


@given(text=st.text(), language=TAGS, speed=SPEEDS)
def test_twice_as_fast_takes_half(text: str, language: str, speed: float) -> None:
    once = estimate_s(text, language=language, speed=1.0)
    assert estimate_s(text, language=language, speed=speed) == pytest.approx(once / speed)


@given(text=st.text(), language=TAGS)
def test_the_order_of_characters_does_not_matter(text: str, language: str) -> None:
    estimates = {round(estimate_s(t, language=language, speed=1.0), 6) for t in (text, text[::-1])}
    assert len(estimates) == 1


@given(text=st.text(min_size=1), language=TAGS)
def test_it_stays_within_what_a_character_can_take(text: str, language: str) -> None:
    assert estimate_s(text, language=language, speed=1.0) <= SAFETY * (0.5 + 0.6 * len(text)) + 1e-9


@given(text=st.text(st.characters(categories=["L"])), language=st.sampled_from(get_args(Language)))
def test_auto_holds_no_less_than_a_language_of_the_same_script(text: str, language: Language) -> None:
    latin = "".join(character for character in text if character < "\u0250")
    if CHARS_PER_S[language] >= CHARS_PER_S["cs"]:
        named, auto = (estimate_s(latin, language=tag, speed=1.0) for tag in (language, "auto"))
        assert auto >= named - 1e-9


@pytest.mark.parametrize("text", ["", "\n\t\0", "\u200b"])
def test_nothing_is_held_for_nothing(text: str) -> None:
    assert estimate_s(text, language="en", speed=1.0) == 0


def test_a_page_of_english_is_held_with_a_quarter_to_spare() -> None:
    page = "All was still and the boats came home. " * 50
    assert estimate_s(page, language="en", speed=1.0) == pytest.approx(len(page) / 15 * 1.25, rel=0.15)


@pytest.fixture
async def engine() -> AsyncIterator[EspeakEngine]:
    engine = EspeakEngine()
    yield engine
    await engine.close()


async def duration_s(engine: EspeakEngine, text: str, language: Language) -> float:
    manner = Manner(Speaker(builtin=engine.voices()[0].id), language)
    chunks = [chunk async for chunk in engine.speak(Utterance(text, 0, len(text)), manner, Audience())]
    return sum(len(chunk.samples) for chunk in chunks) / engine.sample_rate_hz


@pytest.mark.parametrize("language", get_args(Language))
async def test_it_covers_a_sentence_and_a_number_in_each_language(engine: EspeakEngine, language: Language) -> None:
    for text in (SENTENCES[language], "48151623", SENTENCES[language] * 4):
        taken_s = await duration_s(engine, text, language)
        assert taken_s <= estimate_s(text, language=language, speed=1.0) <= 3.5 * taken_s


@pytest.mark.parametrize("text", ["Hi.", "A", "$1,299.99", "https://example.org/a?b=c", "%%%&&&", "12:45", "1/2/2027"])
async def test_it_covers_what_is_read_in_more_words_than_it_has_letters(engine: EspeakEngine, text: str) -> None:
    assert await duration_s(engine, text, "en") <= estimate_s(text, language="auto", speed=1.0)
