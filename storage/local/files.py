"""Objects as files of a folder: what `bucket/tenant_id/name` names lies at that very path below it."""

import io
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from storage.local.database import translated
from storage.paths import BUCKETS, checked, checked_tenant


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

    def delete_all(self, tenant_id: str) -> int:
        """Every object of a tenant; how many there were. What a killed process left unfinished goes too."""
        checked_tenant(tenant_id)
        folders = [folder for bucket in BUCKETS if (folder := self._root / bucket / tenant_id).is_dir()]
        with translated():
            names = [file.name for folder in folders for file in folder.rglob("*") if file.is_file()]
            for folder in folders:
                shutil.rmtree(folder)
        return sum(not name.startswith(".") for name in names)

    def _file(self, path: str) -> Path:
        return self._root / checked(path)


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
