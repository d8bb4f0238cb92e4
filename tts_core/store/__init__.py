"""The ports of everything the product remembers; `storage` implements them, `handler.main` chooses the body.

Every call is safe to repeat. Any of them raises StoreUnavailable when the backend does not answer.

One module per area: its rows and its protocol. `Store` is all of them together.
"""

from typing import Protocol

from tts_core.store.cache import SHARED, CacheCount, CacheEntries, CacheEntry, CacheGroup, CachePick, CacheTotals
from tts_core.store.jobs import ChunkRow, ChunkSpeech, ChunkStatus, JobRow, Jobs, JobStatus, NewChunk, NewJob
from tts_core.store.messages import MessageRow, Messages, Role
from tts_core.store.objects import Objects, SignedUrl
from tts_core.store.pages import Place
from tts_core.store.personas import PersonaChanges, PersonaRow, Personas
from tts_core.store.requests import Outcome, OutcomeStatus, Requests, Reservation, Reserved
from tts_core.store.retention import Purged, Retention, Retentions
from tts_core.store.tenants import (
    Key,
    Limits,
    NewKey,
    Period,
    Receipt,
    Scope,
    Standing,
    Tenant,
    TenantChange,
    Tenants,
)
from tts_core.store.usage import (
    Grouping,
    Usage,
    UsageCounts,
    UsageGroup,
    UsageQuery,
    UsageRow,
    UsageSummary,
)
from tts_core.store.users import Removal, UserRow, Users
from tts_core.store.voices import (
    MAX_VOICE_GRANTS,
    Clip,
    FileType,
    Gender,
    NewVersion,
    StoredObject,
    VoicePurge,
    VoiceQuery,
    VoiceRow,
    Voices,
    VoiceTraits,
    VoiceVersion,
)

__all__ = [
    "MAX_VOICE_GRANTS",
    "SHARED",
    "CacheCount",
    "CacheEntries",
    "CacheEntry",
    "CacheGroup",
    "CachePick",
    "CacheTotals",
    "ChunkRow",
    "ChunkSpeech",
    "ChunkStatus",
    "Clip",
    "FileType",
    "Gender",
    "Grouping",
    "JobRow",
    "JobStatus",
    "Jobs",
    "Key",
    "Limits",
    "MessageRow",
    "Messages",
    "NewChunk",
    "NewJob",
    "NewKey",
    "NewVersion",
    "Objects",
    "Outcome",
    "OutcomeStatus",
    "Period",
    "PersonaChanges",
    "PersonaRow",
    "Personas",
    "Place",
    "Purged",
    "Receipt",
    "Removal",
    "Requests",
    "Reservation",
    "Reserved",
    "Retention",
    "Retentions",
    "Role",
    "Scope",
    "SignedUrl",
    "Standing",
    "Store",
    "StoredObject",
    "Tenant",
    "TenantChange",
    "Tenants",
    "Usage",
    "UsageCounts",
    "UsageGroup",
    "UsageQuery",
    "UsageRow",
    "UsageSummary",
    "UserRow",
    "Users",
    "VoicePurge",
    "VoiceQuery",
    "VoiceRow",
    "VoiceTraits",
    "VoiceVersion",
    "Voices",
]


class Store(
    Tenants,
    Requests,
    Usage,
    Voices,
    CacheEntries,
    Objects,
    Users,
    Personas,
    Messages,
    Jobs,
    Retentions,
    Protocol,
):
    async def close(self) -> None: ...
