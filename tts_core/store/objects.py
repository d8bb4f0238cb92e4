"""Files: clips and audio."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class SignedUrl:
    """expires_at: UTC, ISO 8601; None where the address does not expire (a file: URL)."""

    url: str
    expires_at: str | None


class Objects(Protocol):
    """Paths are `bucket/tenant_id/name`, with up to four folders in the name; others are refused with ValueError."""

    async def put_object(self, path: str, data: bytes | Path, *, content_type: str) -> None:
        """Store bytes, or a copy of a file; an object of this name is replaced whole, never seen half."""

    async def get_object(self, path: str) -> bytes:
        """raises KeyError if there is none"""

    async def object_url(self, path: str) -> SignedUrl: ...

    async def delete_object(self, path: str) -> None:
        """No error if there is none."""
