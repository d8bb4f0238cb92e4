"""Rows of storage.buckets, as the caller; what is said about a bucket is what the real server says."""

from datetime import UTC, datetime
from typing import Any

from psycopg.rows import DictRow

from tests.supabase_server.callers import SERVICE, Caller
from tests.supabase_server.errors import StorageError
from tests.supabase_server.transactions import Transactions

UPDATABLE = ("public", "file_size_limit", "allowed_mime_types")


class Buckets:
    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    async def limits(self, bucket_id: str) -> DictRow:
        """The row, whoever asks: what may be uploaded does not depend on who may see the bucket. raises StorageError"""
        return await self._get(SERVICE, bucket_id)

    async def get(self, caller: Caller, bucket_id: str) -> dict[str, Any]:
        return bucket_body(await self._get(caller, bucket_id))

    async def list(self, caller: Caller) -> list[dict[str, Any]]:
        async with self._transactions.begin(caller, read_only=True) as connection:
            cursor = await connection.execute("select * from storage.buckets order by id")
            return [bucket_body(row) for row in await cursor.fetchall()]

    async def create(self, caller: Caller, asked: dict[str, Any]) -> dict[str, Any]:
        values = [asked["id"], asked.get("name") or asked["id"], asked.get("public", False)]
        async with self._transactions.begin(caller) as connection:
            await connection.execute(
                """insert into storage.buckets (id, name, public, file_size_limit, allowed_mime_types, owner_id)
                   values (%s, %s, %s, %s, %s, %s)""",
                [*values, asked.get("file_size_limit"), asked.get("allowed_mime_types"), caller.claims.get("sub")],
            )
        return {"name": asked["id"]}

    async def update(self, caller: Caller, bucket_id: str, asked: dict[str, Any]) -> dict[str, Any]:
        before = await self._get(caller, bucket_id)
        async with self._transactions.begin(caller) as connection:
            await connection.execute(
                """update storage.buckets
                   set public = %s, file_size_limit = %s, allowed_mime_types = %s, updated_at = now() where id = %s""",
                [*[asked.get(name, before[name]) for name in UPDATABLE], bucket_id],
            )
        return {"message": "Successfully updated"}

    async def delete(self, caller: Caller, bucket_id: str) -> dict[str, Any]:
        await self._get(caller, bucket_id)
        async with self._transactions.begin(SERVICE, read_only=True) as connection:
            cursor = await connection.execute("select from storage.objects where bucket_id = %s limit 1", [bucket_id])
            if cursor.rowcount:
                message = "The bucket you tried to delete is not empty"
                raise StorageError(409, "ResourceNotEmpty", message, code="ResourceNotEmpty")
        async with self._transactions.begin(caller) as connection:
            await connection.execute("set local storage.allow_delete_query = 'true'")
            await connection.execute("delete from storage.buckets where id = %s", [bucket_id])
        return {"message": "Successfully deleted"}

    async def _get(self, caller: Caller, bucket_id: str) -> DictRow:
        async with self._transactions.begin(caller, read_only=True) as connection:
            cursor = await connection.execute("select * from storage.buckets where id = %s", [bucket_id])
            if (row := await cursor.fetchone()) is None:
                raise StorageError(404, "Bucket not found", "Bucket not found", code="NoSuchBucket")
            return row


def bucket_body(row: DictRow) -> dict[str, Any]:
    return {
        "id": row["id"],
        "name": row["name"],
        "owner": row["owner_id"] or "",
        "public": row["public"],
        "file_size_limit": row["file_size_limit"],
        "allowed_mime_types": row["allowed_mime_types"],
        "created_at": iso(row["created_at"]),
        "updated_at": iso(row["updated_at"]),
    }


def iso(moment: datetime) -> str:
    """As JavaScript writes it: milliseconds, and Z."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
