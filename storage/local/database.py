"""One SQLite file, and the one thread that owns it. `sqlite3` is imported here and nowhere else."""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Self, TypeVar

from storage.local.schema import Migration, utc
from tts_core.errors import StartupError, StoreUnavailable

Connection = sqlite3.Connection
Row = sqlite3.Row
T = TypeVar("T")

BUSY_TIMEOUT_S = 10.0
"""How long one process waits for another's transaction, which takes milliseconds, before it gives up."""


@contextmanager
def translated() -> Iterator[None]:
    """Tell faults of the file or the disk as StoreUnavailable.

    A broken constraint or a misused connection is our own mistake, which no retry mends: it passes as it is.
    """
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise
    except (sqlite3.DatabaseError, OSError) as exc:
        raise StoreUnavailable("the local store cannot read or write its folder") from exc


class Database:
    """Runs work on the connection, one piece at a time, off the event loop.

    Other processes may own a `Database` of the same file: a write takes SQLite's write lock before it reads.
    A caller that is cancelled leaves its work to be finished whole, or not begun.
    """

    def __init__(self, executor: ThreadPoolExecutor, connection: Connection) -> None:
        self._executor = executor
        self._connection = connection
        self._closed: Future[None] | None = None

    @classmethod
    async def open(cls, path: Path, *, migrations: Sequence[Migration]) -> Self:
        """Make the file if there is none, and bring its tables up to date.

        raises  StoreUnavailable; StartupError if a newer version of the worker has changed the tables
        """
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite")
        with ExitStack() as undo:
            undo.callback(executor.shutdown, wait=False)
            with translated():
                connection = await asyncio.get_running_loop().run_in_executor(executor, _connect, path, migrations)
            undo.pop_all()
        return cls(executor, connection)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work`, which issues one SELECT."""
        return await self._on_thread(lambda: work(self._connection))

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction that no other thread or process writes beside; undone if it raises."""

        def transaction() -> T:
            with self._connection as tx:
                tx.execute("begin immediate")
                return work(tx)

        return await self._on_thread(transaction)

    async def close(self) -> None:
        """Finish what was asked for, close the file and end the thread. Nothing but `close` may be asked again."""
        if self._closed is None:
            self._closed = self._executor.submit(self._connection.close)
        await asyncio.to_thread(self._executor.shutdown)
        with translated():
            self._closed.result()

    async def _on_thread(self, work: Callable[[], T]) -> T:
        with translated():
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)


def _connect(path: Path, migrations: Sequence[Migration]) -> Connection:
    with _alone(path.with_suffix(".lock")), ExitStack() as undo:
        # Exclusive, as opening and closing a file that SQLite has open would drop its locks (POSIX).
        with suppress(FileExistsError):
            path.touch(mode=0o600, exist_ok=False)
        # No isolation level: transactions begin where it is written, not where Python guesses.
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        undo.callback(connection.close)
        connection.row_factory = sqlite3.Row
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma foreign_keys = on")
        _migrate(connection, migrations)
        undo.pop_all()
        return connection


@contextmanager
def _alone(gate: Path) -> Iterator[None]:
    """Open files one process at a time, behind the lock of a file of its own.

    Turning a fresh file to WAL does not heed the busy timeout: of 3,000 opens by ten processes at once, 52
    failed with "database is locked".
    """
    with closing(sqlite3.connect(gate, timeout=BUSY_TIMEOUT_S)) as lock:
        lock.execute("begin exclusive")
        yield


def _migrate(connection: Connection, migrations: Sequence[Migration]) -> None:
    with connection as tx:
        tx.execute("begin immediate")
        tx.execute("create table if not exists migrations (name text primary key, applied_at text not null) strict")
        applied = {row["name"] for row in tx.execute("select name from migrations")}
        if unknown := applied - {name for name, _ in migrations}:
            raise StartupError(f"the local store was changed by a newer version: it has {sorted(unknown)!r}")
        for name, statements in migrations:
            if name not in applied:
                for statement in statements:
                    tx.execute(statement)
                tx.execute("insert into migrations values (?, ?)", (name, utc(time.time())))
