"""What every area of the local store works on."""

from collections.abc import Callable
from pathlib import Path

from storage.local.database import Database
from storage.local.files import ObjectFolder

Clock = Callable[[], float]
"""Seconds since 1970."""


class LocalArea:
    """Base of the areas, which `LocalStore` joins: they share one of each of these."""

    def __init__(self, folder: Path, *, database: Database, clock: Clock, operator_key: bytes | None) -> None:
        self._folder = folder
        self._database = database
        self._objects = ObjectFolder(folder / "objects")
        self._clock = clock
        self._operator_key = operator_key
