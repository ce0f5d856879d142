"""How often is the rule of `freesound_tagging.scoring.statistics` wrong, and what does it find?

Right and wrong answers are drawn. A clip is right where a sum of normal draws exceeds 0: how hard
it is, what the representation makes of its recording and of itself, the luck of a seed, perhaps on
one half of the classes alone, the luck of a run (one fold, one seed), and the rest. No
representation is better than another, so every verdict is false. Then all luck of training is
doubled; then there are two seeds; then one representation is better.

The spreads of the draws were set so that the simulated answers vary as scores do: on microcalls and
FSDD those of results/, on ESC-10 and InsectSet32 those of an earlier round (commit 47ab561), which
varied more. `spreads` measures either.

    python benchmarks/statistics/rule.py           # some six minutes on one idle core
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from freesound_tagging.scoring.metrics import METRIC, bootstrap_means, clip_metrics
from freesound_tagging.scoring.statistics import judge, p_value

sys.path.append(str(Path(__file__).resolve().parents[2]))
from benchmarks.surroundings import surroundings
from studies.plan import BASIC, CONTRASTS, LOUDNESS, families_of
from studies.scores import RESULTS, read, read_clips, score_files

_PRETRAINED = {"contrasts": CONTRASTS, "folds": 5, "seeds": 3}
_CALLS = {"clips": 320, "recordings": 320, "folds": 5, "seeds": 5, "parts": 3}
_CALLS |= {"mean": 0.9, "clip": 1.4, "made": 1.1, "seed": 0.15, "half": 0.2, "run": 0.15}
# Clips, recordings, folds and seeds of the plan; what is left are spreads (standard deviations).
_ESC10 = _PRETRAINED | {"clips": 400, "recordings": 304, "parts": 1}
_ESC10 |= {"mean": 2.3, "clip": 1.5, "made": 0.75, "seed": 0.05, "run": 0.18}
CASES = {
    "esc10": _ESC10,
    "esc10, loudness": _ESC10 | {"contrasts": LOUDNESS},
    "insectset32": _PRETRAINED
    | {"clips": 330, "recordings": 231, "parts": 1}
    | {"mean": 1.4, "clip": 2.4, "made": 0.75, "seed": 0.03, "run": 0.17},
    "microcalls": _CALLS | {"contrasts": BASIC},
    "microcalls, causes": _CALLS | {"contrasts": families_of("microcalls", "cpu")[1]},
    "fsdd": {"contrasts": BASIC, "folds": 6, "seeds": 3}
    | {"clips": 3000, "recordings": 6, "parts": 1, "common": 0.03}
    | {"mean": 2.3, "clip": 1.6, "made": 0.95, "seed": 0.03, "run": 0.22},
}
"""``recordings`` of fsdd are its speakers, too few for a verdict. ``parts`` 3: each contrast over
all, and two halves. Of what a representation makes of a clip, ``common`` is the share that its
recording has in common; 0.5 where it is not given."""


def draw(
    case: dict, rng: np.random.Generator, luck: float = 1.0, better: float = 0.0
) -> np.ndarray:
    """Return which answers are right, shape (clips, seeds, representations).

    ``luck`` multiplies the spreads of training; ``better`` is added to the first representation.
    """
    recordings, folds = places(case)
    n, seeds, clips = len(names_of(case)), case["seeds"], case["clips"]
    normal = rng.standard_normal
    common = case.get("common", 0.5)
    made = np.sqrt(common) * normal((case["recordings"], 1, n))[recordings]
    made += np.sqrt(1 - common) * normal((clips, 1, n))
    total = case["mean"] + case["clip"] * normal((clips, 1, 1)) + case["made"] * made
    total = total + luck * case["seed"] * normal((1, seeds, n))
    if case["parts"] == 3:
        total += luck * case["half"] * normal((2, seeds, n))[np.arange(clips) % 2]
    total += luck * case["run"] * normal((case["folds"], seeds, n))[folds]
    total += normal((clips, seeds, n))
    total[:, :, 0] += better
    return (total > 0).astype(float)


def names_of(case: dict) -> list[str]:
    """Return the representations of the contrasts, the first one first."""
    return list(dict.fromkeys(name for pair in case["contrasts"] for name in pair))


def places(case: dict) -> tuple[np.ndarray, np.ndarray]:
    """Return recording and fold of each clip: some recordings have two clips, folds are whole."""
    recordings = np.arange(case["clips"]) % case["recordings"]
    return recordings, recordings % case["folds"]


def spreads(right: np.ndarray, folds: np.ndarray) -> dict[str, float]:
    """Return accuracy, and how much of what a representation gets right depends on what.

    Parameters
    ----------
    right : 0 or 1, shape (clips, seeds, representations).
    folds : shape (clips,).

    Returns
    -------
    accuracy; standard deviations of representation x clip, x seed, x run (beyond its clips), and
    of what is left in one answer.
    """
    clips, seeds, n = right.shape
    wide = n / (n - 1)  # of deviations from the mean of n
    apart = right - right.mean(axis=2, keepdims=True)
    apart = apart - apart.mean(axis=(0, 1))
    rest = wide * apart.var(axis=1, ddof=1).mean()
    runs = np.stack([apart[folds == fold].mean(axis=0) for fold in np.unique(folds)])
    by_seed = runs - runs.mean(axis=1, keepdims=True)
    seed = wide * (by_seed.mean(axis=0) ** 2).mean() * seeds / (seeds - 1)
    residual = by_seed - by_seed.mean(axis=0)
    freedom = (seeds - 1) * (len(runs) - 1) / seeds / len(runs)
    run = wide * (residual**2).mean() / freedom
    variances = {
        "clip": wide * apart.mean(axis=1).var() - rest / seeds,
        "seed": seed - run / len(runs),
        "run": run - rest * len(runs) / clips,
        "rest": rest,
    }
    spread = {name: float(np.sqrt(max(0.0, value))) for name, value in variances.items()}
    return {"accuracy": float(right.mean()), **spread}


def committed_spreads(dataset: str, profile: str) -> dict[str, float]:
    """Return the `spreads` of a grid's committed scores, of all representations with every seed."""
    tables = [
        clip_metrics(read(file)).pivot(index="clip_id", columns="seed", values=METRIC)
        for file in score_files(RESULTS / dataset / profile).values()
    ]
    seeds = max(table.shape[1] for table in tables)
    right = np.stack([table for table in tables if table.shape[1] == seeds], axis=2)
    found = spreads(right, read_clips(RESULTS / dataset)["fold"].loc[tables[0].index].to_numpy())
    return {name: round(value, 4) for name, value in found.items()}


def verdicts(right: np.ndarray, case: dict) -> pd.DataFrame:
    """Return what the rule says of each contrast, and whether the 95 % interval holds 0."""
    names = names_of(case)
    pairs = np.array([[names.index(name) for name in pair] for pair in case["contrasts"]])
    differences = right[:, :, pairs[:, 0]] - right[:, :, pairs[:, 1]]
    recordings, _ = places(case)
    parts = [np.ones(len(right), bool)]
    if case["parts"] == 3:
        parts += [np.arange(len(right)) % 2 == half for half in (0, 1)]
    rows = []
    for part in parts:
        means = bootstrap_means(differences[part], recordings[part])
        low, high = np.quantile(means, [0.025, 0.975], axis=0)
        for k, by_seed in enumerate(differences[part].mean(axis=0).T):
            rows.append(
                {
                    "metric": METRIC,
                    "difference": by_seed.mean(),
                    "p": p_value(means[:, k]),
                    "same_sign": (by_seed > 0).all() or (by_seed < 0).all(),
                    "covered": low[k] <= 0 <= high[k],
                }
            )
    return judge(pd.DataFrame(rows))


def simulate(name: str, families: int, luck: float, better: float, seeds: int = 0) -> dict:
    """Return how often families have a verdict that is false, or find the one that is better.

    ``seeds`` takes the place of the plan's number of seeds.
    """
    case, rng = dict(CASES[name]), np.random.default_rng(0)
    case["seeds"] = seeds or case["seeds"]
    drawn = [draw(case, rng, luck, better) for _ in range(families)]
    judged = [verdicts(right, case) for right in drawn]
    found = [own["verdict"].isin(["better", "worse"]) for own in judged]
    about = {
        "data set": name,
        "families": families,
        "contrasts": len(found[0]),
        "seeds": case["seeds"],
        "luck of training, times": luck,
    }
    if better:
        return about | {
            "difference": round(float(np.mean([own["difference"][0] for own in judged])), 4),
            "found": float(np.mean([own["verdict"][0] == "better" for own in judged])),
        }
    few = [spreads(right, places(case)[1]) for right in drawn[:50]]
    return about | {
        "false alarms": float(np.mean([any(own) for own in found])),
        "the interval holds the truth": round(float(np.mean([o["covered"] for o in judged])), 4),
        "spreads": {key: round(float(np.mean([own[key] for own in few])), 4) for key in few[0]},
    }


def main() -> None:
    """Simulate every case, print each result, and write all of them beside this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", type=int, default=500, help="drawn for each case")
    families = parser.parse_args().families
    grids = {"esc10": "pretrained", "insectset32": "pretrained", "microcalls": "cpu", "fsdd": "cpu"}
    spread = {name: committed_spreads(name, profile) for name, profile in grids.items()}
    record = {**surroundings(), "spreads of the scores": spread, "false alarms": [], "found": []}
    for name in CASES:
        for luck in (1.0, 2.0):
            record["false alarms"].append(simulate(name, families, luck, 0.0))
            print(json.dumps(record["false alarms"][-1]), flush=True)
        record["false alarms"].append(simulate(name, families, 1.0, 0.0, seeds=2))
        print(json.dumps(record["false alarms"][-1]), flush=True)
    for name in CASES:
        for better in (0.25, 0.5, 1.0):
            record["found"].append(simulate(name, families // 4, 1.0, better))
            print(json.dumps(record["found"][-1]), flush=True)
    Path(__file__).with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
