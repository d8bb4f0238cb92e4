"""When the next line may be sent, after a tenant's rate limit has refused one. Time is an argument."""

CLEAN_ROW = 20
"""Lines accepted in a row before a faster pace is tried."""

FASTER = 0.8
"""Where the pace was right before, one in five of those that wait by then is refused."""


class Pace:
    """Spaces departures as the refusals ask for, and tries again to be faster while none comes.

    A bucket that is empty takes one request for each time it says to wait: lines that all came back then would
    all but one be refused again, and each refusal is a job that RunPod queues, hands out and bills.
    """

    def __init__(self) -> None:
        self._spacing_s = 0.0
        self._proven_s = 0.0
        self._next_s = 0.0
        self._clean = 0

    def departure_s(self, now_s: float) -> float:
        """When whoever asks now may leave; each call is a place in the row."""
        leaves_s = max(now_s, self._next_s)
        self._next_s = leaves_s + self._spacing_s
        return leaves_s

    def refused(self, now_s: float, *, retry_after_s: float) -> None:
        self._clean = 0
        self._spacing_s = max(self._proven_s, self._spacing_s, retry_after_s)
        self._next_s = max(self._next_s, now_s + retry_after_s)

    def accepted(self) -> None:
        self._clean += 1
        if self._clean == CLEAN_ROW:
            self._clean = 0
            self._proven_s, self._spacing_s = self._spacing_s, self._spacing_s * FASTER
