"""The ports of everything the product remembers; `storage` implements them, `handler.main` chooses the body.

Every call is safe to repeat. Any of them raises StoreUnavailable when the backend does not answer.

One module per area: its rows and its protocol. `Store` is all of them together.
"""

from typing import Protocol

from tts_core.store.objects import Objects, SignedUrl
from tts_core.store.requests import Outcome, OutcomeStatus, Requests, Reservation, Reserved
from tts_core.store.tenants import NewKey, Scope, Tenant, Tenants
from tts_core.store.usage import Usage, UsageRow
from tts_core.store.voices import VoiceRow, Voices

__all__ = [
    "NewKey",
    "Objects",
    "Outcome",
    "OutcomeStatus",
    "Requests",
    "Reservation",
    "Reserved",
    "Scope",
    "SignedUrl",
    "Store",
    "Tenant",
    "Tenants",
    "Usage",
    "UsageRow",
    "VoiceRow",
    "Voices",
]


class Store(Tenants, Requests, Usage, Voices, Objects, Protocol):
    async def close(self) -> None: ...
