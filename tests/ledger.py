"""The fake platform's books: what happened to every job, and what no worker should ever send."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

Kind = Literal["stream", "done"]

MAX_BODY_BYTES: dict[Kind, int] = {"stream": 1_000_000, "done": 10_000_000}
"""RunPod's limits, decimal as its docs have them; what counts is the posted JSON text."""


NO_ANSWER = 0
"""Instead of a status: the post is thrown away, and its connection is cut without an answer."""


@dataclass(frozen=True, slots=True)
class Result:
    """One accepted job-done post; whoever posts the same, whenever, has told the same.

    raw     as it was posted; its sha256 in books that are kept in brief
    output  the list of all yields where the worker aggregates its stream
    """

    raw: str
    output: Any
    error: str | None
    worker_id: str = field(default="", compare=False)
    at_s: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class Arrival:
    """When a chunk came, and from whom; at_s: monotonic"""

    worker_id: str
    at_s: float


@dataclass(frozen=True, slots=True)
class Rejected:
    kind: Kind
    status: int
    size_bytes: int


@dataclass(slots=True)
class JobRecord:
    """What happened to one job, in order.

    taken_s    when each of `taken_by` took it; monotonic
    arrivals   one for each of the chunks
    stop_sent  a worker that had taken it was told about the cancel
    requeued   how often it was queued again because nothing more was heard of it
    """

    input: object
    taken_by: list[str] = field(default_factory=list)
    taken_s: list[float] = field(default_factory=list)
    chunks: list[Any] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    progress: list[Any] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    cancelled: bool = False
    stop_sent: bool = False
    requeued: int = 0

    @property
    def times_taken(self) -> int:
        return len(self.taken_by)

    @property
    def result_lost(self) -> bool:
        """Refused for good: the SDK repeats a post after a 5xx only, and without an answer the job is queued again."""
        return self.results_lost > 0

    @property
    def results_lost(self) -> int:
        return sum(post.kind == "done" and 400 <= post.status < 500 for post in self.rejected)


@dataclass(slots=True)
class Ledger:
    """pings: the ids of the running jobs, comma-separated, as each ping told them.

    brief  makes of an output, be it a chunk or a result, what is remembered of it; None: all is
    """

    jobs: dict[str, JobRecord] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    pings: list[str] = field(default_factory=list)
    brief: Callable[[Any], Any] | None = None

    def __getitem__(self, job_id: str) -> JobRecord:
        return self.jobs[job_id]

    def count_answers(self, job_id: str) -> int:
        """Results that came, the refused ones among them."""
        job = self.jobs.get(job_id)
        return 0 if job is None else len(job.results) + job.results_lost

    def enter(self, kind: Kind, job_id: str, *, raw: bytes, status: int, arrival: Arrival) -> int:
        """Book a post that would be answered with this status; returns the one to answer with."""
        if job_id not in self.jobs:
            self.faults.append(f"{kind} for the unknown job {job_id!r}")
            return 404
        body = self._body(kind, job_id, raw)
        if status == 200 and (body is None or len(raw) > MAX_BODY_BYTES[kind]):
            status = 400
        if body is None or status != 200:
            self.jobs[job_id].rejected.append(Rejected(kind, status, len(raw)))
        else:
            self._accept(kind, job_id, body, raw=raw, arrival=arrival)
        return status

    def _body(self, kind: Kind, job_id: str, raw: bytes) -> dict[str, Any] | None:
        try:
            return _parsed(kind, raw)
        except ValueError as exc:
            self.faults.append(f"{kind} of {job_id}: {exc}")
            return None

    def _accept(self, kind: Kind, job_id: str, body: dict[str, Any], *, raw: bytes, arrival: Arrival) -> None:
        job = self.jobs[job_id]
        if len(job.results) >= job.times_taken:
            self.faults.append(f"{kind} of {job_id} after its last result")
        output = body.get("output") if self.brief is None else self.brief(body.get("output"))
        if kind == "stream":
            job.chunks.append(output)
            job.arrivals.append(arrival)
        elif body.get("status") == "IN_PROGRESS":
            job.progress.append(output)
        else:
            told = raw.decode() if self.brief is None else hashlib.sha256(raw).hexdigest()
            job.results.append(Result(told, output, body.get("error"), arrival.worker_id, arrival.at_s))


def _parsed(kind: Kind, raw: bytes) -> dict[str, Any]:
    """raises ValueError for what is no JSON (RFC 8259 has no NaN), and for a body the SDK does not send"""
    body = json.loads(raw.decode(), parse_constant=_refuse)
    if not isinstance(body, dict):
        raise ValueError(f"a JSON object was expected, not {type(body).__name__}")
    if kind == "stream" and "output" not in body:
        raise ValueError(f"a chunk without output: {sorted(body)}")
    if not isinstance(body.get("error"), str | None):
        raise ValueError("error is no text")
    return body


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
