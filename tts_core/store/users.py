"""The people a tenant speaks for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tts_core.store.pages import Place


@dataclass(frozen=True, slots=True)
class UserRow:
    """A user of a tenant, whom another system has signed in.

    external_id   that system's id; a tenant has at most one user of each
    auth_user_id  the user's own id in Supabase Auth (a UUID), who may then read these rows with the own JWT
    """

    id: str
    tenant_id: str
    external_id: str
    email: str | None
    auth_user_id: str | None
    created_at: str


@dataclass(frozen=True, slots=True)
class Removal:
    """What a deletion has taken away. The store keeps it under the id of the request that asked for it."""

    users: int = 0
    personas: int = 0
    messages: int = 0


class Users(Protocol):
    async def put_user(self, user: UserRow) -> UserRow:
        """Make a user, or replace e-mail address and auth id of the one with this external id.

        returns  the row as it is now; a user who was there has kept `id` and `created_at`
        """

    async def get_user(self, tenant_id: str, user_id: str) -> UserRow:
        """raises UserNotFound"""

    async def find_user(self, tenant_id: str, external_id: str) -> UserRow:
        """raises UserNotFound"""

    async def list_users(self, tenant_id: str, *, after: Place | None = None, limit: int) -> Sequence[UserRow]:
        """Oldest first."""

    async def delete_user(self, tenant_id: str, user_id: str, *, request_id: str) -> Removal:
        """The user, the user's personas and their messages; the same answer to the same `request_id`.

        raises  UserNotFound
        """
