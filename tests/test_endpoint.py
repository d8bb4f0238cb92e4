"""The simulated endpoint keeps what any endpoint must: nobody waits beside a free place, and all of it is billed."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.endpoint import Endpoint, Job, Outcome, Settings

SPEEDS = [math.inf, 8.0, 7.0, 6.0, 5.0]

jobs_of_any_kind = st.lists(st.builds(Job, at_s=st.floats(0, 200), audio_s=st.floats(0.1, 60)), max_size=40).map(
    lambda jobs: sorted(jobs, key=lambda job: job.at_s)
)

settings_of_any_kind = st.builds(
    Settings,
    concurrency=st.integers(1, 4),
    scaler=st.sampled_from(["request_count", "queue_delay"]),
    value=st.floats(0.5, 8),
    idle_s=st.floats(0, 60),
    min_workers=st.integers(0, 2),
    max_workers=st.integers(2, 6),
    cold_start_s=st.floats(0, 30),
)


def run(settings: Settings, jobs: list[Job]) -> Outcome:
    return Endpoint(settings, speeds=SPEEDS).run(jobs)


@given(settings=settings_of_any_kind, jobs=jobs_of_any_kind)
def test_no_job_waits_while_a_warm_worker_has_a_free_place(settings: Settings, jobs: list[Job]) -> None:
    endpoint = Endpoint(settings, speeds=SPEEDS)

    def watch() -> None:
        warm = [worker for worker in endpoint.workers.values() if worker.ready_s < endpoint.now_s]
        free = [worker for worker in warm if len(worker.jobs) < settings.concurrency]
        assert not (endpoint.queue and free)
        assert all(len(worker.jobs) <= settings.concurrency for worker in endpoint.workers.values())
        assert len(endpoint.workers) <= settings.max_workers

    endpoint.run(jobs, watch=watch)


@given(settings=settings_of_any_kind, jobs=jobs_of_any_kind)
def test_every_job_is_served_once_and_not_before_it_came(settings: Settings, jobs: list[Job]) -> None:
    served = run(settings, jobs).served
    assert sorted(map(repr, (each.job for each in served))) == sorted(map(repr, jobs))
    assert all(each.started_s >= each.job.at_s for each in served)


@given(settings=settings_of_any_kind, jobs=jobs_of_any_kind)
def test_a_job_takes_at_least_what_it_takes_alone_and_at_most_what_it_takes_in_a_crowd(
    settings: Settings, jobs: list[Job]
) -> None:
    for each in run(settings, jobs).served:
        took_s = each.ended_s - each.started_s
        assert each.job.audio_s / SPEEDS[1] - 1e-6 <= took_s <= each.job.audio_s / SPEEDS[settings.concurrency] + 1e-6


@given(settings=settings_of_any_kind, jobs=jobs_of_any_kind)
def test_a_worker_is_billed_from_its_start_to_its_stop_and_speaks_in_between(
    settings: Settings, jobs: list[Job]
) -> None:
    outcome = run(settings, jobs)
    assert outcome.billed_s == pytest.approx(sum(shift.stopped_s - shift.started_s for shift in outcome.shifts))
    assert all(shift.started_s <= shift.ready_s for shift in outcome.shifts)
    for each in outcome.served:
        assert any(
            shift.ready_s <= each.started_s + 1e-6 and each.ended_s <= shift.stopped_s + 1e-6
            for shift in outcome.shifts
        )


def test_without_jobs_and_active_workers_nothing_is_billed() -> None:
    assert run(Settings(4, "request_count", 4, idle_s=60), []).billed_s == 0


def test_an_active_worker_is_billed_for_all_of_the_time() -> None:
    settings = Settings(4, "request_count", 4, idle_s=5, min_workers=1)
    assert Endpoint(settings, speeds=SPEEDS).run([], horizon_s=3600).billed_s == 3600


def test_one_job_on_a_cold_endpoint_waits_for_the_scaler_and_the_start() -> None:
    settings = Settings(4, "request_count", 4, idle_s=5, cold_start_s=10)
    outcome = run(settings, [Job(0.5, 16.0)])
    assert outcome.waits_s == [pytest.approx(10.5)]
    assert outcome.billed_s == pytest.approx(10 + 16 / 8 + 5)


def test_two_jobs_share_a_worker() -> None:
    settings = Settings(4, "request_count", 4, idle_s=5, min_workers=1)
    served = run(settings, [Job(1.0, 14.0), Job(1.0, 28.0)]).served
    assert [each.ended_s for each in served] == [pytest.approx(1 + 14 / 7), pytest.approx(1 + 14 / 7 + 14 / 8)]


def test_request_count_starts_a_worker_for_every_so_many_jobs() -> None:
    outcome = run(Settings(4, "request_count", 2, idle_s=5), [Job(0.5, 10.0)] * 5)
    assert len(outcome.shifts) == 3


def test_queue_delay_starts_one_only_when_the_first_has_waited() -> None:
    outcome = run(Settings(1, "queue_delay", 4, idle_s=5, cold_start_s=0), [Job(0.5, 8.0)])
    assert outcome.waits_s == [pytest.approx(4.5)]
