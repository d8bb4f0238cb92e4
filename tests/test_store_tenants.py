"""Tenants, their keys and their end, on every body of the Store."""

import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from storage.keys import new_key
from tests.stores import START_S, Clock, Place
from tts_core.errors import Forbidden, InvalidInput, KeyNotFound, RequestRunning, TenantNotFound, Unauthorized
from tts_core.store import Limits, NewKey, Outcome, Reservation, Reserved, Scope, Store, TenantChange

HOUR_S = 3600.0
ALL: tuple[Scope, ...] = ("synthesize", "voices", "personas", "cache", "usage", "admin")


def utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")


def asked(key: NewKey | str, *, identity: str = "job-1", scope: Scope = "synthesize") -> Reservation:
    secret = key if isinstance(key, str) else key.secret
    return Reservation(secret, scope, identity=identity, fingerprint="f", action="synthesize")


async def is_accepted(store: Store, key: NewKey | str) -> bool:
    try:
        await store.reserve(asked(key, identity=new_key()))
    except Unauthorized:
        return False
    return True


@pytest.fixture
async def acme(store: Store) -> NewKey:
    return await store.create_tenant("acme", scopes=["synthesize"])


class TestTenant:
    async def test_it_is_told_as_it_was_made(self, store: Store, other_worker: Store) -> None:
        limits = Limits(requests_per_minute=25, requests_per_hour=600, quota_minutes=90.5, quota_period="day")
        made = await store.create_tenant("acme", scopes=ALL, limits=limits, attested_consent=True)
        assert await other_worker.get_tenant(made.tenant.id) == made.tenant
        assert await other_worker.list_tenants() == (made.tenant,)
        assert (made.tenant.limits, made.tenant.attested_consent, made.tenant.disabled_at) == (limits, True, None)
        assert not made.tenant.is_operator

    async def test_asked_for_again_it_is_one_tenant_with_one_new_key(self, store: Store) -> None:
        first = await store.create_tenant("acme", scopes=["voices"], tenant_id="t1")
        second = await store.create_tenant("acme", scopes=["voices"], tenant_id="t1")
        assert await store.list_tenants() == (first.tenant,) == (second.tenant,)
        assert await store.list_keys("t1") == (second.key,)
        assert not await is_accepted(store, first)

    @pytest.mark.parametrize(
        "change",
        [
            {"name": "Acme Ltd", "attested_consent": True},
            {"requests_per_minute": 3, "requests_per_hour": 4, "quota_minutes": 0.5, "quota_period": "total"},
            {"requests_per_minute": None, "requests_per_hour": None, "quota_minutes": None},
            {},
        ],
    )
    async def test_what_is_not_named_stays(self, store: Store, change: TenantChange) -> None:
        limits = Limits(requests_per_minute=25, requests_per_hour=600, quota_minutes=90.5, quota_period="day")
        before = (await store.create_tenant("acme", scopes=["voices"], limits=limits)).tenant
        after = await store.update_tenant(before.id, change)
        fields = dict(change)
        own = {name: fields.pop(name) for name in ("name", "attested_consent") if name in fields}
        assert after == replace(before, **own, limits=replace(limits, **fields))  # type: ignore[arg-type]
        assert await store.get_tenant(before.id) == after

    async def test_disabled_its_keys_say_so_and_enabled_they_work(
        self, store: Store, acme: NewKey, clock: Clock
    ) -> None:
        await store.update_tenant(acme.tenant.id, {"disabled": True})
        clock.now_s += 1
        tenant = await store.update_tenant(acme.tenant.id, {"disabled": True, "name": "still"})
        assert (tenant.disabled_at, tenant.name) == (utc(START_S), "still")
        with pytest.raises(Forbidden, match="disabled"):
            await store.reserve(asked(acme))
        with pytest.raises(Unauthorized):
            await store.reserve(asked(acme.secret[:-1]))
        assert (await store.update_tenant(acme.tenant.id, {"disabled": False})).disabled_at is None
        assert await is_accepted(store, acme)

    async def test_what_a_disabled_tenant_has_running_is_settled(self, store: Store, acme: NewKey) -> None:
        reserved = await store.reserve(asked(acme))
        await store.update_tenant(acme.tenant.id, {"disabled": True})
        assert await store.settle(reserved, Outcome("success", latency_ms=1, audio_seconds=2.0))

    async def test_an_unknown_one_is_not_found(self, store: Store) -> None:
        calls = (
            store.get_tenant("nobody"),
            store.update_tenant("nobody", {}),
            store.delete_tenant("nobody"),
            store.list_keys("nobody"),
            store.create_key("nobody", scopes=["voices"]),
            store.rotate_key("nobody", "tts_live_x", overlap_s=0),
            store.revoke_key("nobody", "tts_live_x"),
            store.standing("nobody"),
        )
        for call in calls:
            with pytest.raises(TenantNotFound, match="no tenant 'nobody'"):
                await call


class TestKeys:
    async def test_several_keys_have_scopes_of_their_own(self, store: Store, acme: NewKey) -> None:
        second = await store.create_key(acme.tenant.id, scopes=["voices", "cache"])
        assert second.tenant == acme.tenant
        assert sorted([acme.key, second.key], key=lambda key: key.prefix) == sorted(
            await store.list_keys(acme.tenant.id), key=lambda key: key.prefix
        )
        assert (await store.reserve(asked(acme))).tenant == acme.tenant
        assert (await store.reserve(asked(second, identity="2", scope="cache"))).tenant == acme.tenant
        with pytest.raises(Forbidden, match="synthesize"):
            await store.reserve(asked(second))

    async def test_the_store_tells_no_secret(self, store: Store, acme: NewKey) -> None:
        (key,) = await store.list_keys(acme.tenant.id)
        assert key == acme.key
        assert acme.secret.startswith(key.prefix)
        assert acme.secret.rpartition("_")[2] not in repr(key)

    async def test_a_key_expires(self, store: Store, acme: NewKey, clock: Clock) -> None:
        short = await store.create_key(acme.tenant.id, scopes=["synthesize"], expires_at=utc(START_S + 60))
        assert short.key.expires_at == utc(START_S + 60)
        clock.now_s += 59.9
        assert await is_accepted(store, short)
        clock.now_s += 0.1
        assert not await is_accepted(store, short)
        assert await is_accepted(store, acme)

    async def test_a_key_is_revoked_once(self, store: Store, other_worker: Store, acme: NewKey, clock: Clock) -> None:
        revoked = await store.revoke_key(acme.tenant.id, acme.key.prefix)
        clock.now_s += 1
        assert await store.revoke_key(acme.tenant.id, acme.key.prefix) == revoked
        assert revoked == replace(acme.key, revoked_at=utc(START_S))
        assert not await is_accepted(other_worker, acme)

    async def test_rotation_overlaps(self, store: Store, acme: NewKey, clock: Clock) -> None:
        new = await store.rotate_key(acme.tenant.id, acme.key.prefix, overlap_s=2 * HOUR_S)
        assert (new.key.scopes, new.key.expires_at) == (acme.key.scopes, None)
        clock.now_s += 2 * HOUR_S - 1
        assert await is_accepted(store, acme)
        assert await is_accepted(store, new)
        clock.now_s += 1
        assert not await is_accepted(store, acme)
        assert await is_accepted(store, new)

    async def test_rotation_never_prolongs(self, store: Store, acme: NewKey, clock: Clock) -> None:
        short = await store.create_key(acme.tenant.id, scopes=["voices"], expires_at=utc(START_S + 60))
        await store.rotate_key(acme.tenant.id, short.key.prefix, overlap_s=HOUR_S)
        clock.now_s += 60
        assert not await is_accepted(store, short)

    @pytest.mark.parametrize("overlap_s", [0.0, HOUR_S])
    @pytest.mark.parametrize("is_named", [True, False])
    async def test_a_rotation_attempted_again_leaves_one_new_key(
        self, store: Store, acme: NewKey, overlap_s: float, is_named: bool
    ) -> None:
        prefix = acme.key.prefix if is_named else None
        lost, told = [
            await store.rotate_key(acme.tenant.id, prefix, overlap_s=overlap_s, made_by="request-1") for _ in range(2)
        ]
        assert len(await store.list_keys(acme.tenant.id)) == 2
        assert not await is_accepted(store, lost)
        assert await is_accepted(store, told)

    async def test_a_key_asked_for_again_replaces_the_first(self, store: Store, acme: NewKey) -> None:
        lost, told = [
            await store.create_key(acme.tenant.id, scopes=["synthesize"], made_by="request-1") for _ in range(2)
        ]
        assert len(await store.list_keys(acme.tenant.id)) == 2
        assert not await is_accepted(store, lost)
        assert await is_accepted(store, told)

    async def test_without_a_prefix_the_only_valid_key_is_meant(self, store: Store, acme: NewKey, clock: Clock) -> None:
        lost, told = [
            await store.rotate_key(acme.tenant.id, None, overlap_s=HOUR_S, made_by="request-1") for _ in range(2)
        ]
        assert not await is_accepted(store, lost)
        with pytest.raises(InvalidInput, match=f"prefix: .*{acme.key.prefix}"):
            await store.rotate_key(acme.tenant.id, None, overlap_s=0)
        clock.now_s += HOUR_S
        last = await store.rotate_key(acme.tenant.id, None, overlap_s=0)
        assert not await is_accepted(store, told)
        await store.revoke_key(acme.tenant.id, last.key.prefix)
        with pytest.raises(KeyNotFound, match="no valid key"):
            await store.rotate_key(acme.tenant.id, None, overlap_s=0)

    async def test_what_is_over_cannot_be_rotated(self, store: Store, acme: NewKey) -> None:
        await store.revoke_key(acme.tenant.id, acme.key.prefix)
        with pytest.raises(KeyNotFound, match="no longer valid"):
            await store.rotate_key(acme.tenant.id, acme.key.prefix, overlap_s=HOUR_S)

    async def test_anothers_key_is_like_none(self, store: Store, acme: NewKey) -> None:
        other = await store.create_tenant("other", scopes=["synthesize"])
        for prefix in (other.key.prefix, "tts_live_nobody"):
            with pytest.raises(KeyNotFound, match=f"this tenant has no key '{prefix}'"):
                await store.revoke_key(acme.tenant.id, prefix)
            with pytest.raises(KeyNotFound, match=f"this tenant has no key '{prefix}'"):
                await store.rotate_key(acme.tenant.id, prefix, overlap_s=0)
        assert await is_accepted(store, other)

    async def test_its_last_use_is_noted_once_a_minute(self, store: Store, acme: NewKey, clock: Clock) -> None:
        async def last_used_at() -> str | None:
            (key,) = await store.list_keys(acme.tenant.id)
            return key.last_used_at

        assert await last_used_at() is None
        for after_s, noted_s in ((0, 0), (59, 0), (1, 60), (30, 60), (31, 121)):
            clock.now_s += after_s
            assert await is_accepted(store, acme)
            assert await last_used_at() == utc(START_S + noted_s)


class TestOperator:
    """The key whose hash the settings name: XTTS_BOOTSTRAP_KEY_SHA256."""

    SECRET = "chosen by whoever sets the worker up"
    SHA256 = hashlib.sha256(SECRET.encode()).digest()

    @pytest.fixture
    async def store(self, place: Place, clock: Clock) -> AsyncIterator[Store]:
        store = await place.open(clock, operator_key=self.SHA256)
        yield store
        await store.close()

    async def test_it_may_do_everything_for_a_tenant_made_on_first_use(self, store: Store) -> None:
        assert await store.list_tenants() == ()
        for scope in ALL:
            reserved = await store.reserve(asked(self.SECRET, identity=scope, scope=scope))
            assert (reserved.tenant.id, reserved.tenant.is_operator) == ("operator", True)
        assert await store.list_tenants() == (reserved.tenant,)

    async def test_it_is_in_no_table(self, store: Store) -> None:
        await store.reserve(asked(self.SECRET))
        assert await store.list_keys("operator") == ()

    async def test_it_is_nothing_to_a_worker_without_the_setting(self, store: Store, other_worker: Store) -> None:
        await store.reserve(asked(self.SECRET))
        assert not await is_accepted(other_worker, self.SECRET)

    async def test_its_tenant_stays(self, store: Store) -> None:
        await store.reserve(asked(self.SECRET))
        with pytest.raises(Forbidden, match="operator"):
            await store.update_tenant("operator", {"disabled": True})
        with pytest.raises(Forbidden, match="operator"):
            await store.delete_tenant("operator")
        assert (await store.update_tenant("operator", {"requests_per_minute": 5})).limits.requests_per_minute == 5


class TestDeletion:
    async def fill(self, store: Store, key: NewKey) -> Reserved:
        """Something of everything this module knows of; other areas' tables are covered by `tenant_id`."""
        tenant_id = key.tenant.id
        await store.update_tenant(tenant_id, {"requests_per_minute": 100, "quota_minutes": 10})
        reserved = await store.reserve(asked(key))
        await store.settle(reserved, Outcome("success", latency_ms=1, audio_seconds=2.0))
        for bucket in ("audio", "voices", "tts-cache"):
            for number in range(3):
                await store.put_object(f"{bucket}/{tenant_id}/{number}.wav", b"x", content_type="audio/wav")
        return reserved

    async def test_everything_goes_and_the_receipt_says_what(self, store: Store, acme: NewKey, clock: Clock) -> None:
        other = await store.create_tenant("other", scopes=["synthesize"])
        for key in (acme, other):
            await self.fill(store, key)
        clock.now_s += 1
        receipt = await store.delete_tenant(acme.tenant.id)
        assert (receipt.tenant_id, receipt.deleted_at, receipt.objects) == (acme.tenant.id, utc(clock.now_s), 9)
        expected = {"api_keys": 1, "tenants": 1, "requests": 1, "usage_logs": 1, "rate_buckets": 1, "quota_used": 3}
        assert expected.items() <= receipt.rows.items()
        assert await store.list_tenants() == (await store.get_tenant(other.tenant.id),)
        assert not await is_accepted(store, acme)
        assert await store.usage(acme.tenant.id) == ()
        with pytest.raises(KeyError):
            await store.get_object(f"audio/{acme.tenant.id}/0.wav")
        assert len(await store.usage(other.tenant.id)) == 1
        assert await store.get_object(f"audio/{other.tenant.id}/0.wav") == b"x"

    async def test_asked_again_the_receipt_is_the_same(
        self, store: Store, other_worker: Store, acme: NewKey, clock: Clock
    ) -> None:
        await self.fill(store, acme)
        receipt = await store.delete_tenant(acme.tenant.id)
        clock.now_s += 1
        assert await other_worker.delete_tenant(acme.tenant.id) == receipt

    async def test_it_waits_for_what_is_running_and_lets_nothing_begin(
        self, store: Store, acme: NewKey, clock: Clock
    ) -> None:
        reserved = await store.reserve(asked(acme))
        with pytest.raises(RequestRunning, match="disabled"):
            await store.delete_tenant(acme.tenant.id)
        with pytest.raises(Forbidden, match="disabled"):
            await store.reserve(asked(acme, identity="job-2"))
        assert await store.settle(reserved, Outcome("failed", latency_ms=1))
        assert (await store.delete_tenant(acme.tenant.id)).rows["usage_logs"] == 1

    async def test_it_does_not_wait_for_the_dead(self, store: Store, acme: NewKey, clock: Clock) -> None:
        reserved = await store.reserve(asked(acme))
        clock.now_s += 30
        assert (await store.delete_tenant(acme.tenant.id)).rows["requests"] == 1
        assert not await store.settle(reserved, Outcome("success", latency_ms=1, audio_seconds=2.0))
