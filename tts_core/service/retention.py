"""How long a tenant's things are kept, and who sees to it: whichever worker has nothing else to do."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import Context
from dataclasses import asdict
from uuid import uuid4

from tts_core.errors import TTSError
from tts_core.jobs import JsonObject, Request, RetentionGet, RetentionSet
from tts_core.service.actions import Action
from tts_core.service.attempt import Attempt
from tts_core.store import Purged, Retention, Store

log = logging.getLogger(__name__)

IDLE_S = 2.0
"""Without a request, after which a worker has time for this. RunPod ends idle workers after five seconds or so."""

EVERY_S = 300.0
"""Between two looks of a worker whether it is its turn, and how long a turn keeps the others away."""

BATCH = 200
"""Of each kind, in one purge; a worker that gets work in the meantime stops after it."""


class RetentionActions:
    def __init__(self, store: Store) -> None:
        self._store = store

    def actions(self) -> Mapping[type[Request], Action]:
        return {RetentionGet: self.get, RetentionSet: self.set}

    async def get(self, request: RetentionGet, attempt: Attempt) -> JsonObject:
        return asdict(await self._store.get_retention(attempt.reserved.tenant.id))

    async def set(self, request: RetentionSet, attempt: Attempt) -> JsonObject:
        retention = Retention(request.audio_days, request.text_days, request.message_days)
        await self._store.set_retention(attempt.reserved.tenant.id, retention)
        return asdict(retention)


class Janitor:
    """Purges what has aged out, in the background: one worker of all at a time, and only while it is idle.

    is_idle  whether this worker has no request to work on
    """

    def __init__(self, store: Store, *, is_idle: Callable[[], bool]) -> None:
        self._store = store
        self._is_idle = is_idle
        self._quiet = asyncio.Event()
        self._work: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """A request has ended, which may have been the last one for a while."""
        if self._work is None:
            # In a context of its own: its lines are no job's.
            self._work = asyncio.create_task(self._go_round(), context=Context())
        self._quiet.set()

    async def close(self) -> None:
        if self._work is not None:
            self._work.cancel()
            with suppress(asyncio.CancelledError):
                await self._work

    async def take_turn(self) -> list[Purged]:
        """Purge until nothing is left to, or there is work, if it is this worker's turn. One receipt a batch."""
        receipts: list[Purged] = []
        if not (self._is_idle() and await self._store.take_turn("purge", holder=uuid4().hex, for_s=EVERY_S)):
            return receipts
        while self._is_idle() and not (receipts and receipts[-1].is_done):
            receipts.append(await self._store.purge(limit=BATCH))
        log.info("purged: %s", _total(receipts))
        return receipts

    async def _go_round(self) -> None:
        while True:
            await self._quiet.wait()
            self._quiet.clear()
            await asyncio.sleep(IDLE_S)
            if self._is_idle():
                await self._take_turn_or_log()
                await asyncio.sleep(EVERY_S)

    async def _take_turn_or_log(self) -> None:
        try:
            await self.take_turn()
        except TTSError as exc:
            log.warning("nothing purged: %s", exc.code)


def _total(receipts: list[Purged]) -> dict[str, int]:
    return {
        kind: sum(getattr(receipt, kind) for receipt in receipts) for kind in ("audio", "chunks", "texts", "messages")
    }
