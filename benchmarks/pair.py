"""Our engine and coqui's model in one process, both kept from stopping: each makes the number of codes it is told."""

import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias, TypeVar
from unittest.mock import patch

import torch

from benchmarks.common import SLOTS, Args
from tests.oracle import coqui_model
from tts_core.types import Audience, Manner, Sampling, Speaker, Utterance
from tts_core.xtts.device_thread import DeviceThread
from tts_core.xtts.engine import XttsEngine
from tts_core.xtts.memory import choose_device
from tts_core.xtts.model import OpenModel, XttsModel

T = TypeVar("T")

NEVER = -1e4
"""Logit of the stop code."""

SAMPLING = Sampling()

COQUI_SAMPLING = {
    "temperature": SAMPLING.temperature,
    "top_k": SAMPLING.top_k,
    "top_p": SAMPLING.top_p,
    "repetition_penalty": SAMPLING.repetition_penalty,
}


@dataclass(frozen=True, slots=True)
class Heard:
    """One utterance as its listener got it, who plays it in real time from the first chunk on.

    first_s, total_s  since it was asked for, to the first and to the last chunk
    first_audio_s     of audio in the first chunk
    audio_s, samples  in all
    underruns         how often the listener ran dry
    """

    first_s: float
    first_audio_s: float
    total_s: float
    audio_s: float
    samples: int
    underruns: int


class Coqui:
    """coqui's own model, in float32, and its first built-in voice, which is also our engine's first.

    Its weight norm is folded, which `load_checkpoint` leaves undone: a bit faster. It runs on the thread of our engine:
    threads that have both computed get in each other's way, see `device_thread`.
    """

    def __init__(self, folder: Path, *, thread: DeviceThread, device: torch.device, codes: int) -> None:
        self._thread = thread
        self.call(lambda: self._load(folder, device, codes))

    def call(self, work: Callable[[], T]) -> T:
        """Whatever computes with this model."""
        return self._thread.call(work).result()

    def _load(self, folder: Path, device: torch.device, codes: int) -> None:
        self.model = coqui_model(folder).to(device)
        for parameter in self.model.parameters():
            parameter.data = parameter.data.clone()  # where its own loader has them, not in pages of the file
        with torch.no_grad():
            self.model.gpt.mel_head.bias[self.model.args.gpt_stop_audio_token] = NEVER
        self.speaks(codes)
        voice = next(iter(torch.load(folder / "speakers_xtts.pth", weights_only=True).values()))
        self.latents = voice["gpt_cond_latent"].float().to(device)
        """[1, 32, width]"""
        self.embedding = voice["speaker_embedding"].float().to(device)
        """[1, 512, 1]"""

    def speaks(self, codes: int) -> None:
        """So many, from now on."""
        self.model.gpt.max_gen_mel_tokens = codes

    def speak(self, text: str) -> int:
        """Samples of the whole utterance."""
        return self.call(lambda: self._speak(text))

    def stream(self, text: str, *, chunk_codes: int) -> Heard:
        """A chunk has arrived once it is on the CPU."""
        return self.call(lambda: self._stream(text, chunk_codes))

    def _speak(self, text: str) -> int:
        torch.manual_seed(SAMPLING.seed)
        return len(self.model.inference(text, "en", self.latents, self.embedding, **COQUI_SAMPLING)["wav"])

    def _stream(self, text: str, chunk_codes: int) -> Heard:
        torch.manual_seed(SAMPLING.seed)
        started_s = time.perf_counter()
        arrivals: list[tuple[float, int]] = []
        for chunk in self.model.inference_stream(
            text, "en", self.latents, self.embedding, stream_chunk_size=chunk_codes, **COQUI_SAMPLING
        ):
            samples = len(chunk.cpu())
            arrivals.append((time.perf_counter() - started_s, samples))
        return heard(arrivals, rate_hz=self.model.config.audio.output_sample_rate)


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """gpu_coqui_bytes: what coqui's model holds of the GPU"""

    engine: XttsEngine
    coqui: Coqui
    device: torch.device
    gpu_coqui_bytes: int

    @contextmanager
    def of_codes(self, codes: int) -> Iterator[None]:
        """Utterances of both sides have so many for a while."""
        before = self.coqui.model.gpt.max_gen_mel_tokens
        self.coqui.speaks(codes)
        with patch("tts_core.xtts.engine.code_budget", lambda _chars: codes):
            yield
        self.coqui.speaks(before)

    async def with_gpu_peak(self, work: Awaitable[T]) -> tuple[T, float | None]:
        """Its result, and the most memory in MiB that our side held of the GPU meanwhile; None on a CPU."""
        if self.device.type == "cpu":
            return await work, None
        torch.cuda.reset_peak_memory_stats(self.device)
        result = await work
        return result, (torch.cuda.max_memory_allocated(self.device) - self.gpu_coqui_bytes) / 2**20


@asynccontextmanager
async def pair(args: Args) -> AsyncIterator[Pair]:
    """Every utterance of either has `args.codes` codes, whatever its text, and none is spoken anew."""
    device = choose_device(args.device)
    with (
        patch.object(OpenModel, "load", endless(OpenModel.load)),
        patch("tts_core.xtts.engine.code_budget", lambda _chars: args.codes),
    ):
        engine = XttsEngine(
            args.converted, device=args.device, precision=args.precision, slots=SLOTS[device.type], guarded=False
        )
        try:
            before_bytes = _allocated_bytes(device)
            coqui = Coqui(args.model, thread=engine._device, device=device, codes=args.codes)
            yield Pair(engine, coqui, device, _allocated_bytes(device) - before_bytes)
        finally:
            await engine.close()


def _allocated_bytes(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


Load: TypeAlias = Callable[[OpenModel, torch.device], XttsModel]


def endless(load: Load) -> Load:
    """Loads a model that never draws the stop code."""

    def load_endless(opened: OpenModel, device: torch.device) -> XttsModel:
        model = load(opened, device)
        bias = model.gpt["mel_head.bias"].clone()
        bias[model.sizes.stop_code] = NEVER
        return replace(model, gpt={**model.gpt, "mel_head.bias": bias})

    return load_endless


def timed_s(work: Callable[[], object], device: torch.device) -> float:
    """Until all that it launched is done."""
    wait_for(device)
    started_s = time.perf_counter()
    work()
    wait_for(device)
    return time.perf_counter() - started_s


def wait_for(device: torch.device) -> None:
    """Until all that was launched is done; a CPU is never ahead."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


async def hear(engine: XttsEngine, text: str, *, streamed: bool) -> Heard:
    """Our engine speaks with its first built-in voice."""
    started_s = time.perf_counter()
    manner = Manner(Speaker(builtin=engine.voices()[0].id), "en", sampling=SAMPLING)
    audience = Audience(due_s=time.monotonic() if streamed else math.inf)
    arrivals: list[tuple[float, int]] = []
    async for chunk in engine.speak(Utterance(text, start=0, end=len(text)), manner, audience):
        arrivals.append((time.perf_counter() - started_s, len(chunk.samples)))
    return heard(arrivals, rate_hz=engine.sample_rate_hz)


def heard(arrivals: Sequence[tuple[float, int]], *, rate_hz: int) -> Heard:
    """arrivals: of each chunk, seconds since it was asked for and its samples"""
    (first_s, first_samples), *later = arrivals
    dry_s, underruns = first_s + first_samples / rate_hz, 0
    for arrived_s, samples in later:
        underruns += arrived_s > dry_s
        dry_s = max(dry_s, arrived_s) + samples / rate_hz
    total = sum(samples for _, samples in arrivals)
    return Heard(
        first_s=first_s,
        first_audio_s=first_samples / rate_hz,
        total_s=arrivals[-1][0],
        audio_s=total / rate_hz,
        samples=total,
        underruns=underruns,
    )
