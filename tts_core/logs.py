"""How a worker logs: one JSON line each, in the shape of RunPod's SDK, so that its console finds a job's lines.

No text, audio, address or key is ever logged: what is not ours is not quoted, see `errors.scrubbed`.
"""

import json
import logging
import sys
import threading
from contextvars import ContextVar
from typing import Any

from tts_core.errors import StartupError, scrubbed

JOB_ID: ContextVar[str | None] = ContextVar("job_id", default=None)
"""RunPod's id of the job at hand; tasks inherit it."""


class JsonLines(logging.Formatter):
    """`{"requestId", "message", "level"}` as `runpod.serverless.modules.rp_logger` has it, then our own fields."""

    def format(self, record: logging.LogRecord) -> str:
        shape = {"requestId": JOB_ID.get(), "message": _message(record), "level": record.levelname}
        fields = getattr(record, "fields", {})
        fault = {"fault": scrubbed(record.exc_info[1])} if record.exc_info and record.exc_info[1] else {}
        return json.dumps(shape | {"logger": record.name} | fields | fault)


def _message(record: logging.LogRecord) -> str:
    """asyncio adds the repr of a task to what it says, and in that whatever an exception quotes: not its first line."""
    said = record.getMessage()
    return said.partition("\n")[0] if record.name == "asyncio" else said


class PlainLines(logging.Formatter):
    """For people: the fields behind the message."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        told = " ".join(f"{name}={value}" for name, value in fields.items() if value is not None)
        return f"{record.levelname} {record.name} {record.getMessage()} {told}".rstrip()


def set_up(*, on_runpod: bool) -> None:
    """Before the SDK is imported, which otherwise makes a handler of its own."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if on_runpod else PlainLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log every address it asks
    if on_runpod:
        sys.excepthook = lambda _, exc, __: logging.critical("the worker ends: %s", scrubbed(exc))
        threading.excepthook = lambda args: logging.critical("a thread ends: %s", _of_thread(args))


def _of_thread(args: threading.ExceptHookArgs) -> str:
    return scrubbed(args.exc_value) if args.exc_value is not None else args.exc_type.__name__


def report_errors(dsn: str) -> None:
    """Tell Sentry what is logged as an error (SENTRY_RELEASE names the release there).

    raises  StartupError if its package is not installed or refuses the DSN
    """
    try:
        import sentry_sdk
        from sentry_sdk.utils import BadDsn
    except ImportError as exc:
        raise StartupError("SENTRY_DSN is set, and sentry-sdk is not installed: install .[sentry]") from exc
    try:
        sentry_sdk.init(
            dsn,
            before_send=_scrub,
            default_integrations=False,
            integrations=[_logging_integration()],
            include_local_variables=False,
            include_source_context=False,
            max_breadcrumbs=0,
            server_name="",
        )
    except BadDsn as exc:
        raise StartupError("SENTRY_DSN is no address of Sentry's") from exc


def _logging_integration() -> Any:
    from sentry_sdk.integrations.logging import LoggingIntegration

    return LoggingIntegration(level=None, event_level=logging.ERROR)


def _scrub(event: Any, hint: Any) -> Any:
    """The line of the log and nothing else: an allow-list, so that what a later sentry-sdk adds is not sent either."""
    kept = {
        name: event[name]
        for name in ("event_id", "timestamp", "level", "logger", "release", "platform")
        if name in event
    }
    message = _message(hint["log_record"])
    return kept | {"message": message, "tags": {"job_id": JOB_ID.get() or ""}}
