"""How fast a GPU speaks and what it costs: the inputs of `capacity`, each marked with where it comes from.

NO GPU WAS MEASURED. Steps are floors (weights and keys and values over memory bandwidth, bf16, 200 positions), divided
by a share of the bandwidth that was assumed. What was measured was measured on CPUs, and says so.
"""

from dataclasses import dataclass
from typing import Literal

Path = Literal["graphs", "eager"]

CODES_PER_S = 22_050 / 1024
"""Of audio. Of the model."""

FLOOR_SHARE = 0.5
"""Of a floor's speed that is reached. Assumed; int8 matrices on a CPU reached 0.69 of theirs (measured)."""

STEP_US: dict[Path, float] = {"graphs": 300.0, "eager": 11_000.0}
"""The least a decode step takes, however fast the GPU. Graphs: assumed, 300 kernels at 1 µs. Eager: measured, what the
host alone needs for a step of coqui's model on one core."""

VOCODER_OVER_DECODE = 0.37
"""Time in the vocoder over time in decode steps. Measured on a CPU: 60 codes took 2.6 s, 60 x 32 ms of it in steps."""

REAL_TIME_MARGIN = 2.0
"""How much faster than it plays each stream has to be made: chunks double in length, so the next is twice the last."""

MAX_CONCURRENCY = 64
"""Of `XTTS_CONCURRENCY`."""

PRICES_OF = "RunPod's price list for serverless as of 2026-08-20"


@dataclass(frozen=True, slots=True)
class Gpu:
    """price_per_s: dollars; fixed_us, row_us: the floor of a step and of each row in it, scaled by bandwidth"""

    name: str
    price_per_s: float
    bandwidth_gb_s: int
    fixed_us: float
    row_us: float

    def step_s(self, rows: int, path: Path) -> float:
        """One code for each of so many streams, its share of the vocoder included."""
        floor_us = self.fixed_us + rows * self.row_us
        return max(floor_us / FLOOR_SHARE, STEP_US[path]) * (1 + VOCODER_OVER_DECODE) / 1e6

    def speed(self, rows: int, path: Path) -> float:
        """Seconds of audio that each of so many streams gets in one."""
        return 1 / (CODES_PER_S * self.step_s(rows, path))

    def concurrency(self, path: Path) -> int:
        """The most streams of which each is still made fast enough; 1 if none is."""
        enough = [rows for rows in range(1, MAX_CONCURRENCY + 1) if self.speed(rows, path) >= REAL_TIME_MARGIN]
        return max(enough, default=1)

    def dollars_per_audio_hour(self, rows: int, path: Path) -> float:
        """With so many streams at any time, none of it idle."""
        return 3600 * self.price_per_s / (rows * self.speed(rows, path))


GPUS = (
    Gpu("L4, 24 GB", 0.00019, 300, 2526, 81.9),
    Gpu("RTX A5000, 24 GB", 0.00019, 768, 987, 32.0),
    Gpu("RTX 4090, 24 GB", 0.00031, 1008, 752, 24.4),
    Gpu("H100 SXM, 80 GB", 0.00116, 3350, 226.7, 7.33),
)
"""The line through the floors at 1, 16 and 64 rows, which it meets within 0.2 %."""
