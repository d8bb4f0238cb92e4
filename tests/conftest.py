"""What every test shares: a skip is a failure, and nothing is read from the machine's own settings."""

import os

import hypothesis
import pytest

from tests.stores import clock, other_worker, place, places, postgres, project, store

__all__ = ["clock", "other_worker", "place", "places", "postgres", "project", "store"]

# CI looks at the same examples every time, a developer's machine for new ones; how busy it is decides no test.
hypothesis.settings.register_profile("ours", derandomize=bool(os.environ.get("CI")), deadline=None)
hypothesis.settings.load_profile("ours")

SLOW_FILES = (
    "test_engine.py",
    "test_parity.py",
    "test_hostile_worker.py",
    "test_tenants_apart.py",
    "test_benchmarks.py",
    "test_worker.py",
    "test_fake_platform.py",
    "test_kept.py",
    "test_store_benchmarks.py",
    "test_batch.py",
    "test_start.py",
    "test_load.py",
)
"""Each is run by one process: begun last, it would be waited for."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: SLOW_FILES.index(name) if (name := item.path.name) in SLOW_FILES else len(SLOW_FILES))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A skipped test proves nothing, so the run fails on one."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
