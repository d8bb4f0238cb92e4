"""Audio on its way to the disk: the whole file under its name, or nothing."""

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from typing import Self

from tts_core.audio.encode import seal
from tts_core.types import AudioFormat

ALIGNMENTS = ".alignments.json"
"""Ends the name of what lies beside the audio."""


@dataclass(frozen=True, slots=True)
class Whole:
    """What was written, as the manifest remembers it."""

    size_bytes: int
    sha256: str


class Part:
    """A file that is being written beside the place it will have; one that a crash left is overwritten."""

    def __init__(self, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        self._target = target
        self._path = target.with_name(f".{target.name}.part")
        self._file: BufferedRandom = self._path.open("w+b")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()
        with suppress(FileNotFoundError):  # it has its name
            self._path.unlink()

    @property
    def size_bytes(self) -> int:
        return self._file.tell()

    def write(self, data: bytes) -> None:
        self._file.write(data)

    def clear(self) -> None:
        self._file.seek(0)
        self._file.truncate()

    def beside(self, ending: str, data: bytes) -> None:
        """Another file of the same line; whole or not there, too."""
        path = _beside(self._target, ending)
        rest = path.with_name(f".{path.name}.part")
        rest.write_bytes(data)
        rest.replace(path)

    def finish(self, format: AudioFormat) -> Whole:
        """Give the file its name, once it is on the disk; a stream's header could not know its size."""
        seal(self._file, format)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.seek(0)
        digest = hashlib.file_digest(self._file, "sha256").hexdigest()
        whole = Whole(self._file.tell(), digest)
        self._path.replace(self._target)
        return whole


def move(old: Path, new: Path) -> None:
    """Another name for a file; what lies beside it goes first, as after a crash only a file that is there is moved."""
    new.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        _beside(old, ALIGNMENTS).rename(_beside(new, ALIGNMENTS))
    old.rename(new)


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def is_whole(path: Path, whole: Whole) -> bool:
    """Whether this very file is still there."""
    try:
        if path.stat().st_size != whole.size_bytes:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == whole.sha256
    except OSError:
        return False
