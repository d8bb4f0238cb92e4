"""What the tables of every area have in common: named migrations in one order, and how a time is written.

Names follow the Supabase migrations. Booleans are 0 or 1, times are text written by `utc`.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

Migration = tuple[str, tuple[str, ...]]
"""A name, and the statements that are run for it, in one transaction. A released one is never edited: append."""


def in_order(*areas: Sequence[Migration]) -> tuple[Migration, ...]:
    """The migrations of all areas by their names, whose leading numbers say what has to be there before."""
    return tuple(sorted(migration for area in areas for migration in area))


def utc(seconds: float) -> str:
    """Seconds since 1970 as ISO 8601 in UTC, always with microseconds: such texts sort as the times do."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")
