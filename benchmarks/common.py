"""What the benchmarks share: arguments, the two models, one configuration of ours, and how results are told.

Imports neither torch nor coqui: `cold_start` measures how long that takes.
"""

import argparse
import json
import math
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from tts_core.xtts.weights import CONVERTED_FILES, RANDOM_WEIGHTS_MARK

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ROOT = Path(__file__).parent.parent

DEFAULT_MODEL = ROOT / "build" / "xtts-random"

SLOTS = {"cpu": 16, "cuda": 64}
"""Of our engine in every benchmark, as it ships (`memory.MAX_SLOTS`); a quarter of them is kept for streams."""

CODES_PER_S = 22_050 / 1024
"""Of audio."""

CPU_FEATURES = {"int8": ("avx512_vnni", "amx_int8"), "int8x7": ("avx2",), "bf16": ("avx512_bf16", "amx_bf16")}
"""Those that oneDNN, or FBGEMM with inputs in 7 bits, can use, by precision."""

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
    """
    model           official files, for coqui
    converted       made of them, for our engine
    bandwidth_gb_s  of the GPU's memory; None: to be measured
    """

    model: Path
    converted: Path
    device: str
    precision: str
    quick: bool
    rounds: int
    codes: int
    bandwidth_gb_s: float | None


def parse_args(argv: Sequence[str] | None, doc: str | None, *, codes: int = 0) -> Args:
    """Makes the models, too, if they are not there.

    codes   of each utterance, where nothing else is asked for; 0 if the benchmark does not tell
    raises  SystemExit if the arguments mean nothing, CalledProcessError if a model cannot be made
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model",
        type=Path,
        default=DEFAULT_MODEL,
        help="official files of XTTS-v2; if there are none, random weights of the real size are made. Converted ones "
        "are made beside them. Default: build/xtts-random",
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--precision", choices=("auto", "fast", "fp32", "bf16", "int8"), default="fast", help="of our side"
    )
    parser.add_argument("--quick", action="store_true", help="one round instead of three")
    parser.add_argument("--rounds", type=int, help="that medians are taken of")
    parser.add_argument("--codes", type=int, default=codes, help=f"of each utterance, if any is timed; {codes}")
    parser.add_argument("--bandwidth-gb-s", type=float, help="of the GPU's memory; measured by a copy if not given")
    args = parser.parse_args(argv)
    rounds = args.rounds if args.rounds is not None else (1 if args.quick else 3)
    if rounds < 1 or (codes and args.codes < 2):
        parser.error("--rounds is at least 1, --codes at least 2")
    model = args.model.resolve()
    build_if_missing(model)
    ours = converted(model)
    return Args(model, ours, args.device, args.precision, args.quick, rounds, args.codes, args.bandwidth_gb_s)


def build_if_missing(folder: Path) -> None:
    """In a process of its own: it takes gigabytes that are not to be found in a peak measured later."""
    if folder.exists():
        return
    say(f"making random weights of the real size in {folder}")
    draft = folder.with_name(f"{folder.name}-draft")
    shutil.rmtree(draft, ignore_errors=True)
    _python("-m", "tests.tiny_xtts", str(draft), "--full")
    draft.rename(folder)


def converted(folder: Path) -> Path:
    """What our engine is given: its own files, made once, in every precision that it may choose."""
    target = folder.with_name(f"{folder.name}-converted")
    if not any(target.glob(CONVERTED_FILES)):
        say(f"converting {folder}")
        precisions = ("--precision", "fp32", "bf16", "int8")
        _python("-m", "tts_core.xtts.checkpoint", "convert", str(folder), str(target), *precisions)
    return target


def _python(*words: str) -> None:
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True)


def say(what: str) -> None:
    """To whoever waits; coqui takes minutes."""
    sys.stderr.write(f"{what}\n")


def say_round(args: Args, number: int, who: str) -> None:
    say(f"round {number} of {args.rounds}, {who}")


def texts(count: int) -> list[str]:
    return [TEXTS[number % len(TEXTS)] for number in range(count)]


def median_of(rows: Sequence[Any], name: str) -> float:
    return float(median(getattr(row, name) for row in rows))


def ratio(theirs: Iterable[float], ours: Iterable[float]) -> float:
    """How many times faster ours is: times of the same rounds, the median of the rounds' ratios."""
    return median(their_s / our_s for their_s, our_s in zip(theirs, ours, strict=True))


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank: always one of the values."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def report(
    benchmark: str, args: Args, rows: Sequence["DataclassInstance"], *, ratios: Mapping[str, float], **more: object
) -> None:
    """Print what was measured.

    ratios  coqui's time over ours: larger is better
    more    goes into the last line alone
    """
    words, ours, where = weights_in_words(args.model), configuration(args), machine(args.device)
    print(f"{benchmark}: {words}; {where['in_words']}; n={args.rounds}")
    print(f"ours: {ours['in_words']}; coqui-tts: fp32")
    print_table(rows)
    print("ratios:", ", ".join(f"{name} {value:.2f}" for name, value in ratios.items()))
    head = {"benchmark": benchmark, "commit": commit(), "weights": words, "machine": where, "configuration": ours}
    asked = {"quick": args.quick, "rounds": args.rounds, "codes": args.codes}
    rounded = {name: round(value, 3) for name, value in ratios.items()}
    print(json.dumps(head | asked | {"ratios": rounded} | more | {"rows": [asdict(row) for row in rows]}))


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


def configuration(args: Args) -> dict[str, object]:
    """How ours computes: the same in every benchmark."""
    import torch  # see the module's docstring

    from tts_core.xtts.memory import choose_device
    from tts_core.xtts.precision import NAMES, choose_precision

    device = choose_device(args.device)
    precision = choose_precision(args.precision, device)
    vocoder, slots, threads = NAMES[precision.vocoder], SLOTS[device.type], torch.get_num_threads()
    capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    gpt = precision.name + precision.kind
    kinds = dict.fromkeys((gpt, vocoder))
    features = [name for kind in kinds for name in CPU_FEATURES.get(kind, ()) if capabilities.get(name)]
    words = f"{args.precision}: {gpt} GPT, {vocoder} vocoder, {threads} threads, {slots} slots"
    return {
        "in_words": f"{words}, {' '.join(features) or 'no CPU feature in particular'}",
        "name": args.precision,
        "precision": gpt,
        "vocoder_precision": vocoder,
        "cpu_features": features,
        "threads": threads,
        "slots": slots,
    }


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
