"""The one thread that computes: OpenMP keeps workers for every thread that ever did, and they get in each other's way.

A decode step took 60 ms on a thread beside another that had loaded the weights, and 35 ms on the thread that had loaded
them itself. Source: `benchmarks/LOG.md`.
"""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from tts_core.errors import Cancelled

T = TypeVar("T")


class DeviceThread:
    """Does what it is sent, in order, until it is closed."""

    def __init__(self) -> None:
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self.is_closed = False
        self._ended = False
        # A daemon: a process that ends without closing its engine must not wait for it.
        self._thread = threading.Thread(target=self._run, name="xtts", daemon=True)
        self._thread.start()

    def call(self, work: Callable[[], T]) -> Future[T]:
        """raises  Cancelled once closed"""
        future: Future[T] = Future()
        if not self.send(lambda: _fulfil(future, work)):
            raise Cancelled("the engine is closed")
        return future

    def send(self, task: Callable[[], None]) -> bool:
        """As `call`, for what never raises and nobody waits for; False, and nothing happens, once closed."""
        with self._gate:  # whatever is put before the end is done
            if not self.is_closed:
                self._inbox.put(task)
            return not self.is_closed

    def take(self, *, block: bool) -> bool:
        """On the thread itself: do what was sent meanwhile; False once there is nothing more to come.

        block  wait until something is
        """
        while not self._ended and (block or not self._inbox.empty()):
            task = self._inbox.get()
            self._ended = task is None
            if task is not None:
                task()
            block = False
        return not self._ended

    def close(self) -> None:
        """Take nothing more, finish what was sent, and, unless this is the thread, wait for it."""
        with self._gate:
            self.is_closed = True
            self._inbox.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while self.take(block=True):
            pass


def _fulfil(future: Future[T], work: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work())
    except Exception as exc:  # noqa: BLE001  the root of a task on the thread: whoever waits raises it again
        future.set_exception(exc)
