"""The Store of one machine: a SQLite file and a folder of objects, which any number of processes may share."""

import asyncio
import io
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from storage import accounts, ledger, voices
from storage.database import Connection, Database, translated
from storage.keys import is_key, new_key
from storage.objects import ObjectFolder, make_private_folder, write_whole
from storage.schema import MIGRATIONS
from tts_core.errors import StartupError
from tts_core.store import (
    NewKey,
    Outcome,
    Reservation,
    Reserved,
    Scope,
    SignedUrl,
    Store,
    Tenant,
    UsageRow,
    VoiceRow,
)

Clock = Callable[[], float]


async def open_local(data_dir: Path, *, clock: Clock = time.time) -> Store:
    """Open the store of a folder, which is made (mode 0700) if there is none. Close it.

    clock   seconds since 1970; rows and leases are dated by it
    raises  StoreUnavailable; StartupError if a newer version of the worker has changed the tables
    """
    with translated():
        folder = await asyncio.to_thread(data_dir.resolve)
        await asyncio.to_thread(make_private_folder, folder)
    database = await Database.open(folder / "store.db", migrations=MIGRATIONS)
    return LocalStore(folder, database=database, clock=clock)


class LocalStore:
    """`tts_core.store.Store` on one machine; what its methods promise is told there."""

    def __init__(self, folder: Path, *, database: Database, clock: Clock) -> None:
        self._database = database
        self._objects = ObjectFolder(folder / "objects")
        self._key_file = folder / "local_key"
        self._clock = clock

    async def create_tenant(self, name: str, *, scopes: Sequence[Scope]) -> NewKey:
        return await self._database.write(
            lambda tx: accounts.create_tenant(tx, name, scopes=scopes, now_s=self._clock())
        )

    async def list_tenants(self) -> Sequence[Tenant]:
        return await self._database.read(accounts.list_tenants)

    async def local_key(self) -> str:
        return await self._database.write(self._register_kept_key)

    async def reserve(self, reservation: Reservation) -> Reserved:
        return await self._database.write(lambda tx: ledger.reserve(tx, reservation, now_s=self._clock()))

    async def renew(self, reserved: Reserved, *, lease_s: float) -> bool:
        return await self._database.write(lambda tx: ledger.renew(tx, reserved, lease_s=lease_s, now_s=self._clock()))

    async def settle(self, reserved: Reserved, outcome: Outcome) -> bool:
        return await self._database.write(lambda tx: ledger.settle(tx, reserved, outcome, now_s=self._clock()))

    async def usage(self, tenant_id: str) -> Sequence[UsageRow]:
        return await self._database.read(lambda tx: ledger.usage(tx, tenant_id))

    async def put_voice(self, voice: VoiceRow) -> None:
        await self._database.write(lambda tx: voices.put(tx, voice))

    async def get_voice(self, tenant_id: str, voice_id: str) -> VoiceRow:
        return await self._database.read(lambda tx: voices.get(tx, tenant_id, voice_id))

    async def list_voices(self, tenant_id: str) -> Sequence[VoiceRow]:
        return await self._database.read(lambda tx: voices.newest_first(tx, tenant_id))

    async def delete_voice(self, tenant_id: str, voice_id: str) -> None:
        # The row goes first: a clip without a voice wastes space, a voice without its clip fails its next listener.
        voice = await self._database.write(lambda tx: voices.delete(tx, tenant_id, voice_id))
        for path in voice.clip_paths:
            await self.delete_object(path)

    async def put_object(self, path: str, data: bytes | Path, *, content_type: str) -> None:
        """`content_type` is not kept: nothing serves these files over HTTP."""
        await asyncio.to_thread(self._objects.put, path, data)

    async def get_object(self, path: str) -> bytes:
        return await asyncio.to_thread(self._objects.get, path)

    async def object_url(self, path: str) -> SignedUrl:
        return SignedUrl(await asyncio.to_thread(self._objects.url, path), expires_at=None)

    async def delete_object(self, path: str) -> None:
        await asyncio.to_thread(self._objects.delete, path)

    async def close(self) -> None:
        await self._database.close()

    def _register_kept_key(self, tx: Connection) -> str:
        """The key in the file, made if there is none: the transaction is what keeps two processes from making two."""
        if not self._key_file.exists():
            write_whole(self._key_file, io.BytesIO(new_key().encode()))
        key = self._key_file.read_text(errors="replace").strip()
        if not is_key(key):
            raise StartupError("local_key in the data folder holds no key; delete it to have a new one made")
        accounts.register_local_key(tx, key, now_s=self._clock())
        return key
