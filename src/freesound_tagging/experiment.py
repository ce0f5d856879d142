"""One experiment = a data set and a profile: where its files lie, and its steps for notebooks.

fastai is loaded with the grid of runs, by the steps that need it: who looks at sounds waits less.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from freesound_tagging import files
from freesound_tagging.errors import DataError
from freesound_tagging.features import store as stores
from freesound_tagging.features.grid import Grid
from freesound_tagging.features.representations import VARIANTS, channels_of
from freesound_tagging.features.store import Store
from freesound_tagging.jobs import check_scheduler
from freesound_tagging.learning.profiles import Profile, get_profile, parse_seeds
from freesound_tagging.scoring import challenge, metrics
from freesound_tagging.sounds import catalogue, checks, fsdkaggle2018
from freesound_tagging.sounds.clips import ClipError, ClipSettings, load_clip

ROOT = Path(__file__).resolve().parents[2]
"""The repository: the package is installed in place (``pip install -e .``)."""


def work_folder() -> Path:
    """Return the folder that holds ``data/`` and ``runs/``.

    It is the repository, or the folder named by the environment variable ``WORK_FOLDER``: sounds
    and spectrograms of a large data set may need another disk.
    """
    return Path(os.environ.get("WORK_FOLDER") or ROOT).resolve()


@dataclass(frozen=True)
class Experiment:
    """A data set, a profile, and the folders that they use.

    Attributes
    ----------
    dataset : name of the data set, or the path of a table of one's own sounds.
    profile_name : key of `freesound_tagging.learning.profiles.PROFILES`.
    profile : its settings, adjusted to the data set.
    """

    dataset: str
    profile_name: str
    profile: Profile

    @property
    def name(self) -> str:
        """A name for folders: the data set's, or the stem of the table."""
        return Path(self.dataset).stem if catalogue.is_table(self.dataset) else self.dataset

    @property
    def raw_folder(self) -> Path:
        """Where sounds are unpacked or generated."""
        return work_folder() / "data" / "raw"

    @property
    def store_folder(self) -> Path:
        """Where the stored spectrograms lie."""
        return work_folder() / "data" / "interim" / self.name

    @property
    def run_folder(self) -> Path:
        """Where this experiment writes results and executed notebooks."""
        return work_folder() / "runs" / self.name / self.profile_name

    @property
    def model_folder(self) -> Path:
        """Where the model that tags other sounds is saved."""
        return work_folder() / "models" / self.name / self.profile_name

    @contextmanager
    def hold_runs(self) -> Iterator[None]:
        """Hold the runs of this data set alone: a second `make run` or `make study` waits.

        Raises
        ------
        ValueError
            Where the folder cannot be made.
        """
        folder = self.run_folder.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"{folder} cannot be made ({error.strerror}); WORK_FOLDER names the folder for "
                "data/ and runs/"
            ) from error
        with files.hold_alone(folder, "training into this folder"):
            yield

    @contextmanager
    def hold_checked_runs(self) -> Iterator[None]:
        """Hold the runs, and find out before any training whether it can be done.

        Raises
        ------
        ValueError, DataError
            As `hold_runs`, `check_sounds`, `claim_runs` and
            `freesound_tagging.jobs.check_scheduler`.
        """
        check_scheduler()
        with self.hold_runs():
            self.check_sounds(self.load_table())
            self.claim_runs()
            yield

    def claim_runs(self) -> None:
        """Write down whose runs the folder holds: two tables may have the same name.

        Raises
        ------
        ValueError
            Where it holds the runs of another table, which is still there.
        """
        if not catalogue.is_table(self.dataset):
            return
        folder = self.run_folder.parent
        owner = folder / "table.txt"
        held = owner.read_text() if owner.exists() else self.dataset
        if held != self.dataset and Path(held).exists():
            raise ValueError(
                f"{folder} holds the runs of {held}, which has the same name as {self.dataset}: "
                "rename one of them, or remove that folder"
            )
        files.write_atomically(owner, self.dataset.encode())

    @property
    def results_folder(self) -> Path:
        """Where measurements of this data set are committed."""
        folder = ROOT / "results" / self.name
        return folder if self.profile_name == "cpu" else folder / self.profile_name

    def load_table(self) -> pd.DataFrame:
        """Return the clips of the training split, thinned where the profile asks for it."""
        return self._load_split("train")

    def load_test_table(self) -> pd.DataFrame | None:
        """Return the clips of the test split, thinned as `load_table`; None where there are none.

        No run learns from them: the networks of all folds score them once they are trained.
        """
        table = self._load_split("test")
        return None if table.empty else table

    def _load_split(self, split: str) -> pd.DataFrame:
        options = {}
        if self.dataset == "microcalls":
            options["clips_per_class"] = self.profile.clips_per_class
        dataset = self.dataset
        if catalogue.is_table(dataset) and not Path(dataset).is_absolute():
            dataset = str(ROOT / dataset)
        table = catalogue.load(dataset, self.raw_folder, **options)
        return thin(table[table["split"] == split], self.profile.max_clips)

    @property
    def clip_settings(self) -> ClipSettings:
        """What every clip is turned into."""
        return ClipSettings(self.profile.grid.sample_rate, self.profile.grid.duration)

    def check_sounds(self, table: pd.DataFrame) -> None:
        """Refuse a table of one's own that holds no sound, or a label that cannot be learned.

        The clips of the other data sets are compared with their hashes.

        Raises
        ------
        DataError
            As `freesound_tagging.sounds.checks.check_sounds`.
        """
        if catalogue.is_table(self.dataset):
            checks.check_sounds(table, self.clip_settings)

    def examples(self, table: pd.DataFrame) -> dict[str, tuple[str, np.ndarray]]:
        """Return label -> (clip id, waveform): its first clip that is readable and not silent.

        Raises
        ------
        DataError
            No clip of the table is.
        """
        found: dict[str, tuple[str, np.ndarray]] = {}
        for clip_id, clip in table.iterrows():
            if clip["label"] in found:
                continue
            try:
                waveform, note = load_clip(clip["path"], self.clip_settings)
            except ClipError:
                continue  # the store reports it, with all others
            if not note.startswith("silent"):
                found[clip["label"]] = (clip_id, waveform)
        if not found:
            raise DataError(
                f"{self.dataset}: none of {len(table)} clips can be read and holds sound"
            )
        return found

    def build_store(
        self,
        table: pd.DataFrame,
        channels: list[str] | None = None,
        grid: Grid | None = None,
    ) -> Store:
        """Compute what the store lacks and return it.

        By default all channels of the main table of representations, on the profile's grid.

        The clips of the test split, where there are any, come with those of ``table``. The
        environment variable ``STRICT=1`` makes any unreadable clip an error.
        """
        test = self.load_test_table()
        return stores.build(
            table if test is None else pd.concat([table, test]),
            channels_of(VARIANTS) if channels is None else channels,
            self.profile.grid if grid is None else grid,
            self.store_folder,
            strict=os.environ.get("STRICT", "").lower() in ("1", "true", "yes"),
        )

    def run_grid(
        self, table: pd.DataFrame, store: Store, variants: list[str] | None = None
    ) -> pd.DataFrame:
        """Make the runs not done yet, by default of every representation, and return all results.

        Clips that the store could not read are listed in ``unreadable.csv`` beside the results.
        """
        from freesound_tagging import run_grid as grid

        results = grid.run_grid(
            table,
            store,
            list(VARIANTS) if variants is None else variants,
            self.profile,
            self.run_folder,
            dataset=self.name,
            profile_name=self.profile_name,
            test=self.load_test_table(),
        )
        unreadable = pd.Series(store.failed, name="reason", dtype=str).sort_index()
        unreadable.to_csv(self.run_folder / "unreadable.csv", index_label="clip_id")
        return results

    def load_results(self) -> pd.DataFrame:
        """Return ``results.csv``.

        Raises
        ------
        FileNotFoundError
            Where no grid has been run; it says how to run one.
        """
        file = self.run_folder / "results.csv"
        if not file.exists():
            raise FileNotFoundError(
                f"{file} is not there yet: run notebook 06, or make run "
                f"DATASET={self.dataset} PROFILE={self.profile_name}"
            )
        return pd.read_csv(file)

    def write_summary(self, table: pd.DataFrame) -> pd.DataFrame:
        """Rank the representations: write ``summary.csv`` and return it."""
        summary = metrics.summarise(self.load_scores(), table)
        summary.to_csv(self.run_folder / "summary.csv", index=False, float_format="%.6g")
        return summary

    def load_scores(self) -> dict[str, pd.DataFrame]:
        """Return the out-of-fold scores of every representation that has been run."""
        from freesound_tagging.run_grid import load_scores

        return load_scores(self.run_folder, self.load_results())

    def write_test_summary(self) -> pd.DataFrame | None:
        """Score the test split, write ``test_summary.csv`` and submissions, return the summary.

        Only FSDKaggle2018 says which test clips were scored; None elsewhere, and where the files
        of that set do not hold the test clips.
        """
        if self.dataset != "fsdkaggle2018" or self.load_test_table() is None:
            return None
        from freesound_tagging.run_grid import load_scores

        scores = load_scores(self.run_folder, self.load_results(), ".test.csv")
        usage = fsdkaggle2018.usage_of_test_clips(self.raw_folder)
        sample = fsdkaggle2018.sample_submission(self.raw_folder)
        summary = challenge.summarise_test(scores, usage, self.load_scores())
        summary.to_csv(self.run_folder / "test_summary.csv", index=False, float_format="%.6g")
        folder = self.run_folder / "submissions"
        folder.mkdir(exist_ok=True)
        for variant, frame in scores.items():
            lines = challenge.submission(challenge.average_folds(frame), sample)
            lines.to_csv(folder / f"{variant}.csv", index=False, lineterminator="\n")
        return summary


def open_experiment(dataset: str, profile: str, seeds: int | None = None) -> Experiment:
    """Return the experiment on a data set with a profile.

    ``seeds`` asks for that many seeds, 0 first; by default the environment variable ``SEEDS`` does,
    and without it the profile. Runs that were made with fewer seeds are kept.

    Raises
    ------
    ValueError
        Where either is unknown; the message lists the known ones.
    """
    catalogue.check_dataset(dataset)
    return Experiment(dataset, profile, _with_seeds(get_profile(profile, dataset), seeds))


def _with_seeds(profile: Profile, seeds: int | None) -> Profile:
    if seeds is None:
        seeds = parse_seeds(os.environ.get("SEEDS"))
    return profile if seeds is None else replace(profile, seeds=tuple(range(seeds)))


def thin(table: pd.DataFrame, max_clips: int | None) -> pd.DataFrame:
    """Return about ``max_clips`` clips, the first by clip id of every label and fold: one at least
    of each, however many those are.
    """
    if max_clips is None or len(table) <= max_clips:
        return table
    cells = table.sort_index().groupby(["label", "fold"])
    each = max(1, max_clips // cells.ngroups)
    return cells.head(each).sort_index()
