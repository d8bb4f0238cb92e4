"""The Store that any number of workers share: a Supabase project, which `supabase db push` has set up.

One module per area: its part of `SupabaseStore`. The SQL behind that is in supabase/migrations.
"""

import logging

from storage.supabase.area import Clock
from storage.supabase.cache import SupabaseCache
from storage.supabase.client import Project
from storage.supabase.objects import SupabaseObjects
from storage.supabase.people import SupabaseMessages, SupabasePersonas, SupabaseUsers
from storage.supabase.requests import SupabaseRequests
from storage.supabase.retention import SupabaseRetentions
from storage.supabase.tenants import SupabaseTenants
from storage.supabase.usage import SupabaseUsage
from storage.supabase.voices import SupabaseVoices
from tts_core.errors import StoreUnavailable
from tts_core.store import Store

__all__ = ["SupabaseStore", "open_supabase"]

log = logging.getLogger(__name__)

MONTHS_AHEAD = 3
"""For which usage_logs has its partitions whenever a worker starts."""


class SupabaseStore(
    SupabaseTenants,
    SupabaseRequests,
    SupabaseUsage,
    SupabaseVoices,
    SupabaseCache,
    SupabaseRetentions,
    SupabaseUsers,
    SupabasePersonas,
    SupabaseMessages,
    SupabaseObjects,
):
    """`tts_core.store.Store` in a Supabase project; what its methods promise is told there."""

    async def close(self) -> None:
        await self._project.disconnect()


async def open_supabase(
    url: str, key: str, *, schema: str = "public", clock: Clock | None = None, operator_key: bytes | None = None
) -> Store:
    """Open the store of a project, and make the partitions of the coming months. Close it.

    A project that does not answer now may do so later: that is no reason not to start.

    key     a secret key (or the legacy service_role JWT)
    schema  the exposed one with our tables
    clock   a test's
    operator_key  sha256 of the key that is the operator's without being in any table
    raises  StartupError if the key is refused or the project lacks our tables
    """
    project = Project(url, key, schema=schema)
    try:
        await project.call("ensure_usage_partitions", {"p": {"months": MONTHS_AHEAD}}, answer=int)
    except StoreUnavailable as exc:
        log.warning("the store does not answer yet: %s", exc)
    finally:
        await project.disconnect()  # whoever opens a store may use it in another event loop
    return SupabaseStore(project, clock=clock, operator_key=operator_key)
