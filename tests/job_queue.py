"""The fake platform's queue: jobs that wait, and jobs in the hands of workers that have to be heard of."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class _Waiting:
    """only: the one worker that may have it; None: any"""

    job_id: str
    only: str | None

    def is_for(self, worker_id: str) -> bool:
        return self.only in (None, worker_id)


class JobQueue:
    """Times are monotonic seconds; a hand is a worker and a job that it has taken and not yet answered."""

    def __init__(self) -> None:
        self._waiting: list[_Waiting] = []
        self._heard_s: dict[tuple[str, str], float] = {}

    def put(self, job_id: str, *, deliveries: int = 1, only: str | None = None) -> None:
        self._waiting += [_Waiting(job_id, only)] * deliveries

    def has_for(self, worker_id: str) -> bool:
        return any(waiting.is_for(worker_id) for waiting in self._waiting)

    def take(self, worker_id: str, wanted: int) -> Sequence[str]:
        taken = [waiting for waiting in self._waiting if waiting.is_for(worker_id)][:wanted]
        for waiting in taken:
            self._waiting.remove(waiting)
        self._heard_s |= {(worker_id, waiting.job_id): time.monotonic() for waiting in taken}
        return [waiting.job_id for waiting in taken]

    def heard(self, worker_id: str, job_ids: Iterable[str]) -> None:
        """The worker says that it works on these."""
        named = {(worker_id, job_id) for job_id in job_ids} & self._heard_s.keys()
        self._heard_s |= dict.fromkeys(named, time.monotonic())

    def answered(self, worker_id: str, job_id: str) -> None:
        self._heard_s.pop((worker_id, job_id), None)

    def drop(self, job_id: str) -> None:
        """Nobody waits for it any more."""
        self._waiting = [waiting for waiting in self._waiting if waiting.job_id != job_id]
        self._heard_s = {hand: heard_s for hand, heard_s in self._heard_s.items() if hand[1] != job_id}

    def requeue_unheard(self, lease_s: float) -> Sequence[str]:
        """Put back what nothing was heard of for so long; returns it."""
        unheard = [hand for hand, heard_s in self._heard_s.items() if heard_s + lease_s < time.monotonic()]
        for hand in unheard:
            del self._heard_s[hand]
            self.put(hand[1])
        return [job_id for _, job_id in unheard]
