"""An autoscaled queue endpoint, simulated event by event. Pure: same jobs and settings, same outcome.

A worker is billed from its start to its stop, its cold start and idling included. Its jobs share it: with n of them
each is spoken at `speeds[n]`. A job that comes is taken by the worker with a free place whose poll has waited longest,
at once: what the SDK loses between two polls of a full worker, 1 s at most, is not in here. The scaler looks once a
second. RunPod publishes neither that interval nor which worker is asked first: both are assumed.
"""

import heapq
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, count
from typing import Literal

TICK_S = 1.0


@dataclass(frozen=True, slots=True)
class Job:
    at_s: float
    audio_s: float


@dataclass(frozen=True, slots=True)
class Settings:
    """Of an endpoint.

    value  request_count: jobs, waiting or running, for which there shall be a worker. queue_delay: seconds that the
           first in the queue has waited when one more is started
    """

    concurrency: int
    scaler: Literal["request_count", "queue_delay"]
    value: float
    idle_s: float
    min_workers: int = 0
    max_workers: int = 100
    cold_start_s: float = 13.4


@dataclass(frozen=True, slots=True)
class Served:
    """worker: the number of the one that spoke it"""

    job: Job
    worker: int
    started_s: float
    ended_s: float


@dataclass(frozen=True, slots=True)
class Shift:
    """What a worker was there for, and is billed for."""

    started_s: float
    ready_s: float
    stopped_s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    served: Sequence[Served]
    shifts: Sequence[Shift]

    @property
    def billed_s(self) -> float:
        return sum(shift.stopped_s - shift.started_s for shift in self.shifts)

    @property
    def most_workers(self) -> int:
        """At any one time."""
        steps = [(shift.started_s, 1) for shift in self.shifts] + [(shift.stopped_s, -1) for shift in self.shifts]
        return max(accumulate(step for _, step in sorted(steps)), default=0)

    @property
    def audio_s(self) -> float:
        return sum(each.job.audio_s for each in self.served)

    @property
    def waits_s(self) -> list[float]:
        return [each.started_s - each.job.at_s for each in self.served]


class _Worker:
    """spoken_s: of audio, what a job that is there from the beginning would have by `at_s`"""

    def __init__(self, number: int, started_s: float, ready_s: float) -> None:
        self.number = number
        self.started_s = started_s
        self.ready_s = ready_s
        self.at_s = ready_s
        self.spoken_s = 0.0
        self.version = 0
        self.jobs: list[tuple[float, int, Job, float]] = []


class Endpoint:
    """speeds[n]: seconds of audio that each of n jobs gets in a second; speeds[0] is not looked at"""

    def __init__(self, settings: Settings, *, speeds: Sequence[float]) -> None:
        assert len(speeds) > settings.concurrency
        self.settings = settings
        self.queue: deque[Job] = deque()
        self.polling: deque[_Worker] = deque()
        self.workers: dict[int, _Worker] = {}
        self.now_s = 0.0
        self._speeds = speeds
        self._served: list[Served] = []
        self._shifts: list[Shift] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._numbers = count()
        self._ticking = False

    def run(self, jobs: Sequence[Job], *, horizon_s: float = 0.0, watch: Callable[[], None] = lambda: None) -> Outcome:
        """jobs: as they come. watch: called after each event. Ends when all is done, and not before the horizon"""
        for _ in range(self.settings.min_workers):
            self._start(cold_start_s=0.0)
        for job in jobs:
            self._advance(job.at_s, watch)
            self.queue.append(job)
            self._hand_out()
            self._watch_the_queue()
            watch()
        self._advance(math.inf, watch)
        self.now_s = max(self.now_s, horizon_s)
        for worker in list(self.workers.values()):
            self._stop(worker)
        return Outcome(self._served, self._shifts)

    @property
    def in_progress(self) -> int:
        return sum(len(worker.jobs) for worker in self.workers.values())

    def _advance(self, until_s: float, watch: Callable[[], None]) -> None:
        while self._events and self._events[0][0] <= until_s:
            self.now_s, _, happen = heapq.heappop(self._events)
            happen()
            watch()
        self.now_s = until_s if until_s < math.inf else self.now_s

    def _at(self, at_s: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at_s, next(self._order), happen))

    def _start(self, *, cold_start_s: float) -> None:
        worker = _Worker(next(self._numbers), self.now_s, self.now_s + cold_start_s)
        self.workers[worker.number] = worker
        self._at(worker.ready_s, lambda: self._ready(worker))

    def _ready(self, worker: _Worker) -> None:
        self.polling.append(worker)
        self._hand_out()
        if not worker.jobs:
            self._stop_when_idle(worker)

    def _hand_out(self) -> None:
        while self.queue and self.polling:
            worker, job = self.polling.popleft(), self.queue.popleft()
            self._catch_up(worker)
            heapq.heappush(worker.jobs, (worker.spoken_s + job.audio_s, next(self._order), job, self.now_s))
            if len(worker.jobs) < self.settings.concurrency:
                self.polling.append(worker)
            self._expect(worker)

    def _catch_up(self, worker: _Worker) -> None:
        worker.spoken_s += (self.now_s - worker.at_s) * self._speeds[len(worker.jobs)] if worker.jobs else 0.0
        worker.at_s = self.now_s

    def _expect(self, worker: _Worker) -> None:
        """The end of its next job, unless something changes before."""
        worker.version += 1
        version, left_s = worker.version, max(0.0, worker.jobs[0][0] - worker.spoken_s)
        self._at(self.now_s + left_s / self._speeds[len(worker.jobs)], lambda: self._finish(worker, version))

    def _finish(self, worker: _Worker, version: int) -> None:
        if version != worker.version:
            return
        self._catch_up(worker)
        was_full = len(worker.jobs) == self.settings.concurrency
        _, _, job, started_s = heapq.heappop(worker.jobs)
        self._served.append(Served(job, worker.number, started_s, self.now_s))
        if was_full:
            self.polling.append(worker)
        if worker.jobs:
            self._expect(worker)
        else:
            worker.version += 1
        self._hand_out()
        if not worker.jobs:
            self._stop_when_idle(worker)

    def _stop_when_idle(self, worker: _Worker) -> None:
        version = worker.version
        self._at(self.now_s + self.settings.idle_s, lambda: self._idled(worker, version))

    def _idled(self, worker: _Worker, version: int) -> None:
        if version == worker.version and len(self.workers) > self.settings.min_workers:
            self._stop(worker)

    def _stop(self, worker: _Worker) -> None:
        if worker in self.polling:
            self.polling.remove(worker)
        del self.workers[worker.number]
        self._shifts.append(Shift(worker.started_s, worker.ready_s, self.now_s))

    def _watch_the_queue(self) -> None:
        if not self._ticking:
            self._ticking = True
            self._at(math.floor(self.now_s / TICK_S + 1) * TICK_S, self._tick)

    def _tick(self) -> None:
        self._ticking = False
        for _ in range(min(self._wanted(), self.settings.max_workers) - len(self.workers)):
            self._start(cold_start_s=self.settings.cold_start_s)
        if self.queue:
            self._watch_the_queue()

    def _wanted(self) -> int:
        if self.settings.scaler == "request_count":
            return math.ceil((len(self.queue) + self.in_progress) / self.settings.value)
        is_late = bool(self.queue) and self.now_s - self.queue[0].at_s >= self.settings.value
        return len(self.workers) + is_late
