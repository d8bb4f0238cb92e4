"""Requests and the attempts at them, in Supabase."""

from dataclasses import asdict
from typing import Any
from uuid import uuid4

from storage.keys import digest
from storage.supabase.area import SupabaseArea, row_of
from storage.supabase.tenants import tenant_of
from tts_core.store import Outcome, Reservation, Reserved


class SupabaseRequests(SupabaseArea):
    """`tts_core.store.Requests`"""

    async def reserve(self, reservation: Reservation) -> Reserved:
        asked = asdict(reservation)
        key_sha256 = digest(asked.pop("tenant_key"))
        # The operator's key is in no table, so its hash is not sent either.
        whose = {"is_operator": True} if key_sha256 == self._operator_key else {"key_sha256": key_sha256.hex()}
        asked["holder"] = reservation.holder or uuid4().hex  # one call, however often its answer is lost
        answer = await self._call("reserve_request", dict, **whose, **asked)
        outcome = answer["outcome"]
        return Reserved(
            tenant_of(answer["tenant"]),
            request_id=answer["request_id"],
            fence=answer["fence"],
            outcome=None if outcome is None else row_of(Outcome, outcome),
            left_s=answer["left_s"],
        )

    async def renew(self, reserved: Reserved, *, lease_s: float) -> bool:
        return await self._call("renew_request", bool, **_attempt(reserved), lease_s=lease_s)

    async def settle(self, reserved: Reserved, outcome: Outcome) -> bool:
        return await self._call("settle_request", bool, **_attempt(reserved), **asdict(outcome))


def _attempt(reserved: Reserved) -> dict[str, Any]:
    return {"tenant_id": reserved.tenant.id, "request_id": reserved.request_id, "fence": reserved.fence}
