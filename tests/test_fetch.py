"""RunPod's real `safe_get` against servers on this machine that behave badly in every way we know of."""

import asyncio
import contextlib
import gzip
import queue
import socket
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from runpod.serverless.utils import rp_ssrf
from runpod.serverless.utils.rp_ssrf import safe_get

from tts_core.audio import fetch as module
from tts_core.audio.fetch import THREAD_NAME, fetch
from tts_core.errors import Overloaded, ReferenceBlocked, ReferenceTooLarge, ReferenceUnreachable, TTSError

BODY = bytes(range(256)) * 40
SECRET = "token=hunter2"

Serve = Callable[[socket.socket, threading.Event], None]
"""Answers one connection; the event is set when the test is over."""


class Server:
    """Listens on a loopback port; the path of a URL chooses who answers."""

    def __init__(self, answers: dict[str, Serve]) -> None:
        self._answers = answers
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.over = threading.Event()
        self.hits: list[str] = []
        self._asked: queue.Queue[str] = queue.Queue()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def url(self, path: str, *, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}?{SECRET}"

    async def was_asked(self, *, times: int) -> None:
        for _ in range(times):
            await asyncio.to_thread(self._asked.get, timeout=5)

    def close(self) -> None:
        self.over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                thread = threading.Thread(target=self._answer, args=(connection,))
                self._threads.append(thread)
                thread.start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            path = connection.recv(65536).split()[1].split(b"?")[0].decode()
            self.hits.append(path)
            self._asked.put(path)
            self._answers[path](connection, self.over)


def plain(head: str, body: bytes = b"") -> Serve:
    def serve(connection: socket.socket, _over: threading.Event) -> None:
        connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)

    return serve


def dripping(first: bytes) -> Serve:
    """One more byte every 20 ms, for ever."""

    def serve(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(first)
        while not over.wait(0.02):
            connection.sendall(b"x")

    return serve


def silent(_connection: socket.socket, over: threading.Event) -> None:
    over.wait()


def endless(connection: socket.socket, over: threading.Event) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while not over.is_set():
        connection.sendall(bytes(65536))


OK = f"HTTP/1.1 200 OK\nContent-Length: {len(BODY)}"
BOMB = gzip.compress(bytes(50_000_000))

ANSWERS: dict[str, Serve] = {
    "/clip": plain(OK, BODY),
    "/chunked": plain("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"),
    "/gzip": plain("HTTP/1.1 200 OK\nContent-Encoding: gzip\nConnection: close", gzip.compress(BODY)),
    "/gzip-bomb": plain("HTTP/1.1 200 OK\nContent-Encoding: gzip\nConnection: close", BOMB),
    "/moved": plain("HTTP/1.1 302 Found\nLocation: /clip\nContent-Length: 0"),
    "/to-metadata": plain("HTTP/1.1 302 Found\nLocation: http://169.254.169.254/latest\nContent-Length: 0"),
    "/to-file": plain("HTTP/1.1 302 Found\nLocation: file:///etc/passwd\nContent-Length: 0"),
    "/to-nonsense": plain("HTTP/1.1 302 Found\nLocation: http://[/\nContent-Length: 0"),
    "/circle": plain("HTTP/1.1 302 Found\nLocation: /circle\nContent-Length: 0"),
    "/missing": plain("HTTP/1.1 404 Not Found\nContent-Length: 0"),
    "/no-content": plain("HTTP/1.1 204 No Content"),
    "/part": plain("HTTP/1.1 206 Partial Content\nContent-Length: 3", b"abc"),
    "/cut": plain("HTTP/1.1 200 OK\nContent-Length: 9999999", b"abc"),
    "/not-http": plain("SSH-2.0-OpenSSH_9.6"),
    "/silent": silent,
    "/drip-header": dripping(b"HTTP/1.1 200 OK\r\nX-Slow: "),
    "/drip-body": dripping(b"HTTP/1.1 200 OK\r\n\r\n"),
    "/endless": endless,
}


@pytest.fixture
def server() -> Iterator[Server]:
    """Every test leaves no thread of its own behind: a fetch that was given up has ended too."""
    server = Server(ANSWERS)
    yield server
    server.close()
    for thread in threading.enumerate():
        if thread.name == THREAD_NAME:
            thread.join(5)
            assert not thread.is_alive()


@pytest.fixture
def loopback_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one exception that lets a server of this machine be a stranger's; all else stays refused."""
    really = rp_ssrf.is_safe_address
    monkeypatch.setattr(rp_ssrf, "is_safe_address", lambda ip: ip == "127.0.0.1" or really(ip))


async def get(url: str, *, timeout_s: float = 5.0, max_bytes: int = 100_000) -> bytes:
    return await fetch(url, open_url=safe_get, timeout_s=timeout_s, max_bytes=max_bytes)


@pytest.mark.usefixtures("loopback_is_public")
class TestAPublicServer:
    async def test_gives_its_file(self, server: Server) -> None:
        assert await get(server.url("/clip")) == BODY

    async def test_may_send_in_chunks(self, server: Server) -> None:
        assert await get(server.url("/chunked")) == b"abcde"

    async def test_may_compress(self, server: Server) -> None:
        assert await get(server.url("/gzip")) == BODY

    async def test_may_redirect(self, server: Server) -> None:
        assert await get(server.url("/moved")) == BODY
        assert server.hits == ["/moved", "/clip"]

    @pytest.mark.parametrize("path", ["/to-metadata", "/to-file", "/to-nonsense", "/circle"])
    async def test_may_not_redirect_into_the_private(self, server: Server, path: str) -> None:
        with pytest.raises(ReferenceBlocked):
            await get(server.url(path))

    @pytest.mark.parametrize(("path", "status"), [("/missing", 404), ("/no-content", 204), ("/part", 206)])
    async def test_must_answer_200(self, server: Server, path: str, status: int) -> None:
        with pytest.raises(ReferenceUnreachable, match=f"status {status}"):
            await get(server.url(path))

    @pytest.mark.parametrize("path", ["/cut", "/not-http"])
    async def test_must_not_break_off(self, server: Server, path: str) -> None:
        with pytest.raises(ReferenceUnreachable, match="connection failed"):
            await get(server.url(path), max_bytes=10**9)

    @pytest.mark.parametrize("path", ["/silent", "/drip-header", "/drip-body"])
    async def test_cannot_outlast_the_deadline(self, server: Server, path: str) -> None:
        """The fixture sees that the thread ends as well, while the server goes on dripping until `over`."""
        with pytest.raises(ReferenceUnreachable, match=r"within 0\.4 s"):
            await get(server.url(path), timeout_s=0.4)
        await asyncio.to_thread(_join_fetches)

    @pytest.mark.parametrize("path", ["/endless", "/clip"])
    async def test_cannot_send_more_than_accepted(self, server: Server, path: str) -> None:
        with pytest.raises(ReferenceTooLarge, match="5,000 bytes"):
            await get(server.url(path), max_bytes=min(5_000, len(BODY) - 1))

    async def test_may_send_exactly_what_is_accepted(self, server: Server) -> None:
        assert await get(server.url("/clip"), max_bytes=len(BODY)) == BODY

    async def test_cannot_fill_memory_with_a_compressed_body(self, server: Server) -> None:
        tracemalloc.start()
        try:
            with pytest.raises(ReferenceTooLarge):
                await get(server.url("/gzip-bomb"))
            assert tracemalloc.get_traced_memory()[1] < 5_000_000
        finally:
            tracemalloc.stop()

    async def test_that_is_slow_does_not_hold_up_others(self, server: Server) -> None:
        slow = [asyncio.create_task(get(server.url("/silent"), timeout_s=0.5)) for _ in range(10)]
        await server.was_asked(times=10)
        assert await get(server.url("/clip")) == BODY
        assert not any(task.done() for task in slow)
        assert all(isinstance(e, ReferenceUnreachable) for e in await asyncio.gather(*slow, return_exceptions=True))

    async def test_finds_a_bounded_number_of_threads(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MAX_FETCHES", 2)
        slow = [asyncio.create_task(get(server.url("/silent"), timeout_s=0.5)) for _ in range(2)]
        await server.was_asked(times=2)
        with pytest.raises(Overloaded):
            await get(server.url("/clip"))
        await asyncio.gather(*slow, return_exceptions=True)
        await asyncio.to_thread(_join_fetches)
        assert await get(server.url("/clip")) == BODY

    async def test_is_forgotten_when_the_caller_gives_up(self, server: Server) -> None:
        task = asyncio.create_task(get(server.url("/drip-body"), timeout_s=0.4))
        await server.was_asked(times=1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(_join_fetches)

    async def test_refusals_keep_the_address_to_themselves(self, server: Server) -> None:
        for path in ANSWERS:
            with contextlib.suppress(TTSError):
                await get(server.url(path), timeout_s=0.2, max_bytes=5)
                continue
            _expect_no_secret(await _refusal(server.url(path), timeout_s=0.2))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "[::ffff:127.0.0.1]", "2130706433"])
async def test_this_machine_is_refused_before_it_is_asked(server: Server, host: str) -> None:
    with pytest.raises(ReferenceBlocked, match="public address"):
        await get(server.url("/clip", host=host))
    assert server.hits == []


@pytest.mark.parametrize(
    "url",
    [
        f"http://169.254.169.254/latest?{SECRET}",
        f"http://[::1]/?{SECRET}",
        f"http://10.0.0.1/?{SECRET}",
        f"http://100.64.0.1/?{SECRET}",
        f"http://[fd00:ec2::254]/?{SECRET}",
        f"file:///etc/passwd?{SECRET}",
        f"ftp://example.com/clip.wav?{SECRET}",
        f"data:audio/wav;{SECRET}",
        f"//example.com/?{SECRET}",
        f"http:///?{SECRET}",
        f"http://[/?{SECRET}",
        f"http://example.com:99999/?{SECRET}",
        f"http://{'a' * 70}.example/?{SECRET}",
        SECRET,
        "",
    ],
)
async def test_an_address_that_is_not_public_http_is_blocked(url: str) -> None:
    _expect_no_secret(await _refusal(url, expected=ReferenceBlocked))


async def test_a_host_without_an_address_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_such_host(*_: Any, **__: Any) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_such_host)
    _expect_no_secret(await _refusal(f"http://user:{SECRET}@nowhere.example/", expected=ReferenceUnreachable))


@pytest.mark.usefixtures("loopback_is_public")
async def test_a_closed_port_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    _expect_no_secret(await _refusal(f"http://127.0.0.1:{port}/?{SECRET}", expected=ReferenceUnreachable))


@pytest.mark.parametrize(
    ("foreign", "expected"),
    [
        (requests.exceptions.InvalidURL(SECRET), ReferenceBlocked),
        (requests.exceptions.MissingSchema(SECRET), ReferenceBlocked),
        (rp_ssrf.SSRFError(SECRET), ReferenceBlocked),
        (requests.exceptions.ConnectTimeout(SECRET), ReferenceUnreachable),
        (requests.exceptions.ContentDecodingError(SECRET), ReferenceUnreachable),
        (OSError(SECRET), ReferenceUnreachable),
    ],
)
async def test_every_error_of_the_client_has_its_refusal(foreign: Exception, expected: type[TTSError]) -> None:
    def failing(url: str, *, stream: bool, timeout: float, max_bytes: int) -> requests.Response:
        raise foreign

    with pytest.raises(expected) as caught:
        await fetch("http://example.com/", open_url=failing, timeout_s=5, max_bytes=5)
    _expect_no_secret(caught.value)


async def test_a_mistake_of_ours_is_not_the_servers() -> None:
    def broken(url: str, *, stream: bool, timeout: float, max_bytes: int) -> requests.Response:
        raise KeyError

    with pytest.raises(KeyError):
        await fetch("http://example.com/", open_url=broken, timeout_s=5, max_bytes=5)


async def _refusal(url: str, *, timeout_s: float = 5.0, expected: type[TTSError] = TTSError) -> TTSError:
    with pytest.raises(expected) as caught:
        await get(url, timeout_s=timeout_s, max_bytes=5)
    return caught.value


def _expect_no_secret(error: TTSError) -> None:
    """Neither in its text, nor in what a log would print of it."""
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None
    assert "hunter2" not in str(error)


def _join_fetches() -> None:
    for thread in threading.enumerate():
        if thread.name == THREAD_NAME:
            thread.join(5)
            assert not thread.is_alive()
