"""What leaves a worker by its log and by Sentry: our own words, and nothing of a caller's."""

import gzip
import importlib
import json
import logging
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import sentry_sdk

from tts_core import logs
from tts_core.errors import StartupError

UNPACK: dict[str | None, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "br": lambda data: importlib.import_module("brotli").decompress(data),
}
"""sentry-sdk takes the second where that package is installed."""

SECRET = "said in confidence"


@pytest.fixture
def record() -> logging.LogRecord:
    try:
        raise ValueError(SECRET)
    except ValueError as exc:
        fault = (ValueError, exc, exc.__traceback__)
    return logging.LogRecord("tts_core.x", logging.ERROR, "/a/path.py", 1, "went %s", ("wrong",), fault)


def test_a_line_has_the_shape_of_the_sdk_and_quotes_no_exception(record: logging.LogRecord) -> None:
    record.fields = {"outcome": "failed"}
    token = logs.JOB_ID.set("job-7")
    line = json.loads(logs.JsonLines().format(record))
    logs.JOB_ID.reset(token)
    assert (line["requestId"], line["message"], line["level"]) == ("job-7", "went wrong", "ERROR")
    assert line["outcome"] == "failed"
    assert line["fault"].startswith("ValueError at test_logs.py:")
    assert SECRET not in json.dumps(line)


def test_what_asyncio_quotes_of_a_task_is_left_out() -> None:
    said = f"Task exception was never retrieved\nfuture: <Task exception=ValueError('{SECRET}')>"
    record = logging.LogRecord("asyncio", logging.ERROR, "/a/path.py", 1, said, (), None)
    assert json.loads(logs.JsonLines().format(record))["message"] == "Task exception was never retrieved"


def test_people_read_fields_behind_the_message(record: logging.LogRecord) -> None:
    record.fields = {"outcome": "failed", "error": None}
    assert logs.PlainLines().format(record) == "ERROR tts_core.x went wrong outcome=failed"


@pytest.fixture
def sentry() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A DSN of a server on loopback, and the events it is sent."""
    events: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            lines = UNPACK[self.headers["Content-Encoding"]](body).splitlines()
            events.extend(event for event in map(json.loads, lines) if "event_id" in event and "level" in event)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://public@127.0.0.1:{server.server_port}/1", events
        server.shutdown()
        thread.join()
        sentry_sdk.get_client().close()


def test_sentry_is_told_the_line_and_nothing_else(
    sentry: tuple[str, list[dict[str, Any]]], record: logging.LogRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    dsn, events = sentry
    monkeypatch.setenv("SENTRY_RELEASE", "1.2.3")
    logs.report_errors(dsn)
    token = logs.JOB_ID.set("job-7")
    log = logging.getLogger("tts_core.x")
    log.info("an ordinary line")
    log.error("went %s", "wrong", exc_info=record.exc_info, extra={"fields": {"outcome": "failed"}, "text": SECRET})
    logs.JOB_ID.reset(token)
    sentry_sdk.flush(timeout=30)
    (event,) = events
    assert event["message"] == "went wrong"
    assert (event["level"], event["logger"], event["release"]) == ("error", "tts_core.x", "1.2.3")
    assert event["tags"] == {"job_id": "job-7"}
    assert event.keys() <= {"event_id", "timestamp", "level", "logger", "release", "platform", "message", "tags"}


def test_an_address_that_is_none_is_a_startup_error() -> None:
    with pytest.raises(StartupError, match="SENTRY_DSN") as told:
        logs.report_errors(f"no address, {SECRET}")
    assert SECRET not in str(told.value)
