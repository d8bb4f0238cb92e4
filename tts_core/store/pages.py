"""How long lists are read: a page at a time, by keys that rows added or deleted meanwhile do not shift."""

from typing import TypeAlias

Place: TypeAlias = tuple[str, str]
"""Where a page of rows in the order of their making ended: `created_at` and `id` of its last row."""
