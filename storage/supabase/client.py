"""One Supabase project over HTTP. `postgrest`, `storage3` and `httpx` are imported here and nowhere else.

Whatever is asked is safe to repeat, so what gets no answer is asked again, twice at most and within one deadline.
Neither requests nor answers are logged: they hold the key, texts, and hashes of tenants' keys.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias, TypeVar

import httpx
from postgrest import APIError, AsyncPostgrestClient
from storage3 import AsyncStorageClient
from storage3.exceptions import StorageApiError

from storage.supabase.faults import fault_of
from storage.supabase.pages import PAGE_ROWS, after
from tts_core.errors import InvalidInput, StartupError, StoreUnavailable

log = logging.getLogger(__name__)
T = TypeVar("T")
JsonRow: TypeAlias = dict[str, Any]

CONNECT_S = 2.0
DATABASE_S, DATABASE_DEADLINE_S, DATABASE_CONNECTIONS = 5.0, 12.0, 16
STORAGE_S, STORAGE_DEADLINE_S, STORAGE_CONNECTIONS = 60.0, 120.0, 8
"""How long one read or write may stall, how long a call may take with all its tries, and how many run at once."""

PAUSES_S = (0.1, 0.5)
"""Before the second and the third try, each give or take a half."""

SIGNED_S = 600

LISTED = 500
"""Objects of one answer: their names in a request to remove them are about 50 KB."""


class Project:
    """Speaks as the service role, which sees every tenant: whoever asks names the tenant in each query.

    Connections belong to an event loop and are made when they are first needed.
    """

    def __init__(self, url: str, key: str, *, schema: str) -> None:
        self._url = url.rstrip("/")
        self._headers = {"apikey": key, "Authorization": f"Bearer {key}"}
        self._schema = schema
        self._connected: _Connections | None = None

    async def call(self, function: str, arguments: Mapping[str, Any], *, answer: type[T]) -> T:
        """Call a function of the database, which is one transaction.

        answer   type of the JSON it answers; a void function answers []
        raises   the TTSError that the function raised; StoreUnavailable; StartupError if the project is not set up
        """

        async def ask(connections: "_Connections") -> T:
            return _of_type(answer, (await connections.database.rpc(function, dict(arguments)).execute()).data)

        return await self._ask_database(ask)

    async def rows(
        self, table: str, *, columns: str, where: Mapping[str, str], order: Sequence[str], limit: int | None = None
    ) -> list[JsonRow]:
        """Read a table, however long it is.

        columns  with commas between them
        order    columns, each with an optional `.desc`; together unique, and none of them null
        raises   as `call`
        """
        found: list[JsonRow] = []
        while limit is None or len(found) < limit:
            wanted = min(PAGE_ROWS, (limit or len(found) + PAGE_ROWS) - len(found))
            beyond = after(found[-1], order) if found else None
            query = {"columns": columns, "where": where, "order": order, "beyond": beyond, "limit": wanted}

            async def ask(connections: "_Connections", query: Mapping[str, Any] = query) -> list[JsonRow]:
                return _of_type(list, (await _select(connections.database, table, **query).execute()).data)

            page = await self._ask_database(ask)
            found += page
            if len(page) < wanted:
                break
        return found

    async def upload(self, bucket: str, name: str, data: bytes, *, content_type: str) -> None:
        """raises  StoreUnavailable; StartupError if there is no such bucket"""

        async def ask(connections: "_Connections") -> None:
            options: Any = {"content-type": content_type, "upsert": "true"}
            await connections.storage.from_(bucket).upload(name, data, options)

        await self._ask_storage(ask)

    async def download(self, bucket: str, name: str) -> bytes:
        """raises  KeyError if there is none; as `upload`"""

        async def ask(connections: "_Connections") -> bytes:
            return await connections.storage.from_(bucket).download(name)

        return await self._ask_storage(ask)

    async def sign(self, bucket: str, name: str) -> str:
        """An address that reads the object for SIGNED_S without a key. raises as `download`"""

        async def ask(connections: "_Connections") -> str:
            signed = await connections.storage.from_(bucket).create_signed_url(name, SIGNED_S)
            return _of_type(str, signed["signedUrl"])

        return await self._ask_storage(ask)

    async def remove(self, bucket: str, names: Sequence[str]) -> None:
        """No error if there is none. raises as `upload`"""

        async def ask(connections: "_Connections") -> None:
            await connections.storage.from_(bucket).remove(list(names))

        await self._ask_storage(ask)

    async def remove_below(self, bucket: str, folder: str) -> int:
        """Remove every object of a folder and of the folders in it; how many there were. raises as `upload`"""

        async def ask(connections: "_Connections") -> list[JsonRow]:
            return _of_type(list, await connections.storage.from_(bucket).list(folder, {"limit": LISTED}))

        removed = 0
        seen: set[str] = set()
        while entries := await self._ask_storage(ask):
            paths = {f"{folder}/{entry['name']}": entry["id"] is not None for entry in entries}
            if seen.issuperset(paths):
                raise StoreUnavailable("the store does not remove objects")
            seen.update(paths)
            if names := [path for path, is_object in paths.items() if is_object]:
                await self.remove(bucket, names)
            inner = [await self.remove_below(bucket, path) for path, is_object in paths.items() if not is_object]
            removed += len(names) + sum(inner)
        return removed

    async def disconnect(self) -> None:
        """Finish what was asked for, then drop the connections; whoever asks again makes new ones."""
        connections, self._connected = self._connected, None
        if connections is not None:
            await connections.close()

    async def _ask_database(self, ask: "Callable[[_Connections], Awaitable[T]]") -> T:
        connections = self._connections()
        with connections.counted():
            return await _persistently(
                lambda: ask(connections), turn=connections.database_turns, deadline_s=DATABASE_DEADLINE_S
            )

    async def _ask_storage(self, ask: "Callable[[_Connections], Awaitable[T]]") -> T:
        connections = self._connections()
        with connections.counted():
            return await _persistently(
                lambda: ask(connections), turn=connections.storage_turns, deadline_s=STORAGE_DEADLINE_S
            )

    def _connections(self) -> "_Connections":
        if self._connected is None:
            self._connected = _Connections(self._url, self._headers, schema=self._schema)
        return self._connected


class _Connections:
    """The two clients, made inside the loop that uses them."""

    def __init__(self, url: str, headers: dict[str, str], *, schema: str) -> None:
        verify = httpx.create_ssl_context() if url.startswith("https:") else False
        self._https = [
            _http(DATABASE_S, DATABASE_CONNECTIONS, verify=verify, hooks=[_refuse_page, _refuse_uncoded]),
            _http(STORAGE_S, STORAGE_CONNECTIONS, verify=verify, hooks=[_refuse_page]),
        ]
        self.database = AsyncPostgrestClient(
            f"{url}/rest/v1", schema=schema, headers=headers, http_client=self._https[0], retry_enabled=False
        )
        self.storage = AsyncStorageClient(f"{url}/storage/v1/", headers=headers, http_client=self._https[1])
        # One turn per connection: who waits here waits as long as its deadline lets it, not as long as the pool does.
        self.database_turns = asyncio.Semaphore(DATABASE_CONNECTIONS)
        self.storage_turns = asyncio.Semaphore(STORAGE_CONNECTIONS)
        self._running = 0
        self._quiet = asyncio.Event()
        self._quiet.set()

    @contextmanager
    def counted(self) -> Iterator[None]:
        """A call, which `close` waits for."""
        self._running += 1
        self._quiet.clear()
        try:
            yield
        finally:
            self._running -= 1
            if self._running == 0:
                self._quiet.set()

    async def close(self) -> None:
        await self._quiet.wait()
        for http in self._https:
            await http.aclose()


def _http(
    stall_s: float, connections: int, *, verify: Any, hooks: list[Callable[[httpx.Response], Awaitable[None]]]
) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=20)
    return httpx.AsyncClient(
        # HTTP/1.1, as idle HTTP/2 connections end in the middle of a request; `retries` are of connecting only.
        transport=httpx.AsyncHTTPTransport(http2=False, retries=1, limits=limits, verify=verify),
        timeout=httpx.Timeout(connect=CONNECT_S, read=stall_s, write=stall_s, pool=1),
        event_hooks={"response": hooks},
    )


async def _refuse_page(response: httpx.Response) -> None:
    """A gateway's page, whatever its status: with 200 both clients would take it for data."""
    if response.headers.get("content-type", "").startswith("text/html"):
        raise httpx.RemoteProtocolError("a page instead of an answer")


class _Refused(Exception):
    """By a gateway, with this HTTP status."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


async def _refuse_uncoded(response: httpx.Response) -> None:
    """A gateway's own JSON (401 "Invalid API key", 540 "Project paused") has no code, and the client no status."""
    if response.is_success:
        return
    await response.aread()
    try:
        told = response.json()
    except ValueError:  # then the status is what it tells as code
        return
    if not (isinstance(told, dict) and told.get("code")):
        raise _Refused(response.status_code)


def _select(
    database: AsyncPostgrestClient, table: str, *, columns: str, where: Mapping[str, str], order: Sequence[str],
    beyond: str | None, limit: int,
) -> Any:  # fmt: skip
    query = database.from_(table).select(columns).limit(limit)
    for column, value in where.items():
        query = query.eq(column, value)
    for item in order:
        name, _, direction = item.partition(".")
        query = query.order(name, desc=direction == "desc")
    return query.or_(beyond) if beyond else query


async def _persistently(ask: Callable[[], Awaitable[T]], *, turn: asyncio.Semaphore, deadline_s: float) -> T:
    """raises  StoreUnavailable if there is no answer after three tries or at the deadline"""
    try:
        async with asyncio.timeout(deadline_s):
            for pause_s in PAUSES_S:
                try:
                    return await _once(ask, turn)
                except StoreUnavailable as exc:
                    log.warning("store: no answer (%s), asking again", type(exc.__cause__).__name__)
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))  # noqa: S311  jitter, no secret
            return await _once(ask, turn)
    except TimeoutError as exc:
        raise StoreUnavailable("the store did not answer in time") from exc


async def _once(ask: Callable[[], Awaitable[T]], turn: asyncio.Semaphore) -> T:
    async with turn:
        with _translated():
            return await ask()


@contextmanager
def _translated() -> Iterator[None]:
    """Tell what the clients raise as errors of ours.

    What Postgres refuses because of a mistake of our own, which no retry mends, passes as it is.
    """
    try:
        yield
    except httpx.HTTPError as exc:
        raise StoreUnavailable("the store did not answer") from exc
    except _Refused as exc:
        raise fault_of(str(exc.status)) or StoreUnavailable("the store did not answer") from exc
    except APIError as exc:
        told = {"message": exc.message or "", "detail": str(exc.details or ""), "hint": exc.hint or ""}
        fault = fault_of(exc.code or "", **told)
        if fault is None:
            raise
        raise fault from exc
    except StorageApiError as exc:
        if exc.code == "not_found":
            raise KeyError("no such object") from exc
        if exc.code == "Bucket not found":
            raise StartupError("the Supabase project lacks our buckets: run `supabase db push`") from exc
        fault = fault_of(str(exc.status))
        if fault is None:
            raise
        raise fault from exc
    except UnicodeEncodeError as exc:
        raise InvalidInput("a text holds a character that cannot be stored") from exc
    except ValueError as exc:  # neither client names what it raises where it cannot read an answer
        raise StoreUnavailable("the store gave no answer of its own") from exc


def _of_type(kind: type[T], data: Any) -> T:
    """raises  ValueError: what is no JSON arrives as str"""
    if not isinstance(data, kind):
        raise ValueError("not the JSON that was expected")
    return data
