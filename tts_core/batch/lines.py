"""Rows become lines that may be sent: defaults filled in, checked by the wire's own model, named and told apart."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tts_core.batch.reading import BadInput, Problem, Row
from tts_core.errors import TextError, TTSError
from tts_core.jobs import JsonObject, parse
from tts_core.jobs.files import with_files
from tts_core.text import check_text

MAX_TEXT_CHARS = 50_000
"""The most that any worker accepts (XTTS_MAX_TEXT_CHARS); this one's own limit is its own to tell."""

MAX_NAME_BYTES = 220
"""Of a file or folder: file systems take 255, and beside `NAME.wav` there may be `.NAME.wav.alignments.json.part`."""

MAX_ID_BYTES = 80
"""Of an id in the name of its file."""

MAX_BODY_BYTES = 9_900_000
"""RunPod takes 10 MB a job; the rest is for its wrapping and the key."""


@dataclass(frozen=True, slots=True)
class Line:
    """One job of the batch.

    number    where it stands in the file, for people
    identity  what tells it from the other lines of the batch, wherever it moves
    file      of its audio, below DIR
    body      `input` of the job, without keys
    own_key   the `idempotency_key` that the file gave it
    """

    number: int
    identity: str
    file: str
    body: JsonObject = field(repr=False)
    own_key: str | None = None

    @property
    def chars(self) -> int:
        return len(self.body["text"])

    def key(self, batch_id: str) -> str:
        """What the manifest knows it by: the same line of the same batch has the same key, a changed line has another.

        batch_id  of the folder: the same file spoken into another folder is another batch, asked for anew
        """
        own = [self.own_key] if self.own_key else []
        return "batch-" + _digest([batch_id, self.identity, self.body, *own])[:40]

    def sent_key(self, batch_id: str, *, renewals: int) -> str:
        """The idempotency key of the job: its own, or what the manifest knows it by."""
        key = self.own_key or self.key(batch_id)
        return f"{key}.{renewals}" if renewals else key


def plan(rows: Iterable[Row | Problem], defaults: JsonObject, *, base: Path) -> Sequence[Line]:
    """The lines to speak, all of them valid.

    defaults  fields for every line that does not say otherwise
    base      folder that clips named as `@clip.wav` are looked for in
    raises    BadInput with all that is wrong in the whole file
    """
    drafts = [_draft(row, defaults, base) if isinstance(row, Row) else row for row in rows]
    problems = [draft for draft in drafts if isinstance(draft, Problem)]
    valid = [draft for draft in drafts if isinstance(draft, _Draft)]
    problems += _twice([(draft.number, draft.id) for draft in valid], "id")
    problems += _twice([(draft.number, draft.own_key) for draft in valid], "idempotency_key")
    lines = _named(valid)
    problems += _twice([(line.number, line.file.casefold()) for line in lines], "file")
    problems += _files_and_folders(lines)
    if not drafts:
        problems = [Problem(0, "there is nothing to speak")]
    if problems:
        raise BadInput(*sorted(problems, key=lambda problem: problem.number))
    return lines


@dataclass(frozen=True, slots=True)
class _Draft:
    number: int
    body: JsonObject
    id: str | None
    file: str | None
    own_key: str | None


def _draft(row: Row, defaults: JsonObject, base: Path) -> _Draft | Problem:
    fields = defaults | row.fields
    names = {name: fields.pop(name, None) for name in ("id", "file")}
    try:
        fields = with_files(fields, base)
        reason = _refusal(fields) or _bad_names(names)
    except TTSError as error:
        reason = str(error)
    if reason:
        return Problem(row.number, reason)
    own_key = fields.pop("idempotency_key", None)
    identity = None if names["id"] is None else str(names["id"])
    return _Draft(row.number, fields, identity, names["file"], own_key)


def _refusal(fields: JsonObject) -> str | None:
    """raises  TTSError where the wire's own model refuses the line"""
    if fields.get("tenant_key") is not None:
        return "tenant_key: does not belong into a file; set TTS_TENANT_KEY"
    if fields.get("action", "synthesize") != "synthesize":
        return "action: a batch only speaks (synthesize)"
    parse(fields)
    size_bytes = len(json.dumps(fields))
    if size_bytes > MAX_BODY_BYTES:
        return f"has {size_bytes} bytes, more than {MAX_BODY_BYTES}"
    return _unspeakable(fields["text"])


def _unspeakable(text: str) -> str | None:
    try:
        check_text(text, max_chars=MAX_TEXT_CHARS)
    except TextError as error:
        return f"text: {str(error).removeprefix('text ')}"
    return None


def _bad_names(names: Mapping[str, object]) -> str | None:
    id, file = names["id"], names["file"]
    if id is not None and (not isinstance(id, str | int) or isinstance(id, bool) or not 0 < len(str(id)) <= 200):
        return "id: must be a text of 1 to 200 characters, or a whole number"
    if file is not None and (not isinstance(file, str) or not _is_safe(file)):
        return (
            "file: must be a name below the output folder, without .. or hidden parts, "
            f"of up to 200 characters and {MAX_NAME_BYTES} bytes each part"
        )
    return None


def _is_safe(file: str) -> bool:
    path = PurePosixPath(file)
    fits = 0 < len(file) <= 200 and file.isprintable() and "\\" not in file and not file.endswith("/")
    return fits and not path.is_absolute() and all(_is_safe_part(part) for part in path.parts)


def _is_safe_part(part: str) -> bool:
    return not part.startswith(".") and len(part.encode()) <= MAX_NAME_BYTES


def _named(drafts: Sequence[_Draft]) -> Sequence[Line]:
    seen: Counter[str] = Counter()
    lines = []
    for place, draft in enumerate(drafts, start=1):
        digest = _digest(draft.body)
        seen[digest] += 1
        # Not its place: a line put in before it would make all that follow new lines.
        identity = f"id {draft.id}" if draft.id is not None else f"number {seen[digest]} of {digest}"
        name = _slug(draft.id) if draft.id is not None else _digest(identity)[:8]
        file = _with_ending(draft.file or f"{place:05d}-{name}", draft.body.get("format") or "wav")
        lines.append(Line(draft.number, identity, file, draft.body, draft.own_key))
    return lines


def _with_ending(file: str, format: str) -> str:
    return file if file.endswith(f".{format}") else f"{file}.{format}"


def _slug(id: str) -> str:
    return re.sub(r"[^\w-]+", "_", id).encode()[:MAX_ID_BYTES].decode(errors="ignore")


def _twice(named: Sequence[tuple[int, str | None]], what: str) -> list[Problem]:
    first: dict[str, int] = {}
    problems = []
    for number, name in named:
        if name is not None and first.setdefault(name, number) != number:
            problems.append(Problem(number, f"{what}: is that of line {first[name]} too"))
    return problems


def _files_and_folders(lines: Sequence[Line]) -> list[Problem]:
    """A name cannot be both."""
    files = {line.file.casefold(): line.number for line in lines}
    parents = [(line.number, str(parent)) for line in lines for parent in PurePosixPath(line.file.casefold()).parents]
    return [
        Problem(number, f"file: lies in {parent!r}, the file of line {files[parent]}")
        for number, parent in parents
        if parent in files
    ]


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
