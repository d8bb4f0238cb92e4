"""Is each right in the migrations held by a test? `python -m tests.sql_mutations`

Every GRANT and REVOKE (each object, role and right of it), policy, `enable row level security` and `search_path` is
removed, one at a time; the rest of its file runs, and the checks of tests/sql_checks.py are asked what they notice.
Prints a table of what was removed and which check noticed (in pytest, `test_rule` of tests/test_migrations.py with its
name); the exit status is 1 if one was noticed by none.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import psycopg

from tests.postgres import Database, Postgres
from tests.sql_checks import CHECKS, findings
from tests.sql_rows import Connection

MIGRATIONS = Path(__file__).parent.parent / "supabase" / "migrations"

PIECE = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\"[^\"]*\"|\$(\w*)\$.*?\$\1\$|;|[^;]", re.DOTALL)
COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
RIGHT = re.compile(
    r"(?P<verb>grant|revoke) (?P<rights>.+?) on (?P<kind>table |function |schema |sequence )?(?P<objects>.+)"
    r" (?P<to>to|from) (?P<roles>[\w, ]+)"
)
SEARCH_PATH = re.compile(r"\bset search_path = ''")
ROW_SECURITY = re.compile(r"execute format\('alter table [^']* enable row level security'[^;]*\);")


@dataclass(frozen=True)
class Statement:
    """`text` is as written, without the semicolon; `line` counts from 1."""

    file: str
    line: int
    text: str


@dataclass(frozen=True)
class Removal:
    """`left` stands in the place of the statement; empty where nothing of it is left."""

    statement: Statement
    what: str
    left: str


@dataclass(frozen=True)
class Noticed:
    """`by` is the name of a check with ` (legacy grants)` where only those show it; empty: by none."""

    removal: Removal
    by: str


class NotClean(Exception):
    """A check finds something although nothing was removed."""


def statements(path: Path) -> list[Statement]:
    text, found, start = path.read_text(), [], 0
    for piece in PIECE.finditer(text):
        if piece.group() == ";":
            found.append(_statement(path, text, start, piece.start()))
            start = piece.end()
    return found


def _statement(path: Path, text: str, start: int, end: int) -> Statement:
    code = COMMENT.sub(lambda comment: " " * len(comment.group()), text[start:end])
    first = start + len(code) - len(code.lstrip())
    return Statement(path.name, text.count("\n", 0, first) + 1, text[first:end])


def removals(statement: Statement) -> Iterator[Removal]:
    code = " ".join(COMMENT.sub(" ", statement.text).split())
    if code.startswith("create policy ") or re.fullmatch(r"alter table \S+ enable row level security", code):
        yield Removal(statement, code[:70], "")
    elif code.startswith(("grant ", "revoke ")):
        yield from _rights(statement, code)
    elif code.startswith(("create function ", "create or replace function ")):
        yield from _clauses(statement, code)


def _rights(statement: Statement, code: str) -> Iterator[Removal]:
    """Less one object, one role or one right. A new schema and a new table are nobody's without a REVOKE, so only the
    objects of a REVOKE are tried, and of schemas none."""
    found = RIGHT.fullmatch(code)
    if found is None:
        raise ValueError(f"{statement.file}:{statement.line}: not understood: {code!r}")
    if found["verb"] == "revoke" and found["kind"] == "schema ":
        return
    lists = ["objects"] if found["verb"] == "revoke" else ["objects", "roles", "rights"]
    for name in lists:
        items = re.split(r", (?![^(]*\))", found[name])
        for item in items:
            if len(items) == 1 and name != "objects":
                continue
            others = ", ".join(other for other in items if other != item)
            left = code[: found.start(name)] + others + code[found.end(name) :] if others else ""
            yield Removal(statement, f"{found['verb']} {found['rights'][:8]}: {item}", left)


def _clauses(statement: Statement, code: str) -> Iterator[Removal]:
    name = re.sub(r"create (or replace )?function ([\w.]+).*", r"\2", code)
    for what, clause in {"search_path": SEARCH_PATH, "row level security": ROW_SECURITY}.items():
        for found in clause.finditer(statement.text):
            left = statement.text[: found.start()] + statement.text[found.end() :]
            yield Removal(statement, f"{what} of {name}", left)


def noticed(postgres: Postgres, *, every: int = 1) -> list[Noticed]:
    """What the checks make of each removal, of each nth only if so wanted. raises NotClean"""
    files = [statements(path) for path in sorted(MIGRATIONS.glob("*.sql"))]
    asked = [removal for statement in chain.from_iterable(files) for removal in removals(statement)][::every]
    strict = _outcomes(postgres, files, asked, legacy=False)
    legacy = _outcomes(postgres, files, [removal for removal in asked if not strict[removal]], legacy=True)
    told = strict | {removal: name and f"{name} (legacy grants)" for removal, name in legacy.items()}
    return [Noticed(removal, told[removal]) for removal in asked]


def _outcomes(
    postgres: Postgres, files: Sequence[Sequence[Statement]], asked: Sequence[Removal], *, legacy: bool
) -> dict[Removal, str]:
    """All in one transaction: each removal branches off where its statement stands, and is rolled back."""
    outcomes: dict[Removal, str] = {}
    with postgres.database(legacy=legacy) as database, _connect(database) as connection:
        for file in files:
            for place, statement in enumerate(file):
                rest = [later.text for later in file[place + 1 :]]
                for removal in (removal for removal in asked if removal.statement is statement):
                    outcomes[removal] = _outcome(connection, [removal.left, *rest])
                _run(connection, [statement.text])
            _assert_clean(connection, file[0].file)
        connection.rollback()
    return outcomes


def _connect(database: Database) -> Connection:
    return psycopg.connect(database.url(role="supabase_admin"))


def _outcome(connection: Connection, texts: Sequence[str]) -> str:
    """The first check that finds something once these have run, or empty."""
    with connection.transaction(force_rollback=True):
        try:
            _run(connection, texts)
        except psycopg.Error as error:
            return f"does not run: {error.diag.message_primary}"
        return next((name for name, check in CHECKS.items() if findings(connection, check)), "")


def _assert_clean(connection: Connection, name: str) -> None:
    for check in CHECKS.values():
        if found := findings(connection, check):
            raise NotClean(f"{name}: {found}")


def _run(connection: Connection, texts: Sequence[str]) -> None:
    connection.execute("set local role postgres")
    connection.execute(";\n".join(filter(None, texts)).encode())
    connection.execute("reset role")


def table(outcomes: Sequence[Noticed]) -> str:
    lines = []
    for outcome in outcomes:
        removal = outcome.removal
        place = f"{removal.statement.file}:{removal.statement.line}"
        lines.append(f"{place:<38} {removal.what:<72} {outcome.by or 'NOTICED BY NONE'}")
    return "\n".join(lines)


def main() -> int:
    with Postgres() as postgres:
        outcomes = noticed(postgres)
    missed = [outcome for outcome in outcomes if not outcome.by]
    sys.stdout.write(f"{table(outcomes)}\n{len(outcomes)} removals, {len(missed)} noticed by none\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
