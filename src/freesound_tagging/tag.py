"""``freesound-tagging tag``: sound files -> labels for a person, a program, Audacity; a picture.

torch is loaded when the first sound is tagged, so that a slip in the arguments is answered at once.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from freesound_tagging.errors import DataError
from freesound_tagging.files import write_atomically
from freesound_tagging.sounds.clips import cut, stream

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

CSV_COLUMNS = ["file", "rank", "label", "probability", "start", "end", "note"]

ESCAPED = "backslashreplace"  # what a table does with the bytes of a name that are no UTF-8

SHOWN = 30.0  # seconds of a sound that a picture shows, around its strongest window


def find_sounds(paths: Iterable[str]) -> list[Path]:
    """Return the files among the paths, and in place of each folder the sounds below it.

    No folder is entered twice, by whichever links. What is left out is counted, by kind, in a line.
    """
    found, entered, left_out = [], set(), Counter()

    def closed(error: OSError) -> None:
        left_out[f"folder that cannot be opened ({error.filename})"] += 1

    for path in map(Path, paths):
        if not path.is_dir():
            found.append(path)
            continue
        for place, folders, names in os.walk(path, onerror=closed, followlinks=True):
            if (identity := os.path.realpath(place)) in entered:
                folders.clear()
                continue
            entered.add(identity)
            hidden = [name for name in folders if name[0] == "." or name.lower() in TRASH]
            left_out.update(f"hidden or trash folder ({name})" for name in hidden)
            folders[:] = sorted(set(folders).difference(hidden))
            for file in (Path(place, name) for name in sorted(names)):
                kind = file.suffix.lower() or "without an ending"
                kind = "hidden file" if file.name[0] == "." else kind
                if kind in ENDINGS:
                    found.append(file)
                else:
                    left_out[kind] += 1
    if left_out:
        kinds = ", ".join(f"{number} {kind}" for kind, number in left_out.most_common())
        print(shown(f"left out {kinds}; convert or name what you miss"), file=sys.stderr)
    if not found:
        raise DataError(f"no sound file ({', '.join(ENDINGS)}) lies in {', '.join(paths)}")
    return list(dict.fromkeys(found))


def newest_model() -> Path:
    """Return the newest model under ``models/``, one of the profile ``audio`` before any other."""
    from freesound_tagging.experiment import work_folder

    folder = work_folder() / "models"
    files = list(folder.glob("*/*/model.json"))
    if not files:
        raise DataError(f"{folder} holds no model yet; make model makes one, --model names one")
    return max(files, key=lambda file: (file.parent.name == "audio", file.stat().st_mtime)).parent


def shown(text: str) -> str:
    """Return a text as one line that a terminal can show: control characters are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def as_line(name: str, tags: Tags, top: int) -> str:
    """Return tags for a person: each label, its probability, and the seconds where it is best."""
    labels = ", ".join(
        f"{tag.label} {tag.probability:.2f} ({tag.start:.1f} to {tag.end:.1f} s)"
        for tag in tags.best(top)
    )
    known = "" if tags.is_known else f"{NOT_KNOWN}; nearest: "
    return f"{name}: {known}{labels}{tags.note and f'; note: {tags.note}'}"


def as_rows(tags: Tags, top: int) -> list[tuple]:
    """Return tags for a program: `CSV_COLUMNS` but for the file, a row for each label.

    ``note`` is empty; or `NOT_KNOWN`, what makes the labels doubtful, or both.
    """
    note = "; ".join(filter(None, ["" if tags.is_known else NOT_KNOWN, tags.note]))
    return [
        (rank, tag.label, f"{tag.probability:.4f}", f"{tag.start:.3f}", f"{tag.end:.3f}", note)
        for rank, tag in enumerate(tags.best(top), start=1)
    ]


def as_audacity(tags: Tags) -> str:
    """Return an Audacity label track: start, end, label with its probability, separated by tabs.

    Neighbouring windows with the same best label are one stretch, whose borders lie midway between
    windows. Windows that are silent, or stranger than the limit, have none.
    """
    middles = tags.starts + tags.window / 2
    borders = np.concatenate([[0.0], (middles[1:] + middles[:-1]) / 2, [tags.seconds]])
    best, sure = tags.window_probabilities.argmax(axis=1), tags.window_probabilities.max(axis=1)
    best = np.where((tags.loudness > 0) & (tags.strangeness <= tags.limit), best, -1)
    lines = []
    for label, stretch in groupby(range(len(best)), best.__getitem__):
        windows = list(stretch)
        if label >= 0:
            start, end = borders[windows[0]], borders[windows[-1] + 1]
            words = f"{shown(tags.classes[label])} {sure[windows].max():.2f}"
            lines.append(f"{start:.6f}\t{end:.6f}\t{words}\n")
    return "".join(lines)


def describe_model(tagger: Tagger) -> str:
    """Say what a model is, how often it is right, and whose sounds it knows, a line each."""
    settings, expected = tagger.settings, tagger.about.expected
    lines = [f"Model: {settings.dataset}, {settings.profile}, {tagger.representation}."]
    if settings.profile == "smoke":
        lines.append("It was made to see that everything runs: its labels say nothing.")
    if expected:
        first = f"On other clips its first label is right for {expected['top1_accuracy']:.0%}."
        lines += [first, f"One of its first three is right for {1 - expected['top3_error']:.0%}."]
        for name, count in expected["foreign"].items():
            lines.append(f"{count['labelled']:.0%} of {count['n']} sounds of {name} got a label.")
    learned = "Learned from {clips} clips; licence: {licence} {citation}"
    return "\n".join(map(shown, [*lines, learned.format(**settings.sounds)]))


def draw(
    tagger: Tagger, tags: Tags, waveform: np.ndarray, sample_rate: int, begin: float = 0.0
) -> Figure:
    """Draw a sound, with its strongest window marked, and below it what the network saw.

    ``tags`` are of the whole sound; the waveform, shape (time,), at a rate in Hz, is a stretch that
    begins at ``begin`` seconds. Three channels are drawn as red, green and blue.
    """
    from matplotlib.figure import Figure

    from freesound_tagging.features.plots import show_planes, spectrogram_axes
    from freesound_tagging.features.representations import get_variant

    figure = Figure(figsize=(11, 4.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[1, 2])
    above.plot(begin + np.arange(len(waveform)) / sample_rate, waveform, linewidth=0.5)
    above.set(ylabel="amplitude", xlim=(begin, begin + len(waveform) / sample_rate))
    best = tags.best(1)[0]
    above.axvspan(best.start, best.end, alpha=0.15, color="tab:orange")
    codes = tagger.spectrogram(waveform, sample_rate)
    about = spectrogram_axes(get_variant(tagger.representation), tagger.grid)
    step = about.times[1] - about.times[0]
    about = replace(about, times=begin + (np.arange(codes.shape[-1]) + 0.5) * step)
    words = f"{tagger.representation}: {best.label} {best.probability:.2f}"
    show_planes(codes, about, ax=below, title=shown(words), colorbar=True)
    return figure


def draw_file(tagger: Tagger, tags: Tags, file: Path) -> bytes:
    """Return a PNG of up to `SHOWN` seconds of a file, around its strongest window."""
    from matplotlib import style

    best, rate = tags.best(1)[0], tagger.grid.sample_rate
    begin = max(0.0, min((best.start + best.end - SHOWN) / 2, tags.seconds - SHOWN))
    length = round(min(SHOWN, tags.seconds) * rate)
    (waveform,) = cut(stream(file, rate), [round(begin * rate)], length)
    content = io.BytesIO()
    with style.context("default"):  # whatever the user's matplotlibrc says
        draw(tagger, tags, waveform, rate, begin).savefig(content, dpi=100)
    return content.getvalue()


def names_beside(files: Iterable[Path]) -> dict[Path, str]:
    """Return the name of what is written beside each sound: the sound's, numbered where taken."""
    names, taken = {}, set()
    for file in files:
        name, number = file.stem, 1
        while name.lower() in taken:  # A.wav and a.wav are one name on some systems
            number += 1
            name = f"{file.stem} ({number})"
        taken.add(name.lower())
        names[file] = name
    return names


def read_done(table: Path, asked: Collection[str]) -> tuple[list[Sequence[str]], set[str]]:
    """Return the rows that `--resume` keeps of a stopped call's table, and the files in the table.

    Of the files ``asked`` for, the last, perhaps cut short, goes, and those that had an error.
    """
    with table.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = [row for row in csv.reader(line.replace("\0", "") for line in file) if row]
    header, first = ",".join(CSV_COLUMNS), ",".join(rows[0]) if rows else ""
    if not header.startswith(first) or (first != header and len(rows) > 1):
        raise DataError(f"--resume: {table} was not written by tag")
    named = [row for row in rows[1:] if len(row) > 1]  # a row cut within its name is nobody's
    kept = [row for row in named if row[0] not in asked or (row[0] != named[-1][0] and row[1])]
    return [CSV_COLUMNS, *kept], {row[0] for row in named}


def tag(options: argparse.Namespace) -> int:
    """Tag files and folders; print and write as they come what the command's options ask for.

    Returns the exit status: 0, or 2 where any file has no tags.
    """
    if options.resume and options.table is None:
        raise DataError("--resume goes on with a table: name it with --csv")
    files, folder = find_sounds(options.paths), options.folder
    names, table = names_beside(files), options.table or Path(os.devnull)
    in_table = {file: str(file).encode(errors=ESCAPED).decode() for file in files}
    kept, listed = [CSV_COLUMNS], set()
    if table.is_file() and table.stat().st_size:
        if not options.resume:
            raise DataError(f"--csv {table} is there and is not replaced; --resume goes on with it")
        kept, listed = read_done(table, set(in_table.values()))
    done = {row[0] for row in kept[1:]}
    left = [file for file in files if in_table[file] not in done]
    tracks = {file: folder / f"{names[file]}.labels.txt" for file in left if options.audacity}
    for file, track in tracks.items():
        if track.exists() and in_table[file] not in listed:
            raise DataError(f"{track} is there already and may have been edited; see --folder")
    from freesound_tagging.learning.tagger import Tagger

    tagger = Tagger(options.model or newest_model(), options.representation)
    if options.audacity or options.picture:
        folder.mkdir(exist_ok=True)
    if listed:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(kept)
        write_atomically(table, text.getvalue().encode())
    n = problems = 0
    with table.open("a" if listed else "w", encoding="utf-8", errors=ESCAPED, newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerows([] if listed else kept)
        try:
            for file in tqdm(left, unit="file", disable=None if len(left) > 1 else True):
                try:
                    tags = tagger.tag_file(file)
                    line, rows = as_line(str(file), tags, options.top), as_rows(tags, options.top)
                    image = draw_file(tagger, tags, file) if options.picture else None
                except DataError as error:
                    problems += 1
                    tags = image = None
                    line, rows = f"error: {error}", [("", "", "", "", "", error)]
                writer.writerows((file, *row) for row in rows)
                out.flush()  # before what lies beside: --resume takes the last of the table again
                if tags and options.audacity and not tracks[file].exists():
                    write_atomically(tracks[file], as_audacity(tags).encode())
                if image:
                    write_atomically(folder / f"{names[file]}.tags.png", image)
                with tqdm.external_write_mode():
                    print(shown(line), flush=True)
                n += 1
        except (KeyboardInterrupt, OSError) as stop:
            if not isinstance(stop, BrokenPipeError):  # then nobody is there to be told
                left_over = f"{len(left) - n} of {len(files)} files are left"
                print(f"\nstopped: {left_over}; with --csv, --resume goes on", file=sys.stderr)
            raise
    if n > problems:
        print(f"\n{describe_model(tagger)}")
    return 2 if problems else 0
