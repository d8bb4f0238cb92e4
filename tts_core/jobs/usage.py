"""The wire of `usage.*`."""

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from tts_core.errors import InvalidInput
from tts_core.jobs.base import Request
from tts_core.jobs.fields import Name
from tts_core.store import Grouping, Scope

DEFAULT_DAYS = 30
MAX_DAYS = 1_100
"""Three years, in one answer."""


def _a_date(value: str) -> str:
    date.fromisoformat(value)
    return value


def _one_or_more(value: object) -> object:
    return tuple(value) if isinstance(value, list) else (value,)


def _each_once(groupings: tuple[Grouping, ...]) -> tuple[Grouping, ...]:
    return tuple(dict.fromkeys(groupings))


Day = Annotated[str, StringConstraints(pattern=r"^2\d{3}-\d{2}-\d{2}$"), AfterValidator(_a_date)]
Groupings = Annotated[
    tuple[Grouping, ...],
    BeforeValidator(_one_or_more),
    Field(min_length=1, max_length=8),
    AfterValidator(_each_once),
]


class UsageSummarize(Request):
    """What the tenant has used from one day of UTC to another, both counted: the last 30 if none is named.

    tenant_id  another tenant's, for the operator only
    """

    scope = "usage"
    answer_is_kept = False

    action: Literal["usage.summary"]
    first: Day | None = Field(default=None, alias="from")
    last: Day | None = Field(default=None, alias="to")
    by: Groupings = ("day",)
    tenant_id: Name | None = None

    @property
    def needed_scope(self) -> Scope | None:
        return "admin" if self.tenant_id else "usage"

    def days(self, today: date) -> tuple[date, date]:
        """The first and the last. raises InvalidInput"""
        last = date.fromisoformat(self.last) if self.last else today
        first = date.fromisoformat(self.first) if self.first else last - timedelta(days=DEFAULT_DAYS - 1)
        if first > last:
            raise InvalidInput(f"from: {first} is after {last}")
        if (last - first).days >= MAX_DAYS:
            raise InvalidInput(f"from: is more than {MAX_DAYS} days before {last}")
        return first, last


ACTIONS: Mapping[str, type[Request]] = {"usage.summary": UsageSummarize}
