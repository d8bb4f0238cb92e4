"""What the stories, the platform's ledger and the store's tables come to."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from benchmarks.common import percentile
from benchmarks.load import balance
from benchmarks.load.clients import Story
from benchmarks.load.hearing import BYTES_PER_S, LATE_S, Delivery, Piece, Told, deliveries, differ, lateness, underruns
from benchmarks.load.site import Size
from tests.ledger import JobRecord, Ledger

EARLY = 4
"""Chunks: about a second of audio."""


@dataclass(frozen=True, slots=True)
class Row:
    """One phase. Milliseconds without what the engine took.

    failed          jobs that were neither told nor cancelled, in the end; lost: those without any last answer
    doubled         jobs told in two ways; reordered: jobs with a chunk out of its place
    underruns       chunks that came too late for who listens in real time, and how late the worst was
    late_early    underruns among the first four chunks, when a player has little in hand
    at_once         jobs that a worker had, on average
    asked_again     jobs for which the client had to ask more than once; requeued: whom the platform gave to another
    first_audio_ms  from asking to the first chunk; short_ms: a short job from asking to its result, the platform's and
                    the SDK's own waits included; settled_ms: from its reservation to its settlement
    """

    phase: str
    minutes: float
    jobs: int
    told: int
    cancelled: int
    failed: int
    lost: int
    doubled: int
    reordered: int
    underruns: int
    worst_late_ms: float
    late_early: int
    asked_again: int
    requeued: int
    audio_s: float
    at_once: float
    added_p50_ms: float | None
    added_p95_ms: float | None
    short_p50_ms: float | None
    short_p95_ms: float | None
    settled_p95_ms: float | None

    @property
    def failure_rate(self) -> float:
        return self.failed / max(1, self.jobs - self.cancelled)


def judge(
    phase: str,
    stories: Sequence[Story],
    ledger: Ledger,
    *,
    settled_s: Mapping[str, float],
    audio_format: str,
    minutes: float,
) -> Row:
    """settled_s  of requests, by identity"""
    heard = [(story, ledger[story.job_id]) for story in stories]
    outcomes = Counter(story.outcome for story in stories)
    sorted_out = [_sorted_out(job) for _, job in heard]
    firsts = [found[0] for found, _ in sorted_out if found]
    early = [late for first in firsts for late in _early(first, BYTES_PER_S[audio_format])]
    late_s = [late for first in firsts for late in lateness(first, bytes_per_s=BYTES_PER_S[audio_format])]
    added = [ms for story, job in heard if story.kind == "stream" for ms in _added_ms(story, job)]
    short = [ms for story, _ in heard if story.kind == "short" for ms in _whole_ms(story)]
    settled = [ms for story, _ in heard if story.kind == "short" for ms in _settled_ms(story, settled_s)]
    return Row(
        phase=phase,
        minutes=round(minutes, 2),
        jobs=len(stories),
        told=outcomes["success"],
        cancelled=outcomes["cancelled"],
        failed=outcomes["failed"] + outcomes["lost"],
        lost=outcomes["lost"],
        doubled=sum(differ(found, _results(job)) for (_, job), (found, _) in zip(heard, sorted_out, strict=True)),
        reordered=sum(strays > 0 for _, strays in sorted_out),
        underruns=sum(underruns(first, bytes_per_s=BYTES_PER_S[audio_format]) for first in firsts),
        late_early=sum(late > LATE_S for late in early),
        worst_late_ms=1000 * max([0.0, *late_s]),
        asked_again=sum(story.tries > 1 for story in stories),
        requeued=sum(job.requeued > 0 for _, job in heard),
        audio_s=sum(story.told.last["duration"] for story in stories if story.told),
        at_once=sum(_in_hand_s(job) for _, job in heard) / (60 * minutes),
        added_p50_ms=_percentile(added, 0.5),
        added_p95_ms=_percentile(added, 0.95),
        short_p50_ms=_percentile(short, 0.5),
        short_p95_ms=_percentile(short, 0.95),
        settled_p95_ms=_percentile(settled, 0.95),
    )


def _sorted_out(job: JobRecord) -> tuple[Sequence[Delivery], int]:
    pieces = [
        (arrival.worker_id, arrival.at_s, chunk)
        for arrival, chunk in zip(job.arrivals, job.chunks, strict=True)
        if isinstance(chunk, Piece)
    ]
    return deliveries(pieces, may_skip=any(post.kind == "stream" for post in job.rejected))


def _early(delivery: Delivery, bytes_per_s: int) -> Sequence[float]:
    return list(islice(lateness(delivery, bytes_per_s=bytes_per_s), EARLY))


def _results(job: JobRecord) -> Sequence[Told]:
    return [result.output for result in job.results if result.error is None]


def _in_hand_s(job: JobRecord) -> float:
    """From its first taking to its last result, whatever lay between."""
    return job.results[-1].at_s - job.taken_s[0] if job.results else 0.0


def _added_ms(story: Story, job: JobRecord) -> Iterator[float]:
    """From asking to the first chunk, without what the engine took to make it; of jobs that went well at once."""
    if story.told and story.tries == 1 and job.requeued == 0 and job.arrivals and not job.rejected:
        timings = story.told.last["timings_ms"]
        engine_ms = timings["first_audio"] - timings["prepared"]
        yield 1000 * (job.arrivals[0].at_s - story.asked_s) - engine_ms


def _whole_ms(story: Story) -> Iterator[float]:
    """From asking to the result, whatever happened meanwhile, without what the engine took."""
    if story.told:
        yield 1000 * (story.told_s - story.asked_s) - _engine_ms(story.told)


def _settled_ms(story: Story, settled_s: Mapping[str, float]) -> Iterator[float]:
    """From reservation to settlement, without what the engine took."""
    if story.told and (whole_s := settled_s.get(f"job:{story.job_id}")) is not None:
        yield 1000 * whole_s - _engine_ms(story.told)


def _engine_ms(told: Told) -> float:
    timings = told.last["timings_ms"]
    return float(timings["spoken"] - timings["prepared"])


def _percentile(values: Sequence[float], share: float) -> float | None:
    return round(percentile(values, share), 1) if values else None


def rss_slope(sizes: Sequence[Size]) -> float | None:
    """MB that a worker grows by in 1,000 jobs: the line through what it was in the last two thirds of its samples,
    the mean over workers by how many jobs the lines span; None if none of them has done any."""
    slopes = [_slope(own) for own in _by_worker(sizes) if own[-1].jobs > own[0].jobs]
    spans = sum(span for _, span in slopes)
    return round(sum(slope * span for slope, span in slopes) / spans * 1000 / 1e6, 3) if spans else None


def _by_worker(sizes: Sequence[Size]) -> Iterator[Sequence[Size]]:
    for worker_id in {size.worker_id for size in sizes}:
        own = [size for size in sizes if size.worker_id == worker_id]
        yield own[len(own) // 3 :]


def _slope(own: Sequence[Size]) -> tuple[float, int]:
    """Least squares: bytes per job; and over how many jobs."""
    mean_jobs = sum(size.jobs for size in own) / len(own)
    mean_bytes = sum(size.rss_bytes for size in own) / len(own)
    covariance = sum((size.jobs - mean_jobs) * (size.rss_bytes - mean_bytes) for size in own)
    variance = sum((size.jobs - mean_jobs) ** 2 for size in own)
    return covariance / variance, own[-1].jobs - own[0].jobs


def cpu_s(sizes: Sequence[Size]) -> dict[str, float]:
    """What everybody computed: start of the workers included, their last second not."""
    last = {size.worker_id: size for size in sizes}.values()
    platform = os.times()
    return {
        "workers": round(sum(size.cpu_s for size in last), 1),
        "platform_and_clients": round(platform.user + platform.system, 1),
    }


def machine_cpu_s() -> float:
    """What all processes of this machine have computed since it started: eSpeak's forks are told nowhere else."""
    user, nice, system, _idle, _waiting, *interrupts = map(int, Path("/proc/stat").read_text().split()[1:8])
    return sum((user, nice, system, *interrupts)) / os.sysconf("SC_CLK_TCK")


def told_by(ledger: Ledger) -> dict[str, balance.Told]:
    """What the clients of all jobs were told, for the comparison with the tables."""
    return {
        job_id: balance.Told(next((result.last["usage"]["audio_seconds"] for result in _results(job)), None))
        for job_id, job in ledger.jobs.items()
    }
