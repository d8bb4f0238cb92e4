"""What the device's thread does: take the inbox, decide, launch, take in the step before, deliver."""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

import numpy as np

from tts_core.errors import Cancelled, EngineLost, StartupError, TTSError, scrubbed
from tts_core.types import FloatArray
from tts_core.xtts.device_thread import DeviceThread
from tts_core.xtts.runner import Flight, Runner, Spoken
from tts_core.xtts.scheduler import Scheduler, Step, Vocode
from tts_core.xtts.sequence import Sequence

log = logging.getLogger(__name__)
T = TypeVar("T")

LOST = "the device of this worker failed"


class Listener:
    """The way of an utterance's audio from the device's thread to the event loop that asked for it."""

    def __init__(self) -> None:
        self.inbox: asyncio.Queue[FloatArray | Exception | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    def tell(self, item: FloatArray | Exception | None) -> None:
        """Samples, the error that ended them, or None at their end; from any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.inbox.put_nowait, item)


class EngineLoop:
    """Others send it work; nothing but the thread touches scheduler and runner.

    lost  done once the device can no longer be used
    """

    def __init__(self, device: DeviceThread, scheduler: Scheduler, runner: Runner, *, rate_hz: int) -> None:
        self._device = device
        self._scheduler = scheduler
        self._runner = runner
        self._rate_hz = rate_hz
        self._listeners: dict[Sequence, Listener] = {}
        self.lost: Future[None] = Future()
        self._fault: Exception | None = None

    def warm_up(self, sequence: Sequence) -> None:
        """On the thread: speak it, unheard, before the loop runs.

        raises  StartupError if what comes out is not finite
        """
        self._scheduler.add(sequence)
        while (step := self._scheduler.next_step(now_s=0.0)) is not None:
            flight = self._runner.launch(step)
            if isinstance(step, Vocode):
                if not all(np.isfinite(wave).all() for wave in flight.waves()):
                    raise StartupError("the model makes audio that is not finite on this device, in this precision")
            else:
                for ended, slot in self._scheduler.commit(step, flight.codes()):
                    self._runner.detach(ended, slot)

    def submit(self, sequence: Sequence, listener: Listener) -> None:
        """raises  Cancelled once closed; the listener is told Overloaded if the waiting room is full"""
        if not self._device.send(lambda: self._add(sequence, listener)):
            raise Cancelled("the engine is closed")

    def submit_ended(self, sequence: Sequence, listener: Listener) -> None:
        """A take that was withdrawn is to be heard after all. raises Cancelled once closed"""
        if not self._device.send(lambda: self._add_ended(sequence, listener)):
            raise Cancelled("the engine is closed")

    def leave(self, sequence: Sequence) -> None:
        """Nobody listens to it any more: it costs no further step."""
        self._device.send(lambda: self._drop(sequence))

    def call(self, work: Callable[[], T]) -> "Future[T]":
        """Anything else that the device is to do; what goes wrong there means for it what a step's faults mean.

        raises  Cancelled once closed
        """
        return self._device.call(lambda: self._done(work))

    def run(self) -> None:
        """On the thread, until it is closed or the device can no longer be used; then every listener is told."""
        reason: TTSError = Cancelled("the engine is closed")
        try:
            self._work()
        except Exception as exc:  # noqa: BLE001  the root of the thread: a device that cannot even be cleaned is lost
            log.error("the device is lost: %s", scrubbed(exc))
            reason = EngineLost(LOST)
            self.lost.set_result(None)  # before it is closed: who asks then is told the reason
            self._device.close()
            self._device.take(block=True)  # those who asked meanwhile are listeners, too
        for listener in self._listeners.values():
            listener.tell(reason)

    def _work(self) -> None:
        """A step is in flight where the device can: none waits for its codes."""
        flying: Flight | None = None
        preparing = True
        while self._device.take(block=flying is None and self._scheduler.idle and not preparing):
            if self._fault is not None:
                raise self._fault
            if preparing and flying is None and self._scheduler.idle:
                preparing = self._runner.record_next()
                continue
            step = self._scheduler.next_step(now_s=time.monotonic())
            launched = self._launch(step) if step is not None else None
            if flying is not None:
                self._land(flying)
            if launched is not None and launched.has_landed:
                self._land(launched)
                launched = None
            flying = launched

    def _add(self, sequence: Sequence, listener: Listener) -> None:
        try:
            self._scheduler.add(sequence)
            self._listeners[sequence] = listener
        except TTSError as exc:
            listener.tell(exc)

    def _add_ended(self, sequence: Sequence, listener: Listener) -> None:
        self._scheduler.add_ended(sequence)
        self._listeners[sequence] = listener

    def _drop(self, sequence: Sequence) -> None:
        if self._listeners.pop(sequence, None) is not None:
            self._scheduler.cancel(sequence)

    def _launch(self, step: Step) -> Flight | None:
        try:
            return self._runner.launch(step)
        except Exception as exc:  # noqa: BLE001  the root of a step: those in it are told, the others go on
            self._fail(step, exc)
            return None

    def _land(self, flight: Flight) -> None:
        try:
            if isinstance(flight.step, Vocode):
                self._deliver(flight.step, flight.waves())
            else:
                for sequence, slot in self._scheduler.commit(flight.step, flight.codes()):
                    self._runner.detach(sequence, slot)
                    self._withdraw_if_rejected(sequence)
        except Exception as exc:  # noqa: BLE001  the root of a step, see above
            self._fail(flight.step, exc)

    def _withdraw_if_rejected(self, sequence: Sequence) -> None:
        if isinstance(sequence, Spoken) and sequence.is_rejected and sequence in self._listeners:
            self._scheduler.withdraw(sequence)
            self._listeners.pop(sequence).tell(None)

    def _deliver(self, step: Vocode, waves: list[FloatArray]) -> None:
        for window, wave in zip(step.windows, waves, strict=True):
            listener = self._listeners.get(window.sequence)
            if listener is None:
                continue
            if not np.isfinite(wave).all():
                raise ArithmeticError("the model made audio that is not finite")
            window.sequence.spoken_s += len(wave) / self._rate_hz
            if len(wave):
                listener.tell(wave)
            if window.last:
                del self._listeners[window.sequence]
                listener.tell(None)

    def _done(self, work: Callable[[], T]) -> T:
        """raises  EngineLost where the device cannot be cleaned afterwards"""
        try:
            return work()
        except Exception as exc:
            try:
                self._runner.wash(self._scheduler.free_slots)
            except Exception as fault:  # noqa: BLE001  whatever it is, it is the device's
                self._fault = fault
                raise EngineLost(LOST) from exc
            raise

    def _fail(self, step: Step, exc: Exception) -> None:
        sequences = [w.sequence for w in step.windows] if isinstance(step, Vocode) else step.sequences
        for sequence in sequences:
            self._scheduler.cancel(sequence)
        self._runner.wash(self._scheduler.free_slots)  # raises, if the device is lost: that is what they are told then
        for sequence in sequences:
            if (listener := self._listeners.pop(sequence, None)) is not None:
                listener.tell(exc)
