"""Progress for who looks at it: a bar at a terminal, a line now and then where it is a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from tts_core.batch.tally import Tally

LINE_EVERY_S = 10.0
BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}"


@contextmanager
def shown(tally: Tally, *, out: TextIO | None = None) -> Iterator[Callable[[], None]]:
    """Yields what is to be called when the tally has changed.

    out  where it is shown; standard errors by default
    """
    out = out or sys.stderr
    started_s = time.monotonic()
    with _bar(tally, out, started_s) if out.isatty() else _lines(tally, out, started_s) as tell:
        yield tell


@contextmanager
def _bar(tally: Tally, out: TextIO, started_s: float) -> Iterator[Callable[[], None]]:
    from tqdm import tqdm  # here: a worker, which shares this package's importer, has no terminal

    with tqdm(total=tally.total, initial=tally.done, file=out, bar_format=BAR, dynamic_ncols=True) as bar:

        def tell() -> None:
            bar.n = tally.done + len(tally.failures)
            bar.set_postfix_str(tally.line(time.monotonic() - started_s))

        yield tell


@contextmanager
def _lines(tally: Tally, out: TextIO, started_s: float) -> Iterator[Callable[[], None]]:
    told_s = started_s

    def tell() -> None:
        nonlocal told_s
        now_s = time.monotonic()
        if now_s - told_s >= LINE_EVERY_S:
            told_s = now_s
            print_line()

    def print_line() -> None:
        settled = tally.done + len(tally.failures)
        out.write(f"{settled}/{tally.total}, {tally.line(time.monotonic() - started_s)}\n")
        out.flush()

    yield tell
