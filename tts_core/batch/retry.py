"""What a failed attempt means for its line and for the others. No clock, no network: time and chance are arguments."""

from dataclasses import dataclass
from typing import Literal

from tts_core.batch.failures import STOPS, LineFailed

MAX_WAIT_S = 60.0
RATE_LIMIT_S = 5.0
"""Where the worker's rate limit does not say how long."""


@dataclass(frozen=True, slots=True)
class Policy:
    """attempts: at one line, in one run. first_wait_s: before the second; twice as long before each that follows"""

    attempts: int = 5
    first_wait_s: float = 1.0

    def wait_s(self, attempt: int, chance: float) -> float:
        """Before the attempt that follows this one, from 1; the whole or down to half of it, as chance has it.

        chance  from 0 to 1: lines that failed together must not come back together
        """
        longest = min(MAX_WAIT_S, self.first_wait_s * 2.0 ** min(attempt - 1, 30))
        return float(longest * (0.5 + chance / 2))


@dataclass(frozen=True, slots=True)
class Verdict:
    """again: after wait_s. paced: at once, when the tenant's rate limit lets it. renew: at once, under another key.
    fail: this line, in this run. stop: the whole batch."""

    what: Literal["again", "paced", "renew", "fail", "stop"]
    wait_s: float = 0.0


def judge(failure: LineFailed, *, attempt: int, policy: Policy, chance: float) -> Verdict:
    """attempt: which one of the line's it was, from 1; those that a rate limit refused are none"""
    if failure.code in STOPS:
        return Verdict("stop")
    if failure.code == "rate_limited":
        return Verdict("paced", RATE_LIMIT_S if failure.retry_after_s is None else failure.retry_after_s)
    if attempt >= policy.attempts:
        return Verdict("fail")
    if failure.code == "result_expired":
        return Verdict("renew")
    if not failure.retryable:
        return Verdict("fail")
    return Verdict("again", max(policy.wait_s(attempt, chance), failure.retry_after_s or 0.0))
