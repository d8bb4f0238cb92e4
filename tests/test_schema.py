"""What the migrations leave behind: who may do what, in new projects and in those that once granted everything.

The rules hold for every table and function of ours, so that a new one is checked without being named here.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.postgres import Database, Postgres
from tests.stores import MIGRATIONS

ALICE, BOB = "00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b"
TABLES = """
select relnamespace::regnamespace || '.' || relname, relrowsecurity
from pg_class where relnamespace in ('public'::regnamespace, 'private'::regnamespace) and relkind in ('r', 'p')
"""

GRANTS = """
select relation.oid::regclass::text, grantee.rolname, privilege_type
from pg_class as relation, aclexplode(relacl) join pg_roles as grantee on grantee.oid = grantee
where relnamespace in ('public'::regnamespace, 'private'::regnamespace) and relkind in ('r', 'p', 'v', 'S')
    and grantee.rolname in ('anon', 'authenticated', 'service_role')
"""

FUNCTIONS = """
select
    pronamespace::regnamespace::text as schema, proc.oid::regprocedure::text as name, prosecdef as definer,
    coalesce(proconfig @> array['search_path=""'], false) as pinned,
    prorettype = 'trigger'::regtype or has_function_privilege('service_role', proc.oid, 'execute') as service,
    has_function_privilege('anon', proc.oid, 'execute') as anon,
    has_function_privilege('authenticated', proc.oid, 'execute') as users
from pg_proc as proc where pronamespace in ('public'::regnamespace, 'private'::regnamespace)
"""


@pytest.fixture(scope="module", params=["new", "legacy"])
def database(request: pytest.FixtureRequest, postgres: Postgres) -> Iterator[Database]:
    with postgres.database(MIGRATIONS, legacy=request.param == "legacy") as made:
        yield made


def rows(database: Database, query: str) -> list[tuple[Any, ...]]:
    with database.connect(role="postgres") as connection:
        return connection.execute(query.encode()).fetchall()


def test_rows_are_secured_in_every_table(database: Database) -> None:
    tables = rows(database, TABLES)
    assert len(tables) > 8
    assert [name for name, secured in tables if not secured] == []


def test_the_worker_may_use_every_table_and_the_world_none(database: Database) -> None:
    grants = rows(database, GRANTS)
    public = {name for name, _ in rows(database, TABLES) if name.startswith("public.")}
    by_role: dict[str, set[tuple[str, str]]] = {"anon": set(), "authenticated": set(), "service_role": set()}
    for table, role, privilege in grants:
        by_role[role].add((table if "." in table else f"public.{table}", privilege))
    assert by_role["anon"] == set()
    assert {privilege for _, privilege in by_role["authenticated"]} <= {"SELECT"}
    rights = ("SELECT", "INSERT", "UPDATE", "DELETE")
    assert by_role["service_role"] == {(table, right) for table in public for right in rights}


def test_secrets_are_not_granted_to_users(database: Database) -> None:
    assert [grant for grant in rows(database, GRANTS) if grant[:2] == ("api_keys", "authenticated")] == []


def test_functions_are_the_workers_alone_and_their_names_are_qualified(database: Database) -> None:
    with psycopg.connect(database.url(role="postgres"), row_factory=psycopg.rows.dict_row) as connection:
        functions = connection.execute(FUNCTIONS).fetchall()
    assert len(functions) > 10
    named = {f["name"] if "." in f["name"] else f"public.{f['name']}": f for f in functions}
    assert [name for name, f in named.items() if not (f["pinned"] and f["service"])] == []
    assert [name for name, f in named.items() if f["anon"]] == []
    # What a policy calls runs as the user whom it is about.
    assert [name for name, f in named.items() if f["users"] and not name.startswith("private.my_")] == []
    assert [name for name, f in named.items() if f["definer"] and f["schema"] == "public"] == []


def test_users_see_no_more_of_the_unexposed_schema_than_a_policy_needs(database: Database) -> None:
    with database.connect(role="authenticator") as connection:
        connection.execute("set role authenticated")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("select * from private.usage_logs_default")
        connection.execute("set role anon")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("select private.my_tenant_ids()")


def test_every_foreign_key_has_an_index(database: Database) -> None:
    """Deleting a tenant would read its whole tables else."""
    unindexed = rows(
        database,
        """
        select conrelid::regclass || ' ' || conname from pg_constraint
        where contype = 'f' and connamespace in ('public'::regnamespace, 'private'::regnamespace) and not exists (
            select from pg_index
            where indrelid = conrelid and (indkey::int2[])[0:cardinality(conkey) - 1] @> conkey
        )
        """,
    )
    assert unindexed == []


def test_buckets_are_private_and_limited(database: Database) -> None:
    buckets = rows(
        database, "select id, public, file_size_limit > 0, cardinality(allowed_mime_types) > 0 from storage.buckets"
    )
    assert sorted(buckets) == [(name, False, True, True) for name in ("audio", "tts-cache", "voices")]


class TestOwnRows:
    """A tenant's users, by their tokens: what the policies let them see."""

    @pytest.fixture(scope="class")
    @staticmethod
    def inhabited(database: Database) -> Database:
        with database.connect(role="postgres") as connection:
            connection.execute(
                f"""
                insert into auth.users (id) values ('{ALICE}'), ('{BOB}');
                insert into public.tenants (id, name) values ('a', 'of Alice'), ('b', 'of Bob');
                insert into public.tenant_members (tenant_id, auth_user_id) values ('a', '{ALICE}'), ('b', '{BOB}');
                insert into public.api_keys (sha256, prefix, tenant_id, scopes)
                    select sha256(id::bytea), 'tts_live_' || id, id, array['usage'] from public.tenants;
                insert into public.requests (
                    request_id, tenant_id, identity, fingerprint, holder, action, input_chars, streaming, status, fence,
                    lease_expires_at, created_at
                ) select 'r' || id, id, 'i', 'f', 'h', 'synthesize', 1, false, 'running', 1, now(), now()
                    from public.tenants;
                insert into public.usage_logs (
                    tenant_id, request_id, fence, action, input_chars, audio_seconds, audio_bytes, latency_ms,
                    streaming, status, cached, metadata, created_at
                ) select id, 'r' || id, 1, 'synthesize', 1, 0, 0, 0, false, 'success', false, '{{}}', now()
                    from public.tenants;
                """.encode()
            )
        return database

    def seen(self, database: Database, query: str, *, user: str | None) -> list[tuple[Any, ...]]:
        with psycopg.connect(database.url(role="authenticator")) as connection:
            connection.execute("select set_config('role', %s, true)", ["authenticated" if user else "anon"])
            claims = f'{{"sub": "{user}", "role": "authenticated"}}' if user else "{}"
            connection.execute("select set_config('request.jwt.claims', %s, true)", [claims])
            return connection.execute(query.encode()).fetchall()

    @pytest.mark.parametrize(("user", "tenant"), [(ALICE, "a"), (BOB, "b")])
    def test_they_see_their_own_and_nothing_else(self, inhabited: Database, user: str, tenant: str) -> None:
        for table in ("tenant_members", "requests", "usage_logs"):
            found = self.seen(inhabited, f"select tenant_id from public.{table}", user=user)
            assert found == [(tenant,)], table
        assert self.seen(inhabited, "select id from public.tenants", user=user) == [(tenant,)]

    def test_they_change_nothing(self, inhabited: Database) -> None:
        for statement in (
            "update public.tenants set name = 'mine'",
            "delete from public.requests",
            f"insert into public.tenant_members values ('b', '{ALICE}')",
            "select * from public.api_keys",
            "select public.create_tenant('{}')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                self.seen(inhabited, statement, user=ALICE)

    def test_the_world_sees_nothing(self, inhabited: Database) -> None:
        for table in ("tenants", "tenant_members", "api_keys", "voices", "requests", "usage_logs"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                self.seen(inhabited, f"select * from public.{table}", user=None)

    def test_a_deleted_tenant_leaves_no_row_but_its_usage(self, inhabited: Database) -> None:
        with psycopg.connect(inhabited.url(role="postgres")) as connection:
            connection.execute("delete from public.tenants where id = 'b'")
            left = [
                connection.execute(f"select count(*) from public.{table} where tenant_id = 'b'".encode()).fetchone()
                for table in ("tenant_members", "api_keys", "requests", "usage_logs")
            ]
            connection.rollback()
        assert left == [(0,), (0,), (0,), (1,)]


class TestUsagePartitions:
    @pytest.fixture
    @staticmethod
    def fresh(postgres: Postgres) -> Iterator[psycopg.Connection]:
        with postgres.database(MIGRATIONS) as database, database.connect(role="authenticator") as connection:
            connection.execute("set role service_role")
            connection.execute("insert into public.tenants (id, name) values ('a', 'acme')")
            yield connection

    def ensure(self, connection: psycopg.Connection, months: int, *, now: str) -> Any:
        asked = "select public.ensure_usage_partitions(jsonb_build_object('months', %s::int), %s)"
        (made,) = connection.execute(asked, [months, now]).fetchone() or ()
        return made

    def place_of(self, connection: psycopg.Connection) -> list[tuple[Any, ...]]:
        return connection.execute(
            "select request_id, tableoid::regclass::text from public.usage_logs order by request_id"
        ).fetchall()

    def insert(self, connection: psycopg.Connection, request_id: str, at: str) -> None:
        connection.execute(
            """
            insert into public.usage_logs (
                tenant_id, request_id, fence, action, input_chars, audio_seconds, audio_bytes, latency_ms, streaming,
                status, cached, metadata, created_at
            ) values ('a', %s, 1, 'synthesize', 1, 0, 0, 0, false, 'success', false, '{}', %s)
            """,
            [request_id, at],
        )

    def test_months_are_made_once(self, fresh: psycopg.Connection) -> None:
        assert self.ensure(fresh, 2, now="2040-11-15T00:00:00Z") == 3
        assert self.ensure(fresh, 2, now="2040-11-30T23:59:59Z") == 0
        assert self.ensure(fresh, 2, now="2040-12-01T00:00:00Z") == 1

    def test_rows_lie_in_the_month_of_utc(self, fresh: psycopg.Connection) -> None:
        fresh.execute("set timezone = 'Pacific/Auckland'")
        self.ensure(fresh, 1, now="2040-11-15T00:00:00Z")
        self.insert(fresh, "1", "2040-11-01T00:00:00Z")
        self.insert(fresh, "2", "2040-11-30T23:59:59.999999Z")
        self.insert(fresh, "3", "2040-12-01T00:00:00Z")
        assert self.place_of(fresh) == [
            ("1", "private.usage_logs_2040_11"),
            ("2", "private.usage_logs_2040_11"),
            ("3", "private.usage_logs_2040_12"),
        ]

    def test_rows_that_came_before_their_month_was_made_move_there(self, fresh: psycopg.Connection) -> None:
        self.insert(fresh, "1", "2040-11-01T00:00:00Z")
        self.insert(fresh, "2", "2040-12-31T00:00:00Z")
        assert {place for _, place in self.place_of(fresh)} == {"private.usage_logs_default"}
        self.ensure(fresh, 0, now="2040-11-15T00:00:00Z")
        assert self.place_of(fresh) == [("1", "private.usage_logs_2040_11"), ("2", "private.usage_logs_default")]

    def test_a_partition_is_secured_and_indexed_like_the_rest(self, fresh: psycopg.Connection) -> None:
        self.ensure(fresh, 0, now="2040-11-15T00:00:00Z")
        (secured, indexes) = fresh.execute(
            """
            select relrowsecurity, (select count(*) from pg_index where indrelid = relation.oid)
            from pg_class as relation where relname = 'usage_logs_2040_11'
            """
        ).fetchone() or (None, None)
        (expected,) = fresh.execute(
            "select count(*) from pg_index where indrelid = 'public.usage_logs'::regclass"
        ).fetchone() or (None,)
        assert (secured, indexes) == (True, expected)


def test_migrations_are_named_as_the_cli_wants_them() -> None:
    names = [path.name for path in sorted(Path(MIGRATIONS).glob("*"))]
    assert names
    for name in names:
        number, _, rest = name.partition("_")
        assert (len(number), number.isdigit(), rest.endswith(".sql")) == (14, True, True), name
