"""Clips in, a voice out: what coqui's `get_conditioning_latents` computes, from memory in place of files."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torchaudio
from torch import Tensor, nn
from torch.nn import functional

from tts_core.errors import ReferenceTooShort
from tts_core.types import ReferenceClip
from tts_core.xtts.perceiver import Perceiver
from tts_core.xtts.speaker_encoder import SpeakerEncoder

CLIP_RATE_HZ = 22_050
"""What the conditioning encoder was trained on; the speaker encoder gets 16 kHz made of it."""

SPEAKER_RATE_HZ = 16_000

MIN_CHUNK_S = 0.33
"""A shorter rest is left out. Source: coqui `get_gpt_cond_latents`."""

MELS = 80
BLOCKS = 6
"""Source: coqui `ConditioningEncoder`, whose sizes config.json does not tell."""


@dataclass(frozen=True, slots=True, eq=False)
class Voice:
    """gpt_latents [32, width], speaker_embedding [512] of unit length; float32, on the CPU"""

    gpt_latents: Tensor
    speaker_embedding: Tensor


@dataclass(frozen=True, slots=True)
class Listening:
    """How much of the clips is listened to. Source: config.json; the official values are 30, 30, 4 and no.

    clip_s      of each clip
    latents_s   of all clips joined, for the GPT
    chunk_s     at once
    loudness    each clip is made 0.75 loud first
    """

    clip_s: int
    latents_s: int
    chunk_s: int
    loudness: bool


class VoiceEncoder:
    """Holds the three networks that listen; float32, on one device. One thread at a time."""

    def __init__(self, conditioner: "Conditioner", speaker_encoder: SpeakerEncoder, listening: Listening) -> None:
        self._conditioner = conditioner
        self._speaker_encoder = speaker_encoder
        self._listening = listening
        self._device = conditioner.mel_stats.device
        self._mel = torchaudio.transforms.MelSpectrogram(
            sample_rate=CLIP_RATE_HZ,
            n_fft=2048,
            win_length=1024,
            hop_length=256,
            f_max=8000,
            n_mels=MELS,
            norm="slaney",
        ).to(self._device)

    @torch.inference_mode()
    def encode(self, clips: Sequence[ReferenceClip]) -> Voice:
        """The voice that all clips share: latents of them joined, and their mean speaker embedding.

        raises  ReferenceTooShort if together they have less than a third of a second
        source  coqui `Xtts.get_conditioning_latents`, to 1e-5
        """
        audio = [self._prepared(clip) for clip in clips]
        latents = self._latents(torch.cat(audio)[: CLIP_RATE_HZ * self._listening.latents_s])
        embeddings = torch.stack([self._embedding(samples) for samples in audio])
        return Voice(gpt_latents=latents.cpu(), speaker_embedding=embeddings.mean(dim=0).cpu())

    def _prepared(self, clip: ReferenceClip) -> Tensor:
        """[samples] at 22,050 Hz, on the device"""
        samples = torch.tensor(clip.samples)
        resampled: Tensor = torchaudio.functional.resample(samples, clip.sample_rate_hz, CLIP_RATE_HZ)
        resampled = resampled.clip(-1, 1)[: CLIP_RATE_HZ * self._listening.clip_s]
        if self._listening.loudness:
            resampled = 0.75 * resampled / resampled.abs().max()
        return resampled.to(self._device)

    def _latents(self, audio: Tensor) -> Tensor:
        """[samples] -> [32, width]: the mean over chunks"""
        chunks = [
            chunk
            for chunk in torch.split(audio, CLIP_RATE_HZ * self._listening.chunk_s)
            if len(chunk) >= CLIP_RATE_HZ * MIN_CHUNK_S
        ]
        if not chunks:
            raise ReferenceTooShort(f"the reference clips must be at least {MIN_CHUNK_S} s long")
        mels = [self._mel(chunk).clamp(min=1e-5).log() for chunk in chunks]
        return torch.stack([self._conditioner(mel) for mel in mels]).mean(dim=0)

    def _embedding(self, audio: Tensor) -> Tensor:
        """[samples] -> [512] of unit length"""
        resampled = torchaudio.functional.resample(audio, CLIP_RATE_HZ, SPEAKER_RATE_HZ)
        embedding: Tensor = self._speaker_encoder(resampled[None])
        return embedding[0]


class Conditioner(nn.Module):
    """Mel spectrum to the 32 latents that stand before the text; parameters are named as in the checkpoint."""

    mel_stats: Tensor

    def __init__(self, *, width: int, heads: int) -> None:
        super().__init__()
        self.register_buffer("mel_stats", torch.empty(MELS))
        self.conditioning_encoder = ConditioningEncoder(width=width, heads=heads)
        self.conditioning_perceiver = Perceiver(width)

    def forward(self, log_mel: Tensor) -> Tensor:
        """[80, frames] -> [32, width]; source: coqui `GPT.get_style_emb`"""
        x = self.conditioning_encoder((log_mel / self.mel_stats[:, None])[None])
        latents: Tensor = self.conditioning_perceiver(x.transpose(1, 2))
        return latents[0]


class ConditioningEncoder(nn.Module):
    """Written anew: the module of coqui's class of this name imports the transformers library."""

    def __init__(self, *, width: int, heads: int) -> None:
        super().__init__()
        self.init = nn.Conv1d(MELS, width, 1)
        self.attn = nn.Sequential(*(AttentionBlock(width, heads=heads) for _ in range(BLOCKS)))

    def forward(self, x: Tensor) -> Tensor:
        """[n, 80, frames] -> [n, width, frames]"""
        encoded: Tensor = self.attn(self.init(x))
        return encoded


class AttentionBlock(nn.Module):
    """What passes by the attention is normalised, too. Source: tortoise-tts `AttentionBlock` as coqui's XTTS has it."""

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.norm = nn.GroupNorm(norm_groups(width), width)
        self.qkv = nn.Conv1d(width, 3 * width, 1)
        self.proj_out = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[n, width, frames] -> the same"""
        x = self.norm(x)
        # Each head's query, key and value lie together: [n, heads, 3, head_width, frames].
        split = self.qkv(x).unflatten(1, (self._heads, 3, -1)).transpose(3, 4)
        attended = functional.scaled_dot_product_attention(split[:, :, 0], split[:, :, 1], split[:, :, 2])
        passed: Tensor = x + self.proj_out(attended.transpose(2, 3).flatten(1, 2))
        return passed


def norm_groups(width: int) -> int:
    """32, and fewer for tiny models. Source: tortoise-tts `normalization`"""
    groups = 8 if width <= 16 else 16 if width <= 64 else 32
    while width % groups:
        groups //= 2
    return groups
