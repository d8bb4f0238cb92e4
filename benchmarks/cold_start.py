"""How long from the start of a process until it is ready, and to the first audio, and in how much memory?

    python -m benchmarks.cold_start [--model DIR] [--device cpu|cuda] [--quick]

Each run is a process of its own, sides taking turns: ours on converted files, and a plain coqui handler
(`init_from_config`, `load_checkpoint`, `inference_stream` at its default chunk). Ours is ready once every part is
loaded (GPT, vocoder, speaker encoder, conditioner, tokenizer, built-in voices) and it has spoken a sentence, unheard;
coqui's is ready without that. The files are in the page cache, bytecode is compiled: one run of each came before and
does not count. coqui gets a copy of the folder, since it may rewrite model.pth when it reads it first. Both draw the
likeliest code (top_k 1), which with random weights is never the stop code. Linux only (peak memory). The first chunks
carry different lengths of audio, see `first_audio_s`. Never run on CUDA.
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
from typing import Any
from unittest.mock import patch

from benchmarks.common import ROOT, SLOTS, TEXTS, Args, median_of, parse_args, ratio, report, say, say_round

CHILD = "--child"


@dataclass(frozen=True, slots=True)
class Phases:
    """Of one process, each in seconds; `first_audio_s` is of audio in the first chunk.

    start_s       interpreter and this module
    warm_up_s     of ours: a sentence, unheard
    speak_s       from ready to the first chunk
    peak_mib      of resident memory, up to then
    gpu_peak_mib  likewise, of what torch holds of the GPU
    """

    start_s: float
    imports_s: float
    load_s: float
    warm_up_s: float | None
    speak_s: float
    first_audio_s: float
    peak_mib: float
    gpu_peak_mib: float | None

    @property
    def ready_s(self) -> float:
        return self.start_s + self.imports_s + self.load_s + (self.warm_up_s or 0)

    @property
    def total_s(self) -> float:
        return self.ready_s + self.speak_s


@dataclass(frozen=True, slots=True)
class Row:
    """Phases as above, medians; ready_s and total_s, to the first audio, since the process was started."""

    who: str
    start_s: float
    imports_s: float
    load_s: float
    warm_up_s: float | None
    ready_s: float
    speak_s: float
    total_s: float
    first_audio_s: float
    peak_mib: float
    gpu_peak_mib: float | None


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
    from tts_core.xtts.memory import choose_device

    imports_s = clock.lap_s()
    loads_s: list[float] = []
    warm_up = XttsEngine._warm_up

    def timed_warm_up(engine: XttsEngine) -> None:
        loads_s.append(clock.lap_s())
        warm_up(engine)

    with patch.object(XttsEngine, "_warm_up", timed_warm_up):
        engine = XttsEngine(folder, device=device, precision=precision, slots=SLOTS[choose_device(device).type])
    warm_up_s = clock.lap_s()

    async def first_chunk() -> Phases:
        manner = Manner(Speaker(builtin=engine.voices()[0].id), "en", sampling=Sampling(top_k=1))
        audience = Audience(due_s=time.monotonic())
        speaking = engine.speak(Utterance(TEXTS[0], start=0, end=len(TEXTS[0])), manner, audience)
        audio_s = len((await anext(speaking)).samples) / engine.sample_rate_hz
        speak_s = clock.lap_s()
        await speaking.aclose()
        await engine.close()
        return Phases(start_s, imports_s, loads_s[0], warm_up_s, speak_s, audio_s, peak_mib(), gpu_peak_mib())

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
    speak_s = clock.lap_s()
    audio_s = len(chunk) / config.audio.output_sample_rate
    return Phases(start_s, imports_s, load_s, None, speak_s, audio_s, peak_mib(), gpu_peak_mib())


def peak_mib() -> float:
    """Not `ru_maxrss`: that starts with the peak of the process which started this one."""
    status = Path("/proc/self/status").read_text("utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def gpu_peak_mib() -> float | None:
    import torch  # see `child_of_ours`

    return torch.cuda.max_memory_allocated() / 2**20 or None


CHILDREN = {"coqui": child_of_coqui, "ours": child_of_ours}


def run_child(who: str, folder: Path, args: Args) -> Phases:
    """raises CalledProcessError"""
    command = [sys.executable, "-m", "benchmarks.cold_start", CHILD, who, str(folder), args.device, args.precision]
    done = subprocess.run([*command, str(time.monotonic())], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        sys.stderr.write(done.stderr)
        done.check_returncode()
    return Phases(**json.loads(done.stdout.splitlines()[-1]))


def child(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("who", choices=CHILDREN)
    parser.add_argument("folder", type=Path)
    parser.add_argument("device")
    parser.add_argument("precision")
    parser.add_argument("started_s", type=float)
    args = parser.parse_args(argv)
    run = CHILDREN[args.who]
    phases = run(args.folder, args.device, Clock(args.started_s), precision=args.precision)
    print(json.dumps(asdict(phases)), flush=True)


def measure(args: Args, copy: Path) -> dict[str, list[Phases]]:
    shutil.copytree(args.model, copy)
    folders = {"coqui": copy, "ours": args.converted}
    for who, folder in folders.items():
        say(f"{who}, not counted")
        run_child(who, folder, args)
    phases: dict[str, list[Phases]] = {who: [] for who in folders}
    for number in range(1, args.rounds + 1):
        for who, folder in folders.items():
            say_round(args, number, who)
            phases[who].append(run_child(who, folder, args))
    return phases


def row(who: str, phases: Sequence[Phases]) -> Row:
    medians: dict[str, Any] = {
        name: None if getattr(phases[0], name) is None else median_of(phases, name)
        for name in Row.__slots__
        if name != "who"
    }
    return Row(who, **medians)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv, __doc__)
    # Beside the model, which is where there is room for it.
    with tempfile.TemporaryDirectory(prefix="cold_start-", dir=args.model.parent) as scratch:
        phases = measure(args, Path(scratch) / "coqui")
    theirs, ours = phases["coqui"], phases["ours"]
    ratios = {
        "ready": ratio((each.ready_s for each in theirs), (each.ready_s for each in ours)),
        "first_audio": ratio((each.total_s for each in theirs), (each.total_s for each in ours)),
    }
    report("cold_start", args, [row(who, runs) for who, runs in phases.items()], ratios=ratios)


if __name__ == "__main__":
    if sys.argv[1:2] == [CHILD]:
        child(sys.argv[2:])
    else:
        main()
