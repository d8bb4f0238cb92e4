"""The Store of one machine: a SQLite file and a folder of objects, which any number of processes may share.

One module per area: its migrations, its part of `LocalStore`, and the SQL behind that.
"""

import asyncio
import time
from pathlib import Path

from storage.local import cache, jobs, limits, people, requests, retention, tenants, usage, voices
from storage.local.area import Clock
from storage.local.cache import LocalCache
from storage.local.database import Database, translated
from storage.local.files import make_private_folder
from storage.local.jobs import LocalJobs
from storage.local.messages import LocalMessages
from storage.local.objects import LocalObjects
from storage.local.personas import LocalPersonas
from storage.local.requests import LocalRequests
from storage.local.retention import LocalRetentions
from storage.local.schema import in_order
from storage.local.tenants import LocalTenants
from storage.local.usage import LocalUsage
from storage.local.users import LocalUsers
from storage.local.voices import LocalVoices
from tts_core.store import Store

__all__ = ["MIGRATIONS", "LocalStore", "open_local"]

MIGRATIONS = in_order(
    tenants.MIGRATIONS,
    limits.MIGRATIONS,
    voices.MIGRATIONS,
    cache.MIGRATIONS,
    requests.MIGRATIONS,
    usage.MIGRATIONS,
    people.MIGRATIONS,
    jobs.MIGRATIONS,
    retention.MIGRATIONS,
)


class LocalStore(
    LocalTenants,
    LocalRequests,
    LocalUsage,
    LocalVoices,
    LocalCache,
    LocalUsers,
    LocalPersonas,
    LocalMessages,
    LocalJobs,
    LocalRetentions,
    LocalObjects,
):
    """`tts_core.store.Store` on one machine; what its methods promise is told there."""

    async def close(self) -> None:
        await self._database.close()


async def open_local(data_dir: Path, *, clock: Clock = time.time, operator_key: bytes | None = None) -> Store:
    """Open the store of a folder, which is made (mode 0700) if there is none. Close it.

    clock         rows and leases are dated by it
    operator_key  sha256 of the key that is the operator's without being in any table
    raises  StoreUnavailable; StartupError if a newer version of the worker has changed the tables
    """
    with translated():
        folder = await asyncio.to_thread(data_dir.resolve)
        await asyncio.to_thread(make_private_folder, folder)
    database = await Database.open(folder / "store.db", migrations=MIGRATIONS)
    return LocalStore(folder, database=database, clock=clock, operator_key=operator_key)
