"""A saved model: one JSON and one file of weights for each representation; it tags any sound.

``model.json`` holds every setting that tagging needs, and what is known about how good the tags
are. The weights are safetensors, so nothing is unpickled. Neither fastai nor the clips that the
network learned from are needed to use them.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    ValidationError,
    model_validator,
)
from safetensors import SafetensorError
from safetensors.torch import load as load_weights
from safetensors.torch import save as save_weights
from torch import Tensor

from freesound_tagging.errors import DataError
from freesound_tagging.features.codes import decoding_table, encode
from freesound_tagging.features.grid import Grid
from freesound_tagging.features.representations import (
    ALGORITHM,
    compute_channels,
    get_channel,
    get_variant,
)
from freesound_tagging.files import write_atomically
from freesound_tagging.learning import unknown
from freesound_tagging.learning.networks import build_network
from freesound_tagging.sounds.clips import resample, slide, stream

if TYPE_CHECKING:
    import pandas as pd

SETTINGS_FILE = "model.json"

OVERLAP = 0.5
"""Share of a window that the next one covers too: what one cuts in two, the other holds whole."""

LOWEST_RATE = 100
"""Hz; no waveform of a lower rate is tagged."""

BATCH_WINDOWS = 16
"""Windows in memory at a time."""


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class Sounds(_Strict):
    """What a model learned from."""

    clips: int
    licence: str
    citation: str


class FalseAlarms(_Strict):
    """Sounds of another data set, and the share of them that was given a label."""

    n: int
    labelled: float


class Expected(_Strict, extra="allow"):
    """A network's out-of-fold scores: the whole row of the summary, and its calibration."""

    top1_accuracy: float
    top3_error: float
    foreign: dict[str, FalseAlarms]


class NetworkSettings(_Strict):
    """One network: mean and deviation of each plane; ``limit`` and ``expected`` where measured."""

    planes: list[tuple[str, str]]
    channels: dict[str, dict[str, Any]]
    architecture: str
    width: int
    mean: list[float]
    deviation: list[PositiveFloat]
    sha256: str
    temperature: PositiveFloat
    limit: float | None = None
    expected: Annotated[Expected | None, BeforeValidator(lambda found: found or None)]

    @model_validator(mode="after")
    def _one_each(self) -> NetworkSettings:
        if not len(self.planes) == len(self.mean) == len(self.deviation):
            raise ValueError("mean and deviation must have one number for each of planes")
        return self


def _whole(grid: Any) -> Any:
    names = {field.name for field in fields(Grid)}
    if not isinstance(grid, dict) or set(grid) != names:
        raise ValueError(f"it must hold {', '.join(sorted(names))}")
    for name, value in grid.items():
        if isinstance(value, int | float) and not value > 0:
            raise ValueError(f"{name}={value}: give a number above 0")
    return grid


class Settings(_Strict):
    """What ``model.json`` holds; ``algorithm`` is that of the spectrograms."""

    format: Literal[2]
    algorithm: Literal[ALGORITHM]
    dataset: str
    profile: str
    versions: dict[str, str]
    sounds: Sounds
    classes: list[str] = Field(min_length=2)
    grid: Annotated[Grid, BeforeValidator(_whole)]
    networks: dict[str, NetworkSettings] = Field(min_length=1)
    made_from: str = ""


def read_settings(folder: str | os.PathLike[str]) -> Settings:
    """Return what a model's ``model.json`` says.

    Raises
    ------
    DataError
        Where it is not there, or a setting is missing or wrong: the first is named.
    """
    file = Path(folder) / SETTINGS_FILE
    try:
        return Settings.model_validate_json(file.read_bytes())
    except OSError as error:
        raise DataError(
            f"{folder} is no model: {SETTINGS_FILE} cannot be read there ({error.strerror}); "
            "make model makes one"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{name}." for name in first["loc"])[:-1] or "the whole"
        found = "" if first["type"] in ("missing", "json_invalid") else f", got {first['input']!r}"
        raise DataError(
            f"{file}: {where}: {first['msg']}{found:.80}; make the model again with make model"
        ) from error


@dataclass(frozen=True)
class Tag:
    """One label: its probability over the whole sound, and where it is heard best, in seconds."""

    label: str
    probability: float
    start: float
    end: float


@dataclass(frozen=True)
class Tags:
    """What a network says about one sound.

    Attributes
    ----------
    classes : labels in the order of all arrays.
    probabilities : calibrated, of the whole sound, shape (classes,).
    starts : where each window begins, in seconds, shape (windows,).
    window_probabilities : calibrated, shape (windows, classes).
    loudness : root mean square of each window about its mean, shape (windows,).
    strangeness : of each window, see `unknown`, shape (windows,).
    seconds : length of the sound.
    window : length of a window in seconds.
    limit : a sound that is stranger is none of the classes, probably.
    note : "" for an ordinary file; else what makes its labels doubtful: its channels cancel, say.
    """

    classes: tuple[str, ...]
    probabilities: np.ndarray
    starts: np.ndarray
    window_probabilities: np.ndarray
    loudness: np.ndarray
    strangeness: np.ndarray
    seconds: float
    window: float
    limit: float = math.inf
    note: str = ""

    @property
    def is_known(self) -> bool:
        """Whether the windows' mean strangeness, by loudness, is within the limit."""
        return bool(np.average(self.strangeness, weights=self.loudness) <= self.limit)

    def best(self, top: int = 3) -> list[Tag]:
        """Return the ``top`` most probable labels, best first."""
        order = np.argsort(-self.probabilities, kind="stable")[:top]
        # Of a window that is all but silent a network may say anything.
        heard = self.window_probabilities * (self.loudness > 0)[:, None]
        tags = []
        for index in order:
            start = float(self.starts[int(np.argmax(heard[:, index]))])
            end = min(start + self.window, self.seconds)
            label, probability = self.classes[index], float(self.probabilities[index])
            tags.append(Tag(label, probability, start, end))
        return tags

    def table(self, top: int = 3) -> pd.DataFrame:
        """Return `best` as a table: label, probability, start, end."""
        import pandas as pd

        return pd.DataFrame([asdict(tag) for tag in self.best(top)])


class Tagger:
    """A saved network: waveform -> `Tags`.

    Parameters
    ----------
    folder : as written by `save` (``make model``), for example ``models/microcalls/cpu``.
    representation : which of its networks, by default the first in ``model.json``.

    Attributes
    ----------
    settings : all that ``model.json`` says, see `Settings`.
    representation : key of `freesound_tagging.VARIANTS`.
    about : the settings of this representation's network, see `NetworkSettings`.
    classes : the labels it knows.
    grid : of its spectrograms.

    Raises
    ------
    DataError
        Where the folder is no model, is of another version, or its weights are others.
    """

    def __init__(self, folder: str | os.PathLike[str], representation: str | None = None):
        self.folder = Path(folder)
        self.settings = read_settings(self.folder)
        networks = self.settings.networks
        self.representation = representation or next(iter(networks))
        if self.representation not in networks:
            raise DataError(
                f"{self.folder / SETTINGS_FILE} has no network for the representation "
                f"{self.representation!r}; it has: {', '.join(networks)}"
            )
        self.about = networks[self.representation]
        self.classes = tuple(self.settings.classes)
        self.grid = self.settings.grid
        planes, channels = describe_planes(self.representation)
        if self.about.planes != planes or self.about.channels != channels:
            raise DataError(
                f"{self.folder / SETTINGS_FILE}: {self.representation} was computed otherwise when "
                f"this model was made (now: {planes}); make it again with make model"
            )
        with torch.device("cpu"):  # whatever torch's default is
            self._read_weights()

    def _read_weights(self) -> None:
        """Build the network, what `unknown` learned, and each code's value for the network."""
        about, file = self.about, self.folder / f"{self.representation}.safetensors"
        try:
            content = file.read_bytes()
        except OSError as error:
            raise DataError(f"{file} cannot be read ({error.strerror})") from error
        if hashlib.sha256(content).hexdigest() != about.sha256:
            raise DataError(
                f"{file} does not hold the weights that {SETTINGS_FILE} names (their sha256 "
                "differs): copy the folder again, or make the model again"
            )
        try:
            weights, classes = load_weights(content), len(self.classes)
            self._learned = {key: weights.pop(key) for key in list(weights) if "unknown." in key}
            if about.limit is not None and not self._learned:
                raise ValueError("it lacks what tells strange sounds")
            network = build_network(about.architecture, classes, about.width, pretrained=False)
            network.float().load_state_dict(weights)
            self._tables = [
                ((decoding_table(loudness).double() - mean) / deviation).float()
                for (_, loudness), mean, deviation in zip(
                    about.planes, about.mean, about.deviation, strict=True
                )
            ]
        except (SafetensorError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise DataError(
                f"{file} does not fit the network that {SETTINGS_FILE} describes: {reason[:300]}"
            ) from error
        self._network = network.eval().to(memory_format=torch.channels_last)

    def __call__(self, waveform: np.ndarray | Tensor, sample_rate: int) -> Tags:
        """Tag a waveform.

        Parameters
        ----------
        waveform : floats or integers, shape (time,) or (channels, time); channels are averaged.
        sample_rate : Hz.

        Raises
        ------
        DataError
            Where it is empty, silent, not finite, or has another shape.
        """
        return self._tag([self._prepare(waveform, sample_rate)], "this waveform")

    def tag_file(self, path: str | os.PathLike[str]) -> Tags:
        """Tag a sound file of any length, rate and format that soundfile reads.

        It is decoded window by window, so that an hour takes no more memory than a minute.

        Raises
        ------
        DataError
            Where the file cannot be read, see `freesound_tagging.decode`, or is silent.
        """
        notes: list[str] = []
        tags = self._tag(stream(path, self.grid.sample_rate, notes), str(path))
        if "silent" in notes:
            raise DataError(f"{path} is silent: there is nothing to tag")
        return replace(tags, note="; ".join(notes))

    def spectrogram(self, waveform: np.ndarray, sample_rate: int) -> np.ndarray:
        """Return what the network sees of a waveform, as one window of any length.

        Returns
        -------
        8-bit codes, shape (planes, frequency, time), lowest frequency first; 255 is the maximum,
        0 is 80 dB below it.
        """
        prepared = torch.from_numpy(self._prepare(waveform, sample_rate))
        return self._encode(prepared[None])[0].numpy()

    def _prepare(self, waveform: np.ndarray | Tensor, sample_rate: int) -> np.ndarray:
        values = np.asarray(waveform)
        if values.ndim not in (1, 2) or (values.ndim == 2 and values.shape[0] > values.shape[1]):
            raise DataError(
                f"waveform has the shape {values.shape}, not (time,) or (channels, time)"
            )
        # soxr needs hundreds of gigabytes, or crashes, where it is to raise a rate a thousandfold.
        if not (isinstance(sample_rate, int | np.integer) and sample_rate >= LOWEST_RATE):
            raise DataError(
                f"sample_rate={sample_rate!r}: give a whole number of Hz, {LOWEST_RATE} or more"
            )
        values = (values.mean(axis=0) if values.ndim == 2 else values).astype(np.float32)
        if not np.isfinite(values).all():
            raise DataError("waveform holds NaN or infinity")
        if len(values) > 1 and np.ptp(values) == 0:
            raise DataError("waveform is silent: all its samples are the same")
        return resample(values, int(sample_rate), self.grid.sample_rate)

    def _tag(self, blocks: Iterable[np.ndarray], name: str) -> Tags:
        n = 0

        def counted() -> Iterator[np.ndarray]:
            nonlocal n
            for block in blocks:
                n += len(block)
                yield block

        hop = self.grid.duration * (1 - OVERLAP)
        windows = slide(counted(), self.grid.sample_rate, self.grid.duration, hop)
        starts, loudness, answers = [], [], []
        while batch := list(islice(windows, BATCH_WINDOWS)):
            starts += [start for start, _ in batch]
            waveforms = np.stack([window for _, window in batch])
            loudness.append(_loudness(waveforms))
            answers.append(self._ask(torch.from_numpy(waveforms)))
        level = np.concatenate([*loudness, np.zeros(0)])
        if not level.any():
            raise DataError(f"{name} is {'silent' if n else 'empty'}: there is nothing to tag")
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
            seconds=n / self.grid.sample_rate,
            window=self.grid.duration,
            limit=math.inf if self.about.limit is None else self.about.limit,
        )

    def _encode(self, waveforms: Tensor) -> Tensor:
        names = [name for name, _ in self.about.planes]
        with torch.device("cpu"):
            values = compute_channels(waveforms, names, self.grid)
        codes = [encode(values[name], get_channel(name).limits(self.grid)) for name in names]
        return torch.stack(codes, dim=1)

    @torch.inference_mode()
    def _ask(self, waveforms: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits, float64, (windows, classes), and strangeness, (windows,)."""
        codes = self._encode(waveforms).int()
        planes = [table[codes[:, i]] for i, table in enumerate(self._tables)]
        pictures = torch.stack(planes, dim=1).to(memory_format=torch.channels_last)
        features, logits = unknown.features_and_logits(self._network, pictures)
        if not self._learned:
            return logits.double(), logits.new_zeros(len(logits))
        return logits.double(), unknown.strangeness(features, self._learned)


def _loudness(waveforms: np.ndarray) -> np.ndarray:
    """Return each row's root mean square about its mean, 0 where that is only rounding."""
    deviation = waveforms.std(axis=1, dtype=np.float64)
    return np.where(deviation > 1e-6 * np.abs(waveforms).max(axis=1), deviation, 0.0)


def describe_planes(representation: str) -> tuple[list[tuple[str, str]], dict[str, dict]]:
    """Return a representation's planes and its channels' settings, as JSON gives them back."""
    variant = get_variant(representation)
    settings = {name: get_channel(name).settings() for name in variant.channels}
    return [tuple(plane) for plane in variant.planes], json.loads(json.dumps(settings))


def save(
    folder: str | os.PathLike[str], settings: dict[str, Any], weights: dict[str, dict[str, Tensor]]
) -> None:
    """Write a model's folder, the weights first and ``model.json`` last.

    Parameters
    ----------
    folder : made where it is not there.
    settings : as in `Settings`; ``format`` and ``algorithm`` and each network's ``planes``,
        ``channels`` and ``sha256`` are filled in.
    weights : by representation, the network's state and what `unknown.learn` returned.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    networks = {}
    for name, state in weights.items():
        content = save_weights({key: value.contiguous() for key, value in state.items()})
        write_atomically(folder / f"{name}.safetensors", content)
        planes, channels = describe_planes(name)
        digest = hashlib.sha256(content).hexdigest()
        filled = {"planes": planes, "channels": channels, "sha256": digest}
        networks[name] = settings["networks"][name] | filled
    whole = {"format": 2, "algorithm": ALGORITHM, **settings, "networks": networks}
    content = json.dumps(whole, indent=1).encode()
    Settings.model_validate_json(content)
    write_atomically(folder / SETTINGS_FILE, content)
