"""The file as its rows: csv, jsonl or txt to fields of the wire, with the line each one starts on."""

import codecs
import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from tts_core.jobs import JsonObject, Synthesize

Kind = Literal["csv", "jsonl", "txt", "paragraphs"]

MAX_CELL_CHARS = 10_000_000
"""A clip in base64 is one cell; RunPod takes 10 MB a job."""


@dataclass(frozen=True, slots=True)
class Row:
    """A job as the file has it. number: of the line where it starts, from 1."""

    number: int
    fields: JsonObject


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a row. number: of its line, or 0 for the file as a whole."""

    number: int
    reason: str


class BadInput(Exception):
    """The file holds what cannot be sent; nothing was."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(f"line {problem.number}: {problem.reason}" for problem in problems))
        self.problems = problems


def read(path: Path, kind: Kind) -> Iterator[Row | Problem]:
    """Every row, in order. raises BadInput if the file is no text; OSError"""
    return READERS[kind](_decoded(path.read_bytes()))


def _decoded(data: bytes) -> str:
    data = data.removeprefix(codecs.BOM_UTF8)  # spreadsheets put it first
    try:
        return data.decode()
    except UnicodeDecodeError as exc:
        raise BadInput(Problem(data.count(b"\n", 0, exc.start) + 1, "is no UTF-8 text")) from exc


def _txt(text: str) -> Iterator[Row | Problem]:
    for number, line in _lines(text):
        if line.strip():
            yield Row(number, {"text": line.strip()})


def _paragraphs(text: str) -> Iterator[Row | Problem]:
    """Lines with no empty line between them are one job, joined by spaces."""
    start, held = 0, list[str]()
    for number, line in [*_lines(text), (0, "")]:
        if line.strip():
            start = start if held else number
            held.append(line.strip())
        elif held:
            yield Row(start, {"text": " ".join(held)})
            held = []


def _lines(text: str) -> Iterator[tuple[int, str]]:
    # Not splitlines: that also ends lines where U+2028 or a form feed stands inside a sentence.
    return enumerate(re.split(r"\r\n|\n|\r", text), start=1)


def _jsonl(text: str) -> Iterator[Row | Problem]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield _object(number, line)


def _object(number: int, line: str) -> Row | Problem:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as exc:
        return Problem(number, f"is no JSON: {exc}"[:200])
    if not isinstance(fields, dict):
        return Problem(number, f"must be a JSON object, not {type(fields).__name__}")
    return Row(number, fields)


def _csv(text: str) -> Iterator[Row | Problem]:
    """The first row names fields; an empty cell is a field left out. Excel's `;` and tabs are understood."""
    csv.field_size_limit(MAX_CELL_CHARS)
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    number = 1
    try:
        header = [name.strip() for name in next(rows, [])]
        if problem := _header_problem(header):
            yield Problem(1, problem)
            return
        number = rows.line_num + 1
        for cells in rows:
            if any(cell.strip() for cell in cells):
                yield _record(number, header, cells)
            number = rows.line_num + 1
    except csv.Error as exc:
        yield Problem(number, f"is no csv: {exc}")


def _header_problem(header: list[str]) -> str | None:
    if not any(header):
        return "must name the columns; there is nothing"
    twice = sorted({name for name in header if header.count(name) > 1})
    return f"names columns twice: {', '.join(map(ascii, twice))}"[:200] if twice else None


def _record(number: int, header: list[str], cells: list[str]) -> Row | Problem:
    if len(cells) > len(header):
        return Problem(number, f"has {len(cells)} cells, and the header {len(header)}")
    named = zip(header, cells, strict=False)
    return Row(number, {name: value_of(name, cell) for name, cell in named if cell.strip()})


def value_of(field: str, cell: str) -> Any:
    """A cell or flag as the field's own kind: text where the field takes text, else JSON, for the wire to judge."""
    if field in _text_fields() or field in ("id", "file"):
        return cell
    try:
        return json.loads(cell.lower() if cell.lower() in ("true", "false") else cell)  # spreadsheets write TRUE
    except (ValueError, RecursionError):
        return cell


@cache
def _text_fields() -> frozenset[str]:
    fields = Synthesize.model_json_schema()["properties"]
    return frozenset(name for name, schema in fields.items() if "string" in _types(schema))


def _types(schema: Mapping[str, Any]) -> set[str | None]:
    return {one.get("type") for one in (schema, *schema.get("anyOf", ()))}


READERS: Mapping[Kind, Callable[[str], Iterator[Row | Problem]]] = {
    "csv": _csv,
    "jsonl": _jsonl,
    "txt": _txt,
    "paragraphs": _paragraphs,
}
