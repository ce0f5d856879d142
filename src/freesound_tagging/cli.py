"""``freesound-tagging``: run, neighbours, model, tag, demo, in one command.

Arguments are checked before torch, fastai and matplotlib are loaded, so that a slip is answered at
once; each subcommand imports what it needs when its work begins.
"""

import argparse
import os
import signal
import sys
from pathlib import Path

from freesound_tagging.errors import DataError
from freesound_tagging.learning.profiles import PROFILES, get_profile, parse_seeds
from freesound_tagging.sounds.catalogue import NAMES, check_dataset, is_table

STOPPED, NOT_READ = 130, 141
"""Exit status after Ctrl-C, and where nobody reads what is printed (``tag ... | head``)."""


def main(arguments: list[str] | None = None) -> int:
    """Run a subcommand and return 0, 1 (a notebook failed), 2 (bad input), 130 or 141."""
    sys.stdout.reconfigure(errors="backslashreplace")  # what a terminal cannot show is escaped
    options = _parser().parse_args(arguments)
    for variable in ("WORK_FOLDER", "DATA_MIRROR"):  # notebooks run in a folder of their own
        if os.environ.get(variable):
            os.environ[variable] = str(Path(os.environ[variable]).expanduser().resolve())
    try:
        status = options.work(options)
        print(end="", flush=True)
        return status
    except KeyboardInterrupt:
        if hasattr(options, "dataset"):
            print("\nstopped; what is finished is kept; the same command goes on", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:  # else Python would try at its end to print what is left, and say so
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NOT_READ
    except (OSError, ValueError) as error:  # no permission, a full disk; a DataError
        place = getattr(error, "filename", None)
        print(f"error: {f'{place}: {error.strerror}' if place else error}", file=sys.stderr)
        return 2


def count(text: str) -> int:
    """Return a whole number of 1 or more, or tell argparse what was given in its place."""
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"needed is a whole number of 1 or more, got {text!r}")
    return int(text)


def run(options: argparse.Namespace) -> int:
    """Execute the notebooks in order, then print the table and where everything lies."""
    _check(options)
    from freesound_tagging.notebooks import run_experiment

    return run_experiment(options.dataset, options.profile, neighbours=options.work is neighbours)


def neighbours(options: argparse.Namespace) -> int:
    """Execute the notebooks from 9 on: raw waveform, the 4th-place recipe, a stack of networks."""
    return run(options)


def model(options: argparse.Namespace) -> int:
    """Train on all clips of a data set and save the model under models/, for tag and demo."""
    _check(options)
    from freesound_tagging.experiment import open_experiment
    from freesound_tagging.features.representations import channels_of
    from freesound_tagging.model import make_model

    representations = list(dict.fromkeys(options.representation or ()))
    channels_of(representations)  # an unknown one is told before any work

    experiment = open_experiment(options.dataset, options.profile)
    with experiment.hold_runs():
        folder = make_model(experiment, representations)
    print(f"the model is in {os.path.relpath(folder)}")
    return 0


def tag(options: argparse.Namespace) -> int:
    """Tag sound files, or all in a folder, with a saved model."""
    from freesound_tagging import tag as tagging

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what is left is said
    return tagging.tag(options)


def demo(options: argparse.Namespace) -> int:
    """Open a page on this machine that tags a sound recorded or uploaded there."""
    from freesound_tagging.page import serve

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was uploaded is removed
    serve(options.model, options.port)
    return 0


def _check(options: argparse.Namespace) -> None:
    """Tell what cannot be right before anything slow is loaded; make a table's path absolute."""
    check_dataset(options.dataset)
    if is_table(options.dataset):
        given = Path(options.dataset).expanduser()
        table = given.parent.resolve() / given.name  # a table that is a link keeps its own folder
        if not table.is_file():
            raise DataError(f"{options.dataset}: there is no such table")
        options.dataset = str(table)  # notebooks run in a folder of their own
    if get_profile(options.profile).architecture == "yamnet" and options.work is not model:
        raise DataError(
            "PROFILE=audio makes a model (make model); the notebooks compare the others"
        )
    parse_seeds(os.environ.get("SEEDS"))
    if not (Path(__file__).resolve().parents[2] / "notebooks").is_dir():
        raise DataError(
            "the experiment wants a clone of the repository, installed in place (make setup), for "
            "its notebooks and clip lists; tagging with --model and the transform work without"
        )


def _parser() -> argparse.ArgumentParser:
    title = "Do high-resolution spectrograms help a CNN tag sounds?"
    parser = argparse.ArgumentParser(prog="freesound-tagging", description=title)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for work in (run, neighbours, model, tag, demo):
        command = commands.add_parser(work.__name__, help=work.__doc__, description=work.__doc__)
        command.set_defaults(work=work)
        add = command.add_argument
        if work in (tag, demo):
            add("--model", type=Path, metavar="FOLDER", help="default: the newest, audio first")
        else:
            known = f"{', '.join(NAMES)}, or path/to/table.csv (default: microcalls)"
            add("--dataset", default="microcalls", help=known)
            add("--profile", default="cpu", help=f"{', '.join(PROFILES)} (default: cpu)")
        if work is model:
            add("--representation", action="append", help="one or more times")
        elif work is demo:
            add("--port", type=int, default=7860)
        elif work is tag:
            add("paths", nargs="+", metavar="FILE", help="a sound, or a folder of sounds")
            add("--representation", help="which network (default: the model's best)")
            add("--top", type=count, default=3, help="labels for each sound (default: 3)")
            add("--csv", type=Path, metavar="OUT", dest="table", help="write a CSV file")
            add("--resume", action="store_true", help="go on with the CSV file of a stopped call")
            add("--audacity", action="store_true", help="write a label track for each")
            add("--picture", action="store_true", help="write what the network saw")
            add("--folder", type=Path, default=Path(), help="for both (default: here)")
    return parser
