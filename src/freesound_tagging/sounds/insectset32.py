"""InsectSet32: 330 recordings of 32 species of crickets, grasshoppers and cicadas.

Clips of one recording session stay in one fold; data/README.md says what is left out, and why, and
at which rate insects are to be analysed.
"""

import hashlib
from pathlib import Path

import pandas as pd
import soundfile

from freesound_tagging.sounds.archives import Dataset, fetch, github_archive, locate, read_manifest
from freesound_tagging.sounds.tables import as_table


def samples_hash(path: Path) -> str:
    """Return the sha256 of a sound's samples as 32-bit integers: wav and FLAC have the same."""
    samples, _ = soundfile.read(path, dtype="int32", always_2d=True)
    return hashlib.sha256(samples.astype("<i4").tobytes()).hexdigest()


DATASET = Dataset(
    licence="CC BY 4.0",
    citation=(
        "M. Faiss. InsectSet32: Dataset for automatic acoustic identification of insects. "
        "doi 10.5281/zenodo.7072196; M. Faiss and D. Stowell. Adaptive representations of sound "
        "for automatic insect recognition. PLOS Computational Biology 19(10): e1011541, 2023"
    ),
    archives=(
        github_archive(
            "juliankraft/TermPaper1-Ecoacoustics",
            "c0108393079d2ae8ae07f5775cd9baef1a37b883",
            "insectset32",
            clip_hash=samples_hash,
        ),
    ),
)


def load(root: Path) -> pd.DataFrame:
    """Return the clip table, see `catalogue.load`; `group` is the recording session."""
    clips = read_manifest("insectset32")
    folder = fetch(DATASET.archives[0], root, dict(clips["samples_sha256"]))
    paths = [str(locate(folder, file)) for file in clips.index]
    return as_table(clips.assign(path=paths, fold=clips["fold"].astype(int)))
