"""An answer in the making, and everyone who waits for it: identical requests at once cost one synthesis."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias

from tts_core.errors import Cancelled
from tts_core.service.take import Take
from tts_core.store import CacheEntry

Layer = Literal["memory", "folder", "store", "engine"]
"""Where an answer came from."""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What a request is answered with.

    entry  describes it, kept or not
    audio  the encoded file, whole
    path   of the object in the cache, None if it is not kept there
    """

    entry: CacheEntry
    audio: bytes
    layer: Layer
    path: str | None


class Flight:
    """Belongs to all who sit in it: goes on while one of them does, and ends when the last one leaves.

    Its first passenger pays for what the engine speaks; if that one leaves before the end, the next one pays the rest.
    """

    def __init__(self, work: "Work") -> None:
        self.take: Take | None = None
        self.payer: Seat | None = None
        self.version = 0
        self.changed = asyncio.Event()
        self.dealt_with = asyncio.Event()
        self._seats: list[Seat] = []
        self._abandoned = False
        self.task = asyncio.create_task(_run(work, self))
        self.task.add_done_callback(lambda _: self._announce())

    @property
    def is_over(self) -> bool:
        """It has landed, or everyone has left: nobody can get in any more."""
        return self.task.done() or self._abandoned

    @asynccontextmanager
    async def board(self) -> AsyncIterator["Seat"]:
        seat = Seat(self)
        self._seats.append(seat)
        self.payer = self.payer or seat
        try:
            yield seat
        finally:
            self._seats.remove(seat)
            if self.payer is seat and not self.task.done():
                if self.take is not None:
                    self.take.pay()
                self.payer = self._seats[0] if self._seats else None
            if not self._seats:
                await self._end()

    def tell(self) -> None:
        """Let everyone know that the take has more."""
        self.version += 1
        self._announce()

    async def heard(self) -> None:
        """Until somebody has dealt with all that was told."""
        while all(seat.dealt_with < self.version for seat in self._seats):
            self.dealt_with.clear()
            await self.dealt_with.wait()

    async def _end(self) -> None:
        self._abandoned = True
        self.task.cancel()
        await asyncio.wait({self.task})
        if not self.task.cancelled():
            self.task.exception()  # was told to whoever was there; asyncio would log it as never retrieved

    def _announce(self) -> None:
        """Wake all who wait for a change; they wait for the next one from now on."""
        self.changed.set()
        self.changed = asyncio.Event()


class Seat:
    """One passenger's place."""

    def __init__(self, flight: Flight) -> None:
        self.dealt_with = 0
        self._flight = flight
        self._seen = 0

    @property
    def take(self) -> Take | None:
        """What is being spoken; None as long as nothing is, and where the answer was at hand."""
        return self._flight.take

    @property
    def pays(self) -> bool:
        return self._flight.take is not None and self._flight.payer is self

    @property
    def answer(self) -> Answer:
        """Once nothing changes any more. raises whatever went wrong"""
        if self._flight.task.cancelled():
            raise Cancelled("the synthesis was stopped")
        return self._flight.task.result()

    async def changed(self) -> bool:
        """Wait until the take has more, all before having been dealt with; False when there is no more to come."""
        flight = self._flight
        self.dealt_with = self._seen
        flight.dealt_with.set()
        while self._seen == flight.version and not flight.task.done():
            await flight.changed.wait()
        self._seen = flight.version
        return not flight.task.done()


Work: TypeAlias = Callable[[Flight], Awaitable[Answer]]
"""Makes an answer; sets the flight's `take` once there is one, and tells the flight when that has more."""


class Flights:
    """Those of one worker, by what they bring."""

    def __init__(self) -> None:
        self._flying: dict[tuple[str, str], Flight] = {}

    def join(self, key: tuple[str, str] | None, work: Work) -> AbstractAsyncContextManager[Seat]:
        """A seat in the flight of this key, which is started if there is none; without a key, in one of its own."""
        flight = self._flying.get(key) if key else None
        if flight is None or flight.is_over:
            flight = Flight(work)
            if key:
                self._register(key, flight)
        return flight.board()

    def _register(self, key: tuple[str, str], flight: Flight) -> None:
        def landed(_: asyncio.Task[Answer]) -> None:
            if self._flying.get(key) is flight:
                del self._flying[key]

        self._flying[key] = flight
        flight.task.add_done_callback(landed)


async def _run(work: Work, flight: Flight) -> Answer:
    return await work(flight)
