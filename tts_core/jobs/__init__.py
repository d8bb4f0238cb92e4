"""The wire: JSON in, typed requests out. What a job may say is here and nowhere else (DESIGN section 3).

Every model is strict (no "1" for 1, no true for 1), refuses unknown fields and non-finite numbers, and never
repeats a value in an error: values can be secrets, texts or megabytes.

base     what every request has; fields: the kinds of value they hold
others   one module per area: its requests, and the table of its actions
"""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_
from typing import Any

from pydantic import TypeAdapter, ValidationError

from tts_core.errors import InvalidInput
from tts_core.jobs import cache, health, kept, messages, personas, retention, synthesize, tenants, usage, users, voices
from tts_core.jobs.base import Handler, JsonObject, Request, WithReference
from tts_core.jobs.cache import CacheInvalidate, CacheSeed, CacheStats
from tts_core.jobs.fields import VoiceRef
from tts_core.jobs.health import Health
from tts_core.jobs.kept import JobsGet, JobsList
from tts_core.jobs.messages import MessagesAdd, MessagesDelete, MessagesList
from tts_core.jobs.personas import PersonasCreate, PersonasDelete, PersonasGet, PersonasList, PersonasUpdate
from tts_core.jobs.retention import RetentionGet, RetentionSet
from tts_core.jobs.synthesize import Synthesize
from tts_core.jobs.tenants import (
    TenantsCreate,
    TenantsCreateKey,
    TenantsDelete,
    TenantsDisable,
    TenantsGet,
    TenantsList,
    TenantsRevokeKey,
    TenantsRotateKey,
    TenantsUpdate,
)
from tts_core.jobs.usage import UsageSummarize
from tts_core.jobs.users import UsersDelete, UsersGet, UsersList, UsersPut
from tts_core.jobs.voices import (
    VoicesCreate,
    VoicesDelete,
    VoicesGet,
    VoicesList,
    VoicesShare,
    VoicesUnshare,
    VoicesUpdate,
)

__all__ = [
    "ACTIONS",
    "AREAS",
    "CacheInvalidate",
    "CacheSeed",
    "CacheStats",
    "Handler",
    "Health",
    "JobsGet",
    "JobsList",
    "JsonObject",
    "MessagesAdd",
    "MessagesDelete",
    "MessagesList",
    "PersonasCreate",
    "PersonasDelete",
    "PersonasGet",
    "PersonasList",
    "PersonasUpdate",
    "Request",
    "RetentionGet",
    "RetentionSet",
    "Synthesize",
    "TenantsCreate",
    "TenantsCreateKey",
    "TenantsDelete",
    "TenantsDisable",
    "TenantsGet",
    "TenantsList",
    "TenantsRevokeKey",
    "TenantsRotateKey",
    "TenantsUpdate",
    "UsageSummarize",
    "UsersDelete",
    "UsersGet",
    "UsersList",
    "UsersPut",
    "VoiceRef",
    "VoicesCreate",
    "VoicesDelete",
    "VoicesGet",
    "VoicesList",
    "VoicesShare",
    "VoicesUnshare",
    "VoicesUpdate",
    "WithReference",
    "json_schema",
    "parse",
]

AREAS: Sequence[Mapping[str, type[Request]]] = (
    synthesize.ACTIONS,
    voices.ACTIONS,
    users.ACTIONS,
    usage.ACTIONS,
    personas.ACTIONS,
    messages.ACTIONS,
    cache.ACTIONS,
    kept.ACTIONS,
    retention.ACTIONS,
    tenants.ACTIONS,
    health.ACTIONS,
)
ACTIONS: Mapping[str, type[Request]] = {action: kind for area in AREAS for action, kind in area.items()}


def parse(body: object) -> Request:
    """The `input` of a job as a typed request.

    raises  InvalidInput that names the first fields that are wrong; NotSupported for what a later version does
    """
    if not isinstance(body, dict):
        raise InvalidInput(f"input: must be an object, not {type(body).__name__}")
    action = body.get("action", "synthesize")
    if not isinstance(action, str) or action not in ACTIONS:
        raise InvalidInput(f"action: must be one of {', '.join(ACTIONS)}")
    try:
        request = ACTIONS[action].model_validate(body)
    except ValidationError as exc:
        raise InvalidInput("; ".join(_reason(error["loc"], error["msg"]) for error in exc.errors()[:3])) from exc
    request.refuse_the_future()
    return request


def _reason(location: Sequence[int | str], message: str) -> str:
    # Location is caller-made for unknown fields: shortened, and escaped so that it is always valid UTF-8.
    path = ".".join(ascii(part)[1:-1] if isinstance(part, str) else str(part) for part in location) or "input"
    return f"{path[:80]}: {message.removeprefix('Value error, ')}"


def json_schema() -> JsonObject:
    """JSON Schema of every `input` a job may carry."""
    any_request: Any = reduce(or_, ACTIONS.values())
    return TypeAdapter(any_request).json_schema()
