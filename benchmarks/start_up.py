"""How long from the start of a worker to its first answer, until it is ready, and to the first audio of a waiting job?

    python -m benchmarks.start_up [--model DIR] [--device cpu|cuda] [--quick]

Both sides are whole workers under the real RunPod SDK loop on a platform on loopback, where a streaming job and an
invalid one wait before they start; sides take turns. Ours is handler.py on converted files. The other is the handler
that everybody writes (`plain_handler`): it loads coqui's model, then takes jobs. Files are in the page cache, bytecode
is compiled: one run of each came before and does not count. coqui gets a copy of the folder, since it may rewrite
model.pth. The fake platform's own time is in all figures.
"""

import asyncio
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.common import ROOT, TEXTS, Args, parse_args, ratio, report, say, say_round
from storage.local import open_local
from tests.fake_platform import FakePlatform, Worker, worker

TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class Start:
    """Of one worker; seconds since its process was started.

    phases_s         as it logs them: ours see `StartTimes`, theirs imports and model
    first_answer_s   to the invalid job
    first_audio_s    to the first chunk of the speech that was waited for
    """

    phases_s: Mapping[str, float]
    first_answer_s: float
    first_audio_s: float

    @property
    def ready_s(self) -> float:
        return self.phases_s["engine_ready"]


@dataclass(frozen=True, slots=True)
class Row:
    """Medians, as above; taking_jobs_s: until the worker asks the platform for a job."""

    who: str
    imported_s: float
    taking_jobs_s: float
    first_answer_s: float
    ready_s: float
    first_audio_s: float


@dataclass(frozen=True, slots=True)
class Side:
    command: Sequence[str]
    env: Mapping[str, str]
    key: str | None


async def start(side: Side) -> Start:
    async with FakePlatform(hold_s=1.0) as platform:
        job = {"tenant_key": side.key, "text": TEXTS[0], "language": "en", "streaming": True, "top_k": 1}
        spoken, invalid = platform.submit(job), platform.submit(job | {"speed": "fast"})
        began_s = time.monotonic()
        async with worker(platform, side.command, env=side.env) as running:
            answered = asyncio.create_task(_seconds(platform.result(invalid, timeout_s=TIMEOUT_S), since_s=began_s))
            await platform.first_chunk(spoken, timeout_s=TIMEOUT_S)
            heard_s = time.monotonic() - began_s
            return Start(_phases(running), await answered, heard_s)


async def _seconds(event: Awaitable[object], *, since_s: float) -> float:
    await event
    return time.monotonic() - since_s


def _phases(running: Worker) -> dict[str, float]:
    lines = [json.loads(line) for line in running.log().splitlines() if line.startswith("{")]
    (phases,) = [line["start_ms"] for line in lines if "start_ms" in line]
    return {name: ms / 1000 for name, ms in phases.items()}


async def sides(args: Args, scratch: Path) -> dict[str, Side]:
    data = scratch / "data"
    store = await open_local(data)
    made = await store.create_tenant("benchmark", scopes=["synthesize"])
    await store.close()
    ours = {
        "XTTS_ENGINE": "xtts",
        "XTTS_MODEL_PATH": str(args.converted),
        "XTTS_DEVICE": args.device,
        "XTTS_PRECISION": args.precision,
        "XTTS_STORE": "local",
        "XTTS_DATA_DIR": str(data),
        "XTTS_CACHE_FOLDER_BYTES": "0",
        "COQUI_TOS_AGREED": "1",
        "PYTHONPATH": str(ROOT),
    }
    shutil.copytree(args.model, scratch / "coqui")
    theirs = {"MODEL": str(scratch / "coqui"), "DEVICE": args.device, "PYTHONPATH": str(ROOT)}
    return {
        "coqui": Side([sys.executable, "-m", "benchmarks.plain_handler"], theirs, None),
        "ours": Side([sys.executable, str(ROOT / "handler.py")], ours, made.secret),
    }


async def measure(args: Args, scratch: Path) -> dict[str, list[Start]]:
    both = await sides(args, scratch)
    for who, side in both.items():
        say(f"{who}, not counted")
        await start(side)
    starts: dict[str, list[Start]] = {who: [] for who in both}
    for number in range(1, args.rounds + 1):
        for who, side in both.items():
            say_round(args, number, who)
            starts[who].append(await start(side))
    return starts


def row(who: str, starts: Sequence[Start]) -> Row:
    return Row(
        who,
        imported_s=median(each.phases_s["imported"] for each in starts),
        taking_jobs_s=median(each.phases_s["taking_jobs"] for each in starts),
        first_answer_s=median(each.first_answer_s for each in starts),
        ready_s=median(each.ready_s for each in starts),
        first_audio_s=median(each.first_audio_s for each in starts),
    )


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv, __doc__)
    # Beside the model, which is where there is room for it.
    with tempfile.TemporaryDirectory(prefix="start_up-", dir=args.model.parent) as scratch:
        starts = asyncio.run(measure(args, Path(scratch)))
    theirs, ours = starts["coqui"], starts["ours"]
    ratios = {
        name: ratio((getattr(each, field) for each in theirs), (getattr(each, field) for each in ours))
        for name, field in {
            "first_answer": "first_answer_s",
            "ready": "ready_s",
            "first_audio": "first_audio_s",
        }.items()
    }
    report("start_up", args, [row(who, runs) for who, runs in starts.items()], ratios=ratios)


if __name__ == "__main__":
    main()
