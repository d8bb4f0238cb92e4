"""One request from reservation to settlement, and the log of events its listeners read.

A run belongs to nobody who listens to it: a listener that vanishes cannot stop the settling, and a second
delivery of the same job reads the same events from their start.
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from tts_core.errors import DeadlineExceeded, RequestRunning, TTSError, scrubbed
from tts_core.jobs import JsonObject
from tts_core.service.attempt import Attempt
from tts_core.service.journal import log_ended
from tts_core.store import Reservation, Reserved, Store

log = logging.getLogger(__name__)
T = TypeVar("T")

MAX_UNREAD_EVENTS = 4
"""Events a run may be ahead of its fastest listener; audio behind that waits in the synthesizer's bound."""

LEASE_S = 30.0
RENEW_S = 10.0

RETRY_S = 1.0
"""Between two looks at a request that another worker has."""

Work = Callable[["Run", Attempt], Awaitable[JsonObject]]
"""Does what was asked for, emitting events on the way; returns the result to be settled and then told."""


class Run:
    """A request being worked on. `events` grows until `done`; the last one is the result or an error.

    An `abandoned` run has lost its last listener and only settles: it has no last event, so nobody may join it.
    """

    def __init__(self, store: Store, reservation: Reservation, *, job_id: str, work: Work, deadline_s: float) -> None:
        """deadline_s: from now on; what is not done by then fails"""
        self.fingerprint = reservation.fingerprint
        self.request_id = job_id  # until the store has given the request its own
        self.events: list[JsonObject] = []
        self.done = False
        self.abandoned = False
        self._store = store
        self._reservation = reservation
        self._begun_s = time.monotonic()
        self._ends_at_s = asyncio.get_running_loop().time() + deadline_s
        self._listeners: list[_Listener] = []
        self._afterwards: Callable[[], Awaitable[None]] | None = None
        self._changed = asyncio.Event()
        self._performance = asyncio.create_task(self._perform(work))
        self.owner = asyncio.create_task(self._own())

    async def listen(self) -> AsyncGenerator[JsonObject]:
        """Every event from the first; the last listener to leave early cancels the work, not the settling."""
        listener = _Listener()
        self._listeners.append(listener)
        try:
            while True:
                while listener.read < len(self.events):
                    listener.read += 1
                    self._announce()
                    yield self.events[listener.read - 1]
                if self.done:
                    return
                await self._changed.wait()
        finally:
            self._listeners.remove(listener)
            if not self._listeners and not self.done:
                self.abandoned = True
                self._performance.cancel()

    async def emit(self, event: JsonObject) -> None:
        """Tell the listeners; waits while the fastest of them is too far behind."""
        self.events.append(event)
        self._announce()
        while self._listeners and len(self.events) - max(x.read for x in self._listeners) > MAX_UNREAD_EVENTS:
            await self._changed.wait()

    async def _own(self) -> None:
        """Wait for the work, whoever cancels it, and say how it ended."""
        await uncancelled(lambda: asyncio.wait({self._performance}))
        if self._performance.cancelled():
            self._finish([])  # nobody is left to hear anything
            return
        self._finish(self._performance.result())
        if self._afterwards is not None:
            await self._afterwards()

    async def _perform(self, work: Work) -> list[JsonObject]:
        """The last events of the run. Never raises, save CancelledError, and then it has settled."""
        attempt: Attempt | None = None
        try:
            attempt = await self._begin()
            _stop_if_cancelled()
            result = await self._in_time(work, attempt)
            if attempt.reserved.outcome is not None:
                self._log(attempt, outcome="repeated")
            if attempt.reserved.outcome is None:
                kept = _kept(result) if attempt.answer_is_kept else None
                await self._settle(attempt, status="success", error=None, result=kept)
                self._afterwards = attempt.afterwards
        except asyncio.CancelledError:
            await self._settle_or_log(attempt, status="cancelled", error="cancelled")
            raise
        except TTSError as exc:
            return await self._failed(attempt, exc)
        except Exception as exc:  # noqa: BLE001  the root of a task: what goes wrong costs this request only
            log.error("request %s: %s", self.request_id, scrubbed(exc))
            return await self._failed(attempt, TTSError("something went wrong inside the worker"))
        return [result]

    async def _begin(self) -> Attempt:
        reserved = await self._reserve()
        self.request_id = reserved.request_id
        return Attempt(reserved, self._begun_s, self.emit, voice_id=self._reservation.voice_id)

    async def _reserve(self) -> Reserved:
        """As long as another worker has the same request, wait: what it finishes is told, what it leaves taken over.

        A job is delivered again when its worker was not heard of, and an error told then would be the job's result.

        raises  RequestRunning once the job's time is over, and whatever the store does
        """
        while True:
            try:
                return await self._reserve_now()
            except RequestRunning:
                if asyncio.get_running_loop().time() + RETRY_S > self._ends_at_s:
                    raise
            _stop_if_cancelled()
            await asyncio.sleep(RETRY_S)

    async def _reserve_now(self) -> Reserved:
        self._begun_s = time.monotonic()
        reserving = asyncio.ensure_future(self._store.reserve(self._reservation))
        await uncancelled(lambda: asyncio.wait({reserving}))  # half a reservation could not be settled
        return reserving.result()

    async def _in_time(self, work: Work, attempt: Attempt) -> JsonObject:
        """raises  DeadlineExceeded"""
        try:
            async with asyncio.timeout_at(self._ends_at_s) as deadline:
                return await self._leased(work, attempt)
        except TimeoutError as exc:
            if not deadline.expired():
                raise
            raise DeadlineExceeded(
                "the job took as long as one may: sent again under idempotency_key, it goes on behind what is kept",
                idempotency_key=self._reservation.idempotency_key,
            ) from exc

    async def _leased(self, work: Work, attempt: Attempt) -> JsonObject:
        renewing = asyncio.create_task(self._renew(attempt))
        try:
            return await work(self, attempt)
        finally:
            renewing.cancel()

    async def _renew(self, attempt: Attempt) -> None:
        while attempt.reserved.outcome is None:
            await asyncio.sleep(RENEW_S)
            try:
                await self._store.renew(attempt.reserved, lease_s=LEASE_S)
            except TTSError:
                log.warning("request %s: lease not renewed", self.request_id)

    async def _failed(self, attempt: Attempt | None, error: TTSError) -> list[JsonObject]:
        await self._settle_or_log(attempt, status="failed", error=error.code)
        if attempt is None:
            self._log(attempt, outcome="refused", error=error.code)
        sent = sum(event.get("event") == "audio" for event in self.events)
        wire = error.to_wire(self.request_id)
        told = [{"event": "error", **json.loads(wire), "chunks": sent}] if sent else []
        return [*told, {"error": wire}]

    async def _settle(self, attempt: Attempt, **how: object) -> None:
        """raises  RequestRunning if a newer attempt has taken the request over"""
        outcome = replace(attempt.outcome(), **how)  # type: ignore[arg-type]  # names checked by Outcome
        if not await uncancelled(lambda: self._store.settle(attempt.reserved, outcome)):
            raise RequestRunning("another worker has taken this request over")
        self._log(attempt, outcome=outcome.status, error=outcome.error)

    async def _settle_or_log(self, attempt: Attempt | None, **how: object) -> None:
        if attempt is None or attempt.reserved.outcome is not None:
            return
        try:
            await self._settle(attempt, **how)
        except TTSError as exc:
            log.error("request %s not settled: %s", self.request_id, exc.code)

    def _log(self, attempt: Attempt | None, *, outcome: str, error: str | None = None) -> None:
        log_ended(self._reservation, attempt, request_id=self.request_id, outcome=outcome, error=error)

    def _finish(self, events: list[JsonObject]) -> None:
        self.events.extend(events)
        self.done = True
        self._announce()

    def _announce(self) -> None:
        """Wake all who wait for this run to change; they wait on the next event from now on."""
        self._changed.set()
        self._changed = asyncio.Event()


def _stop_if_cancelled() -> None:
    """raises  CancelledError, of which `uncancelled` has kept what must happen first"""
    task = asyncio.current_task()
    assert task is not None
    if task.cancelling():
        raise asyncio.CancelledError


class _Listener:
    read = 0


async def uncancelled(call: Callable[[], Awaitable[T]]) -> T:
    """Await something that is safe to repeat and must happen; when cancelled while waiting, once more.

    A leaving listener cancels the work once, and asyncio.run cancels every task once when the SDK's loop ends.
    """
    try:
        return await call()
    except asyncio.CancelledError:
        return await call()


def _kept(result: JsonObject) -> str:
    """The result as its row keeps it: the audio is an object of the store, and a new key is told once only.

    In how many chunks the audio is told is up to each telling.
    """
    of_telling = ("audio_base64", "audio_url", "expires_at", "event", "chunks")
    kept = {k: v for k, v in result.items() if k not in of_telling}
    return json.dumps(kept | ({"tenant_key": None} if "tenant_key" in kept else {}))
