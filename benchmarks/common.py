"""What the benchmarks share: arguments, the machine in words, medians, a table for people and a line for machines.

Imports neither torch nor coqui: `cold_start` measures how long that takes.
"""

import argparse
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from tts_core.xtts.weights import RANDOM_WEIGHTS_MARK

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ROOT = Path(__file__).parent.parent

TEXTS = (
    "The old keeper climbs the stairs every morning and opens the heavy door.",
    "From there she can see the fishing boats returning home before the storm.",
    "He asked whether we would stay for dinner, and nobody said a single word.",
    "It was very late, and the last of the guests had gone home long before.",
    "When the rain stopped at last, the children ran down to the brown river.",
    "A narrow road leads from the harbour to the church at the top of the hill.",
    "My grandmother kept her letters in a wooden box under the kitchen table.",
    "The train to the north leaves from the second platform in ten minutes.",
    "Nobody knew who had painted the door blue, but everybody liked the colour.",
    "She put the kettle on, sat down by the window and waited for the news.",
    "The garden behind the house had not been looked after for many years.",
    "In winter the lake freezes over, and the whole village goes out to skate.",
    "They talked about the weather until the waiter came back with the bill.",
    "The museum is closed on Mondays, so we walked through the park instead.",
    "His first book was about ships, and the second one was about the stars.",
    "A dog barked somewhere in the dark, and then the street was quiet again.",
    "The baker starts work at three so that the bread is warm in the morning.",
    "We crossed the bridge on foot because the bus did not come that evening.",
    "Her brother plays the cello in an orchestra that travels around the world.",
    "The letter arrived two weeks late, with a stamp that none of us had seen.",
)
"""Twenty sentences of about the same length, without numbers: both sides read them alike."""


@dataclass(frozen=True, slots=True)
class Args:
    model: Path
    device: str
    precision: str
    quick: bool
    rounds: int
    codes: int


def parse_args(argv: Sequence[str] | None, doc: str | None, *, codes: int = 0, quick_codes: int = 0) -> Args:
    """
    codes, quick_codes  of each utterance, where nothing else is asked for; 0 if the benchmark does not tell
    raises              SystemExit if the arguments mean nothing, CalledProcessError if the model cannot be built
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", type=Path, required=True, help="folder of XTTS-v2; if there is none, random weights of the real size"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16", "int8"), default="auto", help="of our side")
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument("--rounds", type=int, help="that medians are taken of; 3, with --quick 1")
    if codes:
        parser.add_argument("--codes", type=int, help=f"of each utterance; {codes}, with --quick {quick_codes}")
    args = parser.parse_args(argv)
    rounds = args.rounds if args.rounds is not None else (1 if args.quick else 3)
    default = quick_codes if args.quick else codes
    wanted: int = getattr(args, "codes", None) or default
    if rounds < 1 or (codes and wanted < 2):
        parser.error("--rounds is at least 1, --codes at least 2")
    build_if_missing(args.model)
    return Args(args.model, args.device, args.precision, args.quick, rounds, wanted)


def build_if_missing(folder: Path) -> None:
    """In a process of its own: it takes gigabytes that are not to be found in a peak measured later."""
    if not folder.exists():
        subprocess.run([sys.executable, "-m", "tests.tiny_xtts", str(folder), "--full"], cwd=ROOT, check=True)


def median_of(rows: Sequence[Any], name: str) -> float:
    return float(median(getattr(row, name) for row in rows))


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank: always one of the values."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def report(benchmark: str, args: Args, rows: Sequence["DataclassInstance"], **more: object) -> None:
    """Print what was measured; `more` goes into the last line alone."""
    words = weights_in_words(args.model)
    print(f"{benchmark}: {words}; precision {args.precision}; {machine(args.device)['in_words']}; n={args.rounds}")
    print_table(rows)
    head = {"benchmark": benchmark, "commit": commit(), "weights": words, "machine": machine(args.device)}
    asked = {"precision": args.precision, "quick": args.quick, "rounds": args.rounds, "codes": args.codes}
    print(json.dumps(head | asked | more | {"rows": [asdict(row) for row in rows]}))


def print_table(rows: Sequence["DataclassInstance"]) -> None:
    names = [field.name for field in fields(rows[0])]
    lines = [names, *([_cell(getattr(row, name)) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(names))]
    for line in lines:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return "-" if value is None else str(value)
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def weights_in_words(folder: Path) -> str:
    config = json.loads((folder / "config.json").read_text("utf-8"))["model_args"]
    kind = "RANDOM weights" if (folder / RANDOM_WEIGHTS_MARK).is_file() else "weights as given"
    return f"{kind}, {config['gpt_layers']} layers, {config['gpt_n_model_channels']} wide"


def commit() -> str:
    """Short hash, `-dirty` if files differ from it; `unknown` outside of a repository."""
    try:
        changes = _git("status", "--porcelain", "--untracked-files=no")
        return _git("rev-parse", "--short", "HEAD") + ("-dirty" if changes else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*words: str) -> str:
    # Without the lock a `git commit` that somebody makes meanwhile does not fail.
    command = ["git", "--no-optional-locks", *words]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


@cache
def machine(device: str) -> dict[str, object]:
    """What it ran on, and how busy others kept that: the load includes this very process."""
    import torch  # see the module's docstring

    cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    gpu = torch.cuda.get_device_name() if cuda else None
    threads, cpus, load = torch.get_num_threads(), os.cpu_count(), os.getloadavg()[0]
    cpu = _cpu_name()
    words = f"{gpu or 'CPU only'}, {cpu}, {cpus} CPUs, {threads} threads, load {load:.1f}, torch {torch.__version__}"
    return {
        "in_words": words,
        "gpu": gpu,
        "cpu": cpu,
        "cpus": cpus,
        "threads": threads,
        "load_1min": round(load, 2),
        "torch": str(torch.__version__),
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
