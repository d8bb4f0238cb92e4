"""What the device's thread does: take the inbox, decide, launch, take in the step before, deliver."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeAlias, TypeVar

import numpy as np

from tts_core.errors import Cancelled, EngineLost, Overloaded, TTSError, scrubbed
from tts_core.types import FloatArray
from tts_core.xtts.device_thread import DeviceThread
from tts_core.xtts.runner import Flight, Runner
from tts_core.xtts.scheduler import Scheduler, Step, Vocode
from tts_core.xtts.sequence import Sequence

log = logging.getLogger(__name__)
T = TypeVar("T")

LOST = "the device of this worker failed"

Told: TypeAlias = FloatArray | Exception | None
"""Samples, the error that ended them, or None at their end."""


class EngineLoop:
    """Others send it work; nothing but the thread touches scheduler and runner.

    lost  done once the device can no longer be used
    """

    def __init__(self, device: DeviceThread, scheduler: Scheduler, runner: Runner, *, rate_hz: int) -> None:
        self._device = device
        self._scheduler = scheduler
        self._runner = runner
        self._rate_hz = rate_hz
        self._listeners: dict[Sequence, Callable[[Told], None]] = {}
        self.lost: Future[None] = Future()
        self._fault: Exception | None = None

    def submit(self, sequence: Sequence, tell: Callable[[Told], None]) -> None:
        """Have it spoken; `tell` is called on the thread, with Overloaded if the waiting room is full.

        raises  Cancelled once closed
        """
        if not self._device.send(lambda: self._add(sequence, tell)):
            raise Cancelled("the engine is closed")

    def leave(self, sequence: Sequence) -> None:
        """Nobody listens to it any more: it costs no further step."""
        self._device.send(lambda: self._end(sequence, None))

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
        for tell in self._listeners.values():
            tell(reason)

    def _work(self) -> None:
        """A step is in flight where the device can: none waits for its codes."""
        flying: Flight | None = None
        preparing = True
        while self._device.take(block=flying is None and self._scheduler.idle and not preparing):
            if self._fault is not None:
                raise self._fault
            if flying is None and self._scheduler.idle:
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

    def _add(self, sequence: Sequence, tell: Callable[[Told], None]) -> None:
        try:
            self._scheduler.add(sequence)
            self._listeners[sequence] = tell
        except Overloaded as exc:
            tell(exc)

    def _end(self, sequence: Sequence, told: Exception | None) -> None:
        """No step more is taken for it; its listener is told, unless it has left."""
        self._scheduler.cancel(sequence)
        if (tell := self._listeners.pop(sequence, None)) is not None:
            tell(told)

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
                    if sequence.is_rejected:
                        self._end(sequence, None)
        except Exception as exc:  # noqa: BLE001  the root of a step, see above
            self._fail(flight.step, exc)

    def _deliver(self, step: Vocode, waves: list[FloatArray]) -> None:
        for window, wave in zip(step.windows, waves, strict=True):
            if (tell := self._listeners.get(window.sequence)) is None:
                continue
            if not np.isfinite(wave).all():
                raise ArithmeticError("the model made audio that is not finite")
            window.sequence.due_s += len(wave) / self._rate_hz
            if len(wave):
                tell(wave)
            if window.last:
                self._end(window.sequence, None)

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
            self._end(sequence, exc)
