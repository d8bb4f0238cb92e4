"""Objects as files of a folder: what `bucket/tenant_id/name` names lies at that very path below it."""

import io
import os
import re
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from storage.local.database import translated

_SEGMENT = r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}"
_PATH = re.compile(rf"(audio|voices|tts-cache)/{_SEGMENT}/{_SEGMENT}")


class ObjectFolder:
    """Blocking: call it from a thread. Every path is checked before the disk is touched.

    raises  ValueError for anything but `bucket/tenant_id/name`; StoreUnavailable if the disk fails
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, path: str, data: bytes | Path) -> None:
        file = self._file(path)
        with _opened(data) as source, translated():
            make_private_folder(file.parent)
            write_whole(file, source)

    def get(self, path: str) -> bytes:
        """raises KeyError if there is none"""
        file = self._file(path)
        with translated():
            try:
                return file.read_bytes()
            except FileNotFoundError as exc:
                raise KeyError(path) from exc

    def url(self, path: str) -> str:
        """A file: URL. raises KeyError if there is none"""
        file = self._file(path)
        if not file.is_file():
            raise KeyError(path)
        return file.as_uri()

    def delete(self, path: str) -> None:
        file = self._file(path)
        with translated():
            file.unlink(missing_ok=True)

    def _file(self, path: str) -> Path:
        if _PATH.fullmatch(path) is None:
            raise ValueError(f"not a path of an object (bucket/tenant_id/name): {path!r}")
        return self._root / path


def make_private_folder(folder: Path) -> None:
    """Make a folder and what is missing above it, each with mode 0700; those that are there stay as they are."""
    if not folder.is_dir():
        make_private_folder(folder.parent)
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)


def write_whole(file: Path, source: BinaryIO) -> None:
    """Put a file of mode 0600 in place, or leave what was there: no reader or power cut sees a part of it."""
    # Names of objects do not begin with a dot, so what a killed process leaves behind is never taken for one.
    descriptor, unfinished = tempfile.mkstemp(prefix=".", dir=file.parent)
    try:
        with open(descriptor, "wb") as target:
            shutil.copyfileobj(source, target)
            target.flush()
            os.fsync(target.fileno())
        os.replace(unfinished, file)
    except BaseException:
        os.unlink(unfinished)
        raise
    _sync_names(file.parent)


def _sync_names(folder: Path) -> None:
    """Make a rename outlast a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _opened(data: bytes | Path) -> BinaryIO:
    return io.BytesIO(data) if isinstance(data, bytes) else data.open("rb")
