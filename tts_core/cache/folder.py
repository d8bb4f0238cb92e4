"""The takes a worker holds on its disk, one file each: a line of JSON, which is the entry, and then the audio."""

import asyncio
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from tts_core.cache.kept import Kept
from tts_core.cache.memory import Place, Size
from tts_core.store import CacheEntry

log = logging.getLogger(__name__)


class FolderLayer:
    """Bounded in bytes, the least recently heard file goes first. Whatever the disk does wrong is a miss.

    What earlier processes left in the folder is found again, in the order of its files' times. `max_bytes` counts
    what this process knows of: two of them in one folder may fill it twice.
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._sizes: OrderedDict[Path, int] | None = None

    async def get(self, place: Place) -> Kept | None:
        sizes, file = await self._scanned(), self._file(place)
        kept = await asyncio.to_thread(_read, file)
        if kept is None or kept.place != place:
            sizes.pop(file, None)
            return None
        sizes.setdefault(file, len(kept.audio))
        sizes.move_to_end(file)
        return kept

    async def put(self, kept: Kept) -> None:
        sizes, file = await self._scanned(), self._file(kept.place)
        data = json.dumps(asdict(kept.entry)).encode() + b"\n" + kept.audio
        if len(data) * 4 > self._max_bytes or not await asyncio.to_thread(_write, file, data):
            return
        sizes[file] = len(data)
        sizes.move_to_end(file)
        while sum(sizes.values()) > self._max_bytes:
            oldest, _ = sizes.popitem(last=False)
            await asyncio.to_thread(oldest.unlink, missing_ok=True)

    async def drop(self, place: Place) -> None:
        sizes, file = await self._scanned(), self._file(place)
        sizes.pop(file, None)
        with suppress(OSError):
            await asyncio.to_thread(file.unlink, missing_ok=True)

    async def drop_pool(self, pool: str) -> None:
        sizes, folder = await self._scanned(), self._of_pool(pool)
        for file in [file for file in sizes if file.parent == folder]:
            del sizes[file]
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def size(self, pool: str) -> Size:
        folder = self._of_pool(pool)
        held = [size for file, size in (await self._scanned()).items() if file.parent == folder]
        return Size(len(held), sum(held))

    async def _scanned(self) -> OrderedDict[Path, int]:
        if self._sizes is None:
            found = await asyncio.to_thread(lambda: OrderedDict(_found(self._folder)))
            if self._sizes is None:  # still: somebody else may have been faster
                self._sizes = found
        return self._sizes

    def _file(self, place: Place) -> Path:
        pool, content_hash = place
        return self._of_pool(pool) / content_hash

    def _of_pool(self, pool: str) -> Path:
        return self._folder / hashlib.sha256(pool.encode()).hexdigest()[:32]


def _found(folder: Path) -> Iterator[tuple[Path, int]]:
    """Whole files with their sizes, the one that was heard longest ago first."""
    with suppress(OSError):
        stats = [(file.stat(), file) for file in folder.glob("*/*") if not file.name.startswith(".")]
        yield from ((file, stat.st_size) for stat, file in sorted(stats, key=lambda found: found[0].st_mtime))


def _read(file: Path) -> Kept | None:
    try:
        head, _, audio = file.read_bytes().partition(b"\n")
        os.utime(file)
        entry = CacheEntry(**json.loads(head))
    except (OSError, ValueError, TypeError):  # no file, half a file, a file of another version
        return None
    return Kept(entry, audio) if len(audio) == entry.audio_file_size else None


def _make_private(folder: Path) -> None:
    """With what is missing above it; `mkdir(parents=True)` would let everybody look into those."""
    if not folder.is_dir():
        _make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def _write(file: Path, data: bytes) -> bool:
    """Whole or not at all; without fsync, for what a power cut takes is still in the store."""
    unfinished = None
    try:
        _make_private(file.parent)
        descriptor, unfinished = tempfile.mkstemp(prefix=".", dir=file.parent)
        with open(descriptor, "wb") as target:
            target.write(data)
        os.replace(unfinished, file)
    except OSError as exc:
        log.warning("the cache folder took nothing: %s", type(exc).__name__)
        if unfinished is not None:
            with suppress(OSError):
                os.unlink(unfinished)
        return False
    return True
