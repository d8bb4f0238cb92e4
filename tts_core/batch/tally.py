"""What a batch has come to so far, in numbers and in one line for people."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Failed:
    """A line that was given up. number: where it stands in the file"""

    number: int
    file: str
    code: str
    attempts: int
    message: str


@dataclass(slots=True)
class Tally:
    """spent_ms is what RunPod bills of execution, earlier runs included; jobs that share a worker each count in full.

    price_per_s  of one worker; None: no cost is told
    stopped      why everything stopped before its end
    """

    total: int
    total_chars: int
    price_per_s: float | None = None
    done: int = 0
    done_before: int = 0
    audio_s: float = 0.0
    spent_ms: int = 0
    failures: list[Failed] = field(default_factory=list)
    stopped: str = ""
    _chars_before: int = 0
    _chars_now: int = 0

    @property
    def left(self) -> int:
        return self.total - self.done - len(self.failures)

    @property
    def cost(self) -> float | None:
        return None if self.price_per_s is None else self.spent_ms / 1000 * self.price_per_s

    def count_done(self, chars: int, audio_s: float, *, from_before: bool = False) -> None:
        """from_before: an earlier run has spoken it"""
        self.done += 1
        self.audio_s += audio_s
        if from_before:
            self.done_before += 1
            self._chars_before += chars
        else:
            self._chars_now += chars

    def left_s(self, elapsed_s: float) -> float | None:
        """Time left at the pace of this run, by characters: lines differ. None: nothing was spoken yet."""
        if not self._chars_now:
            return None
        chars_left = self.total_chars - self._chars_before - self._chars_now
        return chars_left * elapsed_s / self._chars_now

    def line(self, elapsed_s: float) -> str:
        told = [f"{len(self.failures)} failed", f"{self.audio_s / 60:.1f} min of audio"]
        if self.cost is not None:
            told.append(f"at most ${self.cost:.2f}")
        left_s = self.left_s(elapsed_s)
        return ", ".join([*told, "time left unknown" if left_s is None else f"{clock(left_s)} left"])


def clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
