"""Those who ask: each has one job after another spoken, and asks again for what it is told to ask again for."""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from benchmarks.common import TEXTS
from benchmarks.load.hearing import Told
from benchmarks.load.site import Site
from tests.ledger import JobRecord

Kind = Literal["stream", "short"]
Outcome = Literal["success", "cancelled", "failed", "lost"]

PATIENCE_S = 90.0
"""After which a client has lost its job. A killed worker's request is free again after 30."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 5.0
"""Before a client asks again, doubled each time."""

RAMP_S = 10.0
"""Within which the listeners come."""


@dataclass(slots=True)
class Story:
    """One job as its client saw it.

    tries   how often it was asked for, always under the same id
    errors  the codes it was answered with meanwhile; "result_refused" where the platform lost the result
    """

    job_id: str
    kind: Kind
    asked_s: float
    tries: int = 1
    errors: list[str] = field(default_factory=list)
    outcome: Outcome = "lost"
    told: Told | None = None
    told_s: float = 0.0


class Clients:
    """stories: in the order in which they began, those still going on included"""

    def __init__(self, site: Site, *, seed: int = 0) -> None:
        self.stories: list[Story] = []
        self._site = site
        self._random = random.Random(seed)
        self._texts = self._new_texts()

    async def crowd(self, *, listeners: int, minutes: float) -> None:
        """So many streams played at any time, and short jobs one after another; all end that were begun.

        They come one by one in the first seconds, or they would all come together again and again.
        """
        ends_s = time.monotonic() + 60 * minutes
        ramp_s = min(RAMP_S, 10 * minutes)
        waits_s = [ramp_s * number / listeners for number in range(listeners)]
        listening = [self._one_after_another("stream", ends_s, wait_s=wait_s) for wait_s in waits_s]
        await asyncio.gather(*listening, self._one_after_another("short", ends_s))

    async def ask(self, kind: Kind, *, only: str | None = None) -> Story:
        """One job to its end, whatever that is."""
        text = next(self._texts) if kind == "stream" else f"{next(self._texts)[-12:]}"
        body = {
            "tenant_key": self._site.key,
            "text": text,
            "language": "en",
            "streaming": kind == "stream",
            "format": self._site.shape.format,
            "output": "inline",
        }
        story = Story(self._site.platform.submit(body, only=only), kind, time.monotonic())
        self.stories.append(story)
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                await self._follow(story)
        return story

    def errors(self) -> dict[str, int]:
        """How often each code was the answer, or the result refused."""
        return dict(Counter(code for story in self.stories for code in story.errors))

    async def _one_after_another(self, kind: Kind, ends_s: float, *, wait_s: float = 0.0) -> None:
        await asyncio.sleep(wait_s)
        while time.monotonic() < ends_s:
            story = await self.ask(kind)
            await (asyncio.sleep(LONGEST_PAUSE_S) if story.outcome == "failed" else self._play(story))

    async def _play(self, story: Story) -> None:
        """Until what was streamed has been played to its end, in real time from its first chunk on."""
        arrivals = self._site.platform.ledger[story.job_id].arrivals
        if story.kind == "stream" and story.told is not None and arrivals:
            ends_s = arrivals[0].at_s + story.told.last["duration"]
            await asyncio.sleep(max(0.0, ends_s - time.monotonic()))

    async def _follow(self, story: Story) -> None:
        """Wait for answers, and ask again, until one of them is the last."""
        job = self._site.platform.ledger[story.job_id]
        answers, pause_s = 0, FIRST_PAUSE_S
        while True:
            answers = await self._next_answer(story.job_id, job, seen=answers)
            if _is_over(story, job):
                return
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            if not _is_over(story, job):  # another delivery may have ended meanwhile
                story.tries += 1
                self._site.platform.submit(None, id=story.job_id)

    async def _next_answer(self, job_id: str, job: JobRecord, *, seen: int) -> int:
        """How many there are once there are more than were seen, or the job is cancelled."""
        until = self._site.platform.until
        ledger = self._site.platform.ledger
        await until(lambda: job.cancelled or ledger.count_answers(job_id) > seen, timeout_s=PATIENCE_S, about=job_id)
        return ledger.count_answers(job_id)

    def _new_texts(self) -> Iterator[str]:
        """No two alike, or the cache would speak."""
        number = 0
        while True:
            number += 1
            sentences = self._random.sample(TEXTS, self._random.randint(*self._site.shape.sentences))
            yield f"{' '.join(sentences)} That was {number:06}."


def _is_over(story: Story, job: JobRecord) -> bool:
    """Whether the client has what it wanted, or will never get it; noted in the story."""
    errors = [json.loads(result.error) for result in job.results if result.error is not None]
    story.errors = [error["code"] for error in errors] + ["result_refused"] * job.results_lost
    if (success := next((result for result in job.results if result.error is None), None)) is not None:
        story.outcome, story.told, story.told_s = "success", success.output, success.at_s
        return True
    if job.cancelled:
        story.outcome = "cancelled"
        return True
    if errors and not errors[-1]["retryable"]:
        story.outcome = "failed"
        return True
    return False
