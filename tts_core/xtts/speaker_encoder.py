"""Whose voice it is: the network that XTTS-v2 has in its checkpoint for this, H/ASP (https://arxiv.org/abs/2009.14153).

Parameters and buffers are named as in the checkpoint, which brings every table, too: the window, the mel bands, the
filter. Written anew, since importing anything of coqui's package takes 0.3 to 0.4 s.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

MELS = 64
FFT, WINDOW, HOP = 512, 400, 160
"""In samples at 16 kHz: a spectrum of 25 ms each 10 ms."""

QUIETEST = 1e-6
"""Added before the logarithm."""

STAGES = ((32, 3), (64, 4), (128, 6), (256, 3))
"""Channels and blocks of each stage; all but the first halve time and frequency."""

SQUEEZE = 8
ATTENTION_WIDTH = 128
EMBEDDING_WIDTH = 512

LEAST_VARIANCE = 1e-5
"""Source of all of these: coqui `ResNetSpeakerEncoder` and the arguments `HifiDecoder` gives it."""


class SpeakerEncoder(nn.Module):
    """Use in eval mode: the batch norms have learned their means."""

    def __init__(self) -> None:
        super().__init__()
        channels = STAGES[0][0]
        self.conv1 = nn.Conv2d(1, channels, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(channels)
        for number, (width, blocks) in enumerate(STAGES, start=1):
            self.add_module(f"layer{number}", _stage(channels, width, blocks=blocks, stride=1 if number == 1 else 2))
            channels = width
        mel = OrderedDict(spectrogram=_PowerSpectrum(), mel_scale=_MelBands())
        self.torch_spec = nn.Sequential(_PreEmphasis(), nn.Sequential(mel))
        features = channels * MELS // 2 ** (len(STAGES) - 1)
        self.attention = nn.Sequential(
            nn.Conv1d(features, ATTENTION_WIDTH, 1),
            nn.ReLU(inplace=True),
            nn.BatchNorm1d(ATTENTION_WIDTH),
            nn.Conv1d(ATTENTION_WIDTH, features, 1),
            nn.Softmax(dim=2),
        )
        self.fc = nn.Linear(2 * features, EMBEDDING_WIDTH)

    def forward(self, samples: Tensor) -> Tensor:
        """
        samples  [n, t] float32 at 16 kHz; t > 256, which the spectrum mirrors at both ends
        returns  [n, 512] of unit length
        source   coqui `ResNetSpeakerEncoder.forward` with `l2_norm=True`
        """
        bands = functional.instance_norm((self.torch_spec(samples) + QUIETEST).log())
        x = self.bn1(self.conv1(bands[:, None]).relu_())
        for number in range(1, len(STAGES) + 1):
            x = self.get_submodule(f"layer{number}")(x)
        return functional.normalize(self.fc(self._pooled(x.flatten(1, 2))))

    def _pooled(self, frames: Tensor) -> Tensor:
        """[n, features, t] -> [n, 2 * features]: mean and deviation of each, over the frames that matter"""
        weights = self.attention(frames)
        mean = (frames * weights).sum(dim=2)
        variance = (frames.square() * weights).sum(dim=2) - mean.square()
        return torch.cat((mean, variance.clamp(min=LEAST_VARIANCE).sqrt()), dim=1)


class _PreEmphasis(nn.Module):
    """Each sample less most of the one before; [n, t] -> the same"""

    filter: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filter", torch.empty(1, 1, 2))

    def forward(self, samples: Tensor) -> Tensor:
        padded = functional.pad(samples[:, None], (1, 0), mode="reflect")
        return functional.conv1d(padded, self.filter)[:, 0]


class _PowerSpectrum(nn.Module):
    """[n, t] -> [n, FFT // 2 + 1, t // HOP + 1]; the window is centred on each frame"""

    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.empty(WINDOW))

    def forward(self, samples: Tensor) -> Tensor:
        spectrum = torch.stft(samples, FFT, HOP, WINDOW, self.window, return_complex=True)
        return torch.view_as_real(spectrum).square().sum(dim=3)


class _MelBands(nn.Module):
    """[n, FFT // 2 + 1, frames] -> [n, MELS, frames]"""

    fb: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("fb", torch.empty(FFT // 2 + 1, MELS))

    def forward(self, power: Tensor) -> Tensor:
        return self.fb.T @ power


def _stage(channels: int, width: int, *, blocks: int, stride: int) -> nn.Sequential:
    first = _Block(channels, width, stride=stride)
    return nn.Sequential(first, *(_Block(width, width, stride=1) for _ in range(1, blocks)))


class _Block(nn.Module):
    """Two convolutions beside a shortcut, which has one of its own where the shape changes."""

    def __init__(self, channels: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.se = _Excitation(width)
        self.downsample = nn.Sequential()
        if stride != 1 or channels != width:
            self.downsample.append(nn.Conv2d(channels, width, 1, stride, bias=False)).append(nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, bands, t] -> [n, width, bands / stride, t / stride], rounded up"""
        y: Tensor = self.bn1(self.conv1(x).relu_())  # not the usual order, but the one it was trained in
        y = self.se(self.bn2(self.conv2(y)))
        y += self.downsample(x)
        return y.relu_()


class _Excitation(nn.Module):
    """Louder or softer, channel by channel, by what their means say."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(width, width // SQUEEZE),
            nn.ReLU(inplace=True),
            nn.Linear(width // SQUEEZE, width),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[n, width, bands, t] -> the same"""
        gains: Tensor = self.fc(x.mean(dim=(2, 3)))
        return x * gains[:, :, None, None]
