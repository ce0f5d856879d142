"""A saved model: one JSON and one file of weights for each representation; it tags any sound.

``model.json`` holds every setting that tagging needs, and what is known about how good the tags
are. The weights are safetensors, so nothing is unpickled. Neither fastai nor the clips that the
network learned from are needed to use them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, Field, PositiveFloat, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_weights
from safetensors.torch import save as save_weights
from torch import Tensor

from freesound_tagging.errors import DataError, look_up
from freesound_tagging.features.codes import decoding_table
from freesound_tagging.features.grid import Grid
from freesound_tagging.features.representations import ALGORITHM, get_channel, get_variant
from freesound_tagging.files import write_atomically
from freesound_tagging.learning import unknown
from freesound_tagging.learning.networks import build_network
from freesound_tagging.sounds.clips import resample, slide, stream

OVERLAP = 0.5  # share of a window in the next one too: what one cuts in two, the other holds whole
BATCH_WINDOWS = 16  # in memory at a time


class NetworkSettings(BaseModel, strict=True, frozen=True):
    """One network; ``yamnet`` and what follows is of a head on YAMNet."""

    architecture: str
    width: int
    mean: list[float]  # of each channel, as the deviation
    deviation: list[PositiveFloat]
    sha256: str
    temperature: PositiveFloat
    limit: float  # of strangeness
    # Its out-of-fold summary, how well it is calibrated, and ``foreign``, by data set: ``n``, and
    # the share ``labelled`` of these sounds of no class.
    expected: dict[str, Any]
    yamnet: str = ""  # the sha256 of its file
    C: PositiveFloat | None = None


class Settings(BaseModel, strict=True, frozen=True):
    """What ``model.json`` holds."""

    algorithm: Literal[ALGORITHM]  # of the spectrograms
    dataset: str
    profile: str
    sounds: dict[str, Any]  # how many ``clips`` it learned from, their ``licence``, ``citation``
    classes: list[str] = Field(min_length=2)
    grid: Grid
    networks: dict[str, NetworkSettings] = Field(min_length=1)
    made_from: str = ""


def read_settings(folder: str | Path) -> Settings:
    """Return what a model's ``model.json`` says; a `DataError` names a setting that is wrong."""
    file = Path(folder) / "model.json"
    try:
        return Settings.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(f"{file}: {place}: {first['msg']}; make model makes it") from error


@dataclass(frozen=True)
class Tag:
    """One label: its probability over the whole sound, and where it is heard best, in seconds."""

    label: str
    probability: float
    start: float
    end: float


@dataclass(frozen=True)
class Tags:
    """What a network says about one sound; labels stand in the order of ``classes``."""

    classes: tuple[str, ...]
    probabilities: np.ndarray  # calibrated, of the whole sound, shape (classes,)
    starts: np.ndarray  # where each window begins, in seconds, shape (windows,)
    window_probabilities: np.ndarray  # calibrated, shape (windows, classes)
    loudness: np.ndarray  # root mean square of each window about its mean, shape (windows,)
    strangeness: np.ndarray  # of each window, see `unknown`, shape (windows,)
    seconds: float  # length of the sound
    window: float  # length of a window in seconds
    limit: float = math.inf  # a sound that is stranger is none of the classes, probably
    note: str = ""  # what makes the labels doubtful: the file's channels cancel, say

    @property
    def is_known(self) -> bool:
        """Whether the windows' mean strangeness, by loudness, is within the limit."""
        return bool(np.average(self.strangeness, weights=self.loudness) <= self.limit)

    def best(self, top: int = 3) -> list[Tag]:
        """Return the ``top`` most probable labels, best first."""
        # Of a window that is all but silent a network may say anything.
        heard = self.window_probabilities * (self.loudness > 0)[:, None]
        tags = []
        for index in np.argsort(-self.probabilities, kind="stable")[:top]:
            start = float(self.starts[heard[:, index].argmax()])
            end = min(start + self.window, self.seconds)
            tags.append(Tag(self.classes[index], float(self.probabilities[index]), start, end))
        return tags


class SpectrogramNetwork:
    """A saved network behind its representation: what a `Tagger` needs of a network."""

    padded = True  # sounds shorter than a window are, as in training

    def __init__(self, settings: Settings, representation: str, weights: dict[str, Tensor]):
        about, planes = settings.networks[representation], get_variant(representation).planes
        self._grid, self._channels = settings.grid, [get_channel(name) for name, _ in planes]
        scales = zip(planes, about.mean, about.deviation, strict=True)
        self._values = [  # of each code, as the network gets it
            ((decoding_table(loudness).double() - mean) / deviation).float()
            for (_, loudness), mean, deviation in scales
        ]
        self._learned = {name: weights[name] for name in weights if name.startswith(unknown.PREFIX)}
        network = build_network(
            about.architecture, len(settings.classes), about.width, pretrained=False
        )
        network.load_state_dict({n: weights[n] for n in weights if n not in self._learned})
        self._network = network.eval().to(memory_format=torch.channels_last)

    def spectrogram(self, waveforms: Tensor) -> Tensor:
        """Return 8-bit codes, (windows, channels, rows, columns), of waveforms (windows, time)."""
        codes = [channel.codes(waveforms, self._grid) for channel in self._channels]
        return torch.stack(codes, dim=1)

    @torch.inference_mode()
    def __call__(self, waveforms: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits, float64, (windows, classes), and `unknown.strangeness`, (windows,)."""
        codes = self.spectrogram(waveforms).int()
        planes = [values[codes[:, i]] for i, values in enumerate(self._values)]
        spectrograms = torch.stack(planes, dim=1).to(memory_format=torch.channels_last)
        features, logits = unknown.features_and_logits(self._network, spectrograms)
        return logits.double(), unknown.strangeness(features, self._learned)


class Tagger:
    """A saved network: waveform -> `Tags`.

    ``folder`` is as written by `save` (``make model``), for example ``models/microcalls/cpu``;
    ``representation`` one of its networks, by default the first in ``model.json``. A `DataError`
    says why a folder cannot be used.
    """

    def __init__(self, folder: str | Path, representation: str | None = None):
        try:
            self.settings = read_settings(folder)
            networks = self.settings.networks
            self.representation = representation or next(iter(networks))
            self.about = look_up("representation", self.representation, networks)
            content = (Path(folder) / f"{self.representation}.safetensors").read_bytes()
            if hashlib.sha256(content).hexdigest() != self.about.sha256:
                raise ValueError(f"the sha256 of {self.representation}.safetensors differs")
            weights = load_weights(content)
            network: type = SpectrogramNetwork
            if self.about.yamnet:
                from freesound_tagging.learning.audio import AudioNetwork  # loads scikit-learn

                network = AudioNetwork
            self.network = network(self.settings, self.representation, weights)
        except DataError:
            raise
        except (SafetensorError, RuntimeError, ValueError) as error:
            reason = f"{' '.join(str(error).split()):.300}"
            raise DataError(f"{folder} cannot be used ({reason}); make model makes it") from error
        self.classes, self.grid = tuple(self.settings.classes), self.settings.grid

    def __call__(self, waveform: np.ndarray | Tensor, sample_rate: int) -> Tags:
        """Tag a waveform (time,) or (channels, time), which are averaged, at a rate in Hz."""
        return self._tag([self._prepare(waveform, sample_rate)], "this waveform")

    def tag_file(self, path: str | Path) -> Tags:
        """Tag a sound file of any length, rate and format that soundfile reads, window by window.

        A file that cannot be read, is silent or empty is a `DataError`, as is such a waveform.
        """
        notes: list[str] = []
        tags = self._tag(stream(path, self.grid.sample_rate, notes), str(path))
        if "silent" in notes:
            raise DataError(f"{path} is silent: there is nothing to tag")
        return replace(tags, note="; ".join(notes))

    def spectrogram(self, waveform: np.ndarray, sample_rate: int) -> np.ndarray:
        """Return what the network sees of a waveform, as one window: (channels, rows, columns)."""
        prepared = torch.from_numpy(self._prepare(waveform, sample_rate))
        return self.network.spectrogram(prepared[None])[0].numpy()

    def _prepare(self, waveform: np.ndarray | Tensor, sample_rate: int) -> np.ndarray:
        values = np.asarray(waveform)
        if values.ndim not in (1, 2) or (values.ndim == 2 and values.shape[0] > values.shape[1]):
            raise DataError(f"waveform has shape {values.shape}, not (time,) or (channels, time)")
        values = (values.mean(axis=0) if values.ndim == 2 else values).astype(np.float32)
        if not np.isfinite(values).all():
            raise DataError("waveform holds NaN or infinity")
        if len(values) > 1 and np.ptp(values) == 0:
            raise DataError("waveform is silent: all its samples are the same")
        return resample(values, int(sample_rate), self.grid.sample_rate)

    def _tag(self, blocks: Iterable[np.ndarray], name: str) -> Tags:
        lengths: list[int] = []

        def measured(block: np.ndarray) -> np.ndarray:
            lengths.append(len(block))
            return block

        rate, duration = self.grid.sample_rate, self.grid.duration
        hop, padded = duration * (1 - OVERLAP), self.network.padded
        windows = slide(map(measured, blocks), rate, duration, hop, padded)
        starts, loudness, answers = [], [], []
        while batch := list(islice(windows, BATCH_WINDOWS)):
            starts += [start for start, _ in batch]
            waveforms = np.stack([window for _, window in batch])
            level = waveforms.std(axis=1, dtype=np.float64)
            level[level <= 1e-6 * np.abs(waveforms).max(axis=1)] = 0  # rounding
            loudness += level.tolist()
            answers.append(self.network(torch.from_numpy(waveforms)))
        if not any(loudness):
            raise DataError(f"{name} is silent or empty: there is nothing to tag")
        level = np.array(loudness)
        logits, strangeness = (torch.cat(parts) for parts in zip(*answers, strict=True))
        temperature, weights = self.about.temperature, torch.from_numpy(level / level.sum())
        pooled = (logits.softmax(dim=1) * weights[:, None]).sum(dim=0)
        return Tags(
            classes=self.classes,
            probabilities=(pooled.clamp_min(1e-12).log() / temperature).softmax(dim=0).numpy(),
            starts=np.array(starts),
            window_probabilities=(logits / temperature).softmax(dim=1).numpy(),
            loudness=level,
            strangeness=strangeness.numpy(),
            seconds=sum(lengths) / rate,
            window=duration,
            limit=self.about.limit,
        )


def save(
    folder: str | Path, settings: dict[str, Any], weights: dict[str, dict[str, Tensor]]
) -> None:
    """Write a model's folder, the weights first and ``model.json`` last.

    ``settings`` are `Settings` but for ``algorithm`` and each network's ``sha256``; ``weights``, by
    representation, the network's state and what `unknown.learn` returned.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    networks = {}
    for name, state in weights.items():
        content = save_weights({key: value.contiguous() for key, value in state.items()})
        write_atomically(folder / f"{name}.safetensors", content)
        digest = hashlib.sha256(content).hexdigest()
        networks[name] = settings["networks"][name] | {"sha256": digest}
    whole = {"algorithm": ALGORITHM, **settings, "networks": networks}
    content = json.dumps(whole, indent=1).encode()
    Settings.model_validate_json(content)
    write_atomically(folder / "model.json", content)
