"""The stretches of time that quotas count over, in UTC."""

from datetime import UTC, datetime, timedelta

from tts_core.store import Period

PERIODS: tuple[Period, ...] = ("day", "month", "total")
FOREVER = datetime(1970, 1, 1, tzinfo=UTC)
"""The start of `total`, which has no end."""


def period_bounds(period: Period, now_s: float) -> tuple[datetime, datetime | None]:
    """Start and end of the period that `now_s` (seconds since 1970) lies in; `total` has no end."""
    midnight = datetime.fromtimestamp(now_s, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    match period:
        case "day":
            return midnight, midnight + timedelta(days=1)
        case "month":
            first = midnight.replace(day=1)
            return first, (first + timedelta(days=31)).replace(day=1)
        case "total":
            return FOREVER, None
