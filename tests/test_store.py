"""What every body of the Store promises. A test that needs to know which one it runs on is a bug in the Store."""

import asyncio
import multiprocessing
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path
from urllib.request import urlopen

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from tests.stores import START_S, Clock, Place, Places
from tts_core.errors import Forbidden, IdempotencyConflict, RequestRunning, Unauthorized
from tts_core.store import NewKey, Outcome, OutcomeStatus, Reservation, Reserved, Scope, Store, UsageRow

SCOPES: tuple[Scope, ...] = ("synthesize", "voices", "usage", "admin")
LEASE_S = 30.0
SUCCESS = Outcome(
    status="success",
    latency_ms=1_250,
    audio_seconds=2.5,
    audio_bytes=120_044,
    voice_id="nova",
    cached=True,
    result='{"duration": 2.5}',
    audio_path="audio/t/a.wav",
    metadata='{"order": "4711"}',
)
FAILED = Outcome(status="failed", latency_ms=90, audio_seconds=0.5, error="text_unspeakable")
CANCELLED = Outcome(status="cancelled", latency_ms=30, error="cancelled")


@pytest.fixture
async def key(store: Store) -> NewKey:
    return await store.create_tenant("acme", scopes=["synthesize"])


@pytest.fixture
def asked(key: NewKey) -> Reservation:
    return a_reservation(key)


def a_reservation(key: NewKey, *, identity: str = "job-1") -> Reservation:
    return Reservation(
        tenant_key=key.secret,
        scope="synthesize",
        identity=identity,
        fingerprint="f" * 64,
        action="synthesize",
        input_chars=12,
        streaming=True,
        voice_id="asked-for",
        lease_s=LEASE_S,
    )


def attempts(rows: Sequence[UsageRow]) -> list[tuple[str, int, str]]:
    return [(row.request_id, row.fence, row.status) for row in rows]


class TestTenants:
    async def test_a_new_tenant_is_listed(self, store: Store) -> None:
        first = await store.create_tenant("acme", scopes=["synthesize"])
        second = await store.create_tenant("acme", scopes=["synthesize"])
        assert {first.tenant, second.tenant} == set(await store.list_tenants())
        assert first.tenant.id != second.tenant.id
        assert first.secret != second.secret

    async def test_a_tenant_is_dated_in_utc(self, key: NewKey) -> None:
        assert datetime.fromisoformat(key.tenant.created_at) == datetime.fromtimestamp(START_S, UTC)
        assert key.tenant.name == "acme"
        assert not key.tenant.attested_consent


class TestAuthentication:
    async def test_the_key_tells_the_tenant(self, store: Store, key: NewKey, asked: Reservation) -> None:
        await store.create_tenant("other", scopes=["synthesize"])
        assert (await store.reserve(asked)).tenant == key.tenant

    async def test_every_bad_key_is_refused_in_the_same_words(self, store: Store, asked: Reservation) -> None:
        secret = asked.tenant_key
        bad = ["", "x", secret[:-1], secret + "\n", secret.swapcase(), f"tts_live_{'a' * 8}_{'b' * 43}", "\ud800", "\0"]
        said = set()
        for tenant_key in bad:
            with pytest.raises(Unauthorized) as caught:
                await store.reserve(replace(asked, tenant_key=tenant_key))
            said.add(str(caught.value))
        assert len(said) == 1

    async def test_a_missing_scope_is_named(self, store: Store, asked: Reservation) -> None:
        with pytest.raises(Forbidden, match="voices"):
            await store.reserve(replace(asked, scope="voices"))

    async def test_admin_implies_every_scope(self, store: Store) -> None:
        admin = await store.create_tenant("root", scopes=["admin"])
        for scope in SCOPES:
            reserved = await store.reserve(replace(a_reservation(admin, identity=scope), scope=scope))
            assert reserved.fence == 1

    async def test_a_refused_caller_leaves_no_row(self, store: Store, asked: Reservation) -> None:
        with pytest.raises(Forbidden):
            await store.reserve(replace(asked, scope="usage", fingerprint="other"))
        assert (await store.reserve(asked)).fence == 1


class TestReserve:
    async def test_a_first_attempt_has_fence_1_and_no_outcome(self, store: Store, asked: Reservation) -> None:
        reserved = await store.reserve(asked)
        assert (reserved.fence, reserved.outcome) == (1, None)
        assert await store.usage(reserved.tenant.id) == ()

    async def test_identities_are_the_tenants_own(self, store: Store, asked: Reservation) -> None:
        other = await store.create_tenant("other", scopes=["synthesize"])
        first = await store.reserve(asked)
        second = await store.reserve(replace(asked, tenant_key=other.secret, fingerprint="other"))
        assert first.request_id != second.request_id
        assert second.fence == 1

    async def test_a_running_request_is_not_started_twice(self, store: Store, asked: Reservation, clock: Clock) -> None:
        await store.reserve(asked)
        clock.now_s += LEASE_S - 1
        with pytest.raises(RequestRunning):
            await store.reserve(asked)

    @pytest.mark.parametrize("outcome", [None, SUCCESS, FAILED])
    async def test_an_identity_belongs_to_one_body(
        self, store: Store, asked: Reservation, outcome: Outcome | None
    ) -> None:
        reserved = await store.reserve(asked)
        if outcome:
            await store.settle(reserved, outcome)
        with pytest.raises(IdempotencyConflict, match="another body"):
            await store.reserve(replace(asked, fingerprint="other"))

    async def test_a_success_is_told_again(self, store: Store, other_worker: Store, asked: Reservation) -> None:
        reserved = await store.reserve(asked)
        await store.settle(reserved, SUCCESS)
        assert await other_worker.reserve(asked) == replace(reserved, outcome=SUCCESS)
        assert attempts(await store.usage(reserved.tenant.id)) == [(reserved.request_id, 1, "success")]

    async def test_a_success_that_says_little_is_told_as_it_was(self, store: Store, asked: Reservation) -> None:
        outcome = Outcome(status="success", latency_ms=0)
        await store.settle(await store.reserve(asked), outcome)
        assert (await store.reserve(asked)).outcome == outcome

    @pytest.mark.parametrize("outcome", [FAILED, CANCELLED])
    async def test_what_did_not_succeed_may_be_tried_again(
        self, store: Store, asked: Reservation, outcome: Outcome
    ) -> None:
        first = await store.reserve(asked)
        await store.settle(first, outcome)
        second = await store.reserve(asked)
        assert second == replace(first, fence=2)
        with pytest.raises(RequestRunning):
            await store.reserve(asked)

    async def test_an_expired_attempt_is_abandoned_and_taken_over(
        self, store: Store, other_worker: Store, asked: Reservation, clock: Clock
    ) -> None:
        first = await store.reserve(asked)
        clock.now_s += LEASE_S
        second = await other_worker.reserve(asked)
        assert second == replace(first, fence=2)
        (row,) = await store.usage(first.tenant.id)
        assert (row.request_id, row.fence, row.status) == (first.request_id, 1, "abandoned")
        assert (row.audio_seconds, row.audio_bytes, row.latency_ms, row.cached) == (0.0, 0, 0, False)
        assert datetime.fromisoformat(row.created_at) == datetime.fromtimestamp(clock.now_s, UTC)

    async def test_whoever_reserves_next_settles_what_others_abandoned(
        self, store: Store, asked: Reservation, clock: Clock
    ) -> None:
        reserved = await store.reserve(asked)
        other = await store.create_tenant("other", scopes=["synthesize"])
        clock.now_s += LEASE_S
        await store.reserve(a_reservation(other))
        assert attempts(await store.usage(reserved.tenant.id)) == [(reserved.request_id, 1, "abandoned")]
        assert (await store.reserve(asked)).fence == 2

    async def test_an_own_attempt_is_taken_over_however_many_others_expired_before(
        self, store: Store, key: NewKey, clock: Clock
    ) -> None:
        for number in range(50):
            clock.now_s += 1 / 64
            last = await store.reserve(a_reservation(key, identity=f"job-{number}"))
        clock.now_s += LEASE_S
        assert (await store.reserve(a_reservation(key, identity="job-49"))) == replace(last, fence=2)
        assert (last.request_id, 1, "abandoned") in attempts(await store.usage(key.tenant.id))

    async def test_of_many_at_once_one_runs(self, store: Store, other_worker: Store, asked: Reservation) -> None:
        workers = [store, other_worker] * 25
        answers = await asyncio.gather(*(worker.reserve(asked) for worker in workers), return_exceptions=True)
        assert [answer.fence for answer in answers if isinstance(answer, Reserved)] == [1]
        assert sum(isinstance(answer, RequestRunning) for answer in answers) == 49


class TestAskingAgain:
    """A caller that did not get its answer asks again; `holder` tells it from another worker."""

    async def test_the_holder_is_given_its_attempt_again(
        self, store: Store, other_worker: Store, asked: Reservation
    ) -> None:
        held = replace(asked, holder="h1")
        answers = [await worker.reserve(held) for worker in (store, other_worker, store)]
        assert answers == [answers[0]] * 3
        with pytest.raises(RequestRunning):
            await store.reserve(replace(asked, holder="h2"))
        with pytest.raises(RequestRunning):
            await store.reserve(asked)

    async def test_of_one_holders_calls_at_once_all_get_one_attempt(
        self, store: Store, other_worker: Store, asked: Reservation
    ) -> None:
        held = replace(asked, holder="h1")
        answers = await asyncio.gather(*(worker.reserve(held) for worker in [store, other_worker] * 10))
        assert answers == [answers[0]] * 20

    async def test_the_lease_runs_from_the_last_time(self, store: Store, asked: Reservation, clock: Clock) -> None:
        held = replace(asked, holder="h1")
        first = await store.reserve(held)
        clock.now_s += LEASE_S - 1
        assert await store.reserve(held) == first
        clock.now_s += LEASE_S - 1
        with pytest.raises(RequestRunning):
            await store.reserve(asked)

    async def test_a_holder_has_one_attempt(self, store: Store, asked: Reservation) -> None:
        """A call that arrives when its caller has long been answered starts nothing that nobody would end."""
        held = replace(asked, holder="h1")
        first = await store.reserve(held)
        await store.settle(first, FAILED)
        with pytest.raises(RequestRunning):
            await store.reserve(held)
        assert await store.reserve(replace(asked, holder="h2")) == replace(first, fence=2)

    async def test_a_taken_over_holder_does_not_get_the_other_ones_attempt(
        self, store: Store, asked: Reservation, clock: Clock
    ) -> None:
        held = replace(asked, holder="h1")
        await store.reserve(held)
        clock.now_s += LEASE_S
        assert (await store.reserve(replace(asked, holder="h2"))).fence == 2
        with pytest.raises(RequestRunning):
            await store.reserve(held)

    async def test_a_settlement_told_late_is_still_true(self, store: Store, asked: Reservation) -> None:
        first = await store.reserve(asked)
        assert await store.settle(first, FAILED)
        second = await store.reserve(asked)
        assert await store.settle(second, SUCCESS)
        assert await store.settle(first, FAILED)
        assert not await store.settle(first, SUCCESS)
        assert attempts(await store.usage(first.tenant.id)) == [
            (first.request_id, 1, "failed"),
            (first.request_id, 2, "success"),
        ]


class TestRenew:
    async def test_a_renewed_lease_runs_from_now(self, store: Store, asked: Reservation, clock: Clock) -> None:
        reserved = await store.reserve(asked)
        clock.now_s += LEASE_S - 1
        assert await store.renew(reserved, lease_s=LEASE_S)
        clock.now_s += LEASE_S - 1
        with pytest.raises(RequestRunning):
            await store.reserve(asked)
        clock.now_s += 1
        assert (await store.reserve(asked)).fence == 2

    async def test_a_late_renewal_does_not_shorten_the_lease(
        self, store: Store, asked: Reservation, clock: Clock
    ) -> None:
        reserved = await store.reserve(asked)
        assert await store.renew(reserved, lease_s=1)
        clock.now_s += LEASE_S - 1
        with pytest.raises(RequestRunning):
            await store.reserve(asked)

    async def test_who_was_taken_over_is_told(self, store: Store, asked: Reservation, clock: Clock) -> None:
        first = await store.reserve(asked)
        clock.now_s += LEASE_S
        second = await store.reserve(asked)
        assert not await store.renew(first, lease_s=LEASE_S)
        assert await store.renew(second, lease_s=LEASE_S)

    async def test_what_is_settled_is_not_renewed(self, store: Store, asked: Reservation) -> None:
        reserved = await store.reserve(asked)
        await store.settle(reserved, FAILED)
        assert not await store.renew(reserved, lease_s=LEASE_S)
        assert (await store.reserve(asked)).fence == 2


class TestSettle:
    async def test_the_usage_row_tells_all(self, store: Store, asked: Reservation, clock: Clock) -> None:
        reserved = await store.reserve(asked)
        clock.now_s += 2
        assert await store.settle(reserved, SUCCESS)
        (row,) = await store.usage(reserved.tenant.id)
        assert datetime.fromisoformat(row.created_at) == datetime.fromtimestamp(clock.now_s, UTC)
        assert row == UsageRow(
            tenant_id=reserved.tenant.id,
            request_id=reserved.request_id,
            fence=1,
            action="synthesize",
            input_chars=12,
            audio_seconds=2.5,
            audio_bytes=120_044,
            latency_ms=1_250,
            streaming=True,
            voice_id="nova",
            user_id=None,
            status="success",
            error=None,
            cached=True,
            metadata='{"order": "4711"}',
            created_at=row.created_at,
        )

    async def test_a_failure_has_its_row_with_the_voice_asked_for(self, store: Store, asked: Reservation) -> None:
        reserved = await store.reserve(asked)
        assert await store.settle(reserved, FAILED)
        (row,) = await store.usage(reserved.tenant.id)
        assert (row.status, row.error, row.audio_seconds, row.voice_id) == (
            "failed",
            "text_unspeakable",
            0.5,
            "asked-for",
        )

    async def test_settling_again_changes_nothing(self, store: Store, other_worker: Store, asked: Reservation) -> None:
        reserved = await store.reserve(asked)
        settled = await asyncio.gather(*(worker.settle(reserved, SUCCESS) for worker in [store, other_worker] * 5))
        assert settled == [True] * 10
        assert not await store.settle(reserved, FAILED)
        assert attempts(await store.usage(reserved.tenant.id)) == [(reserved.request_id, 1, "success")]
        assert (await store.reserve(asked)).outcome == SUCCESS

    async def test_an_older_attempt_settles_nothing(self, store: Store, asked: Reservation, clock: Clock) -> None:
        first = await store.reserve(asked)
        clock.now_s += LEASE_S
        second = await store.reserve(asked)
        assert not await store.settle(first, SUCCESS)
        assert await store.settle(second, FAILED)
        rows = await store.usage(first.tenant.id)
        assert attempts(rows) == [(first.request_id, 1, "abandoned"), (first.request_id, 2, "failed")]

    async def test_a_late_settlement_counts_if_nobody_took_over(
        self, store: Store, asked: Reservation, clock: Clock
    ) -> None:
        reserved = await store.reserve(asked)
        clock.now_s += LEASE_S * 10
        assert await store.settle(reserved, SUCCESS)
        assert (await store.reserve(asked)).outcome == SUCCESS

    async def test_a_late_settlement_counts_also_where_it_was_given_up(
        self, store: Store, other_worker: Store, asked: Reservation, key: NewKey, clock: Clock
    ) -> None:
        reserved = await store.reserve(asked)
        clock.now_s += LEASE_S
        await other_worker.reserve(a_reservation(key, identity="job-2"))
        (given_up,) = await store.usage(reserved.tenant.id)
        assert given_up.status == "abandoned"
        assert await store.settle(reserved, SUCCESS)
        assert attempts(await store.usage(reserved.tenant.id)) == [(reserved.request_id, 1, "success")]
        assert not await store.settle(reserved, FAILED)
        assert (await store.reserve(asked)).outcome == SUCCESS

    async def test_a_tenant_cannot_settle_for_another(self, store: Store, asked: Reservation) -> None:
        other = await store.create_tenant("other", scopes=["synthesize"])
        reserved = await store.reserve(asked)
        stolen = replace(reserved, tenant=other.tenant)
        assert not await store.renew(stolen, lease_s=LEASE_S)
        assert not await store.settle(stolen, SUCCESS)
        assert await store.settle(reserved, SUCCESS)

    async def test_usage_is_the_tenants_own_oldest_first(self, store: Store, asked: Reservation, clock: Clock) -> None:
        other = await store.create_tenant("other", scopes=["synthesize"])
        await store.settle(await store.reserve(a_reservation(other)), SUCCESS)
        mine = [await store.reserve(replace(asked, identity=f"job-{number}")) for number in range(3)]
        for reserved in reversed(mine):
            clock.now_s += 1
            await store.settle(reserved, SUCCESS)
        rows = await store.usage(mine[0].tenant.id)
        assert [row.request_id for row in rows] == [reserved.request_id for reserved in reversed(mine)]


class TestObjects:
    @pytest.mark.parametrize("bucket", ["audio", "voices", "tts-cache"])
    async def test_bytes_come_back(self, store: Store, other_worker: Store, bucket: str) -> None:
        await store.put_object(f"{bucket}/t1/a.wav", b"\0\xff", content_type="audio/wav")
        assert await other_worker.get_object(f"{bucket}/t1/a.wav") == b"\0\xff"

    async def test_a_file_is_copied(self, store: Store, tmp_path: Path) -> None:
        source = tmp_path / "take.wav"
        source.write_bytes(b"take one")
        await store.put_object("audio/t1/a.wav", source, content_type="audio/wav")
        source.write_bytes(b"take two")
        assert await store.get_object("audio/t1/a.wav") == b"take one"

    async def test_an_object_is_replaced(self, store: Store) -> None:
        await store.put_object("audio/t1/a.wav", b"a long first one", content_type="audio/wav")
        await store.put_object("audio/t1/a.wav", b"short", content_type="audio/wav")
        assert await store.get_object("audio/t1/a.wav") == b"short"

    async def test_an_object_is_never_seen_half(self, store: Store) -> None:
        takes = [bytes([number]) * 1_000_000 for number in range(4)]
        path = "audio/t1/a.wav"
        await store.put_object(path, takes[0], content_type="audio/wav")
        puts = (store.put_object(path, take, content_type="audio/wav") for take in takes * 3)
        _, *seen = await asyncio.gather(asyncio.gather(*puts), *(store.get_object(path) for _ in range(20)))
        assert all(data in takes for data in seen)

    async def test_an_absent_object_is_a_key_error(self, store: Store) -> None:
        with pytest.raises(KeyError):
            await store.get_object("audio/t1/none.wav")

    async def test_deleting_is_repeatable(self, store: Store) -> None:
        await store.put_object("audio/t1/a.wav", b"x", content_type="audio/wav")
        await store.delete_object("audio/t1/a.wav")
        await store.delete_object("audio/t1/a.wav")
        with pytest.raises(KeyError):
            await store.get_object("audio/t1/a.wav")

    async def test_the_url_leads_to_the_object(self, store: Store) -> None:
        await store.put_object("audio/t1/a.wav", b"heard", content_type="audio/wav")
        signed = await store.object_url("audio/t1/a.wav")
        with await asyncio.to_thread(urlopen, signed.url) as answer:
            assert answer.read() == b"heard"
        assert signed.expires_at is None or datetime.fromisoformat(signed.expires_at) > datetime.now(UTC)

    @pytest.mark.parametrize(
        "path",
        ["", "audio", "audio/t1", "audio/t1/", "audio//a", "/audio/t1/a", "secrets/t1/a", "audio/../a", "audio/t1/..",
         "audio/t1/.a", "audio/t1/a/b/c/d/e/f", "voices/t1/v1/../../t2/a",
         "audio/t1/a\0", "audio/t1/a\n", "audio/t1\\a", "audio/t1/ä", "audio/t1/a b"],
    )  # fmt: skip
    async def test_other_paths_are_refused(self, store: Store, path: str) -> None:
        with pytest.raises(ValueError, match="path"):
            await store.put_object(path, b"x", content_type="audio/wav")
        with pytest.raises(ValueError, match="path"):
            await store.get_object(path)
        with pytest.raises(ValueError, match="path"):
            await store.object_url(path)
        with pytest.raises(ValueError, match="path"):
            await store.delete_object(path)


async def test_what_was_stored_is_there_after_reopening(place: Place, clock: Clock) -> None:
    store = await place.open(clock)
    key = await store.create_tenant("acme", scopes=["synthesize"])
    reserved = await store.reserve(a_reservation(key))
    await store.settle(reserved, SUCCESS)
    await store.close()
    again = await place.open(clock)
    assert (await again.reserve(a_reservation(key))).outcome == SUCCESS
    await again.close()


async def test_closing_finishes_what_was_asked_and_may_be_repeated(place: Place, clock: Clock) -> None:
    store = await place.open(clock)
    key = await store.create_tenant("acme", scopes=["synthesize"])
    asked = [asyncio.create_task(store.reserve(a_reservation(key, identity=str(number)))) for number in range(20)]
    await asyncio.sleep(0)
    await store.close()
    await store.close()
    assert [reserved.fence for reserved in await asyncio.gather(*asked)] == [1] * 20


def test_of_many_processes_at_once_one_runs(place: Place, clock: Clock) -> None:
    async def make_tenant() -> NewKey:
        store = await place.open(clock)
        key = await store.create_tenant("acme", scopes=["synthesize"])
        await store.close()
        return key

    key = asyncio.run(make_tenant())
    spawn = multiprocessing.get_context("spawn")
    asked = [a_reservation(key, identity=f"job-{number}") for number in range(20)]
    barrier = spawn.Barrier(4)
    with ProcessPoolExecutor(4, mp_context=spawn, initializer=_be_one_of, initargs=(barrier,)) as pool:
        answers = list(pool.map(partial(_reserve_each, place), [asked] * 4))
    assert Counter(identity for started in answers for identity in started) == Counter(job.identity for job in asked)


_barriers: list[Barrier] = []


def _be_one_of(barrier: Barrier) -> None:
    _barriers.append(barrier)


def _reserve_each(place: Place, asked: Sequence[Reservation]) -> list[str]:
    """The identities that this process was the one to start."""
    return asyncio.run(_reserve_each_once_all_are_here(place, asked))


async def _reserve_each_once_all_are_here(place: Place, asked: Sequence[Reservation]) -> list[str]:
    store = await place.open(Clock())
    await asyncio.to_thread(_barriers[0].wait, 60)
    answers = await asyncio.gather(*map(store.reserve, asked), return_exceptions=True)
    await store.close()
    assert all(isinstance(answer, Reserved | RequestRunning) for answer in answers), answers
    return [job.identity for job, answer in zip(asked, answers, strict=True) if isinstance(answer, Reserved)]


class Ledger(RuleBasedStateMachine):
    """Two workers, three identities and a clock in any order, against a model of what must come of it."""

    new_place: Places

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        with ExitStack() as opened:  # a server left open would keep the process from ending
            place = opened.enter_context(type(self).new_place())
            self.runner = opened.enter_context(asyncio.Runner())
            self.workers = [self.runner.run(place.open(self.clock)) for _ in range(2)]
            for worker in self.workers:
                opened.callback(self._close, worker)
            self.key = self.runner.run(self.workers[0].create_tenant("acme", scopes=["synthesize"]))
            self.opened = opened.pop_all()
        self.bodies: dict[str, str] = {}
        self.latest: dict[str, Reserved] = {}
        self.attempts: list[Reserved] = []
        self.running: dict[tuple[str, int], float] = {}
        self.ended: dict[tuple[str, int], Outcome | None] = {}

    def _close(self, worker: Store) -> None:
        self.runner.run(worker.close())

    def teardown(self) -> None:
        with self.opened:
            self.every_ended_attempt_has_exactly_one_usage_row()

    @rule(worker=st.integers(0, 1), identity=st.sampled_from("abc"), other=st.booleans(), lease_s=st.integers(1, 20))
    def reserve(self, worker: int, identity: str, other: bool, lease_s: int) -> None:
        asked = replace(a_reservation(self.key, identity=identity), fingerprint=str(other), lease_s=float(lease_s))
        reserving = self.workers[worker].reserve(asked)
        last = self.latest.get(identity)
        if last and self.bodies[identity] != asked.fingerprint:
            with pytest.raises(IdempotencyConflict):
                self.runner.run(reserving)
        elif last and self.running.get(_attempt(last), 0) > self.clock.now_s:
            with pytest.raises(RequestRunning):
                self.runner.run(reserving)
        else:
            self._expect(self.runner.run(reserving), asked=asked, last=last)

    def _expect(self, reserved: Reserved, *, asked: Reservation, last: Reserved | None) -> None:
        for attempt in [attempt for attempt, ends_s in self.running.items() if ends_s <= self.clock.now_s]:
            del self.running[attempt]
            self.ended[attempt] = None
        outcome = self.ended[_attempt(last)] if last else None
        if last and outcome and outcome.status == "success":
            assert reserved == replace(last, outcome=outcome)
            return
        assert reserved.outcome is None
        assert reserved.fence == (last.fence + 1 if last else 1)
        assert last is None or reserved.request_id == last.request_id
        self.bodies[asked.identity] = asked.fingerprint
        self.latest[asked.identity] = reserved
        self.attempts.append(reserved)
        self.running[_attempt(reserved)] = self.clock.now_s + asked.lease_s

    @precondition(lambda self: self.attempts)
    @rule(worker=st.integers(0, 1), data=st.data(), lease_s=st.integers(1, 20))
    def renew(self, worker: int, data: st.DataObject, lease_s: int) -> None:
        reserved = data.draw(st.sampled_from(self.attempts))
        renewed = self.runner.run(self.workers[worker].renew(reserved, lease_s=lease_s))
        assert renewed == (_attempt(reserved) in self.running)
        if renewed:
            ends_s = self.running[_attempt(reserved)]
            self.running[_attempt(reserved)] = max(ends_s, self.clock.now_s + lease_s)

    @precondition(lambda self: self.attempts)
    @rule(
        worker=st.integers(0, 1),
        data=st.data(),
        status=st.sampled_from(["success", "failed", "cancelled"]),
        audio_seconds=st.floats(0, 1e6),
    )
    def settle(self, worker: int, data: st.DataObject, status: OutcomeStatus, audio_seconds: float) -> None:
        reserved = data.draw(st.sampled_from(self.attempts))
        outcome = Outcome(status=status, latency_ms=1, audio_seconds=audio_seconds)
        settled = self.runner.run(self.workers[worker].settle(reserved, outcome))
        ended = self.ended.get(_attempt(reserved))
        counts = _attempt(reserved) in self.running or (ended is None and reserved in self.latest.values())
        assert settled == (counts or (ended is not None and ended.status == status))
        if counts:
            self.running.pop(_attempt(reserved), None)
            self.ended[_attempt(reserved)] = outcome

    @rule(seconds=st.integers(1, 15))
    def time_passes(self, seconds: int) -> None:
        self.clock.now_s += seconds

    @rule()
    def every_ended_attempt_has_exactly_one_usage_row(self) -> None:
        rows = self.runner.run(self.workers[0].usage(self.key.tenant.id))
        told = sorted((row.request_id, row.fence, row.status, row.audio_seconds) for row in rows)
        assert told == sorted(
            (*attempt, outcome.status if outcome else "abandoned", outcome.audio_seconds if outcome else 0.0)
            for attempt, outcome in self.ended.items()
        )


def _attempt(reserved: Reserved) -> tuple[str, int]:
    return reserved.request_id, reserved.fence


def test_the_ledger_holds_in_any_order_of_events(places: Places) -> None:
    class LedgerOfBody(Ledger):
        new_place = staticmethod(places)

    run_state_machine_as_test(
        LedgerOfBody,
        settings=settings(
            max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
        ),
    )
