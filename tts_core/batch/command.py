"""A whole batch at a shell: the folder, signals, progress, and how it ended."""

import argparse
import asyncio
import signal
import sys
from collections.abc import Awaitable, Sequence
from contextlib import closing

from tts_core.batch import report
from tts_core.batch.lines import Line
from tts_core.batch.manifest import Manifest, ManifestUnusable
from tts_core.batch.options import lines_of, price_per_s
from tts_core.batch.progress import shown
from tts_core.batch.reading import BadInput
from tts_core.batch.retry import Policy
from tts_core.batch.runner import Runner, Site
from tts_core.batch.tally import Tally

DONE, FAILED, WRONG, STOPPED, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit status: all spoken; some lines failed; the command or INPUT is wrong; stopped early; by Ctrl-C or SIGTERM."""

INTERRUPT = "interrupted"
STATUS = {DONE: "success", FAILED: "failed", STOPPED: "stopped", INTERRUPTED: "interrupted"}


def checked(args: argparse.Namespace) -> Sequence[Line] | int:
    """The lines of INPUT, or the exit status if there is nothing to do; said why."""
    try:
        lines = lines_of(args)
    except BadInput as error:
        note(f"{args.input}: nothing was sent\n{report.problems(error.problems)}")
        return WRONG
    except OSError as error:
        note(f"{args.input}: {error.strerror}")
        return WRONG
    if args.check:
        note(f"{args.input}: {len(lines)} lines, {sum(line.chars for line in lines)} characters, all of them valid")
        return DONE
    return lines


async def carry_out(args: argparse.Namespace, lines: Sequence[Line], site: Site, *, drains: bool) -> int:
    """Speak the lines into args.out; the exit status.

    drains  the first signal lets the lines on their way arrive, the second leaves; else the first leaves
    """
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        manifest = Manifest.open(args.out)
    except ManifestUnusable as error:
        note(str(error))
        return WRONG
    except OSError as error:
        note(f"{error.filename or args.out}: {error.strerror}")
        return WRONG
    tally = Tally(len(lines), sum(line.chars for line in lines), price_per_s(args))
    policy = Policy(args.attempts, args.backoff)
    with closing(manifest), shown(tally) as told:
        runner = Runner(site, manifest, args.out, policy=policy, tally=tally, told=told)
        await _until_ended(runner, runner.run(lines, parallel=args.parallel), drains=drains)
    return _ended(tally)


async def _until_ended(runner: Runner, run: Awaitable[None], *, drains: bool) -> None:
    running = asyncio.ensure_future(run)
    waits = [drains]

    def on_signal() -> None:
        runner.stop(INTERRUPT)
        if waits.pop() if waits else False:
            note("waiting for the lines on their way; again to leave at once")
        else:
            running.cancel()

    loop, signals = asyncio.get_running_loop(), (signal.SIGINT, signal.SIGTERM)
    for number in signals:
        loop.add_signal_handler(number, on_signal)
    await asyncio.wait({running})
    for number in signals:
        loop.remove_signal_handler(number)
    if not running.cancelled():
        running.result()


def _ended(tally: Tally) -> int:
    if tally.stopped:
        status = INTERRUPTED if tally.stopped == INTERRUPT else STOPPED
    else:
        status = FAILED if tally.failures else DONE
    if told := report.ending(tally):
        note(told)
    sys.stdout.write(report.summary(tally, STATUS[status]) + "\n")
    return status


def note(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
