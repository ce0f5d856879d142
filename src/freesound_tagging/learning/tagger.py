"""A saved model: one JSON and one file of weights for each representation; it tags any sound.

``model.json`` holds every setting that tagging needs, and what is known about how good the tags
are. The weights are safetensors, so nothing is unpickled. Neither fastai nor the clips that the
network learned from are needed to use them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
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
from freesound_tagging.learning.networks import build_network
from freesound_tagging.sounds.clips import resample, slide, stream

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
"""Of a model's folder; raise it when a folder comes to hold something else."""

SETTINGS_FILE = "model.json"

SETTINGS: dict[str, type | tuple[type, ...]] = {
    "format": int,
    "algorithm": int,
    "dataset": str,
    "profile": str,
    "versions": dict,
    "sounds": dict,
    "classes": list,
    "grid": dict,
    "networks": dict,
}
"""What ``model.json`` holds: ``algorithm`` is the store's, ``sounds`` their number, licence and
citation, ``networks`` what `NETWORK_SETTINGS` name, by representation."""

NETWORK_SETTINGS: dict[str, type | tuple[type, ...]] = {
    "planes": list,
    "channels": dict,
    "architecture": str,
    "width": int,
    "mean": list,
    "deviation": list,
    "sha256": str,
    "temperature": (int, float),
    "threshold": (int, float),
    "expected": dict,
}
"""What there is to know about one network; ``expected`` are its out-of-fold scores, or nothing."""

SOUNDS_SETTINGS = {"clips": int, "licence": str, "citation": str}
"""What ``sounds`` holds, and `EXPECTED_SETTINGS` what ``expected`` does where it is not empty."""

EXPECTED_SETTINGS = {"top1_accuracy": (int, float), "top3_error": (int, float), "foreign": dict}

OVERLAP = 0.5
"""Share of a window that the next one covers too: what one cuts in two, the other holds whole."""

LOWEST_RATE = 100
"""Hz; no waveform of a lower rate is tagged."""

BATCH_WINDOWS = 16
"""Windows in memory at a time."""


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
    seconds : length of the sound.
    window : length of a window in seconds.
    threshold : a sound whose best label is less probable is none of the classes, probably.
    note : "" for an ordinary file; else what makes its labels doubtful: its channels cancel, say.
    """

    classes: tuple[str, ...]
    probabilities: np.ndarray
    starts: np.ndarray
    window_probabilities: np.ndarray
    loudness: np.ndarray
    seconds: float
    window: float
    threshold: float
    note: str = ""

    @property
    def is_known(self) -> bool:
        """Whether the best label reaches the threshold."""
        return bool(self.probabilities.max() >= self.threshold)

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

    def __iter__(self) -> Iterator[tuple[str, float]]:
        """Yield every label with its probability, best first."""
        return ((tag.label, tag.probability) for tag in self.best(len(self.classes)))


class Tagger:
    """A saved network: waveform -> `Tags`.

    Parameters
    ----------
    folder : as written by `save` (``make model``), for example ``models/microcalls/cpu``.
    representation : which of its networks, by default the first in ``model.json``.

    Attributes
    ----------
    settings : all that ``model.json`` says.
    representation : key of `freesound_tagging.VARIANTS`.
    about : the settings of this representation's network, as in `NETWORK_SETTINGS`.
    classes : the labels it knows.
    grid : of its spectrograms.

    Raises
    ------
    DataError
        Where the folder is no model, is of another version, lacks a setting, or holds weights that
        are not those that ``model.json`` names or do not fit the network.
    """

    def __init__(self, folder: str | os.PathLike[str], representation: str | None = None):
        self.folder = Path(folder)
        self.settings = read_settings(self.folder)
        file = self.folder / SETTINGS_FILE
        networks = self.settings["networks"]
        self.representation = representation or next(iter(networks))
        if self.representation not in networks:
            raise DataError(
                f"{file} has no network for the representation {self.representation!r}; it has: "
                f"{', '.join(networks)}"
            )
        self.about = networks[self.representation]
        self.classes: tuple[str, ...] = tuple(self.settings["classes"])
        try:
            self.grid = Grid(**self.settings["grid"])
        except (TypeError, ValueError) as error:
            raise DataError(f"{file}: 'grid' is of another version ({error})") from error
        self._read_planes(file)
        self._network = self._read_network()

    def _read_planes(self, file: Path) -> None:
        """Check that this program computes the same channels, and prepare their loudness."""
        if self.about["channels"] != describe_channels(self.representation):
            raise DataError(
                f"{file}: {self.representation} was computed otherwise when this model was made; "
                "make it again with make model"
            )
        self._channels = [channel for channel, _ in self.about["planes"]]
        tables = [decoding_table(loudness) for _, loudness in self.about["planes"]]
        mean, deviation = (np.array(self.about[key]) for key in ("mean", "deviation"))
        if not (
            mean.shape == deviation.shape == (len(tables),)
            and {mean.dtype.kind, deviation.dtype.kind} <= set("if")
            and (deviation > 0).all()
        ):
            raise DataError(
                f"{file}: 'mean' and 'deviation' must have a number for each of "
                f"{len(tables)} planes, deviations above 0"
            )
        # Code -> network's input in one step.
        values = (torch.stack(tables).numpy() - mean[:, None]) / deviation[:, None]
        self._tables = torch.from_numpy(values.astype(np.float32))

    def _read_network(self) -> torch.nn.Module:
        file = self.folder / f"{self.representation}.safetensors"
        try:
            content = file.read_bytes()
        except OSError as error:
            raise DataError(f"{file} cannot be read ({error.strerror})") from error
        if hashlib.sha256(content).hexdigest() != self.about["sha256"]:
            raise DataError(
                f"{file} does not hold the weights that {SETTINGS_FILE} names (their sha256 "
                "differs): copy the folder again, or make the model again"
            )
        try:
            network = build_network(
                self.about["architecture"],
                len(self.classes),
                self.about["width"],
                pretrained=False,
            )
            network.load_state_dict(load_weights(content))
        except (SafetensorError, RuntimeError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise DataError(
                f"{file} does not fit the network that {SETTINGS_FILE} describes: {reason[:300]}"
            ) from error
        return network.eval().to(memory_format=torch.channels_last)

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
            hint = "; waveform.T is that" if values.ndim == 2 else ""
            raise DataError(
                f"waveform has the shape {values.shape}; give (time,) or (channels, time){hint}"
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
        counted = _Counter(blocks)
        hop = self.grid.duration * (1 - OVERLAP)
        windows = slide(counted, self.grid.sample_rate, self.grid.duration, hop)
        starts, loudness, logits = [], [], []
        while batch := list(islice(windows, BATCH_WINDOWS)):
            starts += [start for start, _ in batch]
            waveforms = np.stack([window for _, window in batch])
            loudness.append(_loudness(waveforms))
            logits.append(self._logits(torch.from_numpy(waveforms)))
        if not counted.n:
            raise DataError(f"{name} is empty: there is nothing to tag")
        level = np.concatenate(loudness)
        if not level.any():
            raise DataError(f"{name} is silent: there is nothing to tag")
        scores = torch.cat(logits)
        pooled = (scores.softmax(dim=1) * torch.from_numpy(level / level.sum())[:, None]).sum(dim=0)
        temperature = self.about["temperature"]
        return Tags(
            classes=self.classes,
            probabilities=(pooled.clamp_min(1e-12).log() / temperature).softmax(dim=0).numpy(),
            starts=np.array(starts),
            window_probabilities=(scores / temperature).softmax(dim=1).numpy(),
            loudness=level,
            seconds=counted.n / self.grid.sample_rate,
            window=self.grid.duration,
            threshold=float(self.about["threshold"]),
        )

    def _encode(self, waveforms: Tensor) -> Tensor:
        magnitudes = compute_channels(waveforms, self._channels, self.grid)
        codes = [
            encode(magnitudes[name], get_channel(name).limits(self.grid)) for name in self._channels
        ]
        return torch.stack(codes, dim=1)

    @torch.inference_mode()
    def _logits(self, waveforms: Tensor) -> Tensor:
        """Return the network's logits in float64, (windows, classes)."""
        codes = self._encode(waveforms).int()
        planes = [table[codes[:, i]] for i, table in enumerate(self._tables)]
        pictures = torch.stack(planes, dim=1).to(memory_format=torch.channels_last)
        return self._network(pictures).double()


class _Counter:
    """Blocks of a waveform that are counted as they pass."""

    def __init__(self, blocks: Iterable[np.ndarray]):
        self.blocks, self.n = blocks, 0

    def __iter__(self) -> Iterator[np.ndarray]:
        for block in self.blocks:
            self.n += len(block)
            yield block


def _loudness(waveforms: np.ndarray) -> np.ndarray:
    """Return each row's root mean square about its mean, 0 where that is only rounding."""
    deviation = waveforms.std(axis=1, dtype=np.float64)
    return np.where(deviation > 1e-6 * np.abs(waveforms).max(axis=1), deviation, 0.0)


def describe_channels(representation: str) -> dict[str, Any]:
    """Return the settings of a representation's channels, as JSON gives them back."""
    channels = get_variant(representation).channels
    return json.loads(json.dumps({name: get_channel(name).settings() for name in channels}))


def save(
    folder: str | os.PathLike[str],
    settings: dict[str, Any],
    weights: dict[str, dict[str, Tensor]],
) -> None:
    """Write a model's folder, the weights first and ``model.json`` last.

    Parameters
    ----------
    folder : made where it is not there.
    settings : as in `SETTINGS`; ``format`` and ``algorithm`` and each network's ``planes``,
        ``channels`` and ``sha256`` are filled in.
    weights : the networks' state, by representation.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    networks = {}
    for representation, state in weights.items():
        content = save_weights({name: value.contiguous() for name, value in state.items()})
        write_atomically(folder / f"{representation}.safetensors", content)
        networks[representation] = {
            **settings["networks"][representation],
            "planes": [list(plane) for plane in get_variant(representation).planes],
            "channels": describe_channels(representation),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
    filled = {**settings, "format": FORMAT, "algorithm": ALGORITHM, "networks": networks}
    write_atomically(folder / SETTINGS_FILE, json.dumps(filled, indent=1).encode())


def read_settings(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what a model's ``model.json`` says.

    Raises
    ------
    DataError
        Where it is not there, is no JSON, is of another version, or lacks a setting.
    """
    file = Path(folder) / SETTINGS_FILE
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"{folder} is no model: {SETTINGS_FILE} cannot be read there ({error.strerror}); "
            "make model makes one"
        ) from error
    except ValueError as error:
        raise DataError(f"{file} is damaged: it is no JSON ({error})") from error
    again = "make the model again with make model"
    found = settings.get("format") if isinstance(settings, dict) else None
    if found != FORMAT:
        raise DataError(f"{file} is of format {found!r}, this program reads {FORMAT}; {again}")
    _check(file, settings, SETTINGS)
    if settings["algorithm"] != ALGORITHM:
        raise DataError(
            f"{file}: its spectrograms are of version {settings['algorithm']}, this program "
            f"computes version {ALGORITHM}; {again}"
        )
    _check(file, settings["sounds"], SOUNDS_SETTINGS, "sounds.")
    classes = settings["classes"]
    if len(classes) < 2 or not all(isinstance(label, str) for label in classes):
        raise DataError(f"{file}: 'classes' must be two labels or more")
    if not settings["networks"]:
        raise DataError(f"{file}: 'networks' holds none")
    for name, network in settings["networks"].items():
        where = f"networks.{name}."
        if not isinstance(network, dict):
            raise DataError(f"{file}: '{where[:-1]}' must be a dict")
        try:
            planes = [list(plane) for plane in get_variant(name).planes]
        except ValueError as error:
            raise DataError(f"{file}: {error}") from error
        _check(file, network, NETWORK_SETTINGS, where)
        if network["expected"]:
            _check(file, network["expected"], EXPECTED_SETTINGS, f"{where}expected.")
        if network["planes"] != planes:
            raise DataError(
                f"{file}: {name} has other planes than in this program, {planes}; {again}"
            )
        if not network["temperature"] > 0:
            raise DataError(f"{file}: '{where}temperature' must be above 0")
    return settings


def _check(file: Path, found: dict, wanted: dict, where: str = "") -> None:
    for name, kind in wanted.items():
        if name not in found:
            raise DataError(f"{file} lacks the setting '{where}{name}'")
        if not isinstance(found[name], kind):
            kinds = kind if isinstance(kind, tuple) else (kind,)
            legal = " or ".join(each.__name__ for each in kinds)
            raise DataError(f"{file}: '{where}{name}' must be {legal}, got {found[name]!r}")
