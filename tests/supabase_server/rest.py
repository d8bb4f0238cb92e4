"""The REST half: tables and functions, as the caller."""

import json
from collections.abc import Awaitable, Callable, Sequence

import psycopg
from psycopg.rows import DictRow
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.supabase_server.callers import Keys
from tests.supabase_server.changes import BODY, SINGLE, Call, change, read_json
from tests.supabase_server.errors import NotSpoken, RestError, rest_error
from tests.supabase_server.functions import SCALAR, Function, choose, overloads
from tests.supabase_server.query import RESERVED, Query
from tests.supabase_server.transactions import Connection, Transactions, one

SPOKEN_TYPES = {"*/*", "application/json", SINGLE}


class Rest:
    def __init__(self, transactions: Transactions, keys: Keys, *, schemas: Sequence[str]) -> None:
        self._transactions = transactions
        self._keys = keys
        self._schemas = schemas

    def routes(self) -> list[Route]:
        methods = ["GET", "HEAD", "POST", "PATCH", "DELETE"]
        return [
            Route("/rest/v1/rpc/{name}", self._answering(self._function), methods=["GET", "HEAD", "POST"]),
            Route("/rest/v1/{name}", self._answering(self._table), methods=methods),
        ]

    def _answering(self, endpoint: Callable[[Call], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            try:
                call = await self._read(request)
                try:
                    return await endpoint(call)
                except psycopg.Error as error:
                    raise _as_cached(error, call) from error
            except RestError as error:
                return error.response()

        return answer

    async def _read(self, request: Request) -> Call:
        """raises RestError, NotSpoken"""
        caller = self._keys.identify(request.headers)
        profile = "accept-profile" if request.method in ("GET", "HEAD") else "content-profile"
        schema = request.headers.get(profile, self._schemas[0])
        if schema not in self._schemas:
            exposed = f"Only the following schemas are exposed: {', '.join(self._schemas)}"
            raise RestError(406, "PGRST106", f"Invalid schema: {schema}", hint=exposed)
        if (accepted := request.headers.get("accept", "*/*")) not in SPOKEN_TYPES:
            raise NotSpoken(f"answers of the type {accepted!r}")
        prefer = dict(part.strip().partition("=")[::2] for part in request.headers.get("prefer", "").split(","))
        if prefer.get("missing") == "default" or prefer.get("count", "exact") != "exact":
            raise NotSpoken(f"the preferences {prefer}")
        return Call(request, caller, schema, request.path_params["name"], prefer, await request.body())

    async def _table(self, call: Call) -> Response:
        query = call.query()
        async with self._transactions.begin(call.caller, read_only=call.reads, search_path=[call.schema]) as connection:
            if call.reads:
                source = SQL("select {} from {} as {} {}").format(
                    query.columns, call.relation, Identifier(call.name), query.tail
                )
                row = await _fetch(connection, source, total=_total(call, call.relation, query))
                return _page(call, query, row)
            row = await _fetch(connection, await change(connection, call, query), total=Literal(None))
            return _changed(call, row)

    async def _function(self, call: Call) -> Response:
        async with self._transactions.begin(call.caller, read_only=True) as connection:
            functions = await overloads(connection, call.schema, call.name)
        body, filters = _arguments(call, functions)
        arguments = list(_object(body))
        function = choose(functions, set(arguments), name=f"{call.schema}.{call.name}")
        if function.volatile and "count" in call.prefer:
            raise NotSpoken("the count of a volatile function's rows: it would be called twice")
        query = call.query(filters)
        relation = function.call(call.relation, arguments, body)
        columns = query.columns if function.composite else Composed([Identifier(SCALAR)])
        source = SQL("select {} from {} as {} {}").format(columns, relation, Identifier(call.name), query.tail)
        read_only = call.reads or not function.volatile
        async with self._transactions.begin(call.caller, read_only=read_only, search_path=[call.schema]) as connection:
            row = await _fetch(connection, source, total=_total(call, relation, query), scalar=not function.composite)
            if function.void:
                return Response(status_code=204)
            return _page(call, query, row, one_value=not function.many)


async def _fetch(connection: Connection, source: Composed, *, total: Composable, scalar: bool = False) -> DictRow:
    """rows: JSON text of a list; first: of its first item or null; n: how many; updated: of an upsert"""
    item = Identifier("pgrst_row", SCALAR) if scalar else Identifier("pgrst_row")
    statement = SQL("""
        with pgrst_row as ({})
        select coalesce(json_agg({item}), '[]')::text as rows, coalesce(json_agg({item})->0, 'null')::text as first,
               count(*) as n, ({}) as total,
               coalesce(nullif(current_setting('pgrst.updated', true), ''), '0')::int as updated
        from pgrst_row
    """)
    return await one(connection, statement.format(source, total, item=item))


def _total(call: Call, relation: Composable, query: Query) -> Composable:
    if "count" not in call.prefer:
        return Literal(None)
    return SQL("select count(*) from {} as {} {}").format(relation, Identifier(call.name), query.where)


def _page(call: Call, query: Query, row: DictRow, *, one_value: bool = False) -> Response:
    n, total, end = row["n"], row["total"], query.offset + row["n"]
    if total is not None and query.offset > total:
        details = f"An offset of {query.offset} was requested, but there are only {total} rows."
        raise RestError(416, "PGRST103", "Requested range not satisfiable", details=details)
    span = f"{query.offset}-{end - 1}" if n else "*"
    headers = {"Content-Range": f"{span}/{'*' if total is None else total}"}
    body = row["first"] if one_value else _rows(call, row)
    return Response(body, 206 if total is not None and n < total else 200, headers, _media_type(call))


def _changed(call: Call, row: DictRow) -> Response:
    if "max-affected" in call.prefer and row["n"] > int(call.prefer["max-affected"]):
        details = f"The query affects {row['n']} rows"
        raise RestError(400, "PGRST124", "Query result exceeds max-affected preference constraint", details=details)
    inserting = call.request.method == "POST"
    headers = {"Content-Range": f"*/{row['n'] if 'count' in call.prefer else '*'}"}
    if call.prefer.get("return") != "representation":
        return Response(status_code=201 if inserting else 204, headers=headers)
    only_merged = "resolution" in call.prefer and row["n"] == row["updated"]
    status = 201 if inserting and not only_merged else 200
    return Response(_rows(call, row), status, headers, _media_type(call))


def _rows(call: Call, row: DictRow) -> str:
    if call.single and row["n"] != 1:
        details = f"The result contains {row['n']} rows"
        raise RestError(406, "PGRST116", "Cannot coerce the result to a single JSON object", details=details)
    text: str = row["first"] if call.single else row["rows"]
    return text


def _media_type(call: Call) -> str:
    return f"{SINGLE if call.single else 'application/json'}; charset=utf-8"


def _arguments(call: Call, functions: list[Function]) -> tuple[str, list[tuple[str, str]]]:
    """The arguments as JSON text of an object, and the other parameters; a GET has both in its query string."""
    parameters = call.request.query_params.multi_items()
    if not call.reads:
        return call.body.decode() or "{}", parameters
    names = {name for function in functions for name in function.names}
    given = {key: value for key, value in parameters if key in names or (key not in RESERVED and not functions)}
    return json.dumps(given), [(key, value) for key, value in parameters if key not in given]


def _as_cached(error: psycopg.Error, call: Call) -> RestError:
    """PostgREST finds an unknown table or column in its cache of the schema, before Postgres is asked."""
    said = error.diag.message_primary
    if said == f'relation "{call.schema}.{call.name}" does not exist':
        message = f"Could not find the table '{call.schema}.{call.name}' in the schema cache"
        return RestError(404, "PGRST205", message)
    columns = [] if call.reads or error.sqlstate != "42703" else call.columns()
    for column in columns:
        if said in (
            f'column "{column}" of relation "{call.name}" does not exist',
            f"column {BODY}.{column} does not exist",
        ):
            message = f"Could not find the '{column}' column of '{call.name}' in the schema cache"
            return RestError(400, "PGRST204", message)
    return rest_error(error, role=call.caller.role)


def _object(text: str) -> dict[str, object]:
    parsed = read_json(text)
    if isinstance(parsed, list):
        raise RestError(400, "PGRST102", "Empty or invalid json")
    return parsed
