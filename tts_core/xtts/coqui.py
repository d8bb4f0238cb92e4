"""What one thread does with coqui's model: speak an utterance, listen to clips. One call at a time, always."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, repeat

import torch
import torchaudio
from torch import Tensor
from TTS.tts.models.xtts import Xtts

from tts_core.types import FloatArray, Language, ReferenceClip, Sampling
from tts_core.xtts.reading import Reading, read
from tts_core.xtts.vocoder import WindowedVocoder

CHUNK_CODES = (8, 12, 20)
"""Codes in the first chunks: 8 are heard soonest (0.17 s of audio, as 14 frames of context are held back)."""

LATER_CHUNK_CODES = 40

CODES_PER_S = 22_050 / 1024

CLIP_RATE_HZ = 22_050
"""What the conditioning encoder was trained on; coqui resamples to 16 kHz itself for the speaker encoder."""


@dataclass(frozen=True, slots=True, eq=False)
class Voice:
    """gpt_latents [1, 32, dim], speaker_embedding [1, 512, 1]; float32, on the model's device"""

    gpt_latents: Tensor
    speaker_embedding: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One utterance to speak."""

    text: str
    language: Language
    voice: Voice
    speed: float
    sampling: Sampling


def code_budget(chars: int) -> int:
    """The number of codes after which an utterance of so many characters, as read, is no longer speech but a runaway.

    2.5 times what 15 characters per second take, and 40 codes (1.9 s) more for a breath, or for letters spelled
    out: a second of babble is better than speech cut off. The model itself stops at 602 codes, 28 s.
    """
    return 40 + int(2.5 * CODES_PER_S * chars / 15)


def speak(model: Xtts, request: Request, *, stopped: Callable[[], bool]) -> Iterator[FloatArray]:
    """Samples as soon as the codes they need are there; ends early, before the next code, once `stopped()`.

    raises  TextTooLong if the model has no place for the text
    """
    reading = read(model.tokenizer, request.text, request.language)
    codes = islice(latents(model, request, reading), code_budget(reading.chars))
    vocoder = WindowedVocoder(
        model.hifigan_decoder, speaker_embedding=request.voice.speaker_embedding, speed=request.speed
    )
    for size in chain(CHUNK_CODES, repeat(LATER_CHUNK_CODES)):
        rows = list(islice(_while_not(stopped, codes), size))
        if stopped():
            return
        samples = vocoder.push(rows, last=len(rows) < size)
        if len(samples):
            yield samples
        if len(rows) < size:
            return


@torch.inference_mode()
def latents(model: Xtts, request: Request, reading: Reading) -> Iterator[Tensor]:
    """One row [1, dim] per code drawn, the stop code's included, made when asked for.

    source  coqui `Xtts.inference_stream`; torch's global generator is ours alone, as all draws are on this thread
    """
    torch.manual_seed(request.sampling.seed)
    text_ids = torch.tensor([reading.text_ids], dtype=torch.int32, device=model.device)
    steps = model.gpt.get_generator(
        fake_inputs=model.gpt.compute_embeddings(request.voice.gpt_latents, text_ids),
        do_sample=True,
        temperature=request.sampling.temperature,
        top_k=request.sampling.top_k,
        top_p=request.sampling.top_p,
        repetition_penalty=request.sampling.repetition_penalty,
        output_hidden_states=True,
        return_dict_in_generate=True,
    )
    for _code, row in steps:
        yield row


def condition(model: Xtts, clips: Sequence[ReferenceClip]) -> Voice:
    """The voice of the clips: what coqui's `get_conditioning_latents` computes, from memory in place of files."""
    config = model.config
    audio = [_clip_audio(clip)[:, : CLIP_RATE_HZ * config.max_ref_len] for clip in clips]
    if config.sound_norm_refs:
        audio = [0.75 * samples / samples.abs().max() for samples in audio]
    embeddings = [model.get_speaker_embedding(samples, CLIP_RATE_HZ) for samples in audio]
    gpt_latents = model.get_gpt_cond_latents(
        torch.cat(audio, dim=-1), CLIP_RATE_HZ, length=config.gpt_cond_len, chunk_length=config.gpt_cond_chunk_len
    )
    return Voice(gpt_latents=gpt_latents, speaker_embedding=torch.stack(embeddings).mean(dim=0))


def _clip_audio(clip: ReferenceClip) -> Tensor:
    """[1, samples] at 22,050 Hz"""
    samples = torch.tensor(clip.samples)[None]
    resampled: Tensor = torchaudio.functional.resample(samples, clip.sample_rate_hz, CLIP_RATE_HZ)
    return resampled.clip(-1, 1)


def _while_not(stopped: Callable[[], bool], rows: Iterator[Tensor]) -> Iterator[Tensor]:
    while not stopped() and (row := next(rows, None)) is not None:
        yield row
