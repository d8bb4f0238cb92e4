"""Objects: files of a folder, reached from a thread."""

import asyncio
from pathlib import Path

from storage.local.area import LocalArea
from tts_core.store import SignedUrl


class LocalObjects(LocalArea):
    """`tts_core.store.Objects`"""

    async def put_object(self, path: str, data: bytes | Path, *, content_type: str) -> None:
        """`content_type` is not kept: nothing serves these files over HTTP."""
        await asyncio.to_thread(self._objects.put, path, data)

    async def get_object(self, path: str) -> bytes:
        return await asyncio.to_thread(self._objects.get, path)

    async def object_url(self, path: str) -> SignedUrl:
        return SignedUrl(await asyncio.to_thread(self._objects.url, path), expires_at=None)

    async def delete_object(self, path: str) -> None:
        await asyncio.to_thread(self._objects.delete, path)
