"""The Storage half: its routes, and how a request becomes an answer."""

from collections.abc import Awaitable, Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import jwt
import psycopg
from psycopg.rows import DictRow
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.supabase_server.asks import Ask, both, invalid, seconds
from tests.supabase_server.buckets import Buckets
from tests.supabase_server.callers import SERVICE, Keys
from tests.supabase_server.errors import RestError, StorageError, storage_error, storage_json
from tests.supabase_server.objects import Address, Objects, info_body, object_body
from tests.supabase_server.transactions import Transactions

SIGNED_UPLOAD_S = 60
ABSENT = "Either the object does not exist or you do not have access to it"


Endpoint = Callable[[Ask], Awaitable[Response]]


class Storage:
    def __init__(self, transactions: Transactions, keys: Keys, *, folder: Path) -> None:
        self._keys = keys
        self._buckets = Buckets(transactions)
        self._objects = Objects(transactions, folder=folder)

    def routes(self) -> list[Route]:
        """The most specific first: a bucket may be called anything."""
        return [
            self._route("GET", "/bucket", self._list_buckets),
            self._route("POST", "/bucket", self._create_bucket),
            self._route("GET", "/bucket/{bucket}", self._get_bucket),
            self._route("PUT", "/bucket/{bucket}", self._update_bucket),
            self._route("DELETE", "/bucket/{bucket}", self._delete_bucket),
            self._route("POST", "/bucket/{bucket}/empty", self._empty_bucket),
            self._route("POST", "/object/list/{bucket}", self._list),
            self._route("POST", "/object/move", self._move),
            self._route("POST", "/object/copy", self._copy),
            self._route("POST", "/object/upload/sign/{bucket}/{name:path}", self._sign_upload),
            self._route("PUT", "/object/upload/sign/{bucket}/{name:path}", self._upload_signed, open=True),
            self._route("POST", "/object/sign/{bucket}", self._sign_many),
            self._route("POST", "/object/sign/{bucket}/{name:path}", self._sign),
            self._route("GET", "/object/sign/{bucket}/{name:path}", self._download_signed, open=True),
            self._route("GET", "/object/public/{bucket}/{name:path}", self._download_public, open=True),
            self._route("GET", "/object/info/{bucket}/{name:path}", self._info),
            self._route("DELETE", "/object/{bucket}", self._remove),
            self._route("GET", "/object/{bucket}/{name:path}", self._download),
            self._route("POST", "/object/{bucket}/{name:path}", self._upload),
            self._route("PUT", "/object/{bucket}/{name:path}", self._upload),
        ]

    def _route(self, method: str, path: str, endpoint: Endpoint, *, open: bool = False) -> Route:
        async def answer(request: Request) -> Response:
            try:
                caller = SERVICE if open else self._keys.identify(request.headers)
                return await endpoint(Ask(request, caller))
            except RestError as error:
                return StorageError(403, "Unauthorized", str(error), code="AccessDenied").response()
            except StorageError as error:
                return error.response()
            except psycopg.Error as error:
                return storage_error(error).response()

        return Route(f"/storage/v1{path}", answer, methods=[method])

    async def _list_buckets(self, ask: Ask) -> Response:
        return storage_json(await self._buckets.list(ask.caller))

    async def _create_bucket(self, ask: Ask) -> Response:
        try:
            return storage_json(await self._buckets.create(ask.caller, await ask.json()))
        except psycopg.errors.UniqueViolation as error:
            message = "The resource already exists"
            raise StorageError(409, "Duplicate", message, code="BucketAlreadyExists") from error

    async def _get_bucket(self, ask: Ask) -> Response:
        return storage_json(await self._buckets.get(ask.caller, ask.bucket_id))

    async def _update_bucket(self, ask: Ask) -> Response:
        return storage_json(await self._buckets.update(ask.caller, ask.bucket_id, await ask.json()))

    async def _delete_bucket(self, ask: Ask) -> Response:
        return storage_json(await self._buckets.delete(ask.caller, ask.bucket_id))

    async def _empty_bucket(self, ask: Ask) -> Response:
        await self._buckets.get(ask.caller, ask.bucket_id)
        await self._objects.remove(ask.caller, ask.bucket_id, None)
        return storage_json({"message": "Successfully emptied"})

    async def _list(self, ask: Ask) -> Response:
        return storage_json(await self._objects.list(ask.caller, ask.bucket_id, await ask.json()))

    async def _move(self, ask: Ask) -> Response:
        await self._objects.move(ask.caller, *both(await ask.json()))
        return storage_json({"message": "Successfully moved"})

    async def _copy(self, ask: Ask) -> Response:
        source, target = both(await ask.json())
        row = await self._objects.copy(ask.caller, source, target)
        return storage_json({"Key": str(target), "Id": str(row["id"]), **object_body(row)})

    async def _remove(self, ask: Ask) -> Response:
        if not (names := (await ask.json())["prefixes"]):
            raise invalid("body/prefixes must NOT have fewer than 1 items")
        return storage_json([object_body(row) for row in await self._objects.remove(ask.caller, ask.bucket_id, names)])

    async def _upload(self, ask: Ask) -> Response:
        upsert = ask.request.method == "PUT" or ask.request.headers.get("x-upsert") == "true"
        row = await self._objects.put(ask.caller, ask.address, await ask.upload(), upsert=upsert)
        return storage_json({"Key": str(ask.address), "Id": str(row["id"])})

    async def _download(self, ask: Ask) -> Response:
        row = await self._objects.find(ask.caller, ask.address)
        return self._serve(ask, row, {"cache-control": row["metadata"]["cacheControl"]})

    async def _info(self, ask: Ask) -> Response:
        row = await self._objects.find(ask.caller, ask.address)
        metadata = row["metadata"]
        headers = {"etag": metadata["eTag"], "cache-control": metadata["cacheControl"]}
        return storage_json(info_body(row), headers=headers)

    async def _download_public(self, ask: Ask) -> Response:
        if not (await self._buckets.limits(ask.bucket_id))["public"]:
            raise StorageError(404, "Bucket not found", "Bucket not found", code="NoSuchBucket")
        return await self._download(ask)

    async def _sign(self, ask: Ask) -> Response:
        lives_s = seconds(await ask.json())
        await self._objects.find(ask.caller, ask.address)
        return storage_json({"signedURL": self._signed_path(ask.address, lives_s=lives_s)})

    async def _sign_many(self, ask: Ask) -> Response:
        asked = await ask.json()
        lives_s = seconds(asked)
        items: list[dict[str, Any]] = []
        for path in asked["paths"]:
            try:
                await self._objects.find(ask.caller, Address(ask.bucket_id, path))
                url = self._signed_path(Address(ask.bucket_id, path), lives_s=lives_s)
                items.append({"error": None, "path": path, "signedURL": url})
            except StorageError:
                items.append({"error": ABSENT, "path": path, "signedURL": None})
        return storage_json(items)

    def _signed_path(self, address: Address, *, lives_s: int) -> str:
        token = self._keys.token({"url": str(address), "scope": "download"}, lives_s=lives_s)
        return f"/object/sign/{address}?token={token}"

    async def _download_signed(self, ask: Ask) -> Response:
        claims = self._verified(ask, scope="download")
        row = await self._objects.find(SERVICE, ask.address)
        return self._serve(ask, row, {"expires": formatdate(claims["exp"], usegmt=True)})

    async def _sign_upload(self, ask: Ask) -> Response:
        upsert = ask.request.headers.get("x-upsert") == "true"
        await self._objects.rehearse(ask.caller, ask.address, upsert=upsert)
        claims = {"url": str(ask.address), "upsert": upsert, "scope": "upload"}
        token = self._keys.token(claims, lives_s=SIGNED_UPLOAD_S)
        return storage_json({"url": f"/object/upload/sign/{ask.address}?token={token}", "token": token})

    async def _upload_signed(self, ask: Ask) -> Response:
        claims = self._verified(ask, scope="upload")
        await self._objects.put(SERVICE, ask.address, await ask.upload(), upsert=claims["upsert"])
        return storage_json({"Key": str(ask.address)})

    def _verified(self, ask: Ask, *, scope: str) -> dict[str, Any]:
        try:
            claims = self._keys.read(ask.request.query_params.get("token", ""))
        except jwt.ExpiredSignatureError as error:
            message = '"exp" claim timestamp check failed'
            raise StorageError(400, "InvalidJWT", message, code="InvalidJWT") from error
        except jwt.InvalidTokenError as error:
            message = "signature verification failed"
            raise StorageError(400, "InvalidJWT", message, code="InvalidJWT") from error
        if (claims.get("url"), claims.get("scope")) != (str(ask.address), scope):
            raise StorageError(400, "InvalidSignature", "Invalid signature", code="InvalidSignature")
        return claims

    def _serve(self, ask: Ask, row: DictRow, headers: dict[str, str]) -> Response:
        """The bytes, the range of them that is asked for, or nothing where the client has them already."""
        metadata, content = row["metadata"], self._objects.content(row)
        headers = {"accept-ranges": "bytes", "content-type": metadata["mimetype"], "etag": metadata["eTag"], **headers}
        if ask.request.headers.get("if-none-match") == metadata["eTag"]:
            return Response(status_code=304, headers=headers)
        if (part := ask.range(len(content))) is None:
            return Response(content, headers=headers)
        first, end = part
        headers["content-range"] = f"bytes {first}-{end - 1}/{len(content)}"
        return Response(content[first:end], 206, headers)
