"""What the service does with `users.*` requests.

An answer that is kept says nothing a user could want forgotten: ids and times, no names, addresses or texts.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict

from tts_core.errors import VoiceNotFound
from tts_core.jobs import JsonObject, Request, UsersDelete, UsersGet, UsersList, UsersPut, VoiceRef
from tts_core.service.actions import Action, now
from tts_core.service.attempt import Attempt
from tts_core.service.pages import page
from tts_core.service.voices import VoiceLibrary
from tts_core.store import Store, UserRow, VoiceQuery

BATCH = 50


class UserDirectory:
    def __init__(self, store: Store, voices: VoiceLibrary) -> None:
        self._store = store
        self._voices = voices

    def actions(self) -> Mapping[type[Request], Action]:
        return {UsersPut: self.put, UsersGet: self.get, UsersList: self.list, UsersDelete: self.delete}

    async def put(self, request: UsersPut, attempt: Attempt) -> JsonObject:
        """A user who is new has the request's id."""
        asked = UserRow(
            id=attempt.reserved.request_id,
            tenant_id=attempt.reserved.tenant.id,
            external_id=request.external_id,
            email=request.email,
            auth_user_id=request.auth_user_id,
            created_at=now(),
        )
        user = await self._store.put_user(asked)
        return {"id": user.id, "created_at": user.created_at}

    async def get(self, request: UsersGet, attempt: Attempt) -> JsonObject:
        tenant_id = attempt.reserved.tenant.id
        if request.user_id is not None:
            return _told(await self._store.get_user(tenant_id, request.user_id))
        assert request.external_id is not None
        return _told(await self._store.find_user(tenant_id, request.external_id))

    async def list(self, request: UsersList, attempt: Attempt) -> JsonObject:
        tenant_id = attempt.reserved.tenant.id
        rows = await self._store.list_users(tenant_id, after=request.after, limit=request.limit + 1)
        return page("users", rows, limit=request.limit, told=_told, place=lambda row: (row.created_at, row.id))

    async def delete(self, request: UsersDelete, attempt: Attempt) -> JsonObject:
        """The user's rows first: who is gone cannot be found, and what then fails is done by a repeated request."""
        tenant_id, request_id = attempt.reserved.tenant.id, attempt.reserved.request_id
        removal = await self._store.delete_user(tenant_id, request.user_id, request_id=request_id)
        voices = await self._forget_voices(tenant_id, request.user_id, request_id=request_id)
        return {"deleted": request.user_id, "receipt": {**asdict(removal), "voices": voices}}

    async def _forget_voices(self, tenant_id: str, user_id: str, *, request_id: str) -> int:
        """How many there were."""
        forgotten = 0
        while voices := await self._store.list_voices(tenant_id, VoiceQuery(limit=BATCH, user_id=user_id)):
            for voice in voices:
                with suppress(VoiceNotFound):  # somebody else was faster
                    await self._voices.forget(tenant_id, VoiceRef(voice.id), request_id=f"{request_id}/{voice.id}")
            forgotten += len(voices)
        return forgotten


def _told(user: UserRow) -> JsonObject:
    return {
        "id": user.id,
        "external_id": user.external_id,
        "email": user.email,
        "auth_user_id": user.auth_user_id,
        "created_at": user.created_at,
    }
