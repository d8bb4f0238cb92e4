"""What tenants may use, on every body of the Store: rates and quota, alone and from many sides at once."""

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.stores import START_S, Clock, Places
from tts_core.errors import QuotaExceeded, RateLimited
from tts_core.store import Limits, NewKey, Outcome, OutcomeStatus, Period, Reservation, Reserved, Standing, Store

LEASE_S = 30.0
DAY_S = 86_400.0


def asked(key: NewKey, *, identity: str = "job-1", estimate_s: float = 0.0) -> Reservation:
    return Reservation(
        key.secret, "synthesize", identity=identity, fingerprint="f", action="synthesize", estimate_s=estimate_s,
        lease_s=LEASE_S,
    )  # fmt: skip


def spoken(seconds: float, *, status: OutcomeStatus = "success", cached: bool = False) -> Outcome:
    return Outcome(status, latency_ms=1, audio_seconds=seconds, cached=cached)


def utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")


async def limited(store: Store, **limits: int | float | Period | None) -> NewKey:
    return await store.create_tenant("acme", scopes=["synthesize"], limits=Limits(**limits))  # type: ignore[arg-type]


async def of_many(workers: Sequence[Store], requests: Sequence[Reservation]) -> list[Reserved]:
    """Those that are accepted; all the others are refused by a limit."""
    calls = (workers[n % len(workers)].reserve(request) for n, request in enumerate(requests))
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(answer, Reserved | RateLimited | QuotaExceeded) for answer in answers), answers
    return [answer for answer in answers if isinstance(answer, Reserved)]


class TestRates:
    async def test_a_burst_is_as_large_as_the_rate(self, store: Store, other_worker: Store) -> None:
        key = await limited(store, requests_per_minute=25)
        accepted = await of_many([store, other_worker], [asked(key, identity=str(n)) for n in range(200)])
        assert len(accepted) == 25

    async def test_who_waits_as_long_as_told_is_accepted(self, store: Store, clock: Clock) -> None:
        key = await limited(store, requests_per_minute=7)
        for number in range(30):
            try:
                await store.reserve(asked(key, identity=str(number)))
            except RateLimited as refused:
                wait_s = refused.details["retry_after_s"]
                assert isinstance(wait_s, float)
                clock.now_s += wait_s - 0.01
                with pytest.raises(RateLimited):
                    await store.reserve(asked(key, identity=f"early {number}"))
                clock.now_s += 0.01
                await store.reserve(asked(key, identity=f"again {number}"))
        assert clock.now_s - START_S == pytest.approx(23 * 60 / 7, abs=0.1)

    async def test_the_tighter_rate_counts(self, store: Store, clock: Clock) -> None:
        key = await limited(store, requests_per_minute=10, requests_per_hour=12)
        assert len(await of_many([store], [asked(key, identity=f"a{n}") for n in range(20)])) == 10
        clock.now_s += 60
        assert len(await of_many([store], [asked(key, identity=f"b{n}") for n in range(20)])) == 2
        with pytest.raises(RateLimited) as refused:
            await store.reserve(asked(key, identity="c"))
        assert refused.value.details["retry_after_s"] == pytest.approx(240, abs=0.01)

    async def test_a_refused_request_takes_from_no_rate(self, store: Store, clock: Clock) -> None:
        key = await limited(store, requests_per_minute=2, requests_per_hour=4)
        assert len(await of_many([store], [asked(key, identity=f"a{n}") for n in range(50)])) == 2
        clock.now_s += 60
        assert len(await of_many([store], [asked(key, identity=f"b{n}") for n in range(50)])) == 2

    async def test_rest_is_not_saved_up_beyond_the_burst(self, store: Store, clock: Clock) -> None:
        key = await limited(store, requests_per_minute=3)
        await store.reserve(asked(key))
        clock.now_s += DAY_S
        assert len(await of_many([store], [asked(key, identity=f"b{n}") for n in range(10)])) == 3

    async def test_a_clock_that_goes_back_gives_nothing(self, store: Store, clock: Clock) -> None:
        key = await limited(store, requests_per_minute=3)
        await store.reserve(asked(key))
        clock.now_s -= 3600
        await store.reserve(asked(key, identity="job-2"))
        clock.now_s += 3600
        assert len(await of_many([store], [asked(key, identity=f"late {n}") for n in range(5)])) == 1

    async def test_a_change_holds_at_once(self, store: Store, other_worker: Store) -> None:
        key = await limited(store, requests_per_minute=1)
        await store.reserve(asked(key))
        with pytest.raises(RateLimited):
            await store.reserve(asked(key, identity="job-2"))
        await other_worker.update_tenant(key.tenant.id, {"requests_per_minute": None})
        assert len(await of_many([store], [asked(key, identity=str(n)) for n in range(30)])) == 30
        await other_worker.update_tenant(key.tenant.id, {"requests_per_hour": 5})
        assert len(await of_many([store], [asked(key, identity=f"b{n}") for n in range(30)])) == 5

    async def test_tenants_do_not_share_a_bucket(self, store: Store) -> None:
        keys = [await limited(store, requests_per_minute=1) for _ in range(2)]
        assert len(await of_many([store], [asked(key, identity=str(n)) for key in keys for n in range(9)])) == 2

    async def test_what_is_told_again_costs_nothing(self, store: Store) -> None:
        key = await limited(store, requests_per_minute=1)
        await store.settle(await store.reserve(asked(key)), spoken(1))
        for _ in range(5):
            assert (await store.reserve(asked(key))).outcome == spoken(1)

    async def test_a_new_attempt_costs_one_unless_a_worker_died(self, store: Store, clock: Clock) -> None:
        key = await limited(store, requests_per_minute=1)
        await store.reserve(asked(key))
        clock.now_s += LEASE_S
        second = await store.reserve(asked(key))
        assert second.fence == 2
        await store.settle(second, spoken(0, status="failed"))
        with pytest.raises(RateLimited):
            await store.reserve(asked(key))

    async def test_nor_if_somebody_else_noticed_first(self, store: Store, clock: Clock) -> None:
        key, other = [await limited(store, requests_per_minute=1) for _ in range(2)]
        await store.reserve(asked(key))
        clock.now_s += LEASE_S
        await store.reserve(asked(other))
        assert [row.status for row in await store.usage(key.tenant.id)] == ["abandoned"]
        assert (await store.reserve(asked(key))).fence == 2


class TestQuota:
    async def test_the_estimate_is_held_and_settled_to_what_was_spoken(self, store: Store) -> None:
        key = await limited(store, quota_minutes=1)
        first = await store.reserve(asked(key, estimate_s=40))
        assert first.left_s == 60
        with pytest.raises(QuotaExceeded) as refused:
            await store.reserve(asked(key, identity="job-2", estimate_s=21))
        assert refused.value.details["left_s"] == 20
        await store.settle(first, spoken(10.5))
        second = await store.reserve(asked(key, identity="job-2", estimate_s=49.5))
        assert second.left_s == 49.5
        standing = await store.standing(key.tenant.id)
        assert (standing.used_s, standing.held_s) == (10.5, 49.5)

    @pytest.mark.parametrize("status", ["failed", "cancelled"])
    async def test_what_was_not_spoken_is_given_back(self, store: Store, status: OutcomeStatus) -> None:
        key = await limited(store, quota_minutes=1)
        await store.settle(await store.reserve(asked(key, estimate_s=60)), spoken(3, status=status))
        assert (await store.reserve(asked(key, identity="job-2"))).left_s == 57

    async def test_cached_answers_are_free(self, store: Store) -> None:
        key = await limited(store, quota_minutes=1)
        await store.settle(await store.reserve(asked(key, estimate_s=60)), spoken(45, cached=True))
        assert (await store.reserve(asked(key, identity="job-2", estimate_s=60))).left_s == 60

    async def test_speech_beyond_the_quota_is_charged_and_the_next_refused(self, store: Store) -> None:
        key = await limited(store, quota_minutes=1)
        await store.settle(await store.reserve(asked(key, estimate_s=60)), spoken(75))
        with pytest.raises(QuotaExceeded, match=r"-15\.0 s are left until 2027-02-01") as refused:
            await store.reserve(asked(key, identity="job-2", estimate_s=0.1))
        assert refused.value.details == {"left_s": -15, "resets_at": "2027-02-01T00:00:00.000000+00:00"}
        assert (await store.reserve(asked(key, identity="job-3"))).left_s == -15, "asks for no audio"

    async def test_a_dead_workers_hold_ends_with_its_lease(self, store: Store, clock: Clock) -> None:
        key = await limited(store, quota_minutes=1)
        await store.reserve(asked(key, estimate_s=60))
        clock.now_s += LEASE_S - 1
        with pytest.raises(QuotaExceeded):
            await store.reserve(asked(key, identity="job-2", estimate_s=60))
        clock.now_s += 1
        assert (await store.reserve(asked(key, identity="job-2", estimate_s=60))).left_s == 60

    async def test_a_renewed_lease_holds_on(self, store: Store, clock: Clock) -> None:
        key = await limited(store, quota_minutes=1)
        reserved = await store.reserve(asked(key, estimate_s=60))
        clock.now_s += LEASE_S - 1
        await store.renew(reserved, lease_s=LEASE_S)
        clock.now_s += LEASE_S - 1
        with pytest.raises(QuotaExceeded):
            await store.reserve(asked(key, identity="job-2", estimate_s=1))

    async def test_an_attempt_that_takes_over_holds_once(self, store: Store, clock: Clock) -> None:
        key = await limited(store, quota_minutes=1)
        await store.reserve(asked(key, estimate_s=60))
        clock.now_s += LEASE_S
        assert (await store.reserve(asked(key, estimate_s=60))).left_s == 60
        assert (await store.standing(key.tenant.id)).held_s == 60

    async def test_settling_again_charges_once(self, store: Store, other_worker: Store) -> None:
        key = await limited(store, quota_minutes=1)
        reserved = await store.reserve(asked(key, estimate_s=60))
        await asyncio.gather(*(worker.settle(reserved, spoken(5)) for worker in [store, other_worker] * 5))
        assert (await store.standing(key.tenant.id)).used_s == 5

    async def test_many_at_once_never_hold_more_than_there_is(self, store: Store, other_worker: Store) -> None:
        key = await limited(store, quota_minutes=100 / 60)
        accepted = await of_many([store, other_worker], [asked(key, identity=str(n), estimate_s=7) for n in range(50)])
        assert len(accepted) == 14
        await asyncio.gather(*(store.settle(reserved, spoken(7)) for reserved in accepted))
        assert (await store.standing(key.tenant.id)).used_s == pytest.approx(98)
        assert await of_many([store], [asked(key, identity="last", estimate_s=7)]) == []

    async def test_takes_and_settlements_at_once_do_not_lock_each_other_out(
        self, store: Store, other_worker: Store
    ) -> None:
        key = await limited(store, quota_minutes=20 / 60, requests_per_minute=1000, requests_per_hour=1000)

        async def request(worker: Store, identity: str) -> float:
            try:
                reserved = await worker.reserve(asked(key, identity=identity, estimate_s=2))
            except QuotaExceeded:
                return 0.0
            await worker.settle(reserved, spoken(1))
            return 1.0

        spoken_s = await asyncio.gather(*(request([store, other_worker][n % 2], str(n)) for n in range(120)))
        standing = await store.standing(key.tenant.id)
        assert (standing.used_s, standing.held_s) == (sum(spoken_s), 0)
        assert 0 < standing.used_s <= 20

    async def test_without_a_quota_nothing_is_held_against_anybody(self, store: Store) -> None:
        key = await limited(store)
        reserved = await store.reserve(asked(key, estimate_s=1e6))
        assert reserved.left_s is None
        await store.settle(reserved, spoken(3600))
        assert (await store.standing(key.tenant.id)).used_s == 3600


class TestPeriods:
    """START_S is 2027-01-15 08:00 UTC."""

    STARTS: ClassVar[dict[Period, tuple[str | None, str | None]]] = {
        "day": ("2027-01-15T00:00:00.000000+00:00", "2027-01-16T00:00:00.000000+00:00"),
        "month": ("2027-01-01T00:00:00.000000+00:00", "2027-02-01T00:00:00.000000+00:00"),
        "total": (None, None),
    }

    @pytest.mark.parametrize("period", ["day", "month", "total"])
    async def test_when_it_starts_and_ends(self, store: Store, period: Period) -> None:
        key = await limited(store, quota_minutes=1, quota_period=period)
        assert await store.standing(key.tenant.id) == Standing(0, 0, *self.STARTS[period])

    @pytest.mark.parametrize(("period", "turns_after_s"), [("day", 16 * 3600), ("month", 16 * DAY_S + 16 * 3600)])
    async def test_it_starts_anew(self, store: Store, clock: Clock, period: Period, turns_after_s: float) -> None:
        key = await limited(store, quota_minutes=1, quota_period=period)
        await store.settle(await store.reserve(asked(key, estimate_s=60)), spoken(90))
        clock.now_s += turns_after_s - 0.001
        with pytest.raises(QuotaExceeded) as refused:
            await store.reserve(asked(key, identity="job-2", estimate_s=1))
        assert refused.value.details["resets_at"] == utc(START_S + turns_after_s)
        clock.now_s += 0.001
        assert (await store.reserve(asked(key, identity="job-2", estimate_s=60))).left_s == 60

    async def test_total_never_does(self, store: Store, clock: Clock) -> None:
        key = await limited(store, quota_minutes=1, quota_period="total")
        await store.settle(await store.reserve(asked(key, estimate_s=60)), spoken(60))
        clock.now_s += 4000 * DAY_S
        with pytest.raises(QuotaExceeded, match="quota") as refused:
            await store.reserve(asked(key, identity="job-2", estimate_s=1))
        assert refused.value.details["resets_at"] is None

    async def test_speech_counts_in_the_period_in_which_it_was_settled(self, store: Store, clock: Clock) -> None:
        key = await limited(store, quota_minutes=1, quota_period="day")
        reserved = await store.reserve(asked(key, estimate_s=60))
        clock.now_s += 16 * 3600
        await store.settle(reserved, spoken(20))
        assert (await store.reserve(asked(key, identity="job-2"))).left_s == 40

    async def test_another_kind_of_period_holds_at_once(self, store: Store, clock: Clock) -> None:
        key = await limited(store, quota_minutes=1, quota_period="total")
        await store.settle(await store.reserve(asked(key)), spoken(20))
        clock.now_s += DAY_S
        await store.settle(await store.reserve(asked(key, identity="job-2")), spoken(10))
        for period, used_s in {"day": 10, "month": 30, "total": 30}.items():
            await store.update_tenant(key.tenant.id, {"quota_period": period})  # type: ignore[typeddict-item]
            assert (await store.standing(key.tenant.id)).used_s == used_s


class Account(RuleBasedStateMachine):
    """Two workers, one tenant's quota and rate, and a clock in any order, against a model of both."""

    places: Places

    def __init__(self) -> None:
        super().__init__()
        self.opened = ExitStack()
        place = self.opened.enter_context(self.places())
        self.runner = self.opened.enter_context(asyncio.Runner())
        self.clock = Clock()
        self.workers = [self.runner.run(place.open(self.clock)) for _ in range(2)]
        limits = Limits(requests_per_minute=30, quota_minutes=2, quota_period="day")
        self.key = self.runner.run(self.workers[0].create_tenant("acme", scopes=["synthesize"], limits=limits))
        self.quota_s = 120.0
        self.tokens = 30.0
        self.refilled_s = START_S
        self.held: dict[tuple[str, int], tuple[Reserved, float, float]] = {}
        self.used: list[tuple[float, float]] = []
        self.number = 0

    def teardown(self) -> None:
        for worker in self.workers:
            self.runner.run(worker.close())
        self.opened.close()

    @property
    def used_s(self) -> float:
        today = self.clock.now_s // DAY_S
        return sum(seconds for at_s, seconds in self.used if at_s // DAY_S == today)

    @property
    def held_s(self) -> float:
        return sum(estimate_s for _, estimate_s, ends_s in self.held.values() if ends_s > self.clock.now_s)

    @rule(worker=st.integers(0, 1), estimate_s=st.integers(0, 60))
    def reserve(self, worker: int, estimate_s: int) -> None:
        self.number += 1
        reserving = self.workers[worker].reserve(asked(self.key, identity=str(self.number), estimate_s=estimate_s))
        self.tokens = min(30.0, self.tokens + (self.clock.now_s - self.refilled_s) / 2)
        self.refilled_s = self.clock.now_s
        left_s = self.quota_s - self.used_s - self.held_s
        if self.tokens < 1 - 1e-6:
            with pytest.raises(RateLimited):
                self.runner.run(reserving)
        elif estimate_s and left_s < estimate_s:
            with pytest.raises(QuotaExceeded):
                self.runner.run(reserving)
        else:
            reserved = self.runner.run(reserving)
            self.tokens -= 1
            assert reserved.left_s == left_s
            self.held[reserved.request_id, 1] = (reserved, estimate_s, self.clock.now_s + LEASE_S)

    @precondition(lambda self: self.held)
    @rule(worker=st.integers(0, 1), data=st.data(), seconds=st.integers(0, 80), cached=st.booleans())
    def settle(self, worker: int, data: st.DataObject, seconds: int, cached: bool) -> None:
        attempt = data.draw(st.sampled_from(sorted(self.held)))
        reserved, _, _ = self.held[attempt]
        if self.runner.run(self.workers[worker].settle(reserved, spoken(seconds, cached=cached))):
            self.used += [(self.clock.now_s, 0.0 if cached else float(seconds))]
        del self.held[attempt]

    @rule(quota_s=st.integers(0, 240))
    def change_the_quota(self, quota_s: int) -> None:
        self.quota_s = quota_s / 60 * 60
        self.runner.run(self.workers[0].update_tenant(self.key.tenant.id, {"quota_minutes": quota_s / 60}))

    @rule(seconds=st.sampled_from([1, 5, 16, 3600, 40_000]))
    def time_passes(self, seconds: int) -> None:
        self.clock.now_s += seconds

    @invariant()
    def the_standing_is_what_was_spoken_and_is_held(self) -> None:
        standing = self.runner.run(self.workers[0].standing(self.key.tenant.id))
        assert (standing.used_s, standing.held_s) == (self.used_s, self.held_s)


def test_the_account_is_right_in_any_order_of_events(places: Places) -> None:
    class AccountOfBody(Account):
        pass

    AccountOfBody.places = staticmethod(places)
    run_state_machine_as_test(
        AccountOfBody,
        settings=settings(
            max_examples=10, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
        ),
    )
