"""``freesound-tagging``: run, neighbours, model, tag, demo, in one command.

Arguments are checked before torch, fastai and matplotlib are loaded, so that a slip is answered at
once; each subcommand imports what it needs when its work begins.
"""

import argparse
import os
import shlex
import sys
from pathlib import Path

from freesound_tagging.errors import DataError
from freesound_tagging.learning.profiles import PROFILES, get_profile, parse_seeds
from freesound_tagging.sounds.catalogue import NAMES, check_dataset, is_table

STOPPED = 130
NOT_READ = 141
"""Exit status after Ctrl-C, and where nobody reads the tags any more (``tag ... | head``): 128 and
the number of the signal, as shells have it."""

SETTINGS = ("WORK_FOLDER", "DATA_MIRROR", "SEEDS", "STRICT", "SCHEDULER")
"""Environment variables that say how a command works."""


def main(arguments: list[str] | None = None) -> int:
    """Run a subcommand and return 0, 1 (a notebook failed), 2 (bad input), 130 or 141."""
    options = _parser().parse_args(arguments)
    for variable in ("WORK_FOLDER", "DATA_MIRROR"):  # notebooks run in a folder of their own
        if os.environ.get(variable):
            os.environ[variable] = str(Path(os.environ[variable]).expanduser().resolve())
    try:
        return options.work(options)
    except KeyboardInterrupt:
        if not hasattr(options, "dataset"):
            return STOPPED  # nothing to go on with
        given = [(name, os.environ.get(name)) for name in SETTINGS]
        settings = "".join(f" {name}={shlex.quote(value)}" for name, value in given if value)
        command = f"make {_make_target(options)}{settings}"
        print(f"\nstopped; what is finished is kept, to go on: {command}", file=sys.stderr)
        return STOPPED
    except OSError as error:  # no permission, a full disk
        place = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        print(f"error: {place}", file=sys.stderr)
        return 2
    except ValueError as error:  # a DataError is one
        print(f"error: {error}", file=sys.stderr)
        return 2


def run(options: argparse.Namespace) -> int:
    """Execute the notebooks in order, then print the table and where everything lies."""
    _check(options)
    from freesound_tagging.notebooks import run_experiment

    return run_experiment(options.dataset, options.profile)


def neighbours(options: argparse.Namespace) -> int:
    """Execute the notebooks from 10 on: raw waveform, the 4th-place recipe, a stack of networks."""
    _check(options)
    from freesound_tagging.notebooks import run_experiment

    return run_experiment(options.dataset, options.profile, neighbours=True)


def model(options: argparse.Namespace) -> int:
    """Train on all clips of a data set and save the model under models/, for tag and demo."""
    _check(options)
    from freesound_tagging.experiment import open_experiment
    from freesound_tagging.features.representations import get_variant
    from freesound_tagging.model import REPRESENTATIONS, make_model

    representations = list(dict.fromkeys(options.representation or REPRESENTATIONS))
    for name in representations:
        get_variant(name)
    experiment = open_experiment(options.dataset, options.profile)
    with experiment.hold_runs():
        folder = make_model(experiment, representations)
    print(f"the model is in {os.path.relpath(folder)}")
    return 0


def tag(options: argparse.Namespace) -> int:
    """Tag sound files, or all in a folder, with a saved model."""
    from freesound_tagging import tag as tagging

    if options.top < 1:
        raise DataError(f"--top {options.top}: give a whole number, 1 or more")
    if not options.longest > 0:
        raise DataError(f"--longest {options.longest:g}: give hours, more than 0")
    _check_model(options)
    try:
        status = tagging.tag(
            options.files,
            options.model,
            options.representation,
            options.top,
            options.csv,
            options.audacity,
            options.picture,
            options.folder,
            3600 * options.longest,
        )
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes at its end
        return NOT_READ
    return status


def demo(options: argparse.Namespace) -> int:
    """Open a page on this machine that tags a sound recorded or uploaded there."""
    _check_model(options)
    from freesound_tagging.page import serve

    serve(options.model, options.port)
    return 0


def _check(options: argparse.Namespace) -> None:
    check_dataset(options.dataset)
    if is_table(options.dataset):
        table = Path(options.dataset).expanduser().resolve()
        if not table.is_file():
            raise DataError(f"{options.dataset}: there is no such table")
        options.dataset = str(table)  # notebooks run in a folder of their own
    if options.profile:
        get_profile(options.profile)
    parse_seeds(os.environ.get("SEEDS"))


def _check_model(options: argparse.Namespace) -> None:
    if options.model is not None and not (options.model / "model.json").is_file():
        raise DataError(f"{options.model} is no model: it has no model.json; make model makes one")


def _parser() -> argparse.ArgumentParser:
    title = "Do high-resolution spectrograms help a CNN tag sounds?"
    parser = argparse.ArgumentParser(prog="freesound-tagging", description=title)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for work in (run, neighbours, model, tag, demo):
        command = commands.add_parser(work.__name__, help=work.__doc__, description=work.__doc__)
        command.set_defaults(work=work)
        if work in (tag, demo):
            newest = "a folder that make model wrote (default: the newest under models/)"
            command.add_argument("--model", type=Path, metavar="FOLDER", help=newest)
        else:
            known = f"{', '.join(NAMES)}, or path/to/table.csv (default: microcalls)"
            command.add_argument("--dataset", default="microcalls", help=known)
            profiles = f"{', '.join(PROFILES)} (default: cpu)"
            command.add_argument("--profile", default="cpu", help=profiles)
        if work is model:
            several = "may be given several times (default: log_db and hires_q2)"
            command.add_argument("--representation", action="append", help=several)
        elif work is demo:
            command.add_argument("--port", type=int, default=7860)
        elif work is tag:
            _add_tag_arguments(command)
    return parser


def _add_tag_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("files", nargs="+", metavar="FILE", help="a sound, or a folder of sounds")
    command.add_argument("--representation", help="which network (default: the model's best)")
    command.add_argument("--top", type=int, default=3, help="labels for each sound (default: 3)")
    command.add_argument("--csv", metavar="OUT", help="write a CSV file; - prints it instead")
    command.add_argument("--audacity", action="store_true", help="write a label track for each")
    command.add_argument("--picture", action="store_true", help="write what the network saw")
    command.add_argument(
        "--folder", type=Path, default=Path(), help="for label tracks and pictures (default: here)"
    )
    command.add_argument(
        "--longest", type=float, default=1.0, metavar="HOURS", help="refuse longer files"
    )


def _make_target(options: argparse.Namespace) -> str:
    """Return the make target and variables that say the same as these options."""
    named = {"DATASET": "dataset", "PROFILE": "profile"}
    given = [(name, getattr(options, option, "")) for name, option in named.items()]
    given.append(("REPRESENTATION", " ".join(getattr(options, "representation", None) or ())))
    words = [f"{name}={shlex.quote(value)}" for name, value in given if value]
    return " ".join([options.work.__name__, *words])


if __name__ == "__main__":
    sys.exit(main())
