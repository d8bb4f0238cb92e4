"""What a batch says at its end: a table of what failed, how to go on, one JSON line for machines."""

import json
from collections.abc import Sequence

from tts_core.batch.reading import Problem
from tts_core.batch.tally import Failed, Tally

MAX_ROWS = 50


def table(failures: Sequence[Failed]) -> str:
    """As the file has them; more than MAX_ROWS are counted, and all of them are in the manifest."""
    ordered = sorted(failures, key=lambda failed: failed.number)
    rows = [("line", "code", "attempts", "file", "message")]
    rows += [(str(f.number), f.code, str(f.attempts), f.file, f.message) for f in ordered[:MAX_ROWS]]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["  ".join([*map(str.ljust, row[:4], widths), row[4]]).rstrip() for row in rows]
    if len(ordered) > MAX_ROWS:
        lines.append(f"… and {len(ordered) - MAX_ROWS} more")
    return "\n".join(lines)


def problems(found: Sequence[Problem]) -> str:
    told = [f"line {problem.number}: {problem.reason}" if problem.number else problem.reason for problem in found]
    rest = [f"… and {len(told) - MAX_ROWS} more"] if len(told) > MAX_ROWS else []
    return "\n".join(told[:MAX_ROWS] + rest)


def ending(tally: Tally) -> str:
    """What the user is to know and do."""
    told = []
    if tally.failures:
        told.append(table(tally.failures))
    if tally.stopped:
        told.append(f"stopped: {tally.stopped}")
    if tally.left or tally.failures:
        told.append(f"{tally.done} of {tally.total} are done; the same command again goes on with the rest")
    return "\n".join(told)


def summary(tally: Tally, status: str) -> str:
    told = {
        "status": status,
        "total": tally.total,
        "done": tally.done,
        "done_before": tally.done_before,
        "failed": len(tally.failures),
        "left": tally.left,
        "audio_seconds": round(tally.audio_s, 2),
        "execution_seconds": round(tally.spent_ms / 1000, 2),
    }
    if tally.cost is not None:
        told["cost_at_most"] = round(tally.cost, 4)
    return json.dumps(told)
