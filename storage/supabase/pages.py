"""Reading a table page by page: PostgREST cuts long answers off in silence."""

from collections.abc import Mapping, Sequence
from typing import Any

PAGE_ROWS = 500
"""Below `max_rows` of supabase/config.toml, so that a page that was cut off cannot look like the last one."""


def after(row: Mapping[str, Any], order: Sequence[str]) -> str:
    """The filter, as PostgREST's `or`, for what follows `row` in this order.

    order  columns, each with an optional `.desc`; together unique, and none of them null
    """
    name, _, direction = order[0].partition(".")
    value = _quoted(str(row[name]))
    beyond = f"{name}.{'lt' if direction == 'desc' else 'gt'}.{value}"
    if len(order) == 1:
        return beyond
    rest = after(row, order[1:])
    return f"{beyond},and({name}.eq.{value},or({rest}))"


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
