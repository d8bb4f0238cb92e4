"""The benchmarks of the store run, and the books they compare show every kind of mistake."""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from benchmarks import faults, store
from benchmarks.balance_sql import Connection, Ledger, balance
from storage.supabase import open_supabase
from tests.postgres import Postgres
from tests.stores import new_project
from tests.supabase_server import SupabaseServer
from tts_core.store import Limits, Outcome, Reservation

COLUMNS = (
    "tenant_id, request_id, fence, action, input_chars, audio_seconds, audio_bytes, latency_ms, streaming, status, "
    "cached, metadata"
)


@pytest.fixture
def last_line(capsys: pytest.CaptureFixture[str]) -> Callable[[], dict[str, Any]]:
    def read() -> dict[str, Any]:
        result: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return result

    return read


def test_killed_workers_lose_double_and_leave_nothing(last_line: Callable[[], dict[str, Any]]) -> None:
    faults.main(["--kills", "2", "--seed", "3"])
    result = last_line()
    assert (result["lost"], result["doubled"], result["orphaned"], result["refused"]) == (0, 0, 0, 0)
    assert result["kills"] == 2
    assert result["jobs"] == 2 * faults.JOBS_PER_KILL + 2
    assert result["faults"] >= 2
    assert sum(result["held"].values()) > 0


def test_a_settlement_that_does_not_look_counts_twice(last_line: Callable[[], dict[str, Any]]) -> None:
    """The answer to one settlement is lost, so it comes twice."""
    faults.main(["--kills", "0", "--without-clause"])
    result = last_line()
    assert (result["lost"], result["orphaned"]) == (0, 0)
    assert result["doubled"] > 0


def test_the_store_is_timed_and_grows_by_what_it_says(last_line: Callable[[], dict[str, Any]]) -> None:
    store.main(["--rows", "500", "2000", "--jobs", "2"])
    result = last_line()
    assert set(result["overhead_ms"]) == set(result["cached_hit_ms"]) == set(result["growth"]) == set(store.STORES)
    for name in store.STORES:
        assert set(result["growth"][name]) == {"usage_summary", "key_lookup"}
        assert 0 < result["cached_hit_ms"][name]["p50"] <= result["cached_hit_ms"][name]["p95"]
        for what in ("usage summary", "key lookup"):
            few, many = (row["p50_ms"] for row in rows_of(result, name, what))
            assert result["growth"][name][what.replace(" ", "_")] == pytest.approx(many / few, abs=0.01)


def rows_of(result: dict[str, Any], name: str, what: str) -> Sequence[dict[str, Any]]:
    found = [row for row in result["rows"] if (row["store"], row["what"]) == (name, what)]
    return sorted(found, key=lambda row: int(row["rows"]))


@pytest.fixture(scope="module")
def books(postgres: Postgres) -> Iterator[tuple[Connection, Ledger]]:
    """Of one job that was told and settled."""

    async def settle(server: SupabaseServer) -> Ledger:
        own = await open_supabase(server.url, server.service_key)
        key = await own.create_tenant("acme", scopes=["synthesize"], limits=Limits(quota_minutes=1))
        asked = Reservation(key.secret, "synthesize", identity="job:j", fingerprint="f", action="synthesize")
        reserved = await own.reserve(asked)
        await own.put_object(path := f"audio/{key.tenant.id}/a.wav", b"abc", content_type="audio/wav")
        await own.settle(reserved, Outcome("success", latency_ms=5, audio_seconds=2.0, audio_path=path))
        await own.close()
        return {"j": {"tenant_id": key.tenant.id, "told": [[reserved.request_id, 2.0]]}}

    with new_project(postgres) as project, project.database.connect(role="supabase_admin") as connection:
        yield connection, asyncio.run(settle(project.server))


def found(connection: Connection, ledger: Ledger) -> dict[str, int]:
    return {kind: len(words) for kind, words in balance(connection, ledger).items()}


def test_books_that_agree(books: tuple[Connection, Ledger]) -> None:
    assert found(*books) == {"lost": 0, "doubled": 0, "orphaned": 0}


@pytest.mark.parametrize(
    ("kind", "mistake"),
    [
        ("lost", "delete from usage_logs"),
        ("lost", "update requests set status = 'failed'; update usage_logs set status = 'failed'"),
        ("lost", "update quota_used set used_s = 0"),
        ("lost", "delete from usage_daily"),
        ("lost", "delete from storage.objects"),
        ("doubled", "update quota_used set used_s = 4"),
        ("doubled", "update usage_daily set requests = 2, successes = 2"),
        ("doubled", f"insert into usage_logs ({COLUMNS}, created_at) select {COLUMNS}, now() from usage_logs"),
        ("orphaned", "update requests set status = 'running', settled_at = null"),
        ("orphaned", "update requests set fence = 2"),
        ("orphaned", "update requests set audio_path = null"),
        ("orphaned", "update requests set identity = 'job:other'"),
        ("orphaned", "update usage_logs set request_id = 'other'"),
    ],
)
def test_a_mistake_in_the_database_is_found(books: tuple[Connection, Ledger], kind: str, mistake: str) -> None:
    connection, ledger = books
    with connection.transaction(force_rollback=True):
        connection.execute("set local session_replication_role = replica")  # without triggers and references
        connection.execute(mistake.encode())
        assert found(connection, ledger)[kind] > 0


@pytest.mark.parametrize(("told_s", "kind"), [([2.0, 3.0], "doubled"), ([], "lost")])
def test_a_mistake_in_what_was_told_is_found(
    books: tuple[Connection, Ledger], told_s: Sequence[float], kind: str
) -> None:
    """In two ways, and never."""
    connection, ledger = books
    ((request_id, _),) = ledger["j"]["told"]
    told = {"j": {**ledger["j"], "told": [[request_id, seconds] for seconds in told_s]}}
    assert found(connection, told) == {"lost": 0, "doubled": 0, "orphaned": 0} | {kind: 1}
