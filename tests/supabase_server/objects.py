"""Rows of storage.objects, as the caller, and their bytes in a folder, one file for each version."""

import hashlib
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from psycopg.rows import DictRow
from psycopg.sql import SQL, Identifier
from psycopg.types.json import Jsonb

from tests.supabase_server.buckets import Buckets, iso
from tests.supabase_server.callers import SERVICE, Caller
from tests.supabase_server.errors import StorageError
from tests.supabase_server.transactions import Connection, Transactions

KEY = re.compile(r"[\w/!\-.*'() &$@=;:+,?]+", re.ASCII)
MAX_OBJECT_BYTES = 50 * 1024 * 1024
"""A hosted project's default."""

INSERT = """
    insert into storage.objects (bucket_id, name, owner_id, version, metadata, user_metadata)
    values (%(bucket_id)s, %(name)s, %(owner_id)s, %(version)s, %(metadata)s, %(user_metadata)s)
"""
UPSERT = f"""
    {INSERT} on conflict (bucket_id, name) do update set owner_id = excluded.owner_id, version = excluded.version,
        metadata = excluded.metadata, user_metadata = excluded.user_metadata, updated_at = now()
"""
FIND = "select * from storage.objects where bucket_id = %s and name = %s"


@dataclass(frozen=True)
class Address:
    """raises StorageError if the key has characters that the real server refuses"""

    bucket_id: str
    name: str

    def __post_init__(self) -> None:
        if not KEY.fullmatch(self.name):
            raise StorageError(400, "InvalidKey", f"Invalid key: {self.name}", code="InvalidKey")

    def __str__(self) -> str:
        return f"{self.bucket_id}/{self.name}"


@dataclass(frozen=True)
class Upload:
    content: bytes
    mime_type: str
    cache_control: str
    user_metadata: dict[str, Any] | None

    def check(self, bucket: DictRow) -> None:
        """raises StorageError"""
        allowed = bucket["allowed_mime_types"] or ["*/*"]
        if not any(re.fullmatch(re.escape(one).replace(r"\*", ".*"), self.mime_type) for one in allowed):
            message = f"mime type {self.mime_type} is not supported"
            raise StorageError(415, "invalid_mime_type", message, code="InvalidMimeType")
        if len(self.content) > min(bucket["file_size_limit"] or MAX_OBJECT_BYTES, MAX_OBJECT_BYTES):
            message = "The object exceeded the maximum allowed size"
            raise StorageError(413, "Payload too large", message, code="EntityTooLarge")

    def metadata(self) -> dict[str, Any]:
        return {
            "eTag": f'"{hashlib.md5(self.content).hexdigest()}"',
            "size": len(self.content),
            "mimetype": self.mime_type,
            "cacheControl": self.cache_control,
            "lastModified": iso(datetime.now(UTC)),
            "contentLength": len(self.content),
            "httpStatusCode": 200,
        }


class Objects:
    def __init__(self, transactions: Transactions, *, folder: Path) -> None:
        self._transactions = transactions
        self._buckets = Buckets(transactions)
        self._folder = folder

    def content(self, row: DictRow) -> bytes:
        """A version that is replaced keeps its bytes, for who reads it just then. raises StorageError if removed"""
        try:
            return (self._folder / str(row["version"])).read_bytes()
        except FileNotFoundError as error:
            raise _not_found() from error

    async def find(self, caller: Caller, address: Address) -> DictRow:
        """The row. raises StorageError if there is none that the caller may see"""
        await self._buckets.limits(address.bucket_id)
        async with self._transactions.begin(caller, read_only=True) as connection:
            row = await _find(connection, address)
        if row is None:
            raise _not_found()
        return row

    async def rehearse(self, caller: Caller, address: Address, *, upsert: bool) -> None:
        """Whether the caller may put an object there. raises psycopg.Error if not"""
        values = _values(caller, address, metadata=None, user_metadata=None)
        async with self._transactions.begin(caller, rehearsal=True) as connection:
            await connection.execute((UPSERT if upsert else INSERT).encode(), values)

    async def put(self, caller: Caller, address: Address, upload: Upload, *, upsert: bool) -> DictRow:
        """The new row.

        The caller's own write is only rehearsed, so two uploads that both may not replace can both succeed; as the
        real server has it.
        """
        upload.check(await self._buckets.limits(address.bucket_id))
        await self.rehearse(caller, address, upsert=upsert)
        values = _values(caller, address, metadata=upload.metadata(), user_metadata=upload.user_metadata)
        return await self._store(address, upload.content, values)

    async def copy(self, caller: Caller, source: Address, target: Address) -> DictRow:
        row = await self.find(caller, source)
        await self.rehearse(caller, target, upsert=False)
        values = _values(caller, target, metadata=row["metadata"], user_metadata=row["user_metadata"])
        return await self._store(target, self.content(row), values)

    async def move(self, caller: Caller, source: Address, target: Address) -> None:
        await self.find(caller, source)
        async with self._transactions.begin(caller) as connection:
            await connection.execute(
                """update storage.objects set bucket_id = %s, name = %s, updated_at = now()
                   where bucket_id = %s and name = %s""",
                [target.bucket_id, target.name, source.bucket_id, source.name],
            )

    async def remove(self, caller: Caller, bucket_id: str, names: Sequence[str] | None) -> list[DictRow]:
        """Those that were there and that the caller may delete; None: all of the bucket's."""
        async with self._transactions.begin(caller) as connection:
            await connection.execute("set local storage.allow_delete_query = 'true'")
            cursor = await connection.execute(
                """delete from storage.objects where bucket_id = %s and name = any(coalesce(%s, array[name]))
                   returning *""",
                [bucket_id, None if names is None else list(names)],
            )
            rows = await cursor.fetchall()
        for row in rows:
            (self._folder / str(row["version"])).unlink()
        return sorted(rows, key=lambda row: str(row["name"]))

    async def list(self, caller: Caller, bucket_id: str, asked: dict[str, Any]) -> list[dict[str, Any]]:
        """Folders by name, then objects as asked; names are those inside the folder `prefix`."""
        prefix = f"{asked['prefix'].strip('/')}/".removeprefix("/")
        sort_by = asked["sortBy"]
        query = SQL("""
            select *, substr(name, length({prefix}) + 1) as relative from storage.objects
            where bucket_id = {bucket} and starts_with(name, {prefix})
              and starts_with(lower(substr(name, length({prefix}) + 1)), lower({search}))
            order by {column} {way}
        """).format(
            prefix=prefix,
            bucket=bucket_id,
            search=asked.get("search", ""),
            column=Identifier(sort_by["column"]),
            way=SQL("desc" if sort_by["order"] == "desc" else "asc"),
        )
        async with self._transactions.begin(caller, read_only=True) as connection:
            rows = await (await connection.execute(query)).fetchall()
        folders = sorted({row["relative"].partition("/")[0] for row in rows if "/" in row["relative"]})
        items = [_listed(None, name) for name in folders]
        items += [_listed(row, row["relative"]) for row in rows if "/" not in row["relative"]]
        return items[asked["offset"] : asked["offset"] + asked["limit"]]

    async def _store(self, address: Address, content: bytes, values: dict[str, Any]) -> DictRow:
        (self._folder / values["version"]).write_bytes(content)
        async with self._transactions.begin(SERVICE) as connection:
            await connection.execute(UPSERT.encode(), values)
            row = await _find(connection, address)
            assert row is not None
        return row


def _values(caller: Caller, address: Address, **metadata: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "bucket_id": address.bucket_id,
        "name": address.name,
        "owner_id": caller.claims.get("sub"),
        "version": str(uuid.uuid4()),
        **{name: value and Jsonb(value) for name, value in metadata.items()},
    }


def _not_found() -> StorageError:
    return StorageError(404, "not_found", "Object not found", code="NoSuchKey")


async def _find(connection: Connection, address: Address) -> DictRow | None:
    cursor = await connection.execute(FIND, [address.bucket_id, address.name])
    return await cursor.fetchone()


def object_body(row: DictRow) -> dict[str, Any]:
    """Of a copy or a removed object."""
    return {
        "name": row["name"],
        "bucket_id": row["bucket_id"],
        "owner": row["owner_id"] or "",
        "owner_id": row["owner_id"] or "",
        "version": row["version"],
        "id": str(row["id"]),
        "updated_at": iso(row["updated_at"]),
        "created_at": iso(row["created_at"]),
        "last_accessed_at": iso(row["last_accessed_at"]),
        "metadata": row["metadata"],
        "user_metadata": row["user_metadata"],
    }


def info_body(row: DictRow) -> dict[str, Any]:
    metadata = row["metadata"]
    return {
        "id": str(row["id"]),
        "name": row["name"],
        "version": row["version"],
        "bucket_id": row["bucket_id"],
        "size": metadata["size"],
        "content_type": metadata["mimetype"],
        "cache_control": metadata["cacheControl"],
        "etag": metadata["eTag"],
        "metadata": row["user_metadata"] or {},
        "last_modified": metadata["lastModified"],
        "created_at": iso(row["created_at"]),
    }


def _listed(row: DictRow | None, name: str) -> dict[str, Any]:
    """row  None for a folder"""
    moments = ("updated_at", "created_at", "last_accessed_at")
    return {
        "name": name,
        "id": row and str(row["id"]),
        **{moment: row and iso(row[moment]) for moment in moments},
        "metadata": row and row["metadata"],
    }
