"""What goes wrong between a client and its server, for the next requests, on demand."""

import asyncio
import json
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol


class Kind(Enum):
    RESET = "the connection is reset, nothing is answered"
    STALL = "nothing is answered until the client goes"
    HTML = "a gateway's page, with status 200"
    HALF = "the answer breaks off in the middle of its body"
    UNAVAILABLE = "503 with an error in JSON, which both clients can read"


UNAVAILABLE_BODY = {
    "statusCode": "503",
    "error": "ServiceUnavailable",
    "code": "PGRST001",
    "message": "Database client error. Retrying the connection.",
    "details": None,
    "hint": None,
}


@dataclass
class _Plan:
    kind: Kind
    left: int
    carried_out: bool
    prefix: str


class Faults:
    """Stands before the app; without a plan every request passes.

    requests  method and path of all that came, faulty or not
    done      how many faults of each kind there were
    """

    def __init__(self, app: ASGIApp) -> None:
        self.requests: list[tuple[str, str]] = []
        self.done: Counter[Kind] = Counter()
        self._app = app
        self._plans: list[_Plan] = []

    def next(self, n: int, kind: Kind, *, carried_out: bool = False, prefix: str = "/") -> None:
        """The next n requests whose path starts with `prefix`; plans are used up in the order they were made.

        carried_out  whether the request takes effect before its answer is lost; half an answer always is
        """
        self._plans.append(_Plan(kind, n, carried_out or kind is Kind.HALF, prefix))

    def clear(self) -> None:
        """What was planned and has not happened will not."""
        self._plans.clear()

    def attempts(self, prefix: str) -> int:
        return sum(path.startswith(prefix) for _, path in self.requests)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.requests.append((scope["method"], scope["path"]))
        plan = next((plan for plan in self._plans if plan.left and scope["path"].startswith(plan.prefix)), None)
        if plan is None:
            return await self._app(scope, receive, send)
        plan.left -= 1
        answer = await self._answer(scope, receive) if plan.carried_out else await _drain(receive)
        self.done[plan.kind] += 1
        await _ACTS[plan.kind](_Exchange(scope["state"]["transport"], receive, send), answer)

    async def _answer(self, scope: Scope, receive: Receive) -> list[Message]:
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        await self._app(scope, receive, keep)
        return messages


class Protocol(H11Protocol):
    """uvicorn's, with the connection where a fault can get at it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = self.app_state | {"transport": transport}


@dataclass(frozen=True)
class _Exchange:
    transport: asyncio.Transport
    receive: Receive
    send: Send

    async def gone(self) -> None:
        """Returns when the client has gone; answering nothing before that would make uvicorn answer 500."""
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def respond(self, status: int, content_type: str, body: bytes) -> None:
        headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


async def _drain(receive: Receive) -> list[Message]:
    while (await receive()).get("more_body", False):
        pass
    return []


async def _reset(exchange: _Exchange, answer: list[Message]) -> None:
    connection: socket.socket = exchange.transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # so that closing is a reset
    exchange.transport.abort()
    await exchange.gone()


async def _stall(exchange: _Exchange, answer: list[Message]) -> None:
    await exchange.gone()


async def _html(exchange: _Exchange, answer: list[Message]) -> None:
    await exchange.respond(200, "text/html", b"<html><body>Web server is down</body></html>")


async def _unavailable(exchange: _Exchange, answer: list[Message]) -> None:
    await exchange.respond(503, "application/json", json.dumps(UNAVAILABLE_BODY).encode())


async def _half(exchange: _Exchange, answer: list[Message]) -> None:
    """The headers have told the whole length. An answer without a body cannot break off in it: a reset then."""
    start, *parts = answer
    body = b"".join(part.get("body", b"") for part in parts)
    if not body:
        return await _reset(exchange, answer)
    await exchange.send(start)
    await exchange.send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
    exchange.transport.close()
    await exchange.gone()


_ACTS: dict[Kind, Callable[[_Exchange, list[Message]], Awaitable[None]]] = {
    Kind.RESET: _reset,
    Kind.STALL: _stall,
    Kind.HTML: _html,
    Kind.HALF: _half,
    Kind.UNAVAILABLE: _unavailable,
}
