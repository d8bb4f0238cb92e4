"""Who tells the store of the chunks of one attempt, in order and behind the back of whoever speaks them.

A store that is slow or away stops neither speech nor listener: what it does not take, a later attempt speaks again.
"""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from uuid import uuid4

from tts_core.audio.samples import CONTENT_TYPE
from tts_core.errors import RequestRunning, TTSError
from tts_core.store import ChunkSpeech, Reserved, Store

log = logging.getLogger(__name__)

LEASE_S = 300.0
MAX_WAITING = 3
"""Chunks that wait to be kept; of a further one the store is not told."""

LEAVE_S = 5.0
"""How long an attempt that failed waits for the store to have what was spoken until then."""

Order = Callable[[], Awaitable[None]]


class Clerk:
    def __init__(self, store: Store, reserved: Reserved) -> None:
        self._store = store
        self._reserved = reserved
        self._tokens: dict[int, str] = {}
        self._waiting = 0
        self._orders: asyncio.Queue[Order | None] = asyncio.Queue()
        self._work = asyncio.create_task(self._carry_out())

    def claim(self, index: int) -> None:
        """Lease a chunk: the first that is not done, or else somebody else is at work too."""
        token = uuid4().hex

        async def claim() -> None:
            row = await self._store.claim_chunk(self._reserved, token=token, lease_s=LEASE_S)
            if row is None or row.index != index:
                raise RequestRunning("another worker has taken this request over")
            self._tokens[index] = token

        self._orders.put_nowait(claim)

    def keep(self, index: int, path: str, *, file: bytes, duration_s: float, alignment: str) -> None:
        """Store what was spoken of a chunk that was claimed."""
        if self._waiting == MAX_WAITING:
            return
        self._waiting += 1

        async def keep() -> None:
            self._waiting -= 1
            await self._store.put_object(path, file, content_type=CONTENT_TYPE)
            sha256 = await asyncio.to_thread(hashlib.sha256, file)
            speech = ChunkSpeech(sha256.hexdigest(), duration_s, alignment)
            await self._store.finish_chunk(self._reserved, speech, token=self._tokens.pop(index))

        self._orders.put_nowait(keep)

    async def leave(self, *, has_failed: bool) -> None:
        """Stop. After a failure the store first gets what it is still to know; otherwise nobody needs it any more."""
        if has_failed:
            self._orders.put_nowait(self._fail)
            self._orders.put_nowait(None)
            await asyncio.wait({self._work}, timeout=LEAVE_S)
        self._work.cancel()
        await asyncio.wait({self._work})

    async def _fail(self) -> None:
        for token in self._tokens.values():
            await self._store.fail_chunk(self._reserved, token=token)

    async def _carry_out(self) -> None:
        try:
            while (order := await self._orders.get()) is not None:
                await order()
        except TTSError as exc:
            log.warning("request %s: its chunks are not kept from here on: %s", self._reserved.request_id, exc.code)
