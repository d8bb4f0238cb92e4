"""What may be wrong with jobs about tenants. Their key may manage none: where all is right, it is told so."""

import math
from collections.abc import Iterator

from tests.hostile_people import Wrong
from tests.hostile_values import LONG, NOT_BOOL, NULL, SURROGATE, Codes, Values, codes

INVALID, NOT_ALLOWED = codes("invalid_input"), codes("forbidden")

IDS = ("", " ", "a b", "\0", "n\u043ebody", SURROGATE, LONG)
NAMES = ("", " ", "\0", SURROGATE, "x" * 201)
RATES = (0, -1, 2**63, 10**400, 1.5, math.nan, math.inf, "10", True, [1])
MINUTES = (-1, -0.001, 1e300, math.nan, math.inf, "10", True, [1])
PERIODS = ("", "Day", "week", "month ", 1, None, SURROGATE)
SCOPES: tuple[object, ...] = ([], ["all"], ["admin "], "admin", [None], [["admin"]], [SURROGATE], {"admin": True}, None)
MOMENTS = ("", "now", "2027-01-15", "2027-01-15T10:00:00", "2027-13-45T99:00:00Z", "0001-01-01T00:00:00+23:59", LONG, 1)
HOURS = (-1, 2161, math.nan, math.inf, "24", None, True)

LIMITS: Wrong = {
    "requests_per_minute": (RATES, INVALID),
    "requests_per_hour": (RATES, INVALID),
    "quota_minutes": (MINUTES, INVALID),
    "quota_period": (PERIODS, INVALID),
    "attested_consent": (NOT_BOOL, INVALID),
    "name": (NAMES, INVALID),
}


def bad_tenants() -> dict[str, tuple[Values, Wrong]]:
    """By action: the fields of a good job, and what may be wrong with each."""
    of_tenant: Wrong = {"tenant_id": (IDS, INVALID)}
    return {
        "tenants.create": ({"name": "Acme"}, LIMITS | {"scopes": (SCOPES, INVALID)}),
        "tenants.list": ({}, {"limit": ((1,), INVALID)}),
        "tenants.update": (
            {"tenant_id": "nobody", "name": "B"},
            LIMITS | of_tenant | {"disabled": (NOT_BOOL, INVALID)},
        ),
        "tenants.disable": ({"tenant_id": "nobody"}, of_tenant),
        "tenants.delete": (
            {"tenant_id": "nobody", "confirm": True},
            of_tenant | {"confirm": (NULL | {"no": False, "a text": "true", "one": 1}, INVALID)},
        ),
        "tenants.revoke_key": ({"prefix": "tts_live_x"}, {"prefix": (IDS, INVALID)} | of_tenant),
    }


def bad_keys_of_tenants() -> Iterator[tuple[str, Values, Codes]]:
    """Jobs whose every field may be absent: the name of each, its fields, the codes that fit."""
    bad: dict[str, Wrong] = {
        "tenants.get": {},
        "tenants.create_key": {"scopes": (SCOPES, INVALID), "expires_at": (MOMENTS, INVALID)},
        "tenants.rotate_key": {"prefix": (IDS, INVALID), "overlap_hours": (HOURS, INVALID)},
    }
    for action, wrong in bad.items():
        for field, (values, fitting) in (wrong | {"tenant_id": (IDS, INVALID)}).items():
            for number, value in enumerate(values):
                yield f"{action}, {field}: {number}", {"action": action, field: value}, fitting
        yield f"{action}, another tenant's", {"action": action, "tenant_id": "nobody"}, NOT_ALLOWED
        yield f"{action}, without the scope", {"action": action}, NOT_ALLOWED
