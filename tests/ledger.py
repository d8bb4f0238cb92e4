"""The fake platform's books: what happened to every job, and what no worker should ever send."""

import json
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

Kind = Literal["stream", "done"]

MAX_BODY_BYTES: dict[Kind, int] = {"stream": 1_000_000, "done": 10_000_000}
"""RunPod's limits, decimal as its docs have them; what counts is the posted JSON text."""


@dataclass(frozen=True, slots=True)
class Result:
    """One accepted job-done post. `output` is the list of all yields where the worker aggregates its stream."""

    raw: str
    output: Any
    error: str | None


@dataclass(frozen=True, slots=True)
class Rejected:
    kind: Kind
    status: int
    size_bytes: int


@dataclass(slots=True)
class JobRecord:
    """What happened to one job, in order.

    stop_sent  a worker that had taken it was told about the cancel
    """

    input: object
    taken_by: list[str] = field(default_factory=list)
    chunks: list[Any] = field(default_factory=list)
    progress: list[Any] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    cancelled: bool = False
    stop_sent: bool = False

    @property
    def times_taken(self) -> int:
        return len(self.taken_by)

    @property
    def result_lost(self) -> bool:
        """Refused for good: the SDK repeats a post after a 5xx only."""
        return any(post.kind == "done" and post.status < 500 for post in self.rejected)


@dataclass(slots=True)
class Ledger:
    """pings: the ids of the running jobs, comma-separated, as each ping told them."""

    jobs: dict[str, JobRecord] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    pings: list[str] = field(default_factory=list)

    def __getitem__(self, job_id: str) -> JobRecord:
        return self.jobs[job_id]

    def enter(self, kind: Kind, job_id: str, *, raw: bytes, status: int) -> int:
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
            self._accept(kind, job_id, body, raw=raw.decode())
        return status

    def _body(self, kind: Kind, job_id: str, raw: bytes) -> dict[str, Any] | None:
        try:
            return _parsed(kind, raw)
        except ValueError as exc:
            self.faults.append(f"{kind} of {job_id}: {exc}")
            return None

    def _accept(self, kind: Kind, job_id: str, body: dict[str, Any], *, raw: str) -> None:
        job = self.jobs[job_id]
        if len(job.results) >= job.times_taken:
            self.faults.append(f"{kind} of {job_id} after its last result")
        if kind == "stream":
            job.chunks.append(body["output"])
        elif body.get("status") == "IN_PROGRESS":
            job.progress.append(body.get("output"))
        else:
            job.results.append(Result(raw, body.get("output"), body.get("error")))


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
