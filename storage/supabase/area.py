"""What every area of the Supabase store works on."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, TypeVar

from storage.supabase.client import Project

Clock = Callable[[], float]
"""Seconds since 1970."""

T = TypeVar("T")


class SupabaseArea:
    """Base of the areas, which `SupabaseStore` joins: they share one project.

    clock         a test's; None: rows and leases are dated by the database
    operator_key  sha256 of the key that is the operator's without being in any table
    """

    def __init__(self, project: Project, *, clock: Clock | None, operator_key: bytes | None) -> None:
        self._project = project
        self._clock = clock
        self._operator_key = operator_key

    async def _call(self, function: str, answer: type[T], /, **p: Any) -> T:
        """Call `public.<function>(p jsonb, p_now timestamptz)`. raises as `Project.call`"""
        now = {} if self._clock is None else {"p_now": datetime.fromtimestamp(self._clock(), UTC).isoformat()}
        return await self._project.call(function, {"p": p, **now}, answer=answer)


def columns_of(kind: type) -> str:
    """The columns that a row type of `tts_core.store` has, for `Project.rows`."""
    return ",".join(field.name for field in fields(kind))


def row_of(kind: type[T], row: Mapping[str, Any]) -> T:
    """A row of `tts_core.store` from JSON: arrays as tuples, times (`..._at`) as the local store writes them."""
    return kind(**{field.name: _value(field.name, row[field.name]) for field in fields(kind)})  # type: ignore[arg-type]


def _value(name: str, value: Any) -> Any:
    if name.endswith("_at") and value is not None:
        return datetime.fromisoformat(value).astimezone(UTC).isoformat(timespec="microseconds")
    return tuple(value) if isinstance(value, list) else value
