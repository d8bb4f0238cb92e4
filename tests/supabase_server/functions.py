"""A call of a function as SQL: which of its overloads, and how its result becomes rows."""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from tests.supabase_server.errors import RestError
from tests.supabase_server.query import joined
from tests.supabase_server.transactions import Connection

SCALAR = "pgrst_scalar"
"""The only column of a result that is no row."""

OVERLOADS = """
    select p.provolatile = 'v' as volatile,
           p.proretset as many,
           t.typname = 'void' as void,
           t.typtype = 'c' or coalesce(p.proargmodes && '{o,b,t}', false) as composite,
           p.pronargs - p.pronargdefaults as required,
           array(select name from unnest(p.proargnames, p.proargmodes) with ordinality as a(name, mode, nth)
                 where coalesce(mode, 'i') in ('i', 'b') order by nth) as names,
           array(select format_type(type, null) from unnest(p.proargtypes) with ordinality as a(type, nth)
                 order by nth) as types
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace join pg_type t on t.oid = p.prorettype
    where n.nspname = %s and p.proname = %s and p.provariadic = 0
"""


@dataclass(frozen=True)
class Function:
    """One overload; the first `required` of its arguments have no default."""

    volatile: bool
    many: bool
    void: bool
    composite: bool
    required: int
    names: list[str]
    types: list[str]

    def takes(self, arguments: set[str]) -> bool:
        return set(self.names[: self.required]) <= arguments <= set(self.names)

    def call(self, name: Identifier, arguments: Sequence[str], body: str) -> Composed:
        """The result as a relation.

        body  JSON text of an object with the arguments; Postgres converts them
        """
        types = dict(zip(self.names, self.types, strict=False))
        passed = [SQL("{0} => pgrst_args.{0}").format(Identifier(argument)) for argument in arguments]
        columns: Composable = SQL("pgrst_call") if self.composite else SQL(f"pgrst_call({SCALAR})")
        called = SQL("lateral {}({}) as {}").format(name, joined(", ", passed), columns)
        if not arguments:
            return SQL("(select pgrst_call.* from {})").format(called)
        typed = joined(", ", [SQL("{} {}").format(Identifier(a), SQL(types[a])) for a in arguments])
        return SQL("(select pgrst_call.* from json_to_record({}) as pgrst_args({}), {})").format(
            Literal(body), typed, called
        )


async def overloads(connection: Connection, schema: str, name: str) -> list[Function]:
    cursor = await connection.execute(OVERLOADS, [schema, name])
    return [Function(**row) for row in await cursor.fetchall()]


def choose(functions: list[Function], arguments: set[str], *, name: str) -> Function:
    """raises RestError PGRST202 if none takes these arguments, PGRST203 if several do"""
    fitting = [function for function in functions if function.takes(arguments)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise RestError(300, "PGRST203", f"Could not choose the best candidate function between: {name}")
    listed = f"({', '.join(sorted(arguments))})" if arguments else " without parameters"
    raise RestError(404, "PGRST202", f"Could not find the function {name}{listed} in the schema cache")
