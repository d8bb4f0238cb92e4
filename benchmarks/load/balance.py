"""Do the store's rows and the platform's books say the same? Read as raw SQL: nothing of the worker is asked.

What must hold once all is quiet: no request runs, so nothing is held; each attempt has one usage row, and the
attempts of a request are 1, 2, 3, …; what was charged is what the usage rows add up to; and what a client was told
is what its request's row says.
"""

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

Row = Mapping[str, Any]

QUERIES = {
    "requests": """select request_id, identity, status, fence, held_s, audio_seconds, cached, created_at, settled_at
        from requests""",
    "usage": "select request_id, fence, status, audio_seconds, cached from usage_logs",
    "used": "select used_s from quota_used where period = 'total'",
    "daily": "select requests, audio_seconds from usage_daily",
}

ROUNDING_S = 1e-3
"""Of what a result tells; sums are exact to much less."""


@dataclass(frozen=True, slots=True)
class Tables:
    requests: Sequence[Row]
    usage: Sequence[Row]
    used: Sequence[Row]
    daily: Sequence[Row]

    @property
    def held_s(self) -> float:
        return sum(float(row["held_s"]) for row in self.requests if row["status"] == "running")

    @property
    def running(self) -> int:
        return sum(row["status"] == "running" for row in self.requests)

    def settled_s(self) -> Mapping[str, float]:
        """By identity: from the first reservation of a request to its last settlement."""
        settled = [row for row in self.requests if row["settled_at"] is not None]
        return {
            row["identity"]: (_moment(row["settled_at"]) - _moment(row["created_at"])).total_seconds()
            for row in settled
        }


def _moment(told: str | datetime) -> datetime:
    return told if isinstance(told, datetime) else datetime.fromisoformat(told)


@dataclass(frozen=True, slots=True)
class Told:
    """What a client was told of its job: seconds of audio, None if it was told no success."""

    audio_seconds: float | None


def read_sqlite(path: Path) -> Tables:
    with closing(sqlite3.connect(path)) as database:
        database.row_factory = sqlite3.Row
        return Tables(**{name: [dict(row) for row in database.execute(query)] for name, query in QUERIES.items()})


def read_postgres(url: str) -> Tables:
    """url  of libpq, as a role that no policy binds"""
    with psycopg.connect(url, row_factory=dict_row) as database:
        return Tables(**{name: database.execute(query.encode()).fetchall() for name, query in QUERIES.items()})


def discrepancies(tables: Tables, told: Mapping[str, Told]) -> Sequence[str]:
    """What does not agree, in words. told: all jobs of the platform, by their ids"""
    usage = defaultdict(list)
    for row in tables.usage:
        usage[row["request_id"]].append(row)
    return [
        *(wrong for request in tables.requests for wrong in _of_request(request, usage.pop(request["request_id"], []))),
        *(f"{request_id}: usage rows without a request" for request_id in usage),
        *_of_sums(tables),
        *_of_told({row["identity"]: row for row in tables.requests}, told),
    ]


def _of_request(request: Row, usage: Sequence[Row]) -> Iterator[str]:
    name = request["request_id"]
    if request["status"] == "running":
        yield f"{name}: still runs, and holds {request['held_s']} s"
    attempts = request["fence"] - (request["status"] == "running")
    if sorted(row["fence"] for row in usage) != list(range(1, attempts + 1)):
        yield f"{name}: {attempts} attempts have ended, with usage rows of {[row['fence'] for row in usage]}"
    if Counter(row["status"] for row in usage)["success"] > 1:
        yield f"{name}: charged as a success more than once"
    last = next((row for row in usage if row["fence"] == request["fence"]), None)
    if last is not None and any(last[each] != request[each] for each in ("status", "audio_seconds", "cached")):
        yield f"{name}: the last usage row says otherwise than the request"


def _of_sums(tables: Tables) -> Iterator[str]:
    spoken_s = sum(row["audio_seconds"] for row in tables.usage if not row["cached"])
    charged_s = sum(row["used_s"] for row in tables.used)
    if abs(spoken_s - charged_s) > ROUNDING_S:
        yield f"usage rows come to {spoken_s:.6f} s, and {charged_s:.6f} s were charged"
    days = sum(row["requests"] for row in tables.daily), sum(row["audio_seconds"] for row in tables.daily)
    if days[0] != len(tables.usage) or abs(days[1] - sum(row["audio_seconds"] for row in tables.usage)) > ROUNDING_S:
        yield f"days come to {days[0]} requests and {days[1]:.6f} s, which usage rows do not"


def _of_told(requests: Mapping[str, Row], told: Mapping[str, Told]) -> Iterator[str]:
    for job_id, each in told.items():
        request = requests.get(f"job:{job_id}")
        if each.audio_seconds is None:
            continue
        if request is None or request["status"] != "success":
            yield f"{job_id}: was told a success that no request has"
        elif abs(request["audio_seconds"] - each.audio_seconds) > ROUNDING_S:
            yield f"{job_id}: was told {each.audio_seconds} s, and its row says {request['audio_seconds']} s"
    for identity in requests.keys() - {f"job:{job_id}" for job_id in told}:
        yield f"{identity}: a request of no job"
