"""Make every committed table from the committed scores: python -m results.recompute

summary.csv and contrasts.csv beside a grid's scores, conditions.csv beside a study's, tagger.csv
beside a data set's clips, costs.csv and differences.png here, and the tables in the pages.
"""

import re
import sys
from pathlib import Path

import pandas as pd
from matplotlib import pyplot as plt

from freesound_tagging.errors import DataError, look_up
from freesound_tagging.scoring.charts import show_differences
from freesound_tagging.scoring.metrics import METRIC, clip_metrics, summarise
from freesound_tagging.scoring.statistics import (
    by_fold_and_seed,
    compare,
    judge,
    paired_differences,
)
from freesound_tagging.sounds.microcalls import CALLS, FAMILIES
from studies.plan import choose_schedule, families_of
from studies.scores import RESULTS, ROOT, read_clips, read_folder
from studies.tagger import average_everything

PAGES = (ROOT / "README.md", RESULTS / "README.md")

REFERENCES = {
    "rates": "log_db",
    "waveform": "log_db",
    "recipe": "whole",
    "stack": "mean_of_networks",
    "finetuned": "yamnet",
}
"""Study -> what its conditions are compared with: one of them, or a representation of the grid."""

SHOWN = (
    *("log_db", "log_linear", "hires_q2", "gabor_q2", "hires_q8", "gabor_q8"),
    *("hires_q8_magnitude", "gabor_q8_magnitude"),
    *("3ch_hires_q1_q8_log_db", "3ch_gabor_q1_q8_log_db"),
)
"""Representations of the README's table."""

ANSWERS = {
    "microcalls": "microcalls/cpu",
    "ESC-10": "esc10/pretrained",
    "InsectSet32": "insectset32/pretrained",
    "FSDD": "fsdd/cpu",
}
"""Column of the README's table -> where its grid lies."""

AVERAGES = {
    "spectrograms": "our spectrogram networks, averaged",
    "audio": "YAMNet's embedding, a linear layer",
    "spectrograms and audio": "both, averaged",
}
"""What `average_everything` names -> its row in the README's table."""

PUBLISHED = {
    "people": {"ESC-10": "0.957"},
    "published, no other data": {"ESC-10": "0.9665", "InsectSet32": "0.62 (other split)"},
}
"""Other people's top-1 accuracies: Piczak 2015; Mohaimenuzzaman and others 2023 (ACDNet); Faiss and
Stowell 2023 (a mel CNN)."""


def compare_planned(
    dataset: str, profile: str, scores: dict[str, pd.DataFrame], clips: pd.DataFrame
) -> pd.DataFrame:
    """Return the planned contrasts that can be made so far, each family of them judged as one.

    Of microcalls each is made on all classes, and on those that differ in time or in frequency
    (column ``classes``). All planned contrasts of a family count, made or not.
    """
    parts = {"all": clips["label"].unique()}
    if dataset == "microcalls":
        detail = pd.Series({key: FAMILIES[call.family] for key, call in CALLS.items()})
        parts |= {name: own.index for name, own in detail.groupby(detail)}
    families = []
    for planned in families_of(dataset, profile):
        there, frames = [pair for pair in planned if set(pair) <= set(scores)], []
        for name, labels in parts.items():
            own = {key: frame[frame["label"].isin(labels)] for key, frame in scores.items()}
            frames.append(compare(own, clips, there).assign(classes=name))
        if there or not families:
            families.append(judge(pd.concat(frames), len(parts) * len(planned)))
    return pd.concat(families, ignore_index=True)


def summarise_grid(scores: dict[str, pd.DataFrame], clips: pd.DataFrame) -> pd.DataFrame:
    """Return the summary; ``minus_log_db`` is the difference on common seeds, without a verdict."""
    summary = summarise(scores, clips)
    if "log_db" not in scores:
        return summary
    differences = [
        paired_differences(scores[name], scores["log_db"]).to_numpy().mean()
        for name in summary["variant"]
    ]
    return summary.assign(minus_log_db=differences)


def summarise_study(
    study: str, scores: dict[str, pd.DataFrame], clips: pd.DataFrame, grid: dict[str, pd.DataFrame]
) -> pd.DataFrame:
    """Return a study's conditions, a family, and last what they are compared with.

    Of the study ``schedule``: log losses on the inner folds, and which schedule is chosen.
    """
    if study == "schedule":
        losses = {name: clip_metrics(frame)["log_loss"].mean() for name, frame in scores.items()}
        places = pd.MultiIndex.from_tuples(name.rsplit("-", 1) for name in losses)
        table = pd.Series(list(losses.values()), places).unstack()
        chosen = table.index == choose_schedule(table)
        return table.assign(chosen=chosen).rename_axis("condition").reset_index()
    reference = look_up("study", study, REFERENCES)
    together = {reference: look_up("score file", reference, grid | scores)} | scores
    others = [name for name in together if name != reference]
    tests = compare(together, clips, [(name, reference) for name in others]).set_index("variant")
    summary = summarise(together, clips).set_index("variant").loc[[*others, reference]]
    summary = summary[["seeds", METRIC, "top3_error", "map3", "log_loss"]]
    own = tests[["difference", "low", "high", "p_holm", "verdict"]]
    return summary.join(own).rename_axis("condition").reset_index()


def summarise_costs(results: Path) -> pd.DataFrame:
    """Return how many runs each folder has, how long one took and all together, and where."""
    rows = []
    for file in sorted(results.rglob("runs.csv")):
        runs = pd.read_csv(file)
        seconds = runs["seconds"]
        rows.append(
            {
                "results": str(file.parent.relative_to(results)),
                "runs": len(seconds),
                "minutes_a_run": seconds.median() / 60,
                "hours": seconds.sum() / 3600,
                "machine": " and ".join(sorted(runs["machine"].unique())),
            }
        )
    return pd.DataFrame(rows)


def recompute(results: Path) -> dict[str, pd.DataFrame]:
    """Write every CSV and the figure under ``results``; return "KIND PLACE" -> table."""
    tables, panels = {}, {}
    for dataset in sorted(file.parent for file in results.glob("*/clips.csv")):
        clips, grids = read_clips(dataset), {}
        folders = sorted(file.parent for file in dataset.rglob("settings.json"))  # studies last
        for folder in folders:
            scores, place = read_folder(folder, clips), str(folder.relative_to(results))
            if folder.parent != dataset:
                grid = grids.get(folder.parent, {})
                study = summarise_study(folder.name, scores, clips, grid)
                tables[f"conditions {place}"] = study
                continue
            grids[folder] = scores
            contrasts = compare_planned(dataset.name, folder.name, scores, clips)
            tables[f"summary {place}"] = summarise_grid(scores, clips)
            if len(contrasts):
                tables[f"contrasts {place}"] = contrasts
            shown = contrasts[contrasts["classes"] == "all"]
            if len(shown):
                pairs = shown[["variant", "reference"]].to_numpy()
                dots = [by_fold_and_seed(scores[name], scores[other]) for name, other in pairs]
                panels[place] = shown, dots
        averaged = average_everything(dataset)
        if averaged:
            tables[f"tagger {dataset.name}"] = summarise(averaged, clips)
    tables["costs ."] = summarise_costs(results)
    for name, table in tables.items():
        kind, place = name.split(" ", 1)
        table.to_csv(results / place / f"{kind}.csv", index=False, float_format="%.6g")
    if panels:
        figure = show_differences(panels)
        figure.savefig(results / "differences.png", dpi=110, metadata={"Software": None})
        plt.close(figure)
    return tables


def answer_table(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the README's table: top-1 accuracy, bold where it is better than log dB's."""
    rows: dict[str, dict[str, str]] = {}
    for column, place in ANSWERS.items():
        contrasts = tables.get(f"contrasts {place}")
        if contrasts is None:
            continue
        found = (contrasts["reference"] == "log_db") & (contrasts["verdict"] == "better")
        better = set(contrasts.loc[found & (contrasts["classes"] == "all"), "variant"])
        own = tables[f"summary {place}"]
        for name, level in own.loc[own["variant"].isin(SHOWN), ["variant", METRIC]].to_numpy():
            text = f"**{level:.3f}**" if name in better else f"{level:.3f}"
            rows.setdefault(name, {})[column] = text
    for column, place in ANSWERS.items():
        averages = tables.get(f"tagger {place.partition('/')[0]}")
        levels = {} if averages is None else averages.set_index("variant")[METRIC]
        for name in [name for name in AVERAGES if name in levels]:
            rows.setdefault(AVERAGES[name], {})[column] = f"{levels[name]:.3f}"
    table = pd.DataFrame(rows | PUBLISHED, index=list(ANSWERS)).T.dropna(axis=1, how="all")
    return table.rename_axis("representation or system").reset_index()


def tables_of_pages(tables: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Return what the pages show and no CSV holds: the README's table, and all contrasts."""
    shown = {
        name.replace("contrasts", "verdicts"): contrasts_table(table)
        for name, table in tables.items()
        if name.startswith("contrasts ")
    }
    return {"answer": answer_table(tables), **shown}


def contrasts_table(contrasts: pd.DataFrame) -> pd.DataFrame:
    """Return the planned contrasts as a page shows them: a column for each group of classes.

    A cell has difference, interval and, in bold, the verdict "better" or "worse".
    """

    def cell(row: pd.Series) -> str:
        text = f"{row['difference']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})"
        text = text.replace(" (+nan to +nan)", "")  # of one seed there is no interval
        return f"{text} **{row['verdict']}**" if row["verdict"] in ("better", "worse") else text

    contrasts = contrasts.round(6)  # as in the CSV: what reads that prints the same three digits
    names = contrasts["variant"] + " against " + contrasts["reference"]
    table = contrasts.assign(contrast=names, cell=contrasts.apply(cell, axis=1))
    table = table.pivot_table(
        index=["contrast", "seeds"], columns="classes", values="cell", aggfunc="first", sort=False
    )
    return table.reset_index().rename(columns={"all": "all classes"})


def for_page(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table without the columns that the CSV alone has."""
    hidden = ["balanced_accuracy", *(name for name in table if name.endswith(("_low", "_high")))]
    return table.drop(columns=hidden, errors="ignore")


def markdown(table: pd.DataFrame) -> str:
    """Return a table as Markdown; numbers have three digits, what is missing is blank."""

    def text(value: object) -> str:
        if pd.isna(value):
            return ""
        return f"{value:.3f}" if isinstance(value, float) else str(value)

    cells = for_page(table).map(text)
    lines = [list(cells), ["---"] * cells.shape[1], *cells.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def fill_in(page: str, tables: dict[str, pd.DataFrame]) -> str:
    """Return a page with the tables between ``<!-- table: NAME -->`` and its end made anew."""

    def fill(found: re.Match) -> str:
        name = found["name"]
        if name not in tables:
            raise DataError(f"no table {name!r}; the known ones are: {', '.join(tables)}")
        return f"{found['start']}\n\n{markdown(tables[name])}\n\n{found['end']}"

    marked = r"(?P<start><!-- table: (?P<name>.+?) -->).*?(?P<end><!-- end of table -->)"
    return re.sub(marked, fill, page, flags=re.DOTALL)


def main() -> int:
    """Recompute, fill in the pages, say what was written; return 2 where the input is bad."""
    try:
        tables = recompute(RESULTS)
        tables |= tables_of_pages(tables)
        for page in PAGES:
            page.write_text(fill_in(page.read_text(), tables))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {len(tables)} tables under results/ and those of the pages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
