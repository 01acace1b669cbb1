"""SyncNet (Chung and Zisserman, ACCV-W 2016): do lips and sound belong together? Network and sound features.

Parameters have the names of the public file `syncnet_v2.model`. Pictures are five neighbouring frames at 25 Hz of the
face, 224 x 224, BGR in 0..255; sound is 0.2 s at 16 kHz as 13 mel-frequency cepstral coefficients at 100 Hz.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.fft import dct
from torch import Tensor, nn

from fourdface.assets import asset_path, load_weights

ASSET = "syncnet"
RATE, SIZE, FRAMES, STEPS = 16_000, 224, 5, 20
"""Samples a second; pixels; frames of a window; sound steps (10 ms) of a window."""
EMBEDDING = 1024
_BANK, _WINDOW, _STEP, _LENGTH, _LIFTER = 26, 400, 160, 512, 22


class SyncNet(nn.Module):
    """Two streams to one space [B,1024], where what sounds and moves together is near (Euclidean)."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_layer2(1, 64), nn.MaxPool2d(1), *_layer2(64, 192), nn.MaxPool2d(3, (1, 2)), *_layer2(192, 384),
            *_layer2(384, 256), *_layer2(256, 256), nn.MaxPool2d(3, 2), *_layer2(256, 512, (5, 4), 0),
        )  # fmt: skip
        self.netcnnlip = nn.Sequential(
            *_layer3(3, 96, (5, 7, 7), 2, 0), nn.MaxPool3d((1, 3, 3), (1, 2, 2)), *_layer3(96, 256, (1, 5, 5), 2, 1),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)), *_layer3(256, 256), *_layer3(256, 256), *_layer3(256, 256),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)), *_layer3(256, 512, (1, 6, 6), 1, 0),
        )  # fmt: skip
        self.netfcaud, self.netfclip = _head(), _head()
        self.requires_grad_(False)

    def sound(self, coefficients: Tensor) -> Tensor:
        """Coefficients [B,1,13,20] -> embeddings [B,1024]."""
        out: Tensor = self.netfcaud(self.netcnnaud(coefficients).flatten(1))
        return out

    def lips(self, faces: Tensor) -> Tensor:
        """Faces [B,3,5,224,224], BGR in 0..255 -> embeddings [B,1024]."""
        out: Tensor = self.netfclip(self.netcnnlip(faces).flatten(1))
        return out


def _layer2(channels: int, out: int, kernel: tuple[int, int] = (3, 3), padding: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(channels, out, kernel, padding=padding), nn.BatchNorm2d(out), nn.ReLU()]


def _layer3(
    channels: int, out: int, kernel: tuple[int, int, int] = (1, 3, 3), stride: int = 1, padding: int = 1
) -> list[nn.Module]:
    convolution = nn.Conv3d(channels, out, kernel, (1, stride, stride), (0, padding, padding))
    return [convolution, nn.BatchNorm3d(out), nn.ReLU()]


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, EMBEDDING))


def mel_cepstrum(samples: np.ndarray) -> np.ndarray:
    """Mono sound [n] at 16 kHz in 16-bit units -> 13 coefficients at 100 Hz [13,T] (Davis and Mermelstein, 1980).

    Pre-emphasis 0.97, windows of 25 ms without tapering every 10 ms, 512-point power spectrum, 26 triangular mel
    filters from 0 to 8 kHz, logarithm, orthonormal cosine transform, lifter 22; the first is the log energy. The last
    window is filled with silence. No window for no sound: [13,0].
    """
    signal = np.asarray(samples, np.float64)
    if signal.size == 0:
        return np.zeros((13, 0))
    signal = np.concatenate([signal[:1], signal[1:] - 0.97 * signal[:-1]])
    count = 1 + max(0, -(-(signal.size - _WINDOW) // _STEP))
    signal = np.pad(signal, (0, (count - 1) * _STEP + _WINDOW - min(signal.size, (count - 1) * _STEP + _WINDOW)))
    windows = np.lib.stride_tricks.sliding_window_view(signal, _WINDOW)[::_STEP][:count]
    power = np.square(np.abs(np.fft.rfft(windows, _LENGTH))) / _LENGTH
    floor = np.finfo(float).eps
    energy = power.sum(axis=1)
    bands = np.log(np.maximum(power @ _filters().T, floor))
    out = dct(bands, axis=1, norm="ortho")[:, :13] * (1 + _LIFTER / 2 * np.sin(np.pi * np.arange(13) / _LIFTER))
    out[:, 0] = np.log(np.maximum(energy, floor))
    return np.asarray(out.T)


def _filters() -> np.ndarray:
    """Triangles [26,257], equally spaced on the mel scale 2595 log10(1 + f / 700), corners on whole bins."""
    highest = 2595 * np.log10(1 + RATE / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, highest, _BANK + 2) / 2595) - 1)
    bins = np.floor((_LENGTH + 1) * corners / RATE)
    out = np.zeros((_BANK, _LENGTH // 2 + 1))
    place = np.arange(out.shape[1])
    for number, (left, middle, right) in enumerate(zip(bins[:-2], bins[1:-1], bins[2:], strict=True)):
        rising, falling = (place >= left) & (place < middle), (place >= middle) & (place < right)
        out[number, rising] = (place[rising] - left) / (middle - left)
        out[number, falling] = (right - place[falling]) / (right - middle)
    return out


def load_syncnet(file: str | Path | None = None) -> SyncNet:
    """The network with its published weights, from the asset `syncnet` or a file; raises FourdError otherwise."""
    out = SyncNet()
    names = {name: tuple(value.shape) for name, value in out.state_dict().items()}
    weights = load_weights(Path(file) if file else asset_path(ASSET), names)
    out.load_state_dict(weights, strict=False)  # counters of batch normalisation may be missing, nothing else
    return out.eval()
