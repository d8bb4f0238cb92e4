"""Text as coqui-tts itself reads it, where it fails, and where the model has no place for all of it."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from TTS.tts.layers.xtts.tokenizer import VoiceBpeTokenizer

from tests.sentences import SENTENCES
from tests.tiny_xtts import vocabulary
from tts_core.errors import TextTooLong
from tts_core.text.limits import xtts_char_limit
from tts_core.types import Language
from tts_core.xtts import files
from tts_core.xtts.reading import HINDI_POINT, MAX_TEXT_IDS, Reading, coqui_tokenizer, read, read_parts

AMOUNTS = (
    "The six invoices of $8,987,765.43, $7,876,654.32, $6,765,543.21, $5,654,432.19, $4,543,321.98 and "
    "$3,432,219.87 are overdue, so please send the whole sum to our account by Friday, or call us."
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> VoiceBpeTokenizer:
    folder: Path = tmp_path_factory.mktemp("vocabulary")
    vocabulary(full=False).save(str(folder / "vocab.json"))
    return coqui_tokenizer(files.read_tokenizer(folder))


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


def test_a_text_that_the_model_has_no_place_for_is_refused(tokenizer: VoiceBpeTokenizer) -> None:
    fits = "1 " * 100
    assert len(read(tokenizer, fits, "en").text_ids) <= MAX_TEXT_IDS
    with pytest.raises(TextTooLong, match=r"has \d+ text ids, the model takes 401"):
        read(tokenizer, "1 " * 300, "en")


# In several readings.


def words(text: str) -> str:
    return re.sub(r"\s", "", text)


def assert_all_is_read(tokenizer: VoiceBpeTokenizer, text: str, language: Language) -> list[Reading]:
    parts = read_parts(tokenizer, text, language)
    assert words("".join(part.text for part in parts)) == words(text)
    assert all(len(part.text_ids) <= MAX_TEXT_IDS for part in parts)
    assert parts == [read(tokenizer, part.text, language) for part in parts]
    return parts


def test_what_fits_is_one_reading(tokenizer: VoiceBpeTokenizer) -> None:
    assert read_parts(tokenizer, " We met 23 people. ", "en") == [read(tokenizer, "We met 23 people.", "en")]


def test_a_sentence_full_of_amounts_is_cut_between_its_words(tokenizer: VoiceBpeTokenizer) -> None:
    assert len(AMOUNTS) == 191 <= xtts_char_limit("en")
    parts = assert_all_is_read(tokenizer, AMOUNTS, "en")
    assert len(parts) > 1
    assert [word for part in parts for word in part.text.split()] == AMOUNTS.split()
    said = " ".join(tokenizer.decode(part.text_ids).removeprefix("[en]") for part in parts)
    assert said == tokenizer.preprocess_text(AMOUNTS, "en")


def test_a_number_without_end_is_read_digit_by_digit(tokenizer: VoiceBpeTokenizer) -> None:
    parts = assert_all_is_read(tokenizer, "7" * 200, "en")
    said = [tokenizer.decode(part.text_ids).removeprefix("[en]").split() for part in parts]
    assert [word for words in said for word in words] == ["seven"] * 200
    assert max(map(len, said)) - min(map(len, said)) <= 1, "the parts are of about the same length"


def test_what_has_neither_spaces_nor_digits_is_cut_in_the_middle(tokenizer: VoiceBpeTokenizer) -> None:
    assert [part.text for part in assert_all_is_read(tokenizer, "#" * 200, "en")] == ["#" * 100] * 2


def test_a_sentence_without_spaces_is_not_cut_in_a_number(tokenizer: VoiceBpeTokenizer) -> None:
    amounts = ["$98765432.19", "£87654321.98", "76543219.87€", "65432198.76", "5,432,198"] * 3
    parts = assert_all_is_read(tokenizer, "和".join(amounts), "zh")
    assert len(parts) > 1
    assert [amount for part in parts for amount in part.text.split("和") if amount] == amounts


@pytest.mark.parametrize("language", ["en", "de", "zh", "hi", "cs"])
@settings(max_examples=15, deadline=None, derandomize=True)
@given(text=st.text("123450 $€.,%\n\u00a0abÄम我", min_size=1, max_size=250))
def test_whatever_is_read_nothing_is_lost(tokenizer: VoiceBpeTokenizer, language: Language, text: str) -> None:
    assert_all_is_read(tokenizer, text, language)
