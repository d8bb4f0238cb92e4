"""Settlements that a store did not take because it did not answer: kept on disk, and told to it later.

One file per settlement in `<data_dir>/outbox`: JSON, mode 0600, there whole or not at all. A settlement is of one
attempt and safe to repeat, so whoever finds a file may send it: a worker that starts on the folder of another, too.

The disk dies with its machine. What a worker could not send until it ends is logged in full, one line of JSON each,
and so is at once what could not be written: all of the usage row, nothing of text, answer or key.
"""

import asyncio
import io
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from storage.local.files import make_private_folder, write_whole
from tts_core.errors import StoreUnavailable, TTSError, scrubbed
from tts_core.store import Outcome, Reservation, Reserved, Store, Tenant

log = logging.getLogger(__name__)

AT_ONCE = 8
"""Settlements that are on their way together. The oldest go first."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 10.0
"""Before the store is asked again: doubled each time, and shorter than the lease that a settlement must not outlive."""

CLOSE_S = 10.0
"""How long a worker that ends waits for the store to take what it has."""

MAX_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Asked:
    """What a usage row tells of a request beside how it ended."""

    action: str
    input_chars: int
    streaming: bool
    voice_id: str | None


@dataclass(frozen=True, slots=True)
class Settlement:
    """asked: None of an attempt that another process had reserved"""

    tenant_id: str
    request_id: str
    fence: int
    outcome: Outcome
    asked: Asked | None
    kept_at_ns: int

    @property
    def attempt(self) -> tuple[str, int]:
        return self.request_id, self.fence

    @property
    def name(self) -> str:
        """Of its file: they sort as they were made."""
        return f"{self.kept_at_ns:020d}-{self.request_id}-{self.fence}.json"

    @property
    def reserved(self) -> Reserved:
        """As far as `Requests.settle` looks at it."""
        return Reserved(Tenant(self.tenant_id, name="", created_at=""), self.request_id, self.fence)

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> "Settlement":
        """raises  ValueError, TypeError, KeyError if it is none"""
        told = json.loads(data)
        outcome, asked = Outcome(**told.pop("outcome")), told.pop("asked")
        return cls(**told, outcome=outcome, asked=asked and Asked(**asked))

    def line(self) -> str:
        """All of its usage row as one line of JSON, without what was said or answered."""
        ended = asdict(self.outcome)
        del ended["result"]
        row = {"tenant_id": self.tenant_id, "request_id": self.request_id, "fence": self.fence}
        asked = asdict(self.asked) if self.asked else {}
        voice_id = self.outcome.voice_id or asked.get("voice_id")
        return json.dumps(row | asked | ended | {"voice_id": voice_id, "kept_at_ns": self.kept_at_ns})


class Outbox:
    """The settlements that wait, in memory and in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: dict[tuple[str, int], Settlement] = {}
        self._writes: dict[tuple[str, int], asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def first(self, count: int) -> Sequence[Settlement]:
        return tuple(self._waiting.values())[:count]

    async def load(self) -> None:
        """Find what an earlier worker has left. A folder that cannot be read is told, and is none."""
        try:
            found = await asyncio.to_thread(_read_all, self._folder)
        except OSError as exc:
            log.error("outbox: cannot be read: %s", exc.strerror)
            return
        self._waiting |= {settlement.attempt: settlement for settlement in found}

    async def keep(self, settlement: Settlement) -> None:
        """How an attempt ended first is how it ended: a second settlement of it is not kept."""
        if self._waiting.setdefault(settlement.attempt, settlement) is not settlement:
            return
        write = self._writes[settlement.attempt] = asyncio.create_task(self._write(settlement))
        await asyncio.shield(write)  # goes on if the caller is cancelled

    async def drop(self, settlement: Settlement) -> None:
        """It is settled, or never will be."""
        if write := self._writes.pop(settlement.attempt, None):
            await asyncio.wait({write})  # it may be sent before it is written, and no file may come behind that
        with suppress(OSError):  # what stays is sent once more by the next worker, and changes nothing
            await asyncio.to_thread((self._folder / settlement.name).unlink, missing_ok=True)
        del self._waiting[settlement.attempt]

    async def _write(self, settlement: Settlement) -> None:
        try:
            await asyncio.to_thread(_write, self._folder, settlement)
        except OSError as exc:
            log.error("outbox: not written (%s): %s", exc.strerror, settlement.line())


class OutboxStore:
    """A store whose settlements outlast its silences; all else it passes on."""

    def __init__(self, body: Store, outbox: Outbox) -> None:
        self._body = body
        self._outbox = outbox
        self._asked: OrderedDict[tuple[str, int], Asked] = OrderedDict()
        self._sending: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)

    async def reserve(self, reservation: Reservation) -> Reserved:
        reserved = await self._body.reserve(reservation)
        self._send_later()  # the store answers
        if reserved.outcome is None:
            asked = Asked(
                reservation.action, reservation.input_chars, reservation.streaming, voice_id=reservation.voice_id
            )
            self._asked[reserved.request_id, reserved.fence] = asked
            if len(self._asked) > MAX_REMEMBERED:
                self._asked.popitem(last=False)
        return reserved

    async def settle(self, reserved: Reserved, outcome: Outcome) -> bool:
        """True also if the settlement waits: it counts, unless another attempt has taken the request over by then."""
        attempt = (reserved.request_id, reserved.fence)
        try:
            settled = await self._body.settle(reserved, outcome)
        except StoreUnavailable:
            log.warning("request %s: its settlement waits for the store", reserved.request_id)
            asked = self._asked.pop(attempt, None)
            kept = Settlement(reserved.tenant.id, *attempt, outcome=outcome, asked=asked, kept_at_ns=time.time_ns())
            await self._outbox.keep(kept)
            self._send_later()
            return True
        self._asked.pop(attempt, None)
        return settled

    async def count_unsettled(self) -> int:
        return len(self._outbox)

    async def close(self) -> None:
        """Send what waits, log what cannot be sent, and close the body."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait({self._sending})
        try:
            async with asyncio.timeout(CLOSE_S):
                await self.send()
        except (StoreUnavailable, TimeoutError):
            for settlement in self._outbox.first(len(self._outbox)):
                log.error("outbox: not settled yet: %s", settlement.line())
        await self._body.close()

    async def send(self) -> None:
        """Settle all that waits, the oldest first. raises StoreUnavailable as soon as one does not get through"""
        async with self._turn:
            while batch := self._outbox.first(AT_ONCE):
                sent = await asyncio.gather(*map(self._send, batch), return_exceptions=True)
                for fault in filter(None, sent):
                    raise fault

    async def _send(self, settlement: Settlement) -> None:
        try:
            settled = await self._body.settle(settlement.reserved, settlement.outcome)
        except StoreUnavailable:
            raise
        except Exception as exc:  # noqa: BLE001  the store will never take it: the others must not wait behind it
            reason = exc.code if isinstance(exc, TTSError) else scrubbed(exc)
            log.error("outbox: refused by the store (%s): %s", reason, settlement.line())
        else:
            if not settled:
                log.error("outbox: the attempt had ended otherwise: %s", settlement.line())
        await self._outbox.drop(settlement)

    def _send_later(self) -> None:
        if len(self._outbox) and (self._sending is None or self._sending.done()):
            self._sending = asyncio.create_task(self._send_until_empty())

    async def _send_until_empty(self) -> None:
        pause_s = FIRST_PAUSE_S
        while len(self._outbox):
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
            with suppress(StoreUnavailable):
                await self.send()


async def with_outbox(body: Store, folder: Path) -> Store:
    """`body`, whose settlements wait in a folder while it does not answer.

    What lies there already is sent when the first request comes: a store may be opened in another loop than it serves.
    """
    outbox = Outbox(folder)
    await outbox.load()
    return cast(Store, OutboxStore(body, outbox))  # by __getattr__, which no type checker sees through


def _read_all(folder: Path) -> Sequence[Settlement]:
    found = []
    for file in sorted(folder.glob("*.json")):
        with suppress(FileNotFoundError):  # sent by another worker meanwhile
            try:
                found.append(Settlement.from_json(file.read_bytes()))
            except (ValueError, TypeError, KeyError, IsADirectoryError, PermissionError):
                log.error("outbox: %s is no settlement; it stays there", file.name)
    return found


def _write(folder: Path, settlement: Settlement) -> None:
    make_private_folder(folder)
    write_whole(folder / settlement.name, io.BytesIO(settlement.to_json()))
