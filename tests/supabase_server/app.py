"""The server itself: both halves on a loopback port, in a thread with an event loop of its own."""

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from uvicorn.server import ServerState

from tests.postgres import Database
from tests.supabase_server.callers import Keys
from tests.supabase_server.faults import Faults, Protocol
from tests.supabase_server.rest import Rest
from tests.supabase_server.storage import Storage
from tests.supabase_server.transactions import Transactions


class SupabaseServer:
    """One project; runs while its context is open, which any number of servers may be.

    folder   where the bytes of objects go
    schemas  exposed ones; the first is the default
    url      base of /rest/v1 and /storage/v1/
    faults   what goes wrong next
    """

    def __init__(self, database: Database, folder: Path, *, schemas: tuple[str, ...] = ("public",)) -> None:
        self._keys = Keys()
        self._transactions = Transactions(database.url(role="authenticator"))
        rest = Rest(self._transactions, self._keys, schemas=schemas)
        storage = Storage(self._transactions, self._keys, folder=folder)
        self.faults = Faults(Starlette(routes=[*rest.routes(), *storage.routes()]))
        self._started: Future[Callable[[], object]] = Future()
        self._thread = ThreadPoolExecutor(1, "supabase-server")

    @property
    def service_key(self) -> str:
        return self._keys.service

    @property
    def anon_key(self) -> str:
        return self._keys.anon

    def token(self, role: str, *, lives_s: int = 3600, **claims: Any) -> str:
        """A JWT: a legacy key (`service_role`, `anon`), or a user (`authenticated`, sub=the user's id)."""
        return self._keys.token({"role": role, **claims}, lives_s=lives_s)

    def __enter__(self) -> Self:
        """raises WrongLogin, psycopg.OperationalError"""
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else each answer waits 40 ms for an ACK
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._running = self._thread.submit(lambda: asyncio.run(self._run()))
        either: set[Future[Any]] = {self._started, self._running}
        wait(either, return_when=FIRST_COMPLETED)
        if self._running.done():
            self._socket.close()
            self._running.result()
        return self

    def __exit__(self, *exc: object) -> None:
        self._started.result()()
        self._running.result()
        self._thread.shutdown()

    async def _run(self) -> None:
        """uvicorn's protocol without uvicorn's server, which looks only ten times a second whether it should stop."""
        loop, closing, state = asyncio.get_running_loop(), asyncio.Event(), ServerState()
        config = uvicorn.Config(self.faults, lifespan="off", log_config=None, access_log=False)
        async with self._transactions:
            listener = await loop.create_server(lambda: Protocol(config, state, {}), sock=self._socket)
            self._started.set_result(lambda: loop.call_soon_threadsafe(closing.set))
            await closing.wait()
            listener.close()
            for connection in state.connections:
                connection.transport.abort()
            await asyncio.gather(*state.tasks)
