"""The networks that listen against coqui's own classes, on random weights of the real sizes."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from TTS.encoder.models.resnet import ResNetSpeakerEncoder
from TTS.tts.layers.xtts.perceiver_encoder import PerceiverResampler

from tests.clips import speech
from tts_core.xtts.files import NoRandomFill
from tts_core.xtts.perceiver import Perceiver
from tts_core.xtts.speaker_encoder import SpeakerEncoder

RATE_HZ = 16_000
AUDIO = {
    "fft_size": 512,
    "win_length": 400,
    "hop_length": 160,
    "sample_rate": RATE_HZ,
    "preemphasis": 0.97,
    "num_mels": 64,
}
EXACT = 1e-5


@pytest.fixture(scope="module")
def speaker_encoder() -> ResNetSpeakerEncoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = ResNetSpeakerEncoder(
            input_dim=64, proj_dim=512, log_input=True, use_torch_spec=True, audio_config=AUDIO
        )
        enliven(module)
    return module.eval()


def perceiver(width: int) -> PerceiverResampler:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(width)
        module = PerceiverResampler(dim=width)
        enliven(module)
        nn.init.normal_(module.latents)
    return module.eval()


def enliven(module: nn.Module) -> None:
    """Neither 1 nor 0 where a fresh module has them, and tables that nobody can compute: what is ignored shows."""
    for tensor in module.state_dict().values():
        if tensor.dim() == 1 and tensor.is_floating_point():
            tensor += torch.empty_like(tensor).uniform_(-0.3, 0.3)
    for tensor in module.buffers():
        if tensor.is_floating_point():
            tensor *= torch.empty_like(tensor).uniform_(0.5, 1.5)


def filled(ours: nn.Module, theirs: nn.Module) -> nn.Module:
    """As `load_model` does it."""
    ours.load_state_dict(theirs.state_dict(), strict=True, assign=True)
    return ours.eval().requires_grad_(False)


def forms(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


def two_voices(samples: int) -> Tensor:
    """[2, samples] at 16 kHz"""
    duration_s = samples / RATE_HZ
    low = speech(duration_s, rate_hz=RATE_HZ, seed=1)
    high = speech(duration_s * 1.5, rate_hz=RATE_HZ, noise_dbfs=-30, seed=2)[samples // 2 :][:samples] * 1.7
    return torch.stack((torch.from_numpy(low), torch.from_numpy(high)))


# Names.


def test_the_speaker_encoder_has_the_tensors_of_the_checkpoint(speaker_encoder: ResNetSpeakerEncoder) -> None:
    with NoRandomFill():
        ours = SpeakerEncoder()
    assert forms(ours.state_dict()) == forms(speaker_encoder.state_dict())


@pytest.mark.parametrize("width", [64, 100, 1024])
def test_the_perceiver_has_the_tensors_of_the_checkpoint(width: int) -> None:
    with NoRandomFill():
        ours, theirs = Perceiver(width), PerceiverResampler(dim=width)
    assert forms(ours.state_dict()) == forms(theirs.state_dict())


@pytest.mark.parametrize("make", [SpeakerEncoder, lambda: Perceiver(64)])
def test_every_tensor_comes_from_the_checkpoint(make: type[nn.Module]) -> None:
    """What is computed on construction, or not saved, would be left behind when the weights are assigned."""
    module = make()
    tensors = {name for name, _ in [*module.named_parameters(), *module.named_buffers()]}
    assert tensors == module.state_dict().keys()


# Numbers.


@pytest.mark.parametrize("samples", [257, 5_280, 16_000, 48_123])
@torch.inference_mode()
def test_an_embedding_is_that_of_coqui(samples: int, speaker_encoder: ResNetSpeakerEncoder) -> None:
    with NoRandomFill():
        ours = filled(SpeakerEncoder(), speaker_encoder)
    audio = two_voices(samples)
    expected = speaker_encoder(audio.clone(), l2_norm=True)
    embeddings = ours(audio)
    assert embeddings.shape == (2, 512)
    assert (expected[0] - expected[1]).abs().max() > 100 * EXACT, "the weights do not listen"
    assert (embeddings - expected).abs().max() < EXACT
    assert embeddings.norm(dim=1).tolist() == pytest.approx([1, 1], abs=EXACT)


@torch.inference_mode()
def test_an_embedding_depends_on_nobody_beside_it(speaker_encoder: ResNetSpeakerEncoder) -> None:
    with NoRandomFill():
        ours = filled(SpeakerEncoder(), speaker_encoder)
    audio = two_voices(16_000)
    before = audio.clone()
    alone = torch.cat([ours(row[None]) for row in audio])
    assert (ours(audio) - alone).abs().max() < EXACT
    assert torch.equal(audio, before)


@pytest.mark.parametrize(("width", "frames"), [(64, 1), (64, 29), (1024, 1), (1024, 345), (1024, 516)])
@torch.inference_mode()
def test_latents_are_those_of_coqui(width: int, frames: int) -> None:
    """345 frames are 4 s, a chunk of the official config."""
    theirs = perceiver(width)
    with NoRandomFill():
        ours = filled(Perceiver(width), theirs)
    heard = torch.randn(2, frames, width, generator=torch.Generator().manual_seed(frames))
    expected = theirs(heard)
    latents = ours(heard)
    assert latents.shape == (2, 32, width)
    assert (expected[0] - expected[1]).abs().max() > 100 * EXACT, "the weights do not listen"
    assert (latents - expected).abs().max() < EXACT
