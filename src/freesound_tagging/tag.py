"""``freesound-tagging tag``: sound files -> labels for a person, a program, Audacity; a picture.

torch is loaded when the first sound is tagged, so that a slip in the arguments is answered at once.
"""

from __future__ import annotations

import csv
import io
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile as sf
from tqdm import tqdm

from freesound_tagging.errors import DataError
from freesound_tagging.files import write_atomically
from freesound_tagging.sounds.clips import best_centred_crop, seconds_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from freesound_tagging.learning.tagger import Tagger, Tags

ENDINGS = (
    *(".wav", ".wave", ".bwf", ".rf64", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mp2"),
    *(".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".sph", ".voc"),
)
"""Of the files that are taken from a folder; a file that is named is read whatever its ending."""

TRASH = {"__macosx", "@eadir", "#recycle", "@recycle", "$recycle.bin", "lost+found"}
"""Folders, besides hidden ones, in which systems keep what is no recording, or was thrown away."""

NOT_KNOWN = "none of these, probably"

CSV_COLUMNS = ("file", "rank", "label", "probability", "start", "end", "note")

SCREEN = Path("-")

SHOWN = 30.0
"""Seconds of a sound that a picture shows, around its strongest window."""


# --- which files -------------------------------------------------------------------------------


def find_sounds(paths: Iterable[str]) -> list[Path]:
    """Return the files among the paths, and in place of each folder the sounds below it, sorted.

    A line says how many files and folders are left out, by kind.

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
        sounds, left_out = _look_into(path)
        if left_out:
            kinds = ", ".join(f"{number} {kind}" for kind, number in left_out.most_common())
            print(
                shown(f"{path}: left out {kinds}; convert or name what you miss"), file=sys.stderr
            )
        if not sounds:
            raise DataError(f"{path}: this folder holds no sound file ({', '.join(ENDINGS)})")
        found += sorted(sounds)
    return list(dict.fromkeys(found))


def _look_into(top: Path) -> tuple[list[Path], Counter[str]]:
    """Return the sounds below a folder, and how many of each other kind are left out.

    Links to folders are followed after all else, and no folder is entered twice.
    """
    sounds, waiting, entered = [], [top], set()
    left_out: Counter[str] = Counter()

    def closed(error: OSError) -> None:
        left_out[f"folder that cannot be opened ({error.filename})"] += 1

    while waiting:
        for place, folders, files in os.walk(waiting.pop(0), onerror=closed):
            identity = os.path.realpath(place)
            names, folders[:] = list(folders), []
            if identity in entered:
                continue
            entered.add(identity)
            for name in names:
                if name.startswith(".") or name.lower() in TRASH:
                    left_out[f"hidden or trash folder ({name})"] += 1
                elif Path(place, name).is_symlink():
                    waiting.append(Path(place, name))
                else:
                    folders.append(name)
            for file in (Path(place, name) for name in files):
                if file.name.startswith("."):
                    left_out["hidden file"] += 1
                elif file.suffix.lower() in ENDINGS:
                    sounds.append(file)
                else:
                    left_out[file.suffix.lower() or "without an ending"] += 1
    return sounds, left_out


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


# --- what is said ------------------------------------------------------------------------------


def tag_file(tagger: Tagger, file: Path, longest: float = 3600.0) -> Tags | DataError:
    """Return a file's tags, or why it has none; one longer than ``longest`` seconds is not read."""
    seconds = seconds_of(file) if file.is_file() else None  # a pipe would be waited for
    if seconds is not None and seconds > longest:
        return DataError(
            f"{file}: lasts {seconds / 3600:.2f} hours, the longest allowed is "
            f"{longest / 3600:g}; --longest {int(seconds / 3600) + 1} allows more"
        )
    try:
        return tagger.tag_file(file)
    except DataError as error:
        return error


def shown(text: str) -> str:
    """Return a text as one line that a terminal can show: control characters are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def as_line(name: str, answer: Tags | DataError, top: int) -> str:
    """Return an answer for a person: each label, its probability, and where it is heard best."""
    if isinstance(answer, DataError):
        return shown(f"error: {answer}")
    labels = ", ".join(
        f"{tag.label} {tag.probability:.2f} ({_clock(tag.start)} to {_clock(tag.end)})"
        for tag in answer.best(top)
    )
    known = "" if answer.is_known else f"{NOT_KNOWN}; nearest: "
    return shown(f"{name}: {known}{labels}{answer.note and f'; note: {answer.note}'}")


def _clock(seconds: float) -> str:
    """Return seconds as 0:07.5 or 1:02:07.5."""
    tenths = round(seconds * 10)
    hours, minutes, rest = tenths // 36_000, tenths // 600 % 60, tenths % 600 / 10
    return f"{hours}:{minutes:02d}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"


def describe_model(tagger: Tagger) -> str:
    """Say what a model is, how often it is right, and whose sounds it knows, a line each."""
    settings, expected, sounds = tagger.settings, tagger.about.expected, tagger.settings.sounds
    lines = [f"Model: {settings.dataset}, {settings.profile}, {tagger.representation}."]
    if settings.profile == "smoke":
        lines.append("It was made to see that everything runs: its labels say nothing.")
    if expected is None:
        lines.append("How often it is right was not measured.")
    else:
        first, three = expected.top1_accuracy, 1 - expected.top3_error
        lines.append(
            f"On clips that it did not learn from, the first label is right for {first:.0%}, one "
            f"of the first three for {three:.0%}."
        )
        lines.append(f'"{NOT_KNOWN}" is said of one in ten sounds of its classes.')
        for name, count in expected.foreign.items():
            lines.append(f"It is not said of {count.labelled:.0%} of {count.n} sounds of {name}.")
    lines.append(f"Learned from {sounds.clips} clips; licence: {sounds.licence}")
    return "\n".join(shown(line) for line in (*lines, sounds.citation) if line)


def as_csv(file: Path, answer: Tags | DataError, top: int) -> str:
    """Return an answer as CSV, columns `CSV_COLUMNS`, one row a label; times in seconds.

    ``note`` is empty; or `NOT_KNOWN`, what makes the labels doubtful, or both; or the reason why a
    file has no label.
    """
    if isinstance(answer, DataError):
        return _csv_row(file, "", "", "", "", "", answer)
    note = "; ".join(filter(None, ["" if answer.is_known else NOT_KNOWN, answer.note]))
    rows = []
    for rank, tag in enumerate(answer.best(top), start=1):
        times = (f"{tag.start:.3f}", f"{tag.end:.3f}")
        rows.append(_csv_row(file, rank, tag.label, f"{tag.probability:.4f}", *times, note))
    return "".join(rows)


def _csv_row(*cells: object) -> str:
    text = io.StringIO()
    # The writer ends a row in \r\n, and so quotes names that hold either.
    csv.writer(text).writerow(map(_utf8, cells))
    return text.getvalue().removesuffix("\r\n") + "\n"


def _utf8(value: object) -> str:
    """Return a text that UTF-8 can hold: the bytes of a name that is no UTF-8 are escaped."""
    return str(value).encode(errors="backslashreplace").decode()


def as_audacity(tags: Tags) -> str:
    """Return an Audacity label track: start, end, label with its probability, separated by tabs.

    Windows side by side with the same best label become one stretch, whose borders lie midway
    between the windows. Windows that are silent, or stranger than the limit, have none.
    """
    middles = tags.starts + tags.window / 2
    borders = np.concatenate([[0.0], (middles[1:] + middles[:-1]) / 2, [tags.seconds]])
    best, sure = tags.window_probabilities.argmax(axis=1), tags.window_probabilities.max(axis=1)
    heard = (tags.loudness > 0) & (tags.strangeness <= tags.limit)
    lines = []
    for (label, is_heard), stretch in groupby(range(len(best)), lambda i: (best[i], heard[i])):
        windows = list(stretch)
        if is_heard:
            start, end = borders[windows[0]], borders[windows[-1] + 1]
            words = f"{shown(tags.classes[label])} {sure[windows].max():.2f}"
            lines.append(f"{start:.6f}\t{end:.6f}\t{words}\n")
    return "".join(lines)


def draw(
    waveform: np.ndarray,
    sample_rate: int,
    answers: Sequence[tuple[Tagger, Tags]],
    begin: float = 0.0,
    title: str = "",
) -> Figure:
    """Draw a sound, and below it what each network saw: the whole, and its strongest window.

    That window stands on the right, and is marked in the waveform; a sound that is shorter than a
    window stands between zeros there. Three channels are drawn as red, green and blue.

    Parameters
    ----------
    waveform : shape (time,), a stretch of the sound that holds the strongest windows.
    sample_rate : Hz.
    answers : the networks, and what they say about the whole sound.
    begin : where in the sound the stretch begins, in seconds.
    title : stands above.
    """
    from matplotlib.figure import Figure

    from freesound_tagging.features.plots import show_planes, spectrogram_axes
    from freesound_tagging.features.representations import get_variant

    figure = Figure(figsize=(11, 1.8 + 2.6 * len(answers)), layout="constrained")
    figure.suptitle(shown(title), fontsize=11, parse_math=False)
    ratios = {"width_ratios": [4, 1.4], "height_ratios": [1] + [2] * len(answers)}
    axes = figure.subplots(1 + len(answers), 2, squeeze=False, **ratios)
    axes[0, 0].plot(begin + np.arange(len(waveform)) / sample_rate, waveform, linewidth=0.5)
    axes[0, 0].set(ylabel="amplitude", xlim=(begin, begin + len(waveform) / sample_rate))
    axes[0, 1].axis("off")
    for (tagger, tags), (left, right) in zip(answers, axes[1:], strict=True):
        best, grid = tags.best(1)[0], tagger.grid
        axes[0, 0].axvspan(best.start, best.end, alpha=0.15, color="tab:orange")
        first = max(0, round((best.start - begin) * sample_rate))
        window = waveform[first : first + round(tags.window * sample_rate)]
        if tags.seconds <= tags.window:
            window = best_centred_crop(waveform, sample_rate, tags.window)
        about = spectrogram_axes(get_variant(tagger.representation), grid)
        strongest = shown(f"strongest window: {best.label} {best.probability:.2f}")
        for ax, sound, start, words in (
            (left, waveform, begin, tagger.representation),
            (right, window, best.start, strongest),
        ):
            codes = tagger.spectrogram(sound, sample_rate)
            step = (1 if about.rows == "amplitude" else grid.hop_length) / grid.sample_rate
            times = start + (np.arange(codes.shape[-1]) + 0.5) * step
            show_planes(
                codes, replace(about, times=times), ax=ax, title=words, colorbar=ax is right
            )
    return figure


def as_png(*arguments, **options) -> bytes:
    """Return a PNG of `draw` with these arguments, whatever the user's matplotlibrc says."""
    from matplotlib import style

    content = io.BytesIO()
    with style.context("default"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # letters that the font lacks are boxes
        draw(*arguments, **options).savefig(content, format="png", dpi=100)
    return content.getvalue()


def picture(tagger: Tagger, file: Path, tags: Tags) -> bytes:
    """Return a PNG of up to `SHOWN` seconds of a file, around its strongest window."""
    best = tags.best(1)[0]
    begin = max(0.0, min((best.start + best.end - SHOWN) / 2, tags.seconds - SHOWN))
    with file.open("rb") as stream, sf.SoundFile(stream) as sound:
        sound.seek(int(begin * sound.samplerate))
        stretch = sound.read(int(SHOWN * sound.samplerate), dtype="float32", always_2d=True)
        rate = sound.samplerate
    return as_png(stretch.mean(axis=1), rate, [(tagger, tags)], begin, title=file.name)


# --- where it is written -----------------------------------------------------------------------


def targets_beside(folder: Path, files: Iterable[Path], ending: str) -> dict[Path, Path]:
    """Return which file in ``folder`` belongs to each sound: named after it, and numbered."""
    targets: dict[Path, Path] = {}
    taken, numbers = set(), Counter()
    for file in files:
        name = ""
        while not name or name.lower() in taken:  # two names on every system
            numbers[file.stem] += 1
            number = f"-{numbers[file.stem]}" if numbers[file.stem] > 1 else ""
            name = f"{file.stem}{number}{ending}"
        taken.add(name.lower())
        targets[file] = folder / name
    return targets


def _followed(target: Path) -> Path:
    """Return a path, or what it points to where it is a link."""
    return Path(os.path.realpath(target))  # `Path.resolve` fails where links make a circle


def _check_csv(table: Path, files: Sequence[Path]) -> None:
    """Raise `DataError` where a table has no place, or would take that of something else."""
    target = _followed(table)
    if target.is_dir():
        raise DataError(f"--csv {table}: this is a folder; name a file, or - for the screen")
    if not target.parent.is_dir():
        raise DataError(f"--csv {table}: there is no folder {target.parent} to write into")
    if target.suffix.lower() in ENDINGS or target in map(_followed, files):
        raise DataError(f"--csv {table}: this is a sound; name the file to write, or - to print")
    if target.is_file():
        with target.open("rb") as file:
            if b"\0" in file.read(4096):
                raise DataError(f"--csv {table}: this is no table, and is not replaced")


def _rows_done(table: Path, classes: Sequence[str], top: int) -> list[list[str]]:
    """Return the rows that an earlier call wrote, without those of a file that was cut short."""
    with table.open(encoding="utf-8", errors="replace", newline="") as file:
        text = file.read()
    rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    if rows and not text.endswith("\n"):
        rows.pop()
    labels = {label for row in rows[1:] for label in row[2:3]}
    if rows and not (tuple(rows[0]) == CSV_COLUMNS and labels <= {"", *classes}):
        raise DataError(f"--csv {table}: was not written by tag with this model; see --resume")
    last = [row for row in rows[1:] if row[0] == rows[-1][0]]
    is_whole = not last or len(last) == (min(top, len(classes)) if last[0][1] else 1)
    return rows if is_whole else rows[: -len(last)]


@contextmanager
def _open_csv(table: Path | None, done: list[list[str]]) -> Iterator[Callable[[str], None]]:
    """Yield what writes text at once: to the screen, a pipe, a device or a file; None to nothing.

    A file is kept as far as the rows ``done``, where there are any; else it is begun anew.
    """
    if table is None or table == SCREEN:
        yield lambda text: print(text if table else "", end="", flush=True)
        return
    if done:
        content = "".join(_csv_row(*row) for row in done)
        write_atomically(_followed(table), content.encode())
    with table.open("ab" if done else "wb", buffering=0) as file:

        def write(text: str) -> None:
            left = text.encode()
            try:
                while left:
                    left = left[file.write(left) :]
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(table)) from error

        yield write


def tag(
    paths: Sequence[str],
    model: Path | None = None,
    representation: str | None = None,
    top: int = 3,
    table: Path | None = None,
    resume: bool = False,
    audacity: bool = False,
    pictures: bool = False,
    folder: Path = Path(),
    longest: float = 3600.0,
) -> int:
    """Tag files and folders; print and write as they come what was asked for.

    Returns
    -------
    The exit status: 0, or 2 where any file has no tags or no picture.
    """
    files = find_sounds(paths)
    labels = targets_beside(folder, files, ".labels.txt") if audacity else {}
    drawn = targets_beside(folder, files, ".tags.png") if pictures else {}
    if table is not None and _is_screen(table):
        table = SCREEN
    elif table is not None:
        _check_csv(table, files)
    edited = [target for target in labels.values() if target.exists() and not resume]
    if edited:
        raise DataError(
            f"{edited[0]} is there already and may have been edited; move it away, or name "
            "another folder with --folder"
        )
    if folder.exists() and not folder.is_dir():
        raise DataError(f"--folder {folder}: this is a file; name a folder")
    from freesound_tagging.learning.tagger import Tagger

    tagger = Tagger(model or newest_model(), representation)
    if labels or drawn:
        folder.mkdir(exist_ok=True)
    done = _rows_done(table, tagger.classes, top) if resume and table.is_file() else []
    names = {row[0] for row in done}
    left = [file for file in files if _utf8(file) not in names]
    n, problems = 0, 0
    with _open_csv(table, done) as write:
        if not done:
            write(_csv_row(*CSV_COLUMNS))
        try:
            for file in tqdm(left, unit="file", disable=None if len(left) > 1 else True):
                answer = tag_file(tagger, file, longest)
                if isinstance(answer, DataError):
                    problems += 1
                else:
                    problems += _write_beside(tagger, file, answer, labels, drawn)
                write(as_csv(file, answer, top))
                if table != SCREEN:
                    with tqdm.external_write_mode():
                        print(as_line(str(file), answer, top), flush=True)
                n += 1
        except BrokenPipeError:  # nobody is there to be told
            raise
        except (KeyboardInterrupt, OSError):
            on = "; the same command with --resume goes on" if table not in (None, SCREEN) else ""
            left_over = f"{len(left) - n} of {len(files)} files are left{on}"
            print(f"\nstopped: {left_over}", file=sys.stderr)
            raise
    if table != SCREEN and n > problems:
        print(f"\n{describe_model(tagger)}")
    return 2 if problems else 0


def _is_screen(table: Path) -> bool:
    """Say whether a table is "-" or, as /dev/stdout, another name of where this program prints."""
    try:
        return table == SCREEN or os.path.samestat(table.stat(), os.fstat(sys.stdout.fileno()))
    except (OSError, ValueError, AttributeError):  # it is not there; nothing is printed to a file
        return False


def _write_beside(
    tagger: Tagger, file: Path, tags: Tags, labels: dict[Path, Path], drawn: dict[Path, Path]
) -> int:
    """Write a file's label track and picture where they are asked for; return 1 where one fails."""
    if file in labels and not labels[file].exists():
        write_atomically(_followed(labels[file]), as_audacity(tags).encode())
    if file in drawn:
        try:
            write_atomically(_followed(drawn[file]), picture(tagger, file, tags))
        except (ValueError, sf.SoundFileError) as error:
            print(shown(f"error: {file}: it has no picture ({error})"), file=sys.stderr)
            return 1
    return 0
