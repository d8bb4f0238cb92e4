"""What every test shares: a skip is a failure, and nothing is read from the machine's own settings."""

import os

import hypothesis
import pytest

from tests.stores import clock, other_worker, place, places, postgres, project, store

__all__ = ["clock", "other_worker", "place", "places", "postgres", "project", "store"]

# CI looks at the same examples every time; a developer's machine looks for new ones.
hypothesis.settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A skipped test proves nothing, so the run fails on one."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
