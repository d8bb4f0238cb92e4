"""The wire of `jobs.*`: what is remembered of syntheses that were kept."""

from collections.abc import Mapping
from typing import Literal

from tts_core.jobs.base import Request
from tts_core.jobs.fields import RowId
from tts_core.jobs.pages import PagedByTime
from tts_core.store import JobStatus


class JobsGet(Request):
    """job_id: the `request_id` of the synthesis"""

    scope = "synthesize"
    answer_is_kept = False

    action: Literal["jobs.get"]
    job_id: RowId


class JobsList(PagedByTime):
    """Newest first."""

    scope = "synthesize"

    action: Literal["jobs.list"]
    status: JobStatus | None = None


ACTIONS: Mapping[str, type[Request]] = {"jobs.get": JobsGet, "jobs.list": JobsList}
