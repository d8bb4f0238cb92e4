"""What goes wrong while a load runs, one kind at a time."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from benchmarks.load.clients import Clients
from benchmarks.load.site import Site, terminate
from tests.ledger import NO_ANSWER, Kind

Strike = Callable[[Site, Clients, random.Random], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Fault:
    """chances: of each kind of post to be answered so, by status; strike: once, again and again, every_s apart"""

    name: str
    chances: Mapping[tuple[Kind, int], float] | None = None
    strike: Strike | None = None
    every_s: float = 1.0

    @asynccontextmanager
    async def at(self, site: Site, clients: Clients, *, seed: int = 0) -> AsyncIterator[None]:
        """The fault is at work inside."""
        chance = random.Random(seed)
        site.platform.answers = lambda kind, job_id: self._answer(kind, chance)
        over = asyncio.Event()
        striking = asyncio.create_task(self._go_on(site, clients, chance, over=over))
        try:
            yield
        finally:
            site.platform.answers = lambda kind, job_id: 200
            over.set()
            await striking

    def _answer(self, kind: Kind, chance: random.Random) -> int:
        drawn = chance.random()
        for (of_kind, status), share in (self.chances or {}).items():
            if of_kind == kind:
                if drawn < share:
                    return status
                drawn -= share
        return 200

    async def _go_on(self, site: Site, clients: Clients, chance: random.Random, *, over: asyncio.Event) -> None:
        while self.strike is not None and not over.is_set():
            await self.strike(site, clients, chance)
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), self.every_s * chance.uniform(0.5, 1.5))


async def _cancel(site: Site, clients: Clients, chance: random.Random) -> None:
    if running := _running(site, clients):
        site.platform.cancel(chance.choice(running))


async def _deliver_again(site: Site, clients: Clients, chance: random.Random) -> None:
    """A job that runs, or one that has ended."""
    if running := _running(site, clients):
        ended = [story.job_id for story in clients.stories if story.outcome == "success"]
        site.platform.submit(None, id=chance.choice([chance.choice(running), *ended[-1:]]))


async def _terminate(site: Site, clients: Clients, chance: random.Random) -> None:
    """Then hand a job to the poll that the worker still holds open."""
    holding = [worker_id for worker_id in site.running if site.platform.held[worker_id]]
    if not holding:
        return
    worker_id = chance.choice(holding)
    await terminate(site.running[worker_id])
    await asyncio.sleep(0.3)
    if site.platform.held[worker_id]:  # it will not poll again: what were kept for it now would wait for ever
        await clients.ask("short", only=worker_id)


async def _kill(site: Site, clients: Clients, chance: random.Random) -> None:
    if site.running:
        site.running[chance.choice(sorted(site.running))].kill()


def _running(site: Site, clients: Clients) -> list[str]:
    """Jobs that a worker has, and that nobody was told the end of."""
    jobs = site.platform.ledger.jobs
    recent = [jobs[story.job_id] for story in clients.stories[-200:]]
    return [
        story.job_id
        for story, job in zip(clients.stories[-200:], recent, strict=True)
        if job.taken_by and not job.results and not job.cancelled
    ]


FAULTS = {
    fault.name: fault
    for fault in (
        Fault("done_400", {("done", 400): 0.2}),
        Fault("done_500", {("done", 500): 0.5}),
        Fault("done_silent", {("done", NO_ANSWER): 0.2}),
        Fault("chunks", {("stream", 400): 0.05, ("stream", 500): 0.1, ("stream", NO_ANSWER): 0.02}),
        Fault("cancels", strike=_cancel, every_s=0.3),
        Fault("duplicates", strike=_deliver_again, every_s=0.3),
        Fault("sigterm", strike=_terminate, every_s=10.0),
        Fault("kill", strike=_kill, every_s=15.0),
    )
}
"""Statuses are drawn anew for each post, the SDK's own repetitions after a 5xx included."""
