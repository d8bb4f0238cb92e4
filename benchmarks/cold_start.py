"""How long from the start of a process to the first audio, and in how much memory?

    python -m benchmarks.cold_start --model DIR [--device cpu|cuda] [--precision int8] [--quick]

Each run is a process of its own, sides taking turns: ours on the official folder, ours on what
`tts_core.xtts.convert` makes of it, and a plain coqui handler (`init_from_config`, `load_checkpoint`,
`inference_stream` at its default chunk). The files are in the page cache, bytecode is compiled: one run of each came
before and does not count. coqui gets a copy of the folder, since it may rewrite model.pth when it reads it first. Both
draw the likeliest code (top_k 1), which with random weights is never the stop code. Linux only (peak memory). The first
chunks carry different lengths of audio, see `first_audio_s`.
"""

import argparse
import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.common import ROOT, TEXTS, Args, median_of, parse_args, report

CHILD = "--child"


@dataclass(frozen=True, slots=True)
class Phases:
    """Of one process, each in seconds; `first_audio_s` is of audio in the first chunk.

    start_s    interpreter and this module
    speak_s    from ready to the first chunk
    peak_mib   of resident memory, up to then
    """

    start_s: float
    imports_s: float
    load_s: float
    speak_s: float
    first_audio_s: float
    peak_mib: float

    @property
    def ready_s(self) -> float:
        return self.start_s + self.imports_s + self.load_s

    @property
    def total_s(self) -> float:
        return self.ready_s + self.speak_s


@dataclass(frozen=True, slots=True)
class Row:
    """Phases as above; ready_s and total_s since the process was started. ratio: coqui's total over this one's"""

    who: str
    imports_s: float
    load_s: float
    ready_s: float
    speak_s: float
    total_s: float
    first_audio_s: float
    peak_mib: float
    ratio: float


class Clock:
    """The time between its readings; CLOCK_MONOTONIC is the same in parent and child."""

    def __init__(self, started_s: float) -> None:
        self._last_s = started_s

    def lap_s(self) -> float:
        before_s, self._last_s = self._last_s, time.monotonic()
        return self._last_s - before_s


def child_of_ours(folder: Path, device: str, clock: Clock, *, precision: str) -> Phases:
    start_s = clock.lap_s()
    # Imports in functions: they are what is measured.
    from tts_core.types import Audience, Manner, Sampling, Speaker, Utterance
    from tts_core.xtts.engine import XttsEngine

    imports_s = clock.lap_s()
    engine = XttsEngine(folder, device=device, precision=precision)
    load_s = clock.lap_s()

    async def first_chunk() -> Phases:
        manner = Manner(Speaker(builtin=engine.voices()[0].id), "en", sampling=Sampling(top_k=1))
        audience = Audience(due_s=time.monotonic())
        speaking = engine.speak(Utterance(TEXTS[0], start=0, end=len(TEXTS[0])), manner, audience)
        audio_s = len((await anext(speaking)).samples) / engine.sample_rate_hz
        phases = Phases(start_s, imports_s, load_s, clock.lap_s(), audio_s, peak_mib())
        await speaking.aclose()
        await engine.close()
        return phases

    return asyncio.run(first_chunk())


def child_of_coqui(folder: Path, device: str, clock: Clock, *, precision: str) -> Phases:
    """What a plain handler does, in its order; there is one precision."""
    start_s = clock.lap_s()
    import torch
    from TTS.tts.configs.xtts_config import XttsConfig
    from TTS.tts.models.xtts import Xtts

    imports_s = clock.lap_s()
    config = XttsConfig()
    config.load_json(folder / "config.json")
    model = Xtts.init_from_config(config)
    model.load_checkpoint(config, checkpoint_dir=folder, eval=True)
    if device == "cuda" or (device == "auto" and torch.cuda.is_available()):
        model.cuda()
    load_s = clock.lap_s()
    latents, embedding = next(iter(model.speaker_manager.speakers.values())).values()
    chunk = next(model.inference_stream(TEXTS[0], "en", latents, embedding, top_k=1)).cpu()
    rate_hz = config.audio.output_sample_rate
    return Phases(start_s, imports_s, load_s, clock.lap_s(), len(chunk) / rate_hz, peak_mib())


def peak_mib() -> float:
    """Not `ru_maxrss`: that starts with the peak of the process which started this one."""
    status = Path("/proc/self/status").read_text("utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


CHILDREN = {"ours": child_of_ours, "coqui": child_of_coqui}


def run_child(kind: str, folder: Path, args: Args) -> Phases:
    """raises CalledProcessError"""
    command = [sys.executable, "-m", "benchmarks.cold_start", CHILD, kind, str(folder), args.device, args.precision]
    done = subprocess.run([*command, str(time.monotonic())], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        sys.stderr.write(done.stderr)
        done.check_returncode()
    return Phases(**json.loads(done.stdout.splitlines()[-1]))


def child(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=CHILDREN)
    parser.add_argument("folder", type=Path)
    parser.add_argument("device")
    parser.add_argument("precision")
    parser.add_argument("started_s", type=float)
    args = parser.parse_args(argv)
    run = CHILDREN[args.kind]
    phases = run(args.folder, args.device, Clock(args.started_s), precision=args.precision)
    print(json.dumps(asdict(phases)), flush=True)


def measure(args: Args, scratch: Path) -> dict[str, list[Phases]]:
    copy, converted = scratch / "coqui", scratch / "converted"
    shutil.copytree(args.model, copy)
    subprocess.run(
        [sys.executable, "-m", "tts_core.xtts.convert", str(args.model), str(converted)], cwd=ROOT, check=True
    )
    cases = {
        "coqui": ("coqui", copy),
        "ours, official files": ("ours", args.model),
        "ours, converted": ("ours", converted),
    }
    for kind, folder in cases.values():
        run_child(kind, folder, args)
    phases: dict[str, list[Phases]] = {who: [] for who in cases}
    for _ in range(args.rounds):
        for who, (kind, folder) in cases.items():
            phases[who].append(run_child(kind, folder, args))
    return phases


def row(who: str, phases: Sequence[Phases], coquis: Sequence[Phases]) -> Row:
    names = ("imports_s", "load_s", "ready_s", "speak_s", "total_s", "first_audio_s", "peak_mib")
    medians = {name: median_of(phases, name) for name in names}
    return Row(who=who, **medians, ratio=median_of(coquis, "total_s") / medians["total_s"])


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv, __doc__)
    # Beside the model, which is where there is room for it.
    with tempfile.TemporaryDirectory(prefix="cold_start-", dir=args.model.resolve().parent) as scratch:
        phases = measure(args, Path(scratch))
    report("cold_start", args, [row(who, runs, phases["coqui"]) for who, runs in phases.items()])


if __name__ == "__main__":
    if sys.argv[1:2] == [CHILD]:
        child(sys.argv[2:])
    else:
        main()
