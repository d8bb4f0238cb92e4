"""Fixtures: a fresh store of either body for each test. One Postgres serves a whole run (each worker of xdist its own).

A test of the contract takes `store`, or `place` where it needs several stores of the same data, and never asks which
body it got. A test that looks behind the back of the Supabase body takes `project` as well.
"""

import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from storage.local import open_local
from storage.supabase import open_supabase
from tests.postgres import Database, Postgres
from tests.supabase_server import SupabaseServer
from tts_core.store import Store

BODIES = ["local", "supabase"]
MIGRATIONS = Path(__file__).parent.parent / "supabase" / "migrations"
IS_LEGACY = os.environ.get("TEST_GRANTS") == "legacy"
"""Whether the project of the tests is an old one, which grants everything to everybody: see `make test-legacy`."""

START_S = 1_800_000_000.0


class Clock:
    """Seconds since 1970, moved by hand."""

    def __init__(self) -> None:
        self.now_s = START_S

    def __call__(self) -> float:
        return self.now_s


@dataclass(frozen=True)
class Place:
    """Where the data of one test lies; can be sent to other processes."""

    folder: Path
    url: str | None = None
    key: str = ""

    async def open(self, clock: Callable[[], float], *, operator_key: bytes | None = None) -> Store:
        """One more store of the same data, as another worker has it. Close it."""
        if self.url is None:
            return await open_local(self.folder, clock=clock, operator_key=operator_key)
        return await open_supabase(self.url, self.key, clock=clock, operator_key=operator_key)


Places = Callable[[], AbstractContextManager[Place]]


@dataclass(frozen=True)
class Project:
    """A Supabase project, as far as the tests have one, with our migrations."""

    database: Database
    server: SupabaseServer


@contextmanager
def new_project(postgres: Postgres) -> Iterator[Project]:
    with (
        tempfile.TemporaryDirectory() as objects,
        postgres.database(MIGRATIONS, legacy=IS_LEGACY) as database,
        SupabaseServer(database, Path(objects)) as server,
    ):
        yield Project(database, server)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with Postgres() as running:
        yield running


@pytest.fixture
def project(postgres: Postgres) -> Iterator[Project]:
    with new_project(postgres) as project:
        yield project


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=BODIES)
def places(request: pytest.FixtureRequest) -> Places:
    """For tests that need many: each call gives an empty place."""

    @contextmanager
    def new_place() -> Iterator[Place]:
        with ExitStack() as opened:
            folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
            if request.param == "local":
                yield Place(folder)
            else:
                server = opened.enter_context(new_project(request.getfixturevalue("postgres"))).server
                yield Place(folder, server.url, server.service_key)

    return new_place


@pytest.fixture
def place(places: Places) -> Iterator[Place]:
    with places() as place:
        yield place


@pytest.fixture
async def store(place: Place, clock: Clock) -> AsyncIterator[Store]:
    store = await place.open(clock)
    yield store
    await store.close()


@pytest.fixture
async def other_worker(place: Place, clock: Clock) -> AsyncIterator[Store]:
    """The same data through another store."""
    store = await place.open(clock)
    yield store
    await store.close()
