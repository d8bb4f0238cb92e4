"""Our engine and coqui's model in one process, both kept from stopping: each makes the number of codes it is told."""

import math
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from TTS.tts.models.xtts import Xtts

from benchmarks.common import Args
from tests.oracle import coqui_model
from tts_core.types import Audience, Manner, Sampling, Speaker, Utterance
from tts_core.xtts import checkpoint
from tts_core.xtts.engine import XttsEngine
from tts_core.xtts.model import XttsModel, load_model

NEVER = -1e4
"""Logit of the stop code."""

SAMPLING = Sampling()

COQUI_SAMPLING = {
    "temperature": SAMPLING.temperature,
    "top_k": SAMPLING.top_k,
    "top_p": SAMPLING.top_p,
    "repetition_penalty": SAMPLING.repetition_penalty,
}


@dataclass(frozen=True, slots=True, eq=False)
class CoquiVoice:
    """gpt_latents [1, 32, width], embedding [1, 512, 1]; both float32 on the device"""

    gpt_latents: Tensor
    embedding: Tensor


def coqui(folder: Path, *, device: torch.device, codes: int) -> Xtts:
    """coqui's own model, in float32. Its weight norm is folded, which `load_checkpoint` leaves undone: a bit faster."""
    model = coqui_model(folder)
    with torch.no_grad():
        model.gpt.mel_head.bias[model.args.gpt_stop_audio_token] = NEVER
    model.gpt.max_gen_mel_tokens = codes
    return model.to(device)


def coqui_voice(folder: Path, *, device: torch.device) -> CoquiVoice:
    """The first built-in voice, which is also our engine's first."""
    first = next(iter(checkpoint.load_speakers(folder).values()))
    return CoquiVoice(first["gpt_cond_latent"].float().to(device), first["speaker_embedding"].float().to(device))


def endless(model: XttsModel) -> XttsModel:
    bias = model.gpt["mel_head.bias"].clone()
    bias[model.sizes.stop_code] = NEVER
    return replace(model, gpt={**model.gpt, "mel_head.bias": bias})


@asynccontextmanager
async def endless_engine(args: Args, *, slots: int) -> AsyncIterator[XttsEngine]:
    """Every utterance of it has `args.codes` codes, whatever its text, and no take is spoken anew."""

    def load(*args: Any, **kwargs: Any) -> XttsModel:
        return endless(load_model(*args, **kwargs))

    with (
        patch("tts_core.xtts.engine.load_model", load),
        patch("tts_core.xtts.engine.code_budget", lambda _chars: args.codes),
    ):
        engine = XttsEngine(args.model, device=args.device, precision=args.precision, slots=slots, guarded=False)
        try:
            yield engine
        finally:
            await engine.close()


def wait_for(device: torch.device) -> None:
    """Until all that was launched is done; a CPU is never ahead."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True, slots=True)
class Heard:
    """One utterance as its listener got it: seconds since it was asked for, seconds of audio, samples in all."""

    first_s: float
    first_audio_s: float
    total_s: float
    samples: int


async def hear(engine: XttsEngine, text: str, *, streamed: bool) -> Heard:
    """Our engine speaks with its first built-in voice."""
    started_s = time.perf_counter()
    manner = Manner(Speaker(builtin=engine.voices()[0].id), "en", sampling=SAMPLING)
    audience = Audience(due_s=time.monotonic() if streamed else math.inf)
    arrivals: list[tuple[float, int]] = []
    async for chunk in engine.speak(Utterance(text, start=0, end=len(text)), manner, audience):
        arrivals.append((time.perf_counter() - started_s, len(chunk.samples)))
    return _heard(arrivals, engine.sample_rate_hz)


def hear_coqui(model: Xtts, voice: CoquiVoice, text: str, *, chunk_codes: int) -> Heard:
    """A chunk has arrived once it is on the CPU."""
    torch.manual_seed(SAMPLING.seed)
    started_s = time.perf_counter()
    arrivals: list[tuple[float, int]] = []
    chunks = model.inference_stream(
        text, "en", voice.gpt_latents, voice.embedding, stream_chunk_size=chunk_codes, **COQUI_SAMPLING
    )
    for chunk in chunks:
        samples = len(chunk.cpu())
        arrivals.append((time.perf_counter() - started_s, samples))
    return _heard(arrivals, model.config.audio.output_sample_rate)


def _heard(arrivals: Sequence[tuple[float, int]], rate_hz: int) -> Heard:
    first_s, first_samples = arrivals[0]
    return Heard(first_s, first_samples / rate_hz, arrivals[-1][0], sum(samples for _, samples in arrivals))
