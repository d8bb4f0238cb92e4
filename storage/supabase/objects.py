"""Objects, in the private buckets of Supabase Storage."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

from storage.paths import checked
from storage.supabase.area import SupabaseArea
from storage.supabase.client import SIGNED_S
from tts_core.store import SignedUrl


class SupabaseObjects(SupabaseArea):
    """`tts_core.store.Objects`"""

    async def put_object(self, path: str, data: bytes | Path, *, content_type: str) -> None:
        bucket, name = _split(path)
        content = data if isinstance(data, bytes) else await asyncio.to_thread(data.read_bytes)
        await self._project.upload(bucket, name, content, content_type=content_type)

    async def get_object(self, path: str) -> bytes:
        return await self._project.download(*_split(path))

    async def object_url(self, path: str) -> SignedUrl:
        expires_at = datetime.now(UTC) + timedelta(seconds=SIGNED_S)  # taken before, so that it is not told too late
        url = await self._project.sign(*_split(path))
        return SignedUrl(url, expires_at=expires_at.isoformat(timespec="microseconds"))

    async def delete_object(self, path: str) -> None:
        bucket, name = _split(path)
        await self._project.remove(bucket, [name])


def _split(path: str) -> tuple[str, str]:
    """Bucket, and the name in it, which starts with the tenant's id. raises ValueError"""
    bucket, _, name = checked(path).partition("/")
    return bucket, name
