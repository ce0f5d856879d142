"""The table of README.md, and how tables are written into a page."""

from pathlib import Path

import pandas as pd

from freesound_tagging.reporting.answers import REFERENCE, markdown, measured_in


def scoreboard(folder: Path) -> str:
    """Return MAP@3 of every representation on each data set, best on ESC-10 first, best in bold.

    The last column is the reference's, on other sounds with another network: its top-3 error.
    """
    names = measured_in(folder)
    scores = pd.DataFrame(
        {n: pd.read_csv(folder / n / "summary.csv").set_index("variant")["map3"] for n in names}
    ).sort_values(names[0], ascending=False)
    published = pd.read_csv(folder / REFERENCE / "results.csv").set_index("variant")["top3_error"]
    cells = scores.map("{:.3f}".format)
    for name in names:
        best = scores[name] == scores[name].max()
        cells.loc[best, name] = "**" + cells.loc[best, name] + "**"
    cells["*published: FSDKaggle2018, top-3 error*"] = [
        f"*{published[v]:.4f}*" if v in published else "" for v in scores.index
    ]
    return markdown(cells.rename_axis("representation").reset_index())


def write_section(page: Path, marks: tuple[str, str], section: str) -> None:
    """Replace what stands between two marks of a page.

    Raises
    ------
    ValueError
        Where the marks are not both there; nothing is written then.
    """
    begin, end = marks
    before, found, rest = page.read_text().partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found and found_end):
        raise ValueError(f"{page}: the marks {begin!r} and {end!r} must both be there")
    page.write_text(f"{before}{begin}\n\n{section}\n\n{end}{after}")
