"""What holds in a database after any of our migrations. Each check gives its findings in words, none if all is well.

A check gets a superuser's connection inside a transaction that its caller rolls back, so it may write and become
another role. It knows rules, not lists of tables, with one exception: `READABLE`, who may read which rows.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql

from tests.sql_rows import MEMBER, OTHER, PERSON, Connection, rows, seed

Check = Callable[[Connection], list[str]]

READABLE: dict[str, tuple[str, str]] = {
    "tenants": (MEMBER, "id = 'a'"),
    "tenant_members": (MEMBER, f"auth_user_id = '{MEMBER}'"),
    "voices": (MEMBER, "tenant_id = 'a'"),
    "voice_versions": (MEMBER, "tenant_id = 'a'"),
    "voice_grants": (MEMBER, "tenant_id = 'a'"),
    "requests": (MEMBER, "tenant_id = 'a'"),
    "usage_logs": (MEMBER, "tenant_id = 'a'"),
    "usage_daily": (MEMBER, "tenant_id = 'a'"),
    "quota_used": (MEMBER, "tenant_id = 'a'"),
    "jobs": (MEMBER, "tenant_id = 'a'"),
    "job_chunks": (MEMBER, "tenant_id = 'a'"),
    "tts_cache": (MEMBER, "tenant_id = 'a'"),
    "tts_cache_days": (MEMBER, "tenant_id = 'a'"),
    "users": (PERSON, f"auth_user_id = '{PERSON}'"),
    "personas": (PERSON, "tenant_id = 'a' and user_id = 'a'"),
    "messages": (PERSON, "tenant_id = 'a' and persona_id = 'a'"),
}
"""Who reads which rows of a table: `MEMBER` belongs to tenant a, `PERSON` is user a of tenant a."""

BUCKETS = {"voices", "audio", "tts-cache"}

OURS = "('public', 'private')"

GRANTS_OF_TABLES = f"""
    select n.nspname as schema, c.relname as name, c.relkind::text as kind,
        array(
            select coalesce(nullif(a.grantee, 0)::regrole::text, 'public') || ' ' || lower(a.privilege_type)
            from aclexplode(c.relacl) as a where a.grantee <> c.relowner order by 1
        ) || array(
            select attname || ': ' || attacl::text from pg_attribute where attrelid = c.oid and attacl is not null
        ) as granted
    from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
    where n.nspname in {OURS} and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S') order by 1, 2
"""

FUNCTIONS = f"""
    select f.oid, n.nspname as schema, f.oid::regprocedure::text as name, f.prosecdef as is_definer,
        f.prorettype = 'trigger'::regtype as is_trigger,
        coalesce(f.proconfig, '{{}}') as settings,
        array(select format_type(t, null) from unnest(f.proargtypes) as t) as types,
        f.proname as plain_name,
        exists (select from pg_depend as d where d.classid = 'pg_policy'::regclass
            and d.refclassid = 'pg_proc'::regclass and d.refobjid = f.oid) as is_asked_by_policy,
        array(
            select coalesce(nullif(a.grantee, 0)::regrole::text, 'public')
            from aclexplode(coalesce(f.proacl, acldefault('f', f.proowner))) as a
            where a.grantee <> f.proowner order by 1
        ) as granted
    from pg_proc as f join pg_namespace as n on n.oid = f.pronamespace
    where n.nspname in {OURS} and not exists (select from pg_depend where objid = f.oid and deptype = 'e') order by 3
"""


def every_table_has_row_security(connection: Connection) -> list[str]:
    """Partitions that are yet to be made too; a view asks as whoever asks it."""
    connection.execute("select public.ensure_usage_partitions('{\"months\": 6}')")
    bare = rows(
        connection,
        f"""select c.oid::regclass::text as name from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
        where n.nspname in {OURS} and (c.relkind in ('r', 'p') and not c.relrowsecurity or c.relkind in ('m', 'f')
            or c.relkind = 'v' and not coalesce(c.reloptions, '{{}}') @> '{{security_invoker=true}}')""",
    )
    return [f"{table.name} is open to whoever it is granted to" for table in bare]


def tables_have_exactly_their_grants(connection: Connection) -> list[str]:
    """Nothing for anon and for public, select for authenticated where somebody may read, rows for service_role."""
    found = []
    for table in rows(connection, GRANTS_OF_TABLES):
        expected = []
        if table.schema == "public" and table.kind != "S":
            expected = [f"service_role {verb}" for verb in ("delete", "insert", "select", "update")]
            expected += ["authenticated select"] * (table.name in READABLE)
        if sorted(table.granted) != sorted(expected):
            found.append(f"{table.schema}.{table.name} has {sorted(table.granted)}, not {sorted(expected)}")
    return found


def the_private_schema_is_closed(connection: Connection) -> list[str]:
    """Used by policies and by the worker, by nobody else, and nobody of them makes anything there."""
    granted = rows(
        connection,
        """select coalesce(nullif(a.grantee, 0)::regrole::text, 'public') || ' ' || lower(a.privilege_type) as words
        from pg_namespace as n, aclexplode(n.nspacl) as a
        where n.nspname = 'private' and a.grantee <> n.nspowner order by 1""",
    )
    found, expected = [each.words for each in granted], ["authenticated usage", "service_role usage"]
    return [] if found == expected else [f"schema private has {found}, not {expected}"]


def policies_are_for_readers_only(connection: Connection) -> list[str]:
    """One policy on each readable table, to select, for authenticated; none on objects."""
    found = rows(
        connection,
        """select schemaname || '.' || tablename as name, cmd, roles::text[] as roles, permissive
        from pg_policies where schemaname in ('public', 'private', 'storage') order by 1""",
    )
    wrong = [
        f"policy of {p.name}"
        for p in found
        if (p.cmd, p.roles, p.permissive) != ("SELECT", ["authenticated"], "PERMISSIVE")
    ]
    there = {table.name for table in rows(connection, GRANTS_OF_TABLES) if table.schema == "public"}
    names, expected = [p.name for p in found], sorted(f"public.{name}" for name in there & READABLE.keys())
    return wrong + ([] if names == expected else [f"policies on {names}, not {expected}"])


def functions_have_no_search_path(connection: Connection) -> list[str]:
    found = rows(connection, FUNCTIONS)
    return [f"{f.name}: settings {f.settings}" for f in found if 'search_path=""' not in f.settings]


def functions_are_executed_by_whom_they_serve(connection: Connection) -> list[str]:
    """service_role, and authenticated where a policy asks the function; a trigger needs nobody's right."""
    found = []
    for function in rows(connection, FUNCTIONS):
        expected = [] if function.is_trigger else ["service_role"]
        expected += ["authenticated"] * function.is_asked_by_policy
        if sorted(function.granted) != sorted(expected):
            found.append(f"{function.name} is executed by {sorted(function.granted)}, not {sorted(expected)}")
    return found


def definers_are_not_exposed(connection: Connection) -> list[str]:
    return [f"{f.name} is a definer" for f in rows(connection, FUNCTIONS) if f.is_definer and f.schema == "public"]


def buckets_are_private_and_limited(connection: Connection) -> list[str]:
    buckets = rows(connection, "select id, public, file_size_limit, allowed_mime_types from storage.buckets order by 1")
    names, expected = [bucket.id for bucket in buckets], sorted(BUCKETS)
    found = [] if names == expected else [f"buckets {names}, not {expected}"]
    open_ones = [b.id for b in buckets if b.public or not b.file_size_limit or not b.allowed_mime_types]
    return found + [f"bucket {name} is public or without limits" for name in open_ones]


def users_read_their_own_rows_only(connection: Connection) -> list[str]:
    """Rows of two tenants, and of a second user in the first, lie in every table."""
    seed(connection)
    found = []
    for name, (user, own) in sorted(READABLE.items()):
        if name not in tables(connection):
            continue
        expected = ids(connection, name, own)
        found += [] if expected else [f"{name}: no row was there to be read"]
        with acting(connection, "authenticated", user):
            found += differences(connection, name, expected)
        with acting(connection, "authenticated", OTHER):
            found += differences(connection, name, [])
    return found


def users_read_no_other_table(connection: Connection) -> list[str]:
    found = []
    for name in sorted(tables(connection) - READABLE.keys()):
        with acting(connection, "authenticated", MEMBER):
            found += not_refused(connection, sql.SQL("select from public.{}").format(sql.Identifier(name)))
    return found


def users_write_nothing(connection: Connection) -> list[str]:
    found = []
    for name in sorted(tables(connection)):
        table, column = sql.Identifier("public", name), sql.Identifier(a_column(connection, name))
        for role in ("authenticated", "anon"):
            with acting(connection, role, MEMBER):
                found += not_refused(connection, sql.SQL("insert into {} default values").format(table))
                found += not_refused(connection, sql.SQL("update {} set {} = default").format(table, column))
                found += not_refused(connection, sql.SQL("delete from {}").format(table))
    return found


def users_call_nothing(connection: Connection) -> list[str]:
    found = []
    for function in rows(connection, FUNCTIONS):
        if function.schema != "public":
            continue
        nulls = sql.SQL(", ".join(f"null::{name}" for name in function.types))
        call = sql.SQL("select {}({})").format(sql.Identifier("public", function.plain_name), nulls)
        for role in ("authenticated", "anon"):
            with acting(connection, role, MEMBER):
                found += not_refused(connection, call)
    return found


def anon_reads_nothing(connection: Connection) -> list[str]:
    found = []
    for name in sorted(tables(connection)):
        with acting(connection, "anon", MEMBER):
            found += not_refused(connection, sql.SQL("select from public.{}").format(sql.Identifier(name)))
    return found


def users_see_no_objects(connection: Connection) -> list[str]:
    """The API hands them out by signed addresses, which the worker asks for."""
    connection.execute("insert into storage.objects (bucket_id, name) select id, 'a/x' from storage.buckets")
    found = []
    for role in ("authenticated", "anon"):
        with acting(connection, role, MEMBER):
            found += [f"{role} sees {each.name}" for each in rows(connection, "select name from storage.objects")]
    return found


CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        functions_have_no_search_path,
        functions_are_executed_by_whom_they_serve,
        tables_have_exactly_their_grants,
        the_private_schema_is_closed,
        policies_are_for_readers_only,
        every_table_has_row_security,
        definers_are_not_exposed,
        buckets_are_private_and_limited,
        users_read_their_own_rows_only,
        users_read_no_other_table,
        users_write_nothing,
        users_call_nothing,
        anon_reads_nothing,
        users_see_no_objects,
    )
}
"""In the order in which they are asked; the last ones take longest."""


def findings(connection: Connection, check: Check) -> list[str]:
    """What the check finds, with nothing of it left in the database."""
    with connection.transaction(force_rollback=True):
        return check(connection)


def tables(connection: Connection) -> set[str]:
    return {t.name for t in rows(connection, GRANTS_OF_TABLES) if t.schema == "public" and t.kind in ("r", "p")}


def a_column(connection: Connection, table: str) -> str:
    columns = f"select attname as name from pg_attribute where attrelid = 'public.{table}'::regclass"
    return str(rows(connection, f"{columns} and attnum > 0 and not attisdropped limit 1")[0].name)


@contextmanager
def acting(connection: Connection, role: str, user: str) -> Iterator[None]:
    """As the API does for a request with a token of the user; undone afterwards."""
    with connection.transaction(force_rollback=True):
        connection.execute(sql.SQL("set local role {}").format(sql.Identifier(role)))
        claims = json.dumps({"role": role, "sub": user})
        connection.execute("select set_config('request.jwt.claims', %s, true)", [claims])
        yield


def not_refused(connection: Connection, statement: sql.Composed) -> list[str]:
    """A finding unless the right is missing; errors of any other kind mean that the right was there."""
    words = statement.as_string(connection)
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(statement)
    except psycopg.errors.InsufficientPrivilege:
        return []
    except psycopg.Error as error:
        return [f"{words}: {error}"]
    return [f"{words}: done"]


def ids(connection: Connection, table: str, condition: str) -> list[str]:
    query = f"select t::text as row from public.{table} as t where {condition} order by 1"
    return [found.row for found in rows(connection, query)]


def differences(connection: Connection, table: str, expected: list[str]) -> list[str]:
    try:
        with connection.transaction():
            found = ids(connection, table, "true")
    except psycopg.Error as error:
        return [f"{table} cannot be read: {error}"]
    return [] if found == expected else [f"{table}: {len(found)} rows are read, {len(expected)} are the reader's own"]
