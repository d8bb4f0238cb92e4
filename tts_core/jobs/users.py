"""The wire of `users.*`."""

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import model_validator

from tts_core.jobs.base import Request
from tts_core.jobs.fields import Email, ForeignId, RowId, Uuid
from tts_core.jobs.pages import PagedByTime


class UsersPut(Request):
    """Make a user, or replace what is known of the one with this external id: what is absent is forgotten."""

    scope = "personas"

    action: Literal["users.put"]
    external_id: ForeignId
    email: Email | None = None
    auth_user_id: Uuid | None = None


class UsersGet(Request):
    """By either id."""

    scope = "personas"
    answer_is_kept = False

    action: Literal["users.get"]
    user_id: RowId | None = None
    external_id: ForeignId | None = None

    @model_validator(mode="after")
    def _one_id(self) -> Self:
        if (self.user_id is None) == (self.external_id is None):
            raise ValueError("user_id or external_id: one of them, not both")
        return self


class UsersList(PagedByTime):
    scope = "personas"

    action: Literal["users.list"]


class UsersDelete(Request):
    """Forget a user with all personas and messages."""

    scope = "personas"

    action: Literal["users.delete"]
    user_id: RowId


ACTIONS: Mapping[str, type[Request]] = {
    "users.put": UsersPut,
    "users.get": UsersGet,
    "users.list": UsersList,
    "users.delete": UsersDelete,
}
