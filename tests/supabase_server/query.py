"""The query string of a REST request as SQL; Postgres judges names, types and values."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from tests.supabase_server.errors import NotSpoken, RestError

MAX_ROWS = 1000
"""A hosted project's default: more rows are cut off in silence."""

RESERVED = {"select", "order", "limit", "offset", "columns", "on_conflict", "or", "and", "not.or", "not.and"}

OPERATORS = {
    "eq": SQL("="),
    "neq": SQL("<>"),
    "gt": SQL(">"),
    "gte": SQL(">="),
    "lt": SQL("<"),
    "lte": SQL("<="),
    "like": SQL("like"),
    "ilike": SQL("ilike"),
    "match": SQL("~"),
    "imatch": SQL("~*"),
    "cs": SQL("@>"),
    "cd": SQL("<@"),
    "ov": SQL("&&"),
    "isdistinct": SQL("is distinct from"),
}
IS = {
    "null": SQL("null"),
    "not_null": SQL("not null"),
    "true": SQL("true"),
    "false": SQL("false"),
    "unknown": SQL("unknown"),
}
UNSPOKEN = re.compile(r"(pl|ph|w)?fts(\(\w+\))?|sl|sr|nxl|nxr|adj|\w+\((any|all)\)")
SELECTED = re.compile(r"(?:(?P<alias>[^:]+):(?!:))?(?P<path>.+?)(?:::(?P<cast>\w+))?")
ORDERED = re.compile(r"(?P<path>.+?)(?:\.(?P<way>asc|desc))?(?:\.nulls(?P<nulls>first|last))?")
PIECE = re.compile(r'"(?:[^"\\]|\\.)*"|.', re.DOTALL)
NESTED = re.compile(r"(?P<negated>not\.)?(?P<operator>and|or)(?P<inner>\(.*\))", re.DOTALL)


@dataclass(frozen=True)
class Query:
    """columns and what follows the relation's name; the relation must be known by the name `Scope` was given"""

    columns: Composed
    where: Composed
    order: Composed
    limit: int
    offset: int

    @property
    def tail(self) -> Composed:
        return SQL("{} {} limit {} offset {}").format(self.where, self.order, Literal(self.limit), Literal(self.offset))


@dataclass(frozen=True)
class Scope:
    """Reads names as columns of one relation."""

    relation: str

    def parse(self, parameters: Sequence[tuple[str, str]]) -> Query:
        """raises RestError PGRST100 if it cannot be read, NotSpoken if PostgREST could"""
        single = dict(parameters)
        conditions = [self._parameter(key, value) for key, value in parameters]
        wheres = [condition for condition in conditions if condition is not None]
        orders = [self._order(part) for part in split(single.get("order", ""))]
        return Query(
            columns=joined(", ", [self._selected(part) for part in split(single.get("select", "") or "*")]),
            where=Composed([SQL("where "), joined(" and ", wheres)]) if wheres else Composed([]),
            order=Composed([SQL("order by "), joined(", ", orders)]) if orders else Composed([]),
            limit=min(_number(single.get("limit", str(MAX_ROWS))), MAX_ROWS),
            offset=_number(single.get("offset", "0")),
        )

    def _parameter(self, key: str, value: str) -> Composable | None:
        if key in ("or", "and", "not.or", "not.and"):
            return self._nested(key + value)
        if key in RESERVED:
            return None
        if "." in PIECE.findall(key):
            raise NotSpoken(f"parameters of an embedded resource: {key!r}")
        return _condition(self._path(key), value)

    def _nested(self, text: str) -> Composable:
        """One condition of a logic tree: `a.eq.1`, `and(...)`, `not.or(...)`."""
        if (tree := NESTED.fullmatch(text)) is None:
            path, separator, rest = _partition(text)
            if not separator:
                raise _unreadable("logic tree", text)
            return _condition(self._path(path), rest, quoted=True)
        inner = [self._nested(part) for part in split(tree["inner"][1:-1])]
        glued = SQL("({})").format(joined(f" {tree['operator']} ", inner))
        return SQL("not {}").format(glued) if tree["negated"] else glued

    def _selected(self, text: str) -> Composable:
        if "(" in text:
            raise NotSpoken(f"embedded resources and aggregates: {text!r}")
        if text == "*":
            return SQL("{}.*").format(Identifier(self.relation))
        found = SELECTED.fullmatch(text)
        if found is None:
            raise _unreadable("select parameter", text)
        path = self._path(found["path"])
        cast = SQL("cast({} as {})").format(path, SQL(found["cast"])) if found["cast"] else path
        name = found["alias"] or re.split("->>?", found["path"])[-1]
        return SQL("{} as {}").format(cast, Identifier(unquote(name)))

    def _order(self, text: str) -> Composable:
        found = ORDERED.fullmatch(text)
        if found is None:
            raise _unreadable("order", text)
        nulls = f"nulls {found['nulls']}" if found["nulls"] else ""
        return SQL("{} {} {}").format(self._path(found["path"]), SQL(found["way"] or "asc"), SQL(nulls))

    def _path(self, text: str) -> Composable:
        """A column, or a path into its JSON: `data->a->>b`."""
        column, *steps = re.split("(->>?)", text)
        path: Composable = Identifier(self.relation, unquote(column))
        for arrow, step in zip(steps[::2], steps[1::2], strict=True):
            key = Literal(int(step)) if step.lstrip("-").isdecimal() else Literal(step)
            path = SQL("{}{}{}").format(path, SQL(arrow), key)
        return path


def _condition(left: Composable, text: str, *, quoted: bool = False) -> Composable:
    """quoted: inside a logic tree a value may stand in quotes; a value of its own parameter is taken as it is"""
    operator, _, value = text.partition(".")
    if operator == "not":
        return SQL("not ({})").format(_condition(left, value, quoted=quoted))
    if operator == "is" and value in IS:
        return SQL("{} is {}").format(left, IS[value])
    if operator == "in" and value.startswith("("):
        return SQL("{} = any({})").format(left, Literal(_array(split(value[1:-1]))))
    if UNSPOKEN.fullmatch(operator):
        raise NotSpoken(f"the operator {operator!r}")
    if operator not in OPERATORS:
        raise _unreadable("filter", text)
    value = unquote(value) if quoted else value
    value = value.replace("*", "%") if operator in ("like", "ilike") else value
    return SQL("{} {} {}").format(left, OPERATORS[operator], Literal(value))


def _array(items: Iterable[str]) -> str:
    """Text of a Postgres array, so that its type is the column's."""
    escaped = (unquote(item).replace("\\", "\\\\").replace('"', '\\"') for item in items)
    return "{" + ",".join(f'"{item}"' for item in escaped) + "}"


def split(text: str, separator: str = ",") -> list[str]:
    """At separators outside of quotes and brackets; nothing gives no parts."""
    parts, depth = [""], 0
    for piece in PIECE.findall(text):
        depth += (piece in "({") - (piece in ")}")
        if piece == separator and depth == 0:
            parts.append("")
        else:
            parts[-1] += piece
    return parts if text else []


def unquote(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] == '"':
        return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)
    return text


def _partition(text: str) -> tuple[str, str, str]:
    path, *rest = split(text, ".")
    return path, "." if rest else "", ".".join(rest)


def joined(glue: str, parts: Iterable[Composable]) -> Composed:
    return SQL(glue).join(parts)


def _number(text: str) -> int:
    if not text.isdecimal():
        raise _unreadable("limit or offset", text)
    return int(text)


def _unreadable(what: str, text: str) -> RestError:
    return RestError(400, "PGRST100", f'"failed to parse {what} ({text})"')
