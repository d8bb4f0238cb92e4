"""The journal of a batch: DIR/manifest.jsonl, one line for each change of a line's state, on the disk before it counts.

Append-only: a crash can cut the last line short, which the next run drops, and nothing else. It holds names, sizes,
job ids and error codes; no text and no key of a tenant.
"""

import fcntl
import json
import os
import time
import uuid
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

NAME = "manifest.jsonl"
VERSION = 1

Record = dict[str, Any]


class ManifestUnusable(Exception):
    """Another run works in this folder, or its manifest is none of ours."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What the journal knows of one key.

    renewals      how often the key had to be changed, because its result had been thrown away meanwhile
    job_id        of the RunPod job that was on its way last
    execution_ms  what RunPod billed for the line, all attempts together
    """

    state: str = "new"
    renewals: int = 0
    job_id: str | None = None
    file: str | None = None
    size_bytes: int = 0
    sha256: str = ""
    audio_seconds: float = 0.0
    execution_ms: int = 0

    def after(self, record: Record) -> "Entry":
        """This entry once the record has happened."""
        spent_ms = self.execution_ms + record.get("execution_ms", 0)
        known = {name: record[name] for name in record.keys() & _KEPT}
        return replace(self, **known, job_id=record.get("job_id"), execution_ms=spent_ms)


_KEPT = {"state", "renewals", "file", "size_bytes", "sha256", "audio_seconds"}


class Manifest:
    """The open journal of one folder, locked until it is closed or its process is gone. One thread writes it."""

    def __init__(self, fd: int, batch_id: str, entries: Mapping[str, Entry]) -> None:
        self.batch_id = batch_id
        self._fd = fd
        self._entries = dict(entries)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="manifest")

    @classmethod
    def open(cls, folder: Path) -> Self:
        """raises  ManifestUnusable; OSError"""
        fd = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            records, whole_bytes = parsed((folder / NAME).read_bytes())
            os.ftruncate(fd, whole_bytes)
            made = cls(fd, _batch_id(records), folded(records[1:]))
            if not records:
                made._write({"batch": made.batch_id, "version": VERSION})
                _sync_folder(folder)
        except BlockingIOError as exc:
            os.close(fd)
            raise ManifestUnusable(f"{folder}: another batch is running there") from exc
        except BaseException:
            os.close(fd)
            raise
        return made

    def __getitem__(self, key: str) -> Entry:
        return self._entries.get(key, Entry())

    def note(self, key: str, state: str, **details: object) -> "Future[None]":
        """Write down that a line's state is this now: on the disk once the future is done, which may raise OSError."""
        return self._thread.submit(self._note, {"key": key, "state": state} | details)

    def close(self) -> None:
        """Once all that was noted is on the disk."""
        self._thread.shutdown()
        os.close(self._fd)

    def _note(self, record: Record) -> None:
        self._write(record)
        key = record["key"]
        self._entries[key] = self[key].after(record)

    def _write(self, record: Record) -> None:
        """The whole line or nothing of it: what follows half a line would be lost along with it. raises OSError"""
        whole_bytes = os.fstat(self._fd).st_size
        line = memoryview((json.dumps({"at": round(time.time(), 3)} | record) + "\n").encode())
        try:
            while line:
                line = line[os.write(self._fd, line) :]
            os.fsync(self._fd)
        except OSError:
            os.ftruncate(self._fd, whole_bytes)
            raise


def parsed(data: bytes) -> tuple[list[Record], int]:
    """The records of all whole lines, and how many bytes those are.

    raises  ManifestUnusable for a whole line that is no record: not a crash, but another hand wrote it
    """
    whole_bytes = data.rfind(b"\n") + 1
    records = [_record(number, line) for number, line in enumerate(data[:whole_bytes].splitlines(), start=1)]
    return records, whole_bytes


def folded(records: Iterable[Record]) -> dict[str, Entry]:
    """What the records come to, by key."""
    entries: dict[str, Entry] = {}
    for record in records:
        key = record["key"]
        entries[key] = entries.get(key, Entry()).after(record)
    return entries


def _record(number: int, line: bytes) -> Record:
    try:
        record = json.loads(line)
    except ValueError as exc:
        raise ManifestUnusable(f"{NAME}: line {number} is no JSON") from exc
    expected = {"batch", "version"} if number == 1 else {"key", "state"}
    if not isinstance(record, dict) or not expected <= record.keys():
        raise ManifestUnusable(f"{NAME}: line {number} is none of a batch")
    return record


def _batch_id(records: list[Record]) -> str:
    if not records:
        return str(uuid.uuid4())
    if records[0]["version"] != VERSION:
        raise ManifestUnusable(f"{NAME}: is of version {records[0]['version']!r}, this program knows {VERSION}")
    return str(records[0]["batch"])


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
