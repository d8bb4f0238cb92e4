"""Files of lines: what is read from them, what is refused, and what makes a line the same one in the next run."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tts_core.batch.lines import Line, plan
from tts_core.batch.reading import READERS, BadInput, Kind, Problem, Row, read, value_of

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
ONE_LINE = TEXTS.map(lambda text: " ".join(text.replace("\r", " ").split("\n"))).filter(str.strip)


def rows(text: str, kind: Kind) -> list[Row | Problem]:
    return list(READERS[kind](text))


def texts(text: str, kind: Kind) -> list[str]:
    return [row.fields["text"] if isinstance(row, Row) else row.reason for row in rows(text, kind)]


def lines(*bodies: dict[str, Any], **defaults: object) -> Sequence[Line]:
    return plan([Row(number, body) for number, body in enumerate(bodies, start=1)], defaults, base=Path())


def refusals(*bodies: dict[str, Any], **defaults: object) -> list[tuple[int, str]]:
    with pytest.raises(BadInput) as refused:
        lines(*bodies, **defaults)
    return [(problem.number, problem.reason.split(":")[0]) for problem in refused.value.problems]


@given(st.lists(ONE_LINE, min_size=1), st.sampled_from(["\n", "\r\n"]))
def test_txt_is_a_text_a_line(expected: list[str], ending: str) -> None:
    assert texts(ending.join(expected), "txt") == [text.strip() for text in expected]


@given(st.lists(TEXTS, min_size=1))
def test_jsonl_is_an_object_a_line(expected: list[str]) -> None:
    written = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in expected)
    assert texts(written, "jsonl") == expected


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1), st.sampled_from([",", ";", "\t"]))
def test_csv_is_what_a_spreadsheet_has_written(expected: list[tuple[str, str]], delimiter: str) -> None:
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter).writerows([("id", "text"), *expected])
    read_rows = [row.fields for row in rows(file.getvalue(), "csv") if isinstance(row, Row)]
    assert read_rows == [{"id": id, "text": text} for id, text in expected]


def test_csv_cells_are_of_the_kind_of_their_field() -> None:
    header = "text,speed,seed,streaming,metadata,voice_id,sample_rate,reference_audio_url"
    (row,) = rows(f'{header}\n12,1.5,7,TRUE,"{{""a"": 1}}",12,,https://x.test/a.wav\n', "csv")
    assert isinstance(row, Row)
    assert row.fields == {
        "text": "12",
        "speed": 1.5,
        "seed": 7,
        "streaming": True,
        "metadata": {"a": 1},
        "voice_id": "12",
        "reference_audio_url": "https://x.test/a.wav",
    }
    assert value_of("speed", "1,5") == "1,5"  # for the wire to refuse
    assert value_of("metadata", "[" * 100_000) == "[" * 100_000


def test_rows_know_the_line_where_they_start() -> None:
    found = rows('text,speed\n"two\nlines",1\n\nx,2,3\n"open', "csv")
    assert [row.number for row in found] == [2, 5, 6]
    assert [type(row) for row in found] == [Row, Problem, Problem]
    assert [row.number for row in rows("a\nb\n\n\nc\n", "paragraphs")] == [1, 5]
    assert texts("a\nb\n\n\nc\n", "paragraphs") == ["a b", "c"]


@pytest.mark.parametrize("text", ["", "text,text\nx,y\n", ",\nx,y\n"])
def test_a_csv_without_a_header_is_refused(text: str) -> None:
    (problem,) = rows(text, "csv")
    assert isinstance(problem, Problem)


def test_a_file_that_is_no_utf_8_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"\xef\xbb\xbfgood\nb\xe4d\n")
    with pytest.raises(BadInput, match="line 2: is no UTF-8"):
        list(read(tmp_path / "x.txt", "txt"))
    (tmp_path / "x.txt").write_bytes(b"\xef\xbb\xbfgood\n")
    assert list(read(tmp_path / "x.txt", "txt")) == [Row(1, {"text": "good"})]


def test_everything_that_is_wrong_is_said_at_once() -> None:
    assert refusals(
        {"text": "good"},
        {"text": "x", "speed": "fast"},
        {"voice_id": "nova"},
        {"text": "?!"},
        {"text": "x", "colour": "red"},
        {"text": "x", "tenant_key": "tts_live_secret"},
        {"text": "x", "action": "voices.list"},
        {"text": "x", "reference_audio_base64": "@no_such_file.wav"},
        {"text": "x" * 10_000_000},
    ) == [
        (2, "speed"),
        (3, "text"),
        (4, "text"),
        (5, "colour"),
        (6, "tenant_key"),
        (7, "action"),
        (8, "reference_audio_base64"),
        (9, "has 10000012 bytes, more than 9900000"),
    ]
    assert refusals({"text": "x"}, {"text": "y", "speed": 1.0}, speed="fast") == [(1, "speed")]
    assert refusals({"text": " "}, {"text": "x" * 60_000}) == [(1, "text"), (2, "text")]
    assert refusals() == [(0, "there is nothing to speak")]


@pytest.mark.parametrize("file", ["../x", "/x", "a/../x", ".x", "a/.x", "a\\x", "", "a/", "a\nb", 7])
def test_a_file_stays_below_its_folder(file: object) -> None:
    assert refusals({"text": "x", "file": file}) == [(1, "file")]


def test_what_two_lines_may_not_share() -> None:
    assert refusals({"text": "x", "id": "1"}, {"text": "y", "id": 1}) == [(2, "id")]
    assert refusals({"text": "x", "file": "a"}, {"text": "y", "file": "A.wav"}) == [(2, "file")]
    assert refusals(*({"text": text, "idempotency_key": "k"} for text in "xy")) == [(2, "idempotency_key")]


def test_files_are_named_by_place_and_id() -> None:
    first, second, third = lines({"text": "x", "id": "Kapitel 1/2"}, {"text": "y", "file": "b/y"}, {"text": "z"})
    assert (first.file, second.file) == ("00001-Kapitel_1_2.wav", "b/y.wav")
    assert third.file.startswith("00003-")
    assert lines({"text": "x", "file": "x.mp3"}, format="mp3")[0].file == "x.mp3"


@given(st.lists(st.sampled_from("abc"), min_size=1), st.data())
def test_a_line_put_in_changes_no_other_lines_key(before: list[str], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(before)))
    after = [*before[:place], "new", *before[place:]]
    old, new = ([line.key("batch") for line in lines(*({"text": text} for text in list))] for list in (before, after))
    assert len(set(old)) == len(old)
    assert set(new) > set(old)


def test_a_key_is_of_the_line_its_content_and_the_batch() -> None:
    (line,) = lines({"text": "x", "id": "a"})
    keys = {
        line.key("batch"),
        line.key("other batch"),
        lines({"text": "y", "id": "a"})[0].key("batch"),
        lines({"text": "x", "id": "b"})[0].key("batch"),
        lines({"text": "x", "id": "a"}, speed=1.1)[0].key("batch"),
        lines({"text": "x"})[0].key("batch"),
    }
    assert len(keys) == 6
    assert lines({"text": "x", "id": "a"})[0].key("batch") == line.key("batch")


def test_a_key_of_its_own_is_sent_and_a_changed_line_is_another_one_all_the_same() -> None:
    (line,) = lines({"text": "x", "idempotency_key": "mine"})
    assert (line.sent_key("batch", renewals=0), line.sent_key("batch", renewals=2)) == ("mine", "mine.2")
    others = [{"text": "y", "idempotency_key": "mine"}, {"text": "x", "idempotency_key": "yours"}, {"text": "x"}]
    assert len({line.key("batch"), *(lines(other)[0].key("batch") for other in others)}) == 4
    assert lines({"text": "x", "idempotency_key": "mine"})[0].key("batch") == line.key("batch")


def test_names_fit_the_file_system(tmp_path: Path) -> None:
    (line,) = lines({"text": "x", "id": "章" * 80})
    for file in (line.file, lines({"text": "x", "file": "é" * 110})[0].file):
        (tmp_path / f".{file}.alignments.json.part").touch()
    for file in ("é" * 111, "a/" + "é" * 111):
        assert refusals({"text": "x", "file": file}) == [(1, "file")]
    assert refusals({"text": "x", "id": True}) == [(1, "id")]


def test_a_file_is_no_folder() -> None:
    assert refusals({"text": "x", "file": "a"}, {"text": "y", "file": "A.wav/b"}) == [(2, "file")]
    assert len(lines({"text": "x", "file": "a"}, {"text": "y", "file": "a/b"})) == 2
