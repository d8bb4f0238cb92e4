"""What a request to the Storage half asks for, read from its parts."""

import json
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import UploadFile
from starlette.requests import Request

from tests.supabase_server.callers import Caller
from tests.supabase_server.errors import StorageError
from tests.supabase_server.objects import MAX_OBJECT_BYTES, Address, Upload


@dataclass(frozen=True)
class Ask:
    """caller is the service where a token in the URL, or a public bucket, stands for a key"""

    request: Request
    caller: Caller

    @property
    def bucket_id(self) -> str:
        return str(self.request.path_params["bucket"])

    @property
    def address(self) -> Address:
        return Address(self.bucket_id, self.request.path_params["name"])

    async def json(self) -> dict[str, Any]:
        body: dict[str, Any] = await self.request.json()
        return body

    async def upload(self) -> Upload:
        async with self.request.form(max_part_size=2 * MAX_OBJECT_BYTES) as form:
            file, metadata = form.get("file"), form.get("metadata")
            if not isinstance(file, UploadFile):
                raise StorageError(501, "NotSpoken", "the test server takes only multipart uploads", code="TEST501")
            return Upload(
                content=await file.read(),
                mime_type=file.content_type or "application/octet-stream",
                cache_control=f"max-age={form.get('cacheControl', '3600')}",
                user_metadata=None if metadata is None else json.loads(str(metadata)),
            )

    def range(self, n_bytes: int) -> tuple[int, int] | None:
        """first and end (exclusive) of `bytes=0-99`, `bytes=100-` or `bytes=-100`. raises StorageError"""
        if (asked := self.request.headers.get("range")) is None:
            return None
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start = int(first) if first else max(n_bytes - int(last), 0)
        end = min(int(last) + 1, n_bytes) if first and last else n_bytes
        if start >= end:
            raise StorageError(416, "InvalidRange", "invalid range provided", code="InvalidRange")
        return start, end


def both(asked: dict[str, Any]) -> tuple[Address, Address]:
    source = Address(asked["bucketId"], asked["sourceKey"])
    return source, Address(asked.get("destinationBucket", asked["bucketId"]), asked["destinationKey"])


def seconds(asked: dict[str, Any]) -> int:
    if (lives_s := int(asked["expiresIn"])) < 1:
        raise invalid("body/expiresIn must be >= 1")
    return lives_s


def invalid(message: str) -> StorageError:
    return StorageError(400, "Error", message, code="InvalidRequest")
