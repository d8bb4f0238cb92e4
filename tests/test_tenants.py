"""Tenants, keys and limits through the whole service: `tenants.*`, what a tenant's requests may cost, and the shell."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import handler
from tests.scripted_engine import ScriptedEngine
from tests.stores import Clock, Place
from tts_core.errors import ReferenceUnreachable
from tts_core.service import Service
from tts_core.service.estimate import estimate_s
from tts_core.settings import Settings

Event = dict[str, Any]
SECRET = "of whoever runs the installation"
HOUR_S = 3600.0
DAY_S = 24 * HOUR_S


async def no_network(url: str) -> bytes:
    raise ReferenceUnreachable("no network in this test")


class Desk:
    """A worker, and whoever asks it with some key."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._jobs = count()

    async def events(self, key: str, body: Event, *, job_id: str | None = None) -> list[Event]:
        job_id = job_id or f"job-{next(self._jobs)}"
        return [event async for event in self.service.answer({"tenant_key": key, **body}, job_id=job_id)]

    async def ask(self, key: str, action: str, *, job_id: str | None = None, **fields: Any) -> Event:
        (answer,) = await self.events(key, {"action": action, **fields}, job_id=job_id)
        assert "error" not in answer, answer
        return answer

    async def refused(self, key: str, action: str, **fields: Any) -> Event:
        *_, answer = await self.events(key, {"action": action, **fields})
        error: Event = json.loads(answer["error"])
        return error

    async def tenant(self, **fields: Any) -> Event:
        return await self.ask(SECRET, "tenants.create", name="Acme", **fields)

    async def speak(self, key: str, text: str = "abc", **fields: Any) -> Event:
        return await self.ask(key, "synthesize", text=text, language="en", cache="bypass", **fields)

    async def refused_to_speak(self, key: str, text: str = "abc", **fields: Any) -> Event:
        return await self.refused(key, "synthesize", text=text, language="en", cache="bypass", **fields)

    async def settled(self) -> None:
        """Until nothing runs any more: a request asked for again before is told what the first one is."""
        await asyncio.gather(*(run.owner for run in self.service._runs.values()))

    async def left_s(self) -> float:
        """As whoever runs the installation sees it."""
        tenants = await self.ask(SECRET, "tenants.list")
        (tenant,) = [tenant for tenant in tenants["tenants"] if not tenant["is_operator"]]
        told = await self.ask(SECRET, "tenants.get", tenant_id=tenant["id"])
        return float(told["quota"]["left_s"])


@pytest.fixture
async def desk(place: Place, clock: Clock, tmp_path: Path) -> AsyncIterator[Desk]:
    store = await place.open(clock, operator_key=hashlib.sha256(SECRET.encode()).digest())
    service = Service(ScriptedEngine(), store, settings=Settings(data_dir=tmp_path), fetch=no_network)
    yield Desk(service)
    await service.close()


class TestOperator:
    async def test_a_tenant_is_made_told_changed_and_listed(self, desk: Desk) -> None:
        made = await desk.tenant(requests_per_minute=5, quota_minutes=2.5, attested_consent=True)
        assert made["tenant_key"].startswith(made["key"]["prefix"])
        assert made["key"]["scopes"] == ["synthesize", "voices", "personas", "cache", "usage"]
        limits = {
            "requests_per_minute": 5,
            "requests_per_hour": None,
            "quota_minutes": 2.5,
            "quota_period": "month",
        }
        assert made["tenant"]["limits"] == limits
        tenant_id = made["tenant"]["id"]
        changed = await desk.ask(
            SECRET, "tenants.update", tenant_id=tenant_id, requests_per_minute=None, quota_period="day", name="B"
        )
        assert changed["tenant"] == made["tenant"] | {
            "name": "B",
            "limits": limits | {"requests_per_minute": None, "quota_period": "day"},
        }
        told = await desk.ask(SECRET, "tenants.get", tenant_id=tenant_id)
        assert told["tenant"] == changed["tenant"]
        assert [key["prefix"] for key in told["keys"]] == [made["key"]["prefix"]]
        assert told["quota"] == {
            "minutes": 2.5,
            "period": "day",
            "left_s": 150.0,
            "used_s": 0,
            "held_s": 0,
            "started_at": "2027-01-15T00:00:00.000000+00:00",
            "resets_at": "2027-01-16T00:00:00.000000+00:00",
        }
        listed = await desk.ask(SECRET, "tenants.list")
        assert (listed["count"], changed["tenant"] in listed["tenants"]) == (2, True)

    async def test_a_disabled_tenant_is_told_so_until_it_is_enabled(self, desk: Desk) -> None:
        made = await desk.tenant()
        tenant_id = made["tenant"]["id"]
        assert (await desk.ask(SECRET, "tenants.disable", tenant_id=tenant_id))["tenant"]["disabled_at"]
        error = await desk.refused_to_speak(made["tenant_key"])
        assert (error["code"], "disabled" in error["message"], error["retryable"]) == ("forbidden", True, False)
        await desk.ask(SECRET, "tenants.update", tenant_id=tenant_id, disabled=False)
        assert (await desk.speak(made["tenant_key"]))["status"] == "success"

    async def test_a_deleted_tenant_leaves_a_receipt(self, desk: Desk) -> None:
        made = await desk.tenant()
        tenant_id = made["tenant"]["id"]
        await desk.speak(made["tenant_key"])
        assert (await desk.refused(SECRET, "tenants.delete", tenant_id=tenant_id))["code"] == "invalid_input"
        answer = await desk.ask(SECRET, "tenants.delete", tenant_id=tenant_id, confirm=True)
        receipt = answer["receipt"]
        assert receipt["objects"] == 1
        assert {"tenants": 1, "api_keys": 1, "requests": 1, "usage_logs": 1}.items() <= receipt["rows"].items()
        again = await desk.ask(SECRET, "tenants.delete", tenant_id=tenant_id, confirm=True)
        assert again["receipt"] == receipt
        assert (await desk.refused_to_speak(made["tenant_key"]))["code"] == "unauthorized"
        assert (await desk.refused(SECRET, "tenants.get", tenant_id=tenant_id))["code"] == "tenant_not_found"

    async def test_an_update_that_says_nothing_is_refused(self, desk: Desk) -> None:
        error = await desk.refused(SECRET, "tenants.update", tenant_id="t1")
        assert error["code"] == "invalid_input"

    @pytest.mark.parametrize(
        "fields",
        [
            {"requests_per_minute": 0},
            {"quota_minutes": -1},
            {"quota_period": "week"},
            {"name": None},
            {"scopes": ["all"]},
            {"quota_minutes": "1"},
        ],
    )
    async def test_wrong_limits_are_named(self, desk: Desk, fields: Event) -> None:
        body = {"name": "Acme"} | fields
        error = await desk.refused(SECRET, "tenants.create", **body)
        assert (error["code"], error["message"].split(":")[0].split(".")[0]) == ("invalid_input", next(iter(fields)))


class TestAdminOfATenant:
    """A key with the scope `admin` of a tenant that is not the operator's."""

    async def test_it_manages_its_own_keys(self, desk: Desk, clock: Clock) -> None:
        admin = (await desk.tenant(scopes=["admin"]))["tenant_key"]
        made = await desk.ask(
            admin, "tenants.create_key", scopes=["synthesize"], expires_at="2027-01-15T10:00:00+01:00"
        )
        assert made["key"]["expires_at"] == "2027-01-15T09:00:00.000000+00:00"
        assert (await desk.speak(made["tenant_key"]))["status"] == "success"
        rotated = await desk.ask(admin, "tenants.rotate_key", prefix=made["key"]["prefix"], overlap_hours=0.5)
        assert rotated["key"]["scopes"] == ["synthesize"]
        clock.now_s += 1800
        assert (await desk.refused_to_speak(made["tenant_key"]))["code"] == "unauthorized"
        assert (await desk.speak(rotated["tenant_key"]))["status"] == "success"
        revoked = await desk.ask(admin, "tenants.revoke_key", prefix=rotated["key"]["prefix"])
        assert revoked["key"]["revoked_at"]
        assert (await desk.refused_to_speak(rotated["tenant_key"]))["code"] == "unauthorized"
        told = await desk.ask(admin, "tenants.get")
        assert (told["tenant"]["name"], len(told["keys"])) == ("Acme", 3)

    async def test_it_manages_no_tenant_not_even_its_own(self, desk: Desk) -> None:
        made = await desk.tenant(scopes=["admin"])
        admin, own = made["tenant_key"], made["tenant"]["id"]
        attempts: list[tuple[str, Event]] = [
            ("tenants.list", {}),
            ("tenants.create", {"name": "B"}),
            ("tenants.update", {"tenant_id": own, "quota_minutes": None}),
            ("tenants.disable", {"tenant_id": own}),
            ("tenants.delete", {"tenant_id": own, "confirm": True}),
        ]
        for action, fields in attempts:
            assert (await desk.refused(admin, action, **fields))["code"] == "forbidden"

    async def test_another_tenant_is_like_none(self, desk: Desk) -> None:
        admin = (await desk.tenant(scopes=["admin"]))["tenant_key"]
        other = (await desk.tenant())["tenant"]["id"]
        for action, fields in {
            "tenants.get": {},
            "tenants.create_key": {},
            "tenants.rotate_key": {},
            "tenants.revoke_key": {"prefix": "tts_live_x"},
        }.items():
            foreign, unknown = [
                await desk.refused(admin, action, tenant_id=tenant_id, **fields) for tenant_id in (other, "f" * 32)
            ]
            assert foreign["code"] == "tenant_not_found"
            assert foreign["message"].replace(other, "f" * 32) == unknown["message"]

    async def test_other_scopes_manage_nothing(self, desk: Desk) -> None:
        key = (await desk.tenant(scopes=["usage", "cache", "voices"]))["tenant_key"]
        for action in ("tenants.get", "tenants.create_key", "tenants.rotate_key"):
            error = await desk.refused(key, action)
            assert (error["code"], "admin" in error["message"]) == ("forbidden", True)


class TestSecrets:
    async def test_a_key_is_told_once(self, desk: Desk) -> None:
        first = await desk.ask(SECRET, "tenants.create", job_id="1", name="Acme")
        await desk.settled()
        again = await desk.ask(SECRET, "tenants.create", job_id="1", name="Acme")
        assert again == first | {"tenant_key": None}
        assert (await desk.speak(first["tenant_key"]))["status"] == "success"
        assert len((await desk.ask(SECRET, "tenants.list"))["tenants"]) == 2

    async def test_no_answer_tells_a_secret_again(self, desk: Desk) -> None:
        made = await desk.tenant()
        secret = made["tenant_key"].rpartition("_")[2]
        told = [
            await desk.ask(SECRET, "tenants.get", tenant_id=made["tenant"]["id"]),
            await desk.ask(SECRET, "tenants.list"),
            await desk.ask(SECRET, "tenants.disable", tenant_id=made["tenant"]["id"]),
        ]
        assert secret not in json.dumps(told)


class TestRates:
    async def test_too_many_are_told_when_to_come_back(self, desk: Desk, clock: Clock) -> None:
        key = (await desk.tenant(requests_per_minute=2))["tenant_key"]
        for _ in range(2):
            await desk.ask(key, "voices.list")
        error = await desk.refused(key, "voices.list")
        assert (error["code"], error["retryable"], error["retry_after_s"]) == ("rate_limited", True, 30.0)
        assert "30" in error["message"]
        clock.now_s += error["retry_after_s"]
        await desk.ask(key, "voices.list")

    async def test_of_many_jobs_at_once_as_many_as_the_burst_are_done(self, desk: Desk) -> None:
        key = (await desk.tenant(requests_per_minute=4))["tenant_key"]
        body = {"action": "synthesize", "text": "abc", "language": "en"}
        answers = await asyncio.gather(*(desk.events(key, body) for _ in range(20)))
        assert sum("error" not in answer[-1] for answer in answers) == 4


class TestQuota:
    async def test_what_is_spoken_is_charged_and_what_is_left_is_told(self, desk: Desk) -> None:
        key = (await desk.tenant(quota_minutes=1))["tenant_key"]
        assert (await desk.speak(key, "abcdefghij"))["usage"]["quota_left_s"] == 59.0
        assert (await desk.speak(key, "abcde"))["usage"]["quota_left_s"] == 58.5
        assert await desk.left_s() == 58.5

    async def test_no_quota_is_null(self, desk: Desk) -> None:
        key = (await desk.tenant())["tenant_key"]
        assert (await desk.speak(key))["usage"]["quota_left_s"] is None

    async def test_what_may_not_suffice_is_refused_until_the_period_turns(self, desk: Desk, clock: Clock) -> None:
        key = (await desk.tenant(quota_minutes=1 / 60, quota_period="day"))["tenant_key"]
        text = "a few words more than a second"
        assert estimate_s(text, language="en", speed=1.0) > 1
        error = await desk.refused_to_speak(key, text)
        assert (error["code"], error["retryable"]) == ("quota_exceeded", False)
        assert (error["left_s"], error["resets_at"]) == (1.0, "2027-01-16T00:00:00.000000+00:00")
        await desk.speak(key, "abc")
        clock.now_s += DAY_S
        assert (await desk.speak(key, "abc"))["usage"]["quota_left_s"] == 0.7

    async def test_speech_longer_than_estimated_is_charged_in_full(self, desk: Desk) -> None:
        """The scripted engine speaks ten characters a second: a third slower than English is taken for."""
        key = (await desk.tenant(quota_minutes=55 / 60))["tenant_key"]
        answer = await desk.speak(key, "a" * 600, format="ulaw")
        assert answer["usage"]["quota_left_s"] == -5.0
        error = await desk.refused_to_speak(key, "a")
        assert (error["code"], error["left_s"]) == ("quota_exceeded", -5.0)
        assert (await desk.ask(key, "voices.list"))["count"] >= 1, "what speaks nothing goes on"

    async def test_a_failure_gives_back_what_was_not_spoken(self, desk: Desk) -> None:
        key = (await desk.tenant(quota_minutes=1))["tenant_key"]
        error = await desk.refused_to_speak(key, "abcde!fgh")
        assert error["code"] == "internal"
        left_s = await desk.left_s()
        assert 59.5 <= left_s <= 60

    async def test_a_cancelled_stream_gives_back_what_was_not_spoken(self, desk: Desk) -> None:
        key = (await desk.tenant(quota_minutes=1))["tenant_key"]
        body = {"tenant_key": key, "text": "abcde#fgh", "language": "en", "streaming": True, "cache": "bypass"}
        async with aclosing(desk.service.answer(body, job_id="stream")) as stream:
            while (await anext(stream))["event"] != "audio":
                pass
            assert await desk.left_s() <= 59, "held while it runs"
        await desk.settled()
        assert 59.5 <= await desk.left_s() < 60

    async def test_a_cached_answer_costs_nothing(self, desk: Desk) -> None:
        key = (await desk.tenant(quota_minutes=1))["tenant_key"]
        body = {"text": "abcdefghij", "language": "en"}
        first = await desk.ask(key, "synthesize", **body)
        second = await desk.ask(key, "synthesize", **body)
        assert (first["cached"], second["cached"]) == (False, True)
        assert [answer["usage"]["quota_left_s"] for answer in (first, second)] == [59.0, 59.0]

    async def test_a_change_holds_for_the_next_request(self, desk: Desk) -> None:
        made = await desk.tenant(quota_minutes=0)
        assert (await desk.refused_to_speak(made["tenant_key"]))["code"] == "quota_exceeded"
        await desk.ask(SECRET, "tenants.update", tenant_id=made["tenant"]["id"], quota_minutes=1)
        assert (await desk.speak(made["tenant_key"]))["usage"]["quota_left_s"] == 59.7


class TestShell:
    """`python handler.py tenants …`"""

    @pytest.fixture
    def env(self, tmp_path: Path) -> dict[str, str]:
        return {"XTTS_DATA_DIR": str(tmp_path), "XTTS_ENGINE": "espeak"}

    def run(self, env: dict[str, str], capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, list[Event], str]:
        status = handler.main(["tenants", *argv], env)
        printed = capsys.readouterr()
        return status, [json.loads(line) for line in printed.out.splitlines()], printed.err

    def test_a_tenants_life(self, env: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
        limits = ("--requests-per-minute", "3", "--requests-per-hour", "50", "--quota-minutes", "1.5")
        status, (made,), notes = self.run(env, capsys, "create", "Acme", *limits, "--quota-period", "day")
        assert (status, "shown this once" in notes) == (0, True)
        tenant_id = made["tenant_id"]
        _, (listed,), _ = self.run(env, capsys, "list")
        assert listed["limits"] == {
            "requests_per_minute": 3,
            "requests_per_hour": 50,
            "quota_minutes": 1.5,
            "quota_period": "day",
        }
        _, (rotated,), _ = self.run(env, capsys, "rotate", tenant_id, "--overlap-hours", "1")
        assert rotated["tenant_key"] != made["tenant_key"]
        _, (disabled,), _ = self.run(env, capsys, "disable", tenant_id)
        _, (enabled,), _ = self.run(env, capsys, "disable", tenant_id, "--undo")
        assert (bool(disabled["disabled_at"]), enabled["disabled_at"]) == (True, None)
        status, printed, notes = self.run(env, capsys, "delete", tenant_id)
        assert (status, printed, "--yes" in notes) == (2, [], True)
        status, (receipt,), _ = self.run(env, capsys, "delete", tenant_id, "--yes")
        assert (status, receipt["rows"]) == (0, {"api_keys": 2, "tenants": 1})
        assert self.run(env, capsys, "list")[1] == []

    def test_scopes_may_be_named(self, env: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
        _, (made,), _ = self.run(env, capsys, "create", "Acme", "--scope", "admin", "--scope", "usage")
        assert made["key"]["scopes"] == ["admin", "usage"]

    @pytest.mark.parametrize("argv", [["rotate", "nobody"], ["disable", "nobody"], ["delete", "nobody", "--yes"]])
    def test_an_unknown_tenant_is_an_error(
        self, env: dict[str, str], capsys: pytest.CaptureFixture[str], argv: list[str]
    ) -> None:
        status, printed, notes = self.run(env, capsys, *argv)
        assert (status, printed, "no tenant 'nobody'" in notes) == (2, [], True)

    @pytest.mark.parametrize(
        "option", [["--requests-per-minute", "0"], ["--quota-minutes", "nan"], ["--quota-minutes", "inf"]]
    )
    def test_a_limit_that_is_none_is_refused(
        self, env: dict[str, str], capsys: pytest.CaptureFixture[str], option: list[str]
    ) -> None:
        with pytest.raises(SystemExit):
            handler.main(["tenants", "create", "Acme", *option], env)


async def test_the_hash_of_the_operators_key_is_a_setting(tmp_path: Path) -> None:
    env = {
        "XTTS_DATA_DIR": str(tmp_path),
        "XTTS_ENGINE": "espeak",
        "XTTS_BOOTSTRAP_KEY_SHA256": hashlib.sha256(SECRET.encode()).hexdigest(),
    }
    service = await asyncio.to_thread(handler.build, Settings.from_env(env), engine=ScriptedEngine())
    desk = Desk(service)
    made = await desk.tenant()
    assert (await desk.speak(made["tenant_key"]))["status"] == "success"
    await service.close()
    held = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert SECRET.encode() not in held
    assert hashlib.sha256(SECRET.encode()).digest() not in held
