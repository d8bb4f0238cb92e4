"""What the Supabase CLI, its linters and squawk say of the migrations. `make check-sql` gives it what it needs.

Twice, in a new project and in one with legacy grants, on a private Postgres 15 of Debian's: `db push`, `db lint` (which
is plpgsql_check), `db advisors`, and the checks of tests/sql_checks.py. Then squawk reads the files. The exit status
is 1 if any of them found something; every one is asked. Whatever was started has ended by then.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg

from tests.postgres import Database, Postgres
from tests.sql_checks import CHECKS, findings

ROOT = Path(__file__).parent.parent
MIGRATIONS = ROOT / "supabase" / "migrations"
PROGRAMS = Path("/usr/lib/postgresql/15/bin")
CLI = ROOT / "build" / "supabase" / "node_modules" / ".bin" / "supabase"
QUIET = {"SUPABASE_TELEMETRY_DISABLED": "1", "CI": "1", "NO_COLOR": "1"}
CLI_TIMEOUT_S = 120

LAST_OF_FIRST_RELEASE = "20261121999999"
"""Files up to here go to a new project together: no table of theirs has rows, and nobody waits for a lock on one."""

EVERYWHERE = ("prefer-bigint-over-int",)
ON_EMPTY_TABLES = (
    *EVERYWHERE,
    "require-lock-timeout",
    "ban-drop-function",  # of this very release: nobody calls it yet
    "require-statement-timeout",
    "require-concurrent-index-deletion",
)

UNIFORM = 'unused parameter "p_now"'
"""What may be said of our functions: all of them take the same two arguments, also those that need no time."""


@dataclass(frozen=True)
class Project:
    """A database, and a folder as the CLI wants it."""

    database: Database
    folder: Path

    def asked(self, *command: str) -> subprocess.CompletedProcess[str]:
        url = f"postgresql://postgres@127.0.0.1:{self.database.port}/{self.database.name}?sslmode=disable"
        options = [f"--remote={url}", "--workdir", str(self.folder), "--yes", "--agent", "no"]
        return subprocess.run(
            [str(CLI), *command, *options],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CLI_TIMEOUT_S,
            env=os.environ | QUIET,
        )


def pushed(project: Project) -> list[str]:
    return _failure(project.asked("db", "push"))


def linted(project: Project) -> list[str]:
    """The level is judged here, because the CLI knows no exceptions."""
    done = project.asked("db", "lint", "--level", "warning", "--fail-on", "none")
    if done.returncode != 0:
        return _failure(done)
    functions = json.loads(done.stdout) if done.stdout.lstrip().startswith("[") else []
    found = [(function["function"], issue) for function in functions for issue in function["issues"]]
    return [f"{name}: {json.dumps(issue)}" for name, issue in found if issue["message"] != UNIFORM]


def advised(project: Project) -> list[str]:
    return _failure(project.asked("db", "advisors", "--level", "warn", "--fail-on", "warn"))


def obeyed(project: Project) -> list[str]:
    """The rules that `make test` checks on another Postgres."""
    with psycopg.connect(project.database.url(role="supabase_admin")) as connection:
        return [f"{name}: {each}" for name, check in CHECKS.items() for each in findings(connection, check)]


STEPS = {"db push": pushed, "db lint": linted, "db advisors": advised, "checks": obeyed}


def _failure(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [] if done.returncode == 0 else [f"exit status {done.returncode}\n{done.stdout}{done.stderr}"]


def asked_of_projects() -> Iterator[tuple[str, list[str]]]:
    with Postgres(PROGRAMS, tcp_port=_free_port()) as postgres, tempfile.TemporaryDirectory() as folder:
        shutil.copytree(MIGRATIONS.parent, Path(folder) / "supabase", ignore=shutil.ignore_patterns(".*"))
        for mode in ("strict", "legacy"):
            with postgres.database(legacy=mode == "legacy") as database:
                with database.connect(role="supabase_admin") as connection:
                    connection.execute("create extension plpgsql_check schema extensions")
                for name, step in STEPS.items():
                    yield f"{name} ({mode} grants)", step(Project(database, Path(folder)))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def asked_of_squawk() -> Iterator[tuple[str, list[str]]]:
    """`db push` runs a file in one transaction unless it is a single statement, so only later files may need to be
    split: there squawk is not told of the transaction, and asks for indexes made concurrently."""
    paths = sorted(MIGRATIONS.glob("*.sql"))
    first = [path for path in paths if path.name < LAST_OF_FIRST_RELEASE]
    yield "squawk (first release)", _squawk(first, "--assume-in-transaction", excluded=ON_EMPTY_TABLES)
    for path in paths[len(first) :]:
        yield f"squawk ({path.name})", _squawk([path], excluded=(*EVERYWHERE, "prefer-robust-stmts"))


def _squawk(paths: Sequence[Path], *options: str, excluded: Iterable[str]) -> list[str]:
    """All as one text, so that squawk knows which tables are new."""
    done = subprocess.run(
        [
            *(str(Path(sys.executable).parent / "squawk"), "--reporter=gcc", "--pg-version=15.0", *options),
            *(f"--exclude={name}" for name in excluded),
        ],
        input="".join(path.read_text() for path in paths),
        capture_output=True,
        text=True,
    )
    if done.returncode == 0:
        return []
    return [_placed(line, paths) for line in (done.stdout + done.stderr).splitlines()]


def _placed(line: str, paths: Sequence[Path]) -> str:
    """A line of squawk's with the file in the place of `stdin`; it counts lines from 0."""
    found = re.match(r"stdin:(\d+):", line)
    if found is None:
        return line
    number = int(found[1]) + 1
    for path in paths:
        lines = path.read_text().count("\n")
        if number <= lines:
            return f"{path.name}:{number}:{line[found.end() :]}"
        number -= lines
    return line


def main() -> int:
    failed = False
    for asked in (asked_of_projects(), asked_of_squawk()):
        for name, found in asked:
            failed |= bool(found)
            sys.stdout.write("\n  ".join([f"{name}: {'FAILED' if found else 'ok'}", *found]) + "\n")
            sys.stdout.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
