"""What the migrations leave behind: who may read, write and call what, in new projects and in old ones.

In old projects whatever is made in public is granted to every role of the API (legacy grants).
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest

from tests import sql_mutations
from tests.postgres import Postgres
from tests.sql_checks import CHECKS, READABLE, findings, tables
from tests.sql_mutations import MIGRATIONS, NotClean, Statement, noticed, removals, statements
from tests.sql_rows import Connection

FILES = sorted(MIGRATIONS.glob("*.sql"))
SAMPLED_EVERY = 10  # `make check-sql` tries them all


@pytest.fixture(params=["strict", "legacy"], scope="module")
def migrated(request: pytest.FixtureRequest, postgres: Postgres) -> Iterator[Connection]:
    with (
        postgres.database(MIGRATIONS, legacy=request.param == "legacy") as database,
        psycopg.connect(database.url(role="supabase_admin")) as connection,
    ):
        yield connection


@pytest.fixture
def connection(migrated: Connection) -> Iterator[Connection]:
    """As the superuser, in a database with all migrations; whatever the test does there is undone."""
    with migrated.transaction(force_rollback=True):
        yield migrated


@pytest.mark.parametrize("name", CHECKS)
def test_rule(connection: Connection, name: str) -> None:
    assert findings(connection, CHECKS[name]) == []


BREAKAGES: dict[str, LiteralString] = {
    "functions_have_no_search_path": "alter function public.put_user reset search_path",
    "functions_are_executed_by_whom_they_serve": "grant execute on function public.put_user to authenticated",
    "tables_have_exactly_their_grants": "grant select (name) on public.tenants to anon",
    "the_private_schema_is_closed": "grant usage on schema private to anon",
    "policies_are_for_readers_only": "create policy own_audio on storage.objects to authenticated using (true)",
    "every_table_has_row_security": "create view public.all_tenants as select * from public.tenants",
    "definers_are_not_exposed": "alter function public.put_user security definer",
    "buckets_are_private_and_limited": "update storage.buckets set file_size_limit = null where id = 'audio'",
    "users_read_their_own_rows_only": "alter policy own_personas on public.personas using (tenant_id = 'a')",
    "users_read_no_other_table": "grant select on public.api_keys to authenticated",
    "users_write_nothing": "grant delete on public.voices to authenticated",
    "users_call_nothing": "grant execute on function public.list_users to public",
    "anon_reads_nothing": "grant select on public.voices to anon",
    "users_see_no_objects": "create policy all_audio on storage.objects to anon using (bucket_id = 'audio')",
}


@pytest.mark.parametrize("name", CHECKS)
def test_rule_can_be_broken(connection: Connection, name: str) -> None:
    connection.execute(BREAKAGES[name])
    assert findings(connection, CHECKS[name])


def test_every_readable_table_is_there(connection: Connection) -> None:
    assert tables(connection) >= READABLE.keys()


def test_what_is_removed_is_noticed(postgres: Postgres) -> None:
    outcomes = noticed(postgres, every=SAMPLED_EVERY)
    assert outcomes
    assert [outcome.removal for outcome in outcomes if not outcome.by] == []


def test_what_no_check_sees_is_told(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_mutations, "CHECKS", {})
    assert {outcome.by for outcome in noticed(postgres, every=40)} == {""}


def test_a_finding_without_a_removal_is_an_error(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_mutations, "CHECKS", {"always": lambda connection: ["as ever"]})
    with pytest.raises(NotClean, match="as ever"):
        noticed(postgres, every=10_000)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_right_is_tried(path: Path) -> None:
    text = re.sub(r"--[^\n]*", "", path.read_text())
    tried = Counter(removal.statement for statement in statements(path) for removal in removals(statement))
    what = [removal.what for statement in statements(path) for removal in removals(statement)]
    heads = [" ".join(statement.text.split()[:2]) for statement in tried]
    assert sum(head.startswith("grant ") for head in heads) == len(re.findall(r"\bgrant\b", text))
    assert heads.count("create policy") == len(re.findall(r"\bcreate policy\b", text))
    assert sum("search_path" in each for each in what) == len(re.findall(r"\bsearch_path\b", text))
    assert sum("row level security" in each for each in what) == len(re.findall(r"\brow level security\b", text))


def test_a_file_is_split_at_the_ends_of_its_statements(tmp_path: Path) -> None:
    path = tmp_path / "a.sql"
    path.write_text("-- a; b\nselect ';';\n\n/* ; */ do $x$ begin; end $x$;\nselect $$ ; $$ as \";\"; -- ;\n")
    found = [(statement.line, statement.text) for statement in statements(path)]
    assert found == [(2, "select ';'"), (4, "do $x$ begin; end $x$"), (5, 'select $$ ; $$ as ";"')]


def left_of(text: str) -> list[str]:
    return [removal.left for removal in removals(Statement("a.sql", 1, text))]


def test_a_grant_loses_one_thing_at_a_time() -> None:
    assert left_of("grant select, insert on public.a, public.b to x, y") == [
        "grant select, insert on public.b to x, y",
        "grant select, insert on public.a to x, y",
        "grant select, insert on public.a, public.b to y",
        "grant select, insert on public.a, public.b to x",
        "grant insert on public.a, public.b to x, y",
        "grant select on public.a, public.b to x, y",
    ]
    assert left_of("grant execute\n  on function f(jsonb, text) to x") == [""]
    assert left_of("revoke all on function f(jsonb, text), g() from x, y") == [
        "revoke all on function g() from x, y",
        "revoke all on function f(jsonb, text) from x, y",
    ]


def test_a_function_loses_its_search_path() -> None:
    text = "create function f() returns int language sql set search_path = '' as $$ select 1 $$"
    assert left_of(text) == ["create function f() returns int language sql  as $$ select 1 $$"]
