"""``freesound-tagging tag``: sound files -> labels for a person, a program, Audacity; a picture.

torch is loaded when the first sound is tagged, so that a slip in the arguments is answered at once.
"""

from __future__ import annotations

import csv
import io
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile as sf
from tqdm import tqdm

from freesound_tagging.errors import DataError
from freesound_tagging.files import write_atomically
from freesound_tagging.sounds.clips import seconds_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from freesound_tagging.learning.tagger import Tagger, Tags

ENDINGS = (
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc"),
    *(".au", ".snd", ".caf", ".w64", ".rf64"),
)
"""Of the files that are taken from a folder; a file that is named is read whatever its ending."""

NOT_READ = (".m4a", ".aac", ".mp4", ".wma", ".amr", ".webm", ".mka", ".ac3")
"""Endings of sounds that libsndfile cannot read."""

NOT_KNOWN = "none of these, probably"

ERROR, NOTE = "error: ", "note: "
"""What lines that name a file begin with."""

CSV_COLUMNS = ("file", "rank", "label", "probability", "start", "end", "note")

SHOWN = 30.0
"""Seconds of a sound that a picture shows, around its strongest window."""


def find_sounds(paths: Iterable[str]) -> list[Path]:
    """Return the files among the paths, and in place of each folder the sounds below it, sorted.

    Files whose name begins with a dot are left out: macOS puts one beside every sound on a foreign
    disk. So are sounds in a format that cannot be read, and a line says so.

    Raises
    ------
    DataError
        Where a folder holds no sound.
    """
    found = []
    for path in map(Path, paths):
        if not path.is_dir():
            found.append(path)
            continue
        inside = [file for file in path.rglob("*") if not file.name.startswith(".")]
        below = sorted(file for file in inside if file.suffix.lower() in ENDINGS)
        left_out = [file.suffix.lower() for file in inside if file.suffix.lower() in NOT_READ]
        if left_out:
            print(
                f"{path}: left out {len(left_out)} in formats that are not read "
                f"({', '.join(sorted(set(left_out)))}); convert them to wav or flac",
                file=sys.stderr,
            )
        if not below:
            raise DataError(f"{path}: this folder holds no sound file ({', '.join(ENDINGS)})")
        found += below
    return found


def newest_model() -> Path:
    """Return the model under ``models/`` of the work folder that was made last.

    Raises
    ------
    DataError
        Where there is none.
    """
    from freesound_tagging.experiment import work_folder

    folder = work_folder() / "models"
    files = sorted(folder.glob("*/*/model.json"), key=lambda file: file.stat().st_mtime)
    if not files:
        raise DataError(
            f"{folder} holds no model yet: make one with make model, or name one with --model"
        )
    return files[-1].parent


def tag_files(
    tagger: Tagger, files: Sequence[Path], longest: float = 3600.0
) -> Iterator[tuple[Path, Tags | DataError]]:
    """Yield every file with its tags, or with the reason why it has none.

    A progress bar counts the files where there are several and a person looks on. A file of more
    than ``longest`` seconds is not read.
    """
    with tqdm(total=len(files), unit="file", disable=None if len(files) > 1 else True) as bar:
        for file in files:
            try:
                _check_length(file, longest)
                answer: Tags | DataError = tagger.tag_file(file)
            except DataError as error:
                answer = error
            yield file, answer
            bar.update()


def _check_length(file: Path, longest: float) -> None:
    seconds = seconds_of(file)
    if seconds is not None and seconds > longest:
        raise DataError(
            f"{file}: lasts {seconds / 3600:.2f} hours, the longest allowed is "
            f"{longest / 3600:g}; --longest {int(seconds / 3600) + 1} allows more"
        )


def format_answers(answers: Sequence[tuple[Path, Tags | DataError]], top: int) -> str:
    """Return the answers as a table for a person, one line a label, one line a file without any."""
    rows = [("file", "label", "probability", "heard best at")]
    short = len({file.name for file, _ in answers}) == len(answers)
    for file, answer in answers:
        name = file.name if short else str(file)
        if isinstance(answer, DataError):
            rows.append(("", f"{ERROR}{answer}", "", ""))
            continue
        if answer.note:
            rows.append(("", f"{NOTE}{file}: {answer.note}", "", ""))
        if not answer.is_known:
            rows.append((name, NOT_KNOWN, "", ""))
            name = ""
        for tag in answer.best(top):
            when = f"{_clock(tag.start)} to {_clock(tag.end)}"
            rows.append((name, tag.label, f"{tag.probability:.2f}", when))
            name = ""
    shown = [row for row in rows if not row[1].startswith((ERROR, NOTE))]
    widths = [max(len(row[column]) for row in shown) for column in range(3)]
    lines = []
    for name, label, probability, when in rows if len(shown) > 1 else rows[1:]:
        if label.startswith((ERROR, NOTE)):
            lines.append(label)
            continue
        cells = (name.ljust(widths[0]), label.ljust(widths[1]), probability.rjust(widths[2]), when)
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _clock(seconds: float) -> str:
    """Return seconds as 0:07.5 or 1:02:07.5."""
    tenths = round(seconds * 10)
    hours, minutes, rest = tenths // 36_000, tenths // 600 % 60, tenths % 600 / 10
    return f"{hours}:{minutes:02d}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"


def describe_model(tagger: Tagger) -> str:
    """Say what a model is, how often it is right, and whose sounds it knows, a line each."""
    about, expected, sounds = tagger.settings, tagger.about["expected"], tagger.settings["sounds"]
    lines = [f"Model: {about['dataset']}, {about['profile']}, {tagger.representation}."]
    if about["profile"] == "smoke":
        lines.append("It was made to see that everything runs: its labels say nothing.")
    if expected:
        first, three = expected["top1_accuracy"], 1 - expected["top3_error"]
        alarms = " and ".join(
            f"{value['labelled']:.0%} of {value['n']} sounds of {name}"
            for name, value in expected["foreign"].items()
        )
        top3 = f", one of the first three for {three:.0%}" if len(tagger.classes) > 3 else ""
        lines += [
            f"On clips that it did not learn from, the first label is right for {first:.0%}{top3}.",
            f'"{NOT_KNOWN}": the best probability is below {tagger.about["threshold"]:.2f}. One in '
            "ten sounds of the classes falls below it"
            + (f"; a label is given to {alarms}." if alarms else "."),
        ]
    else:
        lines.append("How often it is right was not measured.")
    source = f"Learned from {sounds['clips']} clips; licence: {sounds['licence']}"
    lines.append(f"{source}; {sounds['citation']}" if sounds["citation"] else source)
    return "\n".join(lines)


def as_csv(answers: Sequence[tuple[Path, Tags | DataError]], top: int) -> str:
    """Return the answers as CSV, columns `CSV_COLUMNS`, one row a label; times in seconds.

    ``note`` is empty; or `NOT_KNOWN`, what makes the labels doubtful, or both; or the reason why a
    file has no label.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for file, answer in answers:
        if isinstance(answer, DataError):
            writer.writerow([file, "", "", "", "", "", answer])
            continue
        note = "; ".join(filter(None, ["" if answer.is_known else NOT_KNOWN, answer.note]))
        for rank, tag in enumerate(answer.best(top), start=1):
            times = (f"{tag.start:.3f}", f"{tag.end:.3f}")
            writer.writerow([file, rank, tag.label, f"{tag.probability:.4f}", *times, note])
    return text.getvalue()


def as_audacity(tags: Tags) -> str:
    """Return an Audacity label track: start, end, label with its probability, separated by tabs.

    Windows side by side with the same best label become one stretch, whose borders lie midway
    between the windows. Windows whose best label does not reach the threshold have none.
    """
    middles = tags.starts + tags.window / 2
    borders = np.concatenate([[0.0], (middles[1:] + middles[:-1]) / 2, [tags.seconds]])
    best = tags.window_probabilities.argmax(axis=1)
    sure = tags.window_probabilities.max(axis=1)
    heard = (tags.loudness > 0) & (sure >= tags.threshold)
    lines = []
    for (label, is_heard), stretch in groupby(range(len(best)), lambda i: (best[i], heard[i])):
        windows = list(stretch)
        if is_heard:
            start, end = borders[windows[0]], borders[windows[-1] + 1]
            words = f"{tags.classes[label]} {sure[windows].max():.2f}"
            lines.append(f"{start:.6f}\t{end:.6f}\t{words}\n")
    return "".join(lines)


def draw(
    waveform: np.ndarray,
    sample_rate: int,
    answers: Sequence[tuple[Tagger, Tags]],
    begin: float = 0.0,
) -> Figure:
    """Draw a sound and what each network saw of it, on one time axis.

    Below the waveform stand the channels of each network: the whole stretch, its strongest window
    marked, and on the right that window as the network saw it: a sound that is shorter than a
    window stands between zeros there.

    Parameters
    ----------
    waveform : shape (time,), a stretch of the sound that holds the strongest windows.
    sample_rate : Hz.
    answers : the networks, and what they say about the whole sound.
    begin : where in the sound the stretch begins, in seconds.
    """
    from matplotlib.figure import Figure

    planes = [
        (tagger, tags, i) for tagger, tags in answers for i in range(len(tagger.about["planes"]))
    ]
    figure = Figure(figsize=(11, 1.6 + 2.6 * len(planes)), layout="constrained")
    axes = figure.subplots(
        1 + len(planes),
        2,
        squeeze=False,
        width_ratios=[4, 1.4],
        height_ratios=[1] + [2] * len(planes),
    )
    seconds = begin + np.arange(len(waveform)) / sample_rate
    axes[0, 0].plot(seconds, waveform, linewidth=0.5)
    axes[0, 0].set(ylabel="amplitude", xlim=(begin, begin + len(waveform) / sample_rate))
    axes[0, 1].axis("off")
    for row, (tagger, tags, plane) in enumerate(planes, start=1):
        _draw_plane(axes[row], waveform, sample_rate, tagger, tags, plane, begin)
        axes[row, 0].sharex(axes[0, 0])
    return figure


def _draw_plane(axes, waveform, sample_rate, tagger, tags, plane, begin) -> None:
    from freesound_tagging.features.codes import CODE_LEVELS, DB_RANGE
    from freesound_tagging.features.plots import show_spectrogram
    from freesound_tagging.features.representations import get_channel
    from freesound_tagging.sounds.clips import best_centred_crop

    best = tags.best(1)[0]
    name, _ = tagger.about["planes"][plane]
    channel = get_channel(name)
    frequencies, limits = channel.frequencies(tagger.grid), channel.limits(tagger.grid)
    low, high = limits or (-DB_RANGE, 0.0)
    first = round((best.start - begin) * sample_rate)
    window = waveform[max(first, 0) : first + round(tags.window * sample_rate)]
    if tags.seconds <= tags.window:
        window = best_centred_crop(waveform, sample_rate, tags.window)
    for ax, sound, start, title in (
        (axes[0], waveform, begin, f"{tagger.representation}, channel {name}"),
        (axes[1], window, best.start, f"strongest window: {best.label} {best.probability:.2f}"),
    ):
        codes = tagger.spectrogram(sound, sample_rate)[plane].astype(np.float32)
        values = low + codes / CODE_LEVELS * (high - low)
        if channel.axis == "waveform":
            ax.plot(start + np.arange(values.shape[1]) / tagger.grid.sample_rate, values[0], lw=0.5)
            ax.set(xlabel="time (s)", ylabel="mu-law companded", ylim=(-1.05, 1.05))
            ax.set_title(title, fontsize=10)
            ax.margins(x=0)
            continue
        times = (np.arange(codes.shape[1]) + 0.5) * tagger.grid.hop_length / tagger.grid.sample_rate
        show_spectrogram(
            values,
            np.arange(len(codes)) if frequencies is None else frequencies,
            start + times,
            ax=ax,
            title=title,
            axis="linear" if frequencies is None else channel.axis,
            limits=(low, high),
            unit=("dB below the maximum" if limits is None else "value") if ax is axes[1] else "",
        )
        if frequencies is None:
            ax.set_ylabel("coefficient")
    mark = {"fill": False, "edgecolor": "cyan", "linewidth": 3, "clip_on": False}
    axes[0].axvspan(best.start, best.end, **mark)


def picture(tagger: Tagger, file: Path, tags: Tags) -> bytes:
    """Return a PNG of `draw` for up to `SHOWN` seconds of a file, around its strongest window."""
    best = tags.best(1)[0]
    begin = max(0.0, min((best.start + best.end - SHOWN) / 2, tags.seconds - SHOWN))
    with sf.SoundFile(file) as sound:
        sound.seek(int(begin * sound.samplerate))
        stretch = sound.read(int(SHOWN * sound.samplerate), dtype="float32", always_2d=True)
        waveform, sample_rate = stretch.mean(axis=1), sound.samplerate
    figure = draw(waveform, sample_rate, [(tagger, tags)], begin)
    figure.suptitle(file.name, fontsize=11)
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a name's letters that the font lacks are boxes
        figure.savefig(content, format="png", dpi=100)
    return content.getvalue()


def _pictures(
    tagger: Tagger, tagged: Iterable[tuple[Path, Tags]], problems: list[str]
) -> Iterator[tuple[Path, bytes]]:
    """Yield each file with its picture; where there is none, add a line to ``problems``."""
    for file, tags in tagged:
        try:
            yield file, picture(tagger, file, tags)
        except DataError as error:
            problems.append(f"error: {file}: it has no picture ({error})")


def targets_beside(folder: Path, files: Iterable[Path], ending: str) -> dict[Path, Path]:
    """Return which file in ``folder`` belongs to each sound: named after it, and numbered."""
    targets: dict[Path, Path] = {}
    taken: set[Path] = set()
    for file in dict.fromkeys(files):
        target, number = folder / f"{file.stem}{ending}", 2
        while target in taken:
            target, number = folder / f"{file.stem}-{number}{ending}", number + 1
        taken.add(target)
        targets[file] = target
    return targets


def _check_targets(files: Sequence[Path], csv_file: str, folder: Path, labels: list[Path]) -> None:
    """Raise `DataError` where what is to be written has no place or would destroy something."""
    for place in (folder.absolute().parent, Path(csv_file).absolute().parent):
        if not place.is_dir():
            raise DataError(f"{place}: there is no such folder to write into")
    if folder.exists() and not folder.is_dir():
        raise DataError(f"--folder {folder}: this is a file; name a folder")
    table = Path(csv_file)
    if table.is_dir():
        raise DataError(f"--csv {csv_file}: this is a folder; name a file, or - for the screen")
    if table.suffix.lower() in (*ENDINGS, *NOT_READ) or table.resolve() in {
        file.resolve() for file in files
    }:
        raise DataError(f"--csv {csv_file}: this is a sound; name the file to write, or - to print")
    for target in labels:
        if target.exists():
            raise DataError(
                f"{target} is there already and may have been edited; move it away, or name "
                "another folder with --folder"
            )


def tag(
    paths: Sequence[str],
    model: Path | None = None,
    representation: str | None = None,
    top: int = 3,
    csv_file: str | None = None,
    audacity: bool = False,
    pictures: bool = False,
    folder: Path = Path(),
    longest: float = 3600.0,
) -> int:
    """Tag files and folders, print or write what was asked for, and return the exit status.

    Returns
    -------
    0, or 2 where any file has no tags.
    """
    files = find_sounds(paths)
    labels = targets_beside(folder, files, ".labels.txt") if audacity else {}
    _check_targets(files, csv_file or "-", folder, list(labels.values()))
    from freesound_tagging.learning.tagger import Tagger

    tagger = Tagger(model or newest_model(), representation)
    answers = list(tag_files(tagger, files, longest))
    tagged = [(file, tags) for file, tags in answers if not isinstance(tags, DataError)]
    written: list[Path] = []
    problems: list[str] = []
    if csv_file == "-":
        print(as_csv(answers, top), end="")
    else:
        print(format_answers(answers, top))
        if tagged:
            print(f"\n{describe_model(tagger)}")
        if csv_file:
            write_atomically(Path(csv_file), as_csv(answers, top).encode())
            written.append(Path(csv_file))
    contents = [(labels[file], as_audacity(tags).encode()) for file, tags in tagged if labels]
    if pictures:
        targets = targets_beside(folder, files, ".tags.png")
        drawn = _pictures(tagger, tagged, problems)
        contents = chain(contents, ((targets[file], content) for file, content in drawn))
    for target, content in contents:
        folder.mkdir(exist_ok=True)
        write_atomically(target, content)
        written.append(target)
    for problem in problems:
        print(problem, file=sys.stderr)
    if csv_file != "-":
        for file in written:
            print(f"wrote {os.path.relpath(file)}")
    return 0 if len(tagged) == len(answers) and not problems else 2
