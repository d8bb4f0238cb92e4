"""A request of the REST half that writes to a table, as SQL."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.sql import SQL, Composed, Identifier, Literal
from starlette.requests import Request

from tests.supabase_server.callers import Caller
from tests.supabase_server.errors import RestError
from tests.supabase_server.query import Query, Scope, joined, split, unquote
from tests.supabase_server.transactions import Connection, one

SINGLE = "application/vnd.pgrst.object+json"
BODY = "pgrst_body"
"""The rows of a request's body."""

PRIMARY_KEY = """
    select array(select a.attname::text from pg_index i
                 join pg_class c on c.oid = i.indrelid join pg_namespace n on n.oid = c.relnamespace
                 join pg_attribute a on a.attrelid = c.oid and a.attnum = any(i.indkey)
                 where i.indisprimary and n.nspname = %s and c.relname = %s) as columns
"""

# Counts the rows that were there before; xmax, which would tell, cannot be read on a partitioned table.
COUNT_UPDATED = SQL("""
    where set_config('pgrst.updated',
        (coalesce(nullif(current_setting('pgrst.updated', true), ''), '0')::int + 1)::text, true) is not null
""")


@dataclass(frozen=True)
class Call:
    """What a request says in its line, headers and body."""

    request: Request
    caller: Caller
    schema: str
    name: str
    prefer: dict[str, str]
    body: bytes

    @property
    def reads(self) -> bool:
        return self.request.method in ("GET", "HEAD")

    @property
    def single(self) -> bool:
        return self.request.headers.get("accept") == SINGLE

    @property
    def relation(self) -> Identifier:
        return Identifier(self.schema, self.name)

    def query(self, parameters: Sequence[tuple[str, str]] | None = None) -> Query:
        return Scope(self.name).parse(self.request.query_params.multi_items() if parameters is None else parameters)

    def columns(self) -> list[str]:
        """What there are values for: the parameter `columns`, or the keys of the first object. raises RestError"""
        if (given := self.request.query_params.get("columns")) is not None:
            return [unquote(column) for column in split(given)]
        rows = as_list(read_json(self.body))
        return list(rows[0]) if rows else []


def read_json(body: bytes | str) -> dict[str, Any] | list[dict[str, Any]]:
    """Only names and lengths are taken from this; Postgres reads the values. raises RestError PGRST102"""
    try:
        parsed = json.loads(body)
    except ValueError as error:
        raise RestError(400, "PGRST102", "Empty or invalid json") from error
    if not isinstance(parsed, dict | list) or not all(isinstance(row, dict) for row in as_list(parsed)):
        raise RestError(400, "PGRST102", "Empty or invalid json")
    return parsed


def as_list(parsed: Any) -> list[Any]:
    return parsed if isinstance(parsed, list) else [parsed]


async def change(connection: Connection, call: Call, query: Query) -> Composed:
    """The statement whose rows are what it changed; an empty body changes nothing. raises RestError"""
    if call.request.method != "POST" and not query.where.as_string():  # a hosted project has pg-safeupdate
        verb = "UPDATE" if call.request.method == "PATCH" else "DELETE"
        raise RestError(400, "21000", f"{verb} requires a WHERE clause")
    relation = SQL("{} as {}").format(call.relation, Identifier(call.name))
    if call.request.method == "DELETE":
        written = SQL("delete from {} {}").format(relation, query.where)
    elif read_json(call.body) == ([] if call.request.method == "POST" else {}):
        return SQL("select {} from {} where false").format(query.columns, relation)
    elif call.request.method == "PATCH":
        written = _update(call, relation, query)
    else:
        written = _insert(call, relation, await _on_conflict(connection, call))
    returned = query.columns if call.prefer.get("return") == "representation" else SQL("1")
    return SQL("{} returning {}").format(written, returned)


def _update(call: Call, relation: Composed, query: Query) -> Composed:
    columns = call.columns()
    assigned = [SQL("{} = {}").format(Identifier(column), Identifier(BODY, column)) for column in columns]
    return SQL("update {} set {} from json_populate_record(null::{}, {}) as {} {}").format(
        relation, joined(", ", assigned), call.relation, Literal(call.body.decode()), Identifier(BODY), query.where
    )


def _insert(call: Call, relation: Composed, on_conflict: Composed) -> Composed:
    columns, text = call.columns(), call.body.decode()
    if not columns:
        return SQL("insert into {} default values {}").format(relation, on_conflict)
    return SQL("insert into {} ({}) select {} from json_populate_recordset(null::{}, {}) as {} {}").format(
        relation,
        joined(", ", map(Identifier, columns)),
        joined(", ", [Identifier(BODY, column) for column in columns]),
        call.relation,
        Literal(text if isinstance(read_json(text), list) else f"[{text}]"),
        Identifier(BODY),
        on_conflict,
    )


async def _on_conflict(connection: Connection, call: Call) -> Composed:
    if (resolution := call.prefer.get("resolution")) is None:
        return Composed([])
    targets = split(call.request.query_params.get("on_conflict", ""))
    targets = targets or (await one(connection, PRIMARY_KEY, [call.schema, call.name]))["columns"]
    columns = call.columns()
    if not targets:
        return Composed([])
    on_conflict = SQL("on conflict ({})").format(joined(", ", [Identifier(unquote(target)) for target in targets]))
    if resolution == "ignore-duplicates" or not columns:
        return SQL("{} do nothing").format(on_conflict)
    merged = joined(", ", [SQL("{0} = excluded.{0}").format(Identifier(column)) for column in columns])
    return SQL("{} do update set {} {}").format(on_conflict, merged, COUNT_UPDATED)
