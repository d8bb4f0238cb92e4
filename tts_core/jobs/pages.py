"""How long lists are asked for: each page tells where the next one begins, in a text of our own making."""

import base64
import binascii
import json
from datetime import UTC, datetime
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from tts_core.jobs.base import Request
from tts_core.store import Place

MAX_PAGE = 200

Cursor = Annotated[str, StringConstraints(min_length=1, max_length=1000)]


def cursor_after(place: Place | int) -> str:
    """Where a page ended, as `next_cursor`."""
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode()


class Paged(Request):
    """A list that is read a page at a time."""

    answer_is_kept = False

    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] = MAX_PAGE
    cursor: Cursor | None = None

    @model_validator(mode="after")
    def _known_cursor(self) -> Self:
        try:
            self._place()
        except (ValueError, TypeError, OverflowError, RecursionError, binascii.Error) as exc:
            raise ValueError("cursor: is not one that an earlier page told as next_cursor") from exc
        return self

    def _place(self) -> object:
        raise NotImplementedError

    def _read(self) -> object:
        assert self.cursor is not None
        return json.loads(base64.urlsafe_b64decode(self.cursor.encode()))


class PagedByTime(Paged):
    """By `created_at` and `id`."""

    @property
    def after(self) -> Place | None:
        return self._place()

    def _place(self) -> Place | None:
        if self.cursor is None:
            return None
        match self._read():
            case [str(created_at), str(last_id)] if last_id.isascii() and last_id.isprintable():
                if datetime.fromisoformat(created_at).astimezone(UTC).isoformat(timespec="microseconds") == created_at:
                    return created_at, last_id
        raise ValueError("no place")


class PagedByPosition(Paged):
    """By a number that counts up."""

    @property
    def after(self) -> int:
        return self._place()

    def _place(self) -> int:
        match 0 if self.cursor is None else self._read():
            case int(position) if not isinstance(position, bool) and 0 <= position < 2**31:
                return position
        raise ValueError("no position")
