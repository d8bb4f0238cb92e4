"""The two shapes of an error body, and which HTTP status a SQLSTATE becomes.

source  PostgREST's documented table of errors; for Storage, the recorded answers of its server
"""

from typing import Any

import psycopg
from psycopg_pool import PoolTimeout
from starlette.responses import JSONResponse, Response


class RestError(Exception):
    """An answer of the REST half; the client sees code, message, details and hint, but not the status."""

    def __init__(self, status: int, code: str, message: str, *, details: Any = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.details, self.hint = status, code, details, hint

    def response(self) -> Response:
        body = {"code": self.code, "message": str(self), "details": self.details, "hint": self.hint}
        headers = {"Proxy-Status": f"PostgREST; error={self.code}"}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(body, self.status, headers)


class NotSpoken(RestError):
    """supabase-py can ask for more than this server knows; a test that needs it must not get a wrong answer."""

    def __init__(self, what: str) -> None:
        super().__init__(501, "TEST501", f"the test server does not speak {what}")


class StorageError(Exception):
    """An answer of the Storage half: HTTP 400 whatever `status` says, save for 500."""

    def __init__(self, status: int, error: str, message: str, *, code: str) -> None:
        super().__init__(message)
        self.status, self.error, self.code = status, error, code

    def response(self) -> Response:
        body = {"statusCode": str(self.status), "error": self.error, "message": str(self), "code": self.code}
        return storage_json(body, status=500 if self.status == 500 else 400)


def storage_json(body: object, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse(body, status, headers, media_type="application/json; charset=utf-8")


STATUS_OF_SQLSTATE = {
    "08": 503,
    "0L": 403,
    "0P": 403,
    "23503": 409,
    "23505": 409,
    "25006": 405,
    "25": 500,
    "28": 403,
    "40": 500,
    "42883": 404,
    "42P01": 404,
    "42P17": 500,
    "53400": 500,
    "53": 503,
    "54": 500,
    "55": 500,
    "57P01": 503,
    "57": 500,
    "58": 500,
    "P0001": 400,
    "P0": 500,
    "XX": 500,
}
"""By the whole SQLSTATE or its class; every other one is 400."""


def rest_error(error: psycopg.Error, *, role: str) -> RestError:
    """What PostgREST makes of it; without a permission, who is nobody yet gets 401."""
    if (sqlstate := error.sqlstate) is None:
        return _without_sqlstate(error)
    if sqlstate == "42501":
        status = 401 if role == "anon" else 403
    elif sqlstate.startswith("PT"):
        status = int(sqlstate[2:])
    else:
        status = STATUS_OF_SQLSTATE.get(sqlstate) or STATUS_OF_SQLSTATE.get(sqlstate[:2], 400)
    said = error.diag
    message = said.message_primary or str(error)
    return RestError(status, sqlstate, message, details=said.message_detail, hint=said.message_hint)


def _without_sqlstate(error: psycopg.Error) -> RestError:
    """Not said by Postgres but by its client."""
    match error:
        case PoolTimeout():
            return RestError(504, "PGRST003", "Timed out acquiring connection from connection pool.")
        case psycopg.DataError():  # a NUL in a text
            return RestError(400, "22021", str(error))
    return RestError(503, "PGRST001", "Database client error. Retrying the connection.", details=str(error))


def storage_error(error: psycopg.Error) -> StorageError:
    match error.sqlstate:
        case "42501":
            message = (error.diag.message_primary or "").partition(" for table")[0]
            return StorageError(403, "Unauthorized", message, code="AccessDenied")
        case "23505":
            return StorageError(409, "Duplicate", "The resource already exists", code="KeyAlreadyExists")
        case "57014":
            message = "The connection to the database timed out"
            return StorageError(544, "DatabaseTimeout", message, code="DatabaseTimeout")
    return StorageError(500, "Internal", str(error), code="DatabaseError")
