"""Cutting texts into utterances: nothing lost, nothing too long, pauses where a reader would leave them."""

import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tts_core.errors import TextEmpty, TextError, TextTooLong, TextUnspeakable
from tts_core.text import check_text, plan, xtts_char_limit
from tts_core.text.clean import clean
from tts_core.text.sentences import sentences
from tts_core.types import Language, Utterance

ENGLISH_LIMIT = 250

LANGUAGES: tuple[Language, ...] = get_args(Language)

CONTROLS = ["\r\n", "\n\n", *"\n\t\x00\x07\x85\u2028\u2029\u200b\u200d\ufeff\ud800"]
MARKS = [*".!?…,;:—-()\"'“”«»。，「」।؟،", "\u0301", "\u0302"]
LETTERS = [*"abßकषि中文かカ한하אع", "\u094d"]
WORDS = ["1", "23", "3.", "Dr.", "e.g.", "word", "longer-word", "Sentence.", "Yes!", "https://example.com/path"]
EMOJI = ["😀", "👩\u200d👩\u200d👧", "🇩🇪", "👍🏽", "❤\ufe0f"]
NASTY = [*CONTROLS, *MARKS, *LETTERS, *WORDS, *EMOJI]

PIECES = st.sampled_from(
    [*NASTY, " ", "\n", "\n\n", "\r\n\r\n", "x" * 30, "." * 30, "\u0301" * 30, "A whole sentence. "]
)

TEXTS = st.one_of(
    st.lists(PIECES, max_size=60).map("".join),
    st.lists(PIECES, max_size=60).map(" ".join),
    st.text(st.characters(), max_size=120),
)

LIMITS = st.one_of(st.integers(20, 60), st.just(ENGLISH_LIMIT))


def removed(char: str) -> bool:
    return char.isspace() or unicodedata.category(char) in ("Cc", "Cs")


def normalised(text: str) -> str:
    """What `plan` promises to do to a text, spelled another way."""
    return " ".join("".join(c for c in text if c.isspace() or not removed(c)).split())


def says_something(text: str) -> bool:
    return any(c.isalnum() for c in text)


def texts_of(utterances: Sequence[Utterance]) -> list[str]:
    return [utterance.text for utterance in utterances]


def spoken(text: str, *, language: Language = "en", max_chars: int = ENGLISH_LIMIT) -> list[str]:
    return texts_of(plan(text, language=language, max_chars=max_chars))


def pauses(text: str, *, language: Language = "en", max_chars: int = ENGLISH_LIMIT) -> list[float]:
    return [u.pause_s for u in plan(text, language=language, max_chars=max_chars)]


@settings(max_examples=300, deadline=None)
@given(text=TEXTS, language=st.sampled_from(LANGUAGES), max_chars=LIMITS)
@example(text="", language="en", max_chars=20)
@example(text="\n\n\r\n", language="en", max_chars=20)
@example(text="." * 70 + "a" + "." * 70, language="en", max_chars=20)
@example(text="\u0301" * 70, language="en", max_chars=20)
@example(text="x" * 20 + ". " + "!" * 19 + " " + "y" * 20, language="en", max_chars=20)
@example(text=" \u0301" * 30, language="en", max_chars=20)
def test_every_character_is_in_exactly_one_utterance(text: str, language: Language, max_chars: int) -> None:
    utterances = plan(text, language=language, max_chars=max_chars)
    covered = [i for u in utterances for i in range(u.start, u.end)]
    assert covered == sorted(set(covered))
    assert {i for i, c in enumerate(text) if not removed(c)} <= set(covered) <= set(range(len(text)))
    for u in utterances:
        assert u.text == normalised(text[u.start : u.end])
        assert 1 <= len(u.text) <= max_chars
        assert not removed(text[u.start])
        assert not removed(text[u.end - 1])


@settings(max_examples=300, deadline=None)
@given(text=TEXTS, language=st.sampled_from(LANGUAGES), max_chars=LIMITS)
def test_only_marks_that_fit_nowhere_make_an_utterance(text: str, language: Language, max_chars: int) -> None:
    utterances = plan(text, language=language, max_chars=max_chars)
    for before, after in pairwise(utterances):
        fits = len(normalised(text[before.start : after.end])) <= max_chars
        assert not fits or (says_something(before.text) and says_something(after.text))


@settings(max_examples=300, deadline=None)
@given(text=TEXTS, language=st.sampled_from(LANGUAGES), max_chars=LIMITS)
@example(text="longer-word " * 12, language="en", max_chars=20)
@example(text="a " + "x" * 50 + " b", language="en", max_chars=20)
@example(text="\u200b n" + "\u0301" * 29 + "x" * 30, language="en", max_chars=30)
def test_words_and_clusters_are_cut_only_if_longer_than_the_limit(
    text: str, language: Language, max_chars: int
) -> None:
    clean = normalised(text)
    position = 0
    for utterance in plan(text, language=language, max_chars=max_chars)[:-1]:
        position = clean.index(utterance.text, position) + len(utterance.text)
        before, after = clean[position - 1], clean[position]
        if before.isalnum() and after.isalnum():
            assert len(token_at(clean, position)) > max_chars
        if unicodedata.category(after).startswith("M"):
            assert len(cluster_at(clean, position)) > max_chars


def token_at(text: str, position: int) -> str:
    return next(m.group() for m in re.finditer(r"\S+", text) if m.start() <= position < m.end())


def cluster_at(text: str, position: int) -> str:
    """What a mark at `position` belongs to: all that joins around it, and the character before that."""
    start = position
    while start > 0 and are_joined(text[start - 1], text[start]):
        start -= 1
    end = position
    while end < len(text) and joins(text[end]):
        end += 1
    return text[start:end]


def are_joined(before: str, after: str) -> bool:
    """Marks join what stands before them, a joiner what stands behind it, and two regional indicators are a flag."""
    is_flag = all("\U0001f1e6" <= character <= "\U0001f1ff" for character in (before, after))
    return (joins(after) or before == "\u200d" or is_flag) and not before.isspace()


def joins(char: str) -> bool:
    return unicodedata.category(char).startswith("M") or char in "\u200d\u200c" or "\U0001f3fb" <= char <= "\U0001f3ff"


@settings(max_examples=100, deadline=None)
@given(text=TEXTS, language=st.sampled_from(LANGUAGES), max_chars=LIMITS)
def test_planning_is_repeatable_and_normalised_text_stays_as_it_is(
    text: str, language: Language, max_chars: int
) -> None:
    utterances = plan(text, language=language, max_chars=max_chars)
    assert plan(text, language=language, max_chars=max_chars) == utterances
    again = plan(normalised(text), language=language, max_chars=max_chars)
    assert normalised(" ".join(texts_of(again))).replace(" ", "") == normalised(text).replace(" ", "")
    assert all(normalised(u.text) == u.text for u in utterances)


@settings(max_examples=100, deadline=None)
@given(text=TEXTS)
def test_the_last_utterance_has_no_pause(text: str) -> None:
    pauses_s = pauses(text)
    assert pauses_s[-1:] in ([], [0.0])
    assert set(pauses_s) <= {0.0, 0.1, 0.25, 0.6}


def test_sentences_that_are_long_enough_stay_apart() -> None:
    apart = ["The door opened slowly and she went inside.", "It was dark in there, and it smelled of old books."]
    assert spoken(" ".join(apart)) == apart
    assert pauses(" ".join(apart)) == [0.25, 0.0]


def test_a_paragraph_break_pauses_longer_than_a_sentence() -> None:
    assert pauses("Chapter one\n\nIt began.") == [0.6, 0.0]
    assert pauses("It began.\nIt went on.") == [0.6, 0.0]
    assert pauses("I saw him.\nHe went on.") == [0.6, 0.0]
    assert pauses("It began.\r\n \x00 \r\nIt went on.") == [0.6, 0.0]


def test_a_soft_wrapped_line_is_no_break() -> None:
    assert spoken("It began on a\nMonday in\r\nMay.") == ["It began on a Monday in May."]
    assert spoken("Er kam am 3.\nOktober zu Dr.\nMüller.", language="de") == ["Er kam am 3. Oktober zu Dr. Müller."]


def test_short_sentences_are_spoken_with_their_neighbour() -> None:
    long = "The room was dark and cold and it smelled of old books."
    assert spoken(f"Hi! {long}") == [f"Hi! {long}"]
    assert spoken(f"{long} {long} Yes. {long}") == [long, f"{long} Yes.", long]


def test_short_sentences_do_not_cross_a_paragraph() -> None:
    assert spoken("Hi!\n\nYes.") == ["Hi!", "Yes."]


def test_gathering_stops_at_the_soft_limit() -> None:
    texts = spoken("Yes, it is so. " * 60)
    assert max(map(len, texts)) <= 0.6 * ENGLISH_LIMIT
    assert min(map(len, texts)) >= 40


def test_a_short_sentence_between_long_ones_is_not_left_alone() -> None:
    long = "Word " + "word " * 40 + "end."
    assert spoken(f"{long} Yes. {long}") == [long, f"Yes. {long}"]


def test_the_first_utterance_takes_no_more_than_it_needs() -> None:
    first, second = "The door opened slowly and she went inside.", "It was dark, and it smelled of old books."
    assert spoken(f"{first} Yes. {second}") == [first, f"Yes. {second}"]
    assert len(spoken("Yes, it is. " * 20)[0]) < 60
    assert spoken(f"{first} Yes.\n\n{second}") == [f"{first} Yes.", second]


def test_a_long_sentence_is_cut_behind_a_clause() -> None:
    first = "However little known the feelings or views of such a man may be on his first entering a neighbourhood,"
    second = "this truth is so well fixed in the minds of the surrounding families that he is taken for the property"
    assert spoken(f"{first} {second}", max_chars=200) == [first, second]
    assert pauses(f"{first} {second}", max_chars=200) == [0.1, 0.0]


@pytest.mark.parametrize(
    ("language", "mark", "letter"),
    [
        ("zh", "，", "中"),
        ("ja", "、", "の"),
        ("ar", "، ", "ع"),
        ("en", "; ", "x"),
        ("en", "—", "x"),
        ("ru", " – ", "ж"),
    ],
)
def test_every_script_is_cut_at_its_own_clauses(language: Language, mark: str, letter: str) -> None:
    first, second = letter * 30, letter * 40
    text = first + mark + second
    assert spoken(text, language=language, max_chars=45) == [(first + mark).strip(), second]
    assert pauses(text, language=language, max_chars=45) == [0.1, 0.0]


def test_a_sentence_without_clauses_is_cut_in_the_middle() -> None:
    texts = spoken("word " * 51)
    assert [len(text) for text in texts] == [124, 129]
    assert pauses("word " * 51) == [0.0, 0.0]


def test_a_clause_that_would_leave_a_short_piece_is_not_where_it_is_cut() -> None:
    texts = spoken("word " * 6 + "word, " + "word " * 19, max_chars=100)
    assert [len(text) for text in texts] == [65, 64]


def test_a_clause_that_would_cost_one_more_piece_must_lie_well() -> None:
    assert len(spoken("word " * 23 + "word, " + "word " * 56)) == 2
    assert len(spoken("word " * 29 + "word, " + "word " * 54)) == 3


def test_marks_in_a_long_sentence_are_shared_with_words() -> None:
    texts = spoken("word " * 24 + "* " * 70)
    assert len(texts) == 2
    assert all(says_something(text) for text in texts)


def test_sentences_inside_a_long_quote_are_where_it_is_cut() -> None:
    inner = "You have been told many times that this is not how we do it."
    texts = spoken('He said: "' + f"{inner} " * 6 + 'Go." Then he left.')
    assert len(texts) > 1
    assert all(text.endswith((".", '"')) for text in texts)
    assert pauses('He said: "' + f"{inner} " * 6 + 'Go." Then he left.')[0] == 0.25


def test_a_long_word_is_cut_at_its_seams() -> None:
    texts = spoken("https://example.com/" + "some-folder/" * 40)
    assert all(text.endswith(("/", "-")) for text in texts)


def test_a_long_word_takes_the_short_one_before_it_along() -> None:
    assert min(map(len, spoken("A " + "x" * 400 + " b."))) > 40


def test_emoji_and_accents_stay_whole() -> None:
    for cluster in ("👩‍👩‍👧", "🇩🇪", "👍🏽", "e\u0301", "क्षि", "ᄒ\u1161\u11ab", "1\ufe0f\u20e3", "ﾀ\uff9e"):
        text = "x" + cluster * 40
        for part in spoken(text, max_chars=20):
            assert part.removeprefix("x").replace(cluster, "") == "", cluster


def test_marks_that_stand_alone_go_to_a_neighbour() -> None:
    assert spoken("The end.\n\n* * *\n\nIt began.") == ["The end. * * *", "It began."]
    assert pauses("The end.\n\n* * *\n\nIt began.") == [0.6, 0.0]
    assert pauses("The end.\n\n...! It began again.") == [0.6, 0.0]
    assert spoken("!!!\n\nIt began.") == ["!!! It began."]
    full = "x" * 249 + "."
    assert spoken(f"{full}\n\n***\n\nIt began.") == [full, "*** It began."]


def test_marks_between_full_neighbours_are_balanced_into_them() -> None:
    full = "word " * 49 + "four."
    texts = spoken(f"{full}\n\n***\n\n{full}")
    assert len(texts) == 3
    assert all(says_something(text) for text in texts)


def test_control_characters_go_and_all_else_stays() -> None:
    text = "\ufeffCafe\u0301 \x00\x07na\x00ïve\u00a0\u200fﬁn \ud800 “Ｑ”."
    [utterance] = plan(text, language="en", max_chars=ENGLISH_LIMIT)
    assert utterance.text == "\ufeffCafe\u0301 naïve \u200fﬁn “Ｑ”."
    assert (utterance.start, utterance.end) == (0, len(text))


@pytest.mark.parametrize(
    ("language", "sentence"),
    [
        ("en", "Dr. Smith met J. R. R. Tolkien and Mr. Lee at 5.30 p.m. on Jan. 3."),
        ("fr", "M. Dupont et Mme. Durand ont vu le Dr. Bernard, p. ex. hier."),
        ("pl", "To jest dr. Kowalski z ul. Długiej oraz A. Mickiewicz."),
        ("ru", "Т. е. это так, как сказал А. С. Пушкин."),
        ("de", "Am 3. Oktober kam z. B. Dr. Müller."),
        ("cs", "Pan Novák přišel 3. října."),
        ("tr", "Bugün Sn. Kaya ve Doç. Dr. Ahmet geldi."),
        ("hu", "Az ifj. Nagy 2020. január 5-én jött."),
        ("nl", "Dhr. Jansen en mevr. de Vries kwamen om ca. 5 uur."),
        ("hi", "आज डॉ. शर्मा और पं. नेहरू आए।"),
        ("ar", "جاء د. أحمد إلى هنا."),
        ("ja", "今日はDr. Smithが来た。"),
    ],
)
def test_an_abbreviation_ends_no_sentence(language: Language, sentence: str) -> None:
    assert sentences_of(sentence, language=language) == [sentence]


def sentences_of(text: str, *, language: Language) -> list[str]:
    """The sentences of a text before short ones are gathered."""
    cleaned = clean(text)
    return [cleaned.text[piece.start : piece.end] for piece in sentences(cleaned, language=language)]


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("en", ["Wait!", "What?", "It left at 5 p.m.", "See www.example.com or Node.JS.", "Plan B.", "Then 3.14."]),
        ("fr", ["Ça va ?", "Il fait 5 m.", "Bien !"]),
        ("de", ["Er sagte: „Hallo! Wie geht es?“", "Dann ging er."]),
        ("es", ["¿Cómo estás?", "¡Bien!"]),
        ("hi", ["वह गया।", "क्या?"]),
        ("ar", ["مرحبا؟", "نعم."]),
        ("ko", ["안녕하세요.", "네."]),
    ],
)
def test_sentences_end_where_they_end(language: Language, expected: list[str]) -> None:
    assert sentences_of(" ".join(expected), language=language) == expected


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("zh", ["你好。", "“我们走吧！我不去。”", "真的？！", "好……吧。"]),
        ("ja", ["明日は？", "「はい。」", "３．１４です。"]),
    ],
)
def test_sentences_without_spaces_end_where_they_end(language: Language, expected: list[str]) -> None:
    assert sentences_of("".join(expected), language=language) == expected


def test_a_long_text_has_all_its_sentences() -> None:
    """sentencex is told 8,000 characters at a time; sentences of 20 end exactly there."""
    assert sentences_of("He was home at six. " * 3000, language="en") == ["He was home at six."] * 3000


def test_list_items_are_sentences() -> None:
    assert sentences_of("We need:\n- milk\n- bread\n2) eggs", language="en") == [
        "We need:",
        "- milk",
        "- bread",
        "2) eggs",
    ]


@pytest.mark.parametrize("language", LANGUAGES)
def test_xtts_limits_leave_room_for_a_sentence(language: Language) -> None:
    assert 70 <= xtts_char_limit(language) <= 273


def test_xtts_limits_are_those_of_the_model() -> None:
    assert [xtts_char_limit(language) for language in ("en", "zh", "ja", "ko")] == [250, 82, 71, 95]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", TextEmpty),
        (" \n\u3000", TextEmpty),
        ("x" * 11, TextTooLong),
        ("?!", TextUnspeakable),
        ("😀", TextUnspeakable),
        ("\x00\u200b\ud800", TextUnspeakable),
    ],
)
def test_what_cannot_be_spoken_is_refused(text: str, error: type[TextError]) -> None:
    with pytest.raises(error):
        check_text(text, max_chars=10)


@pytest.mark.parametrize("text", ["a", "5", "Ｆ", "中", "한", "ع", "x" * 10, "... ok"])
def test_what_can_be_spoken_is_accepted(text: str) -> None:
    check_text(text, max_chars=10)


def test_a_text_too_long_is_told_both_numbers() -> None:
    with pytest.raises(TextTooLong, match="11 characters, at most 10"):
        check_text("x" * 11, max_chars=10)
