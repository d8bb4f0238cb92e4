"""Pages of long lists, each within one event."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from tts_core.jobs import JsonObject
from tts_core.jobs.pages import cursor_after
from tts_core.service.delivery import MAX_YIELD_BYTES, wire_bytes
from tts_core.store import Place

Row = TypeVar("Row")
MAX_PAGE_BYTES = MAX_YIELD_BYTES - 2_000
"""What is left of an event for the rows themselves. The largest row of all has some 250,000."""


def page(
    name: str,
    rows: Sequence[Row],
    *,
    limit: int,
    told: Callable[[Row], JsonObject],
    place: Callable[[Row], Place | int],
) -> JsonObject:
    """The first of `rows`: at most `limit`, and no more than fit; `next_cursor` is told if there are more.

    rows  one more than `limit`, if there are so many
    """
    items: list[JsonObject] = []
    size = 0
    for row in rows[:limit]:
        item = told(row)
        size += wire_bytes(item) + 2
        if items and size > MAX_PAGE_BYTES:
            break
        items.append(item)
    more = len(items) < len(rows)
    return {
        name: items,
        "count": len(items),
        "next_cursor": cursor_after(place(rows[len(items) - 1])) if more else None,
    }
