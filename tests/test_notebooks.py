"""The notebooks as committed (in order, light, silent, true to the results) and as run."""

import random
import re
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest
import soundfile
import torch
from fastai.vision.all import (
    CategoryBlock,
    CrossEntropyLossFlat,
    DataBlock,
    FuncSplitter,
    Learner,
    MixUp,
    TransformBlock,
)
from memory import free_memory
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from freesound_tagging import cli, experiment
from freesound_tagging import notebooks as run
from freesound_tagging import run_grid as grid_module
from freesound_tagging.features.representations import VARIANTS
from freesound_tagging.learning import dataloaders, networks
from freesound_tagging.learning.profiles import ADJUSTMENTS, PROFILES
from freesound_tagging.listen import listen, strip_players
from freesound_tagging.scoring import metrics, statistics
from freesound_tagging.sounds import microcalls

NOTEBOOKS = run.notebook_files()
SUMMARY_COLUMNS = [
    "variant",
    "n",
    "seeds",
    "top1_accuracy",
    "top3_error",
    "top3_error_low",
    "top3_error_high",
    "map3",
]


@cache
def read(file: Path) -> nbformat.NotebookNode:
    return nbformat.read(file, as_version=4)


@pytest.fixture(params=NOTEBOOKS, ids=lambda file: file.stem)
def notebook(request):
    return request.param, read(request.param)


@pytest.fixture
def work_folder(tmp_path, monkeypatch) -> Path:
    """Where notebooks write. They find no other data set, whose sounds `make_model` would tag."""
    monkeypatch.setenv("WORK_FOLDER", str(tmp_path))
    monkeypatch.delenv("DATA_MIRROR", raising=False)
    return tmp_path


def run_cells(source: Path, parameters: dict) -> None:
    """Run a notebook's cells in this process: a kernel takes ten seconds to load what is here."""
    known = {
        name: parameters[name] for name in papermill.inspect_notebook(source) if name in parameters
    }
    content = parameterize_notebook(load_notebook_node(str(source)), known)
    space = {"__name__": "__main__"}
    with plt.rc_context(), pd.option_context("display.max_colwidth", None):
        for cell in code_cells(content):
            code = re.sub("^%.*$", "", cell.source, flags=re.MULTILINE)
            exec(compile(code, f"{source.name}, {cell.id}", "exec"), space)
            plt.close("all")
    space.clear()
    free_memory()


def code_cells(content):
    return [cell for cell in content.cells if cell.cell_type == "code" and cell.source.strip()]


def source_of(number: int, beginning: str) -> str:
    """Return the source of the code cell of a notebook that holds a text."""
    (file,) = [file for file in NOTEBOOKS if file.stem.startswith(f"{number:02d}_")]
    (cell,) = [cell for cell in code_cells(read(file)) if beginning in cell.source]
    return cell.source


def test_they_are_numbered_in_order_and_listed():
    main, neighbours = run.split_notebooks()
    assert [int(file.stem[:2]) for file in main] == list(range(1, len(main) + 1))
    assert all(int(file.stem[:2]) >= run.FIRST_NEIGHBOUR for file in neighbours)
    assert len({file.stem[:2] for file in NOTEBOOKS}) == len(NOTEBOOKS)
    listed = (run.NOTEBOOKS / "README.md").read_text(encoding="utf-8")
    assert [file.name for file in NOTEBOOKS if file.name not in listed] == []


def test_committed_executed_in_order_without_errors(notebook):
    _, content = notebook
    counts = [cell.execution_count for cell in code_cells(content)]
    assert counts == list(range(1, len(counts) + 1))
    outputs = [output for cell in code_cells(content) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]


def test_light_enough_to_be_rendered(notebook):
    file, content = notebook
    assert file.stat().st_size < 500_000
    widgets = [
        output
        for cell in code_cells(content)
        for output in cell.outputs
        if "application/vnd.jupyter.widget-view+json" in output.get("data", {})
    ]
    assert not widgets, "widgets are not shown where the notebook is only rendered"


def test_opens_with_purpose_and_closes_with_what_was_seen(notebook):
    _, content = notebook
    first, last = content.cells[0], content.cells[-1]
    assert first.cell_type == last.cell_type == "markdown"
    for word in ["Reads", "Writes", "Time"]:
        assert word in first.source
    text = "\n".join(cell.source for cell in content.cells if cell.cell_type == "markdown")
    assert "## What we saw" in text


def test_links_lead_to_files_that_exist(notebook):
    file, content = notebook
    text = "\n".join(cell.source for cell in content.cells if cell.cell_type == "markdown")
    for target in re.findall(r"\]\(([^):#]+)\)", text):
        assert (file.parent / target).exists(), target


def test_takes_data_set_profile_and_seeds_as_parameters(notebook):
    file, content = notebook
    # papermill reads no parameter from a line whose comment holds an equals sign.
    assert {"dataset", "profile", "seeds"} <= set(papermill.inspect_notebook(file))
    tagged = [cell for cell in content.cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    assert re.search(r'^dataset = "(esc10|microcalls)"', tagged[0].source, flags=re.MULTILINE)
    assert 'profile = "cpu"' in tagged[0].source
    assert "seeds = None" in tagged[0].source


def test_holds_no_path_of_the_machine_it_was_run_on(notebook):
    file, _ = notebook
    text = file.read_text(encoding="utf-8")
    assert str(experiment.ROOT) not in text
    assert str(Path.home()) + "/" not in text


def test_holds_no_player_with_a_sound_in_it(notebook):
    file, _ = notebook
    text = file.read_text(encoding="utf-8")
    assert "data:audio" not in text and "<audio" not in text


def test_figures_are_sharp_enough_to_read(notebook):
    _, content = notebook
    code = "\n".join(cell.source for cell in code_cells(content))
    if "plt." in code:
        assert code.startswith("%matplotlib inline") or "\n%matplotlib inline\n" in code
        assert '"figure.dpi": 100' in code and '"font.size": 9' in code
    assert not re.findall(r"fontsize=[1-8]\b", code)


def test_ends_with_exercises_that_have_answers(notebook):
    file, content = notebook
    text = "\n".join(cell.source for cell in content.cells if cell.cell_type == "markdown")
    asked = re.findall(r"^\d\. ", text.split("## Your turn")[1], flags=re.MULTILINE)
    solutions = (file.parent / "solutions" / f"{file.stem}.md").read_text(encoding="utf-8")
    answers = re.findall(r"<details><summary>\d\. ", solutions)
    assert len(asked) == len(answers) == 3
    for block in re.findall(r"```python\n(.*?)```", solutions, flags=re.DOTALL):
        compile(block, file.stem, "exec")


def test_players_play_and_are_stripped(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    listen(np.zeros(11_025), 22_050, "a <trill>")
    (data,) = shown
    assert "<audio" in data["text/html"] and "a &lt;trill&gt;" in data["text/html"]
    assert "a <trill>, 0.5 s" in data["text/plain"] and "\n" not in data["text/plain"]
    output = nbformat.v4.new_output("display_data", data=data)
    content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=[output])])
    assert strip_players(content) == 1
    assert list(content.cells[0].outputs[0].data) == ["text/plain"]
    assert strip_players(content) == 0


def test_notebook_3_writes_the_method_down():
    from spectral_hyperresolution import LinearReassignment

    space = {"np": np}
    exec(source_of(3, "def linear_reassignment"), space)
    setting = {"hop_length": 50, "bins_per_octave": 8, "fmin": 500.0, "oversampling": 4}
    exact = LinearReassignment(8000, q=3, exact=True, **setting)
    x = np.random.default_rng(0).standard_normal(1001)  # odd: nothing lies at Nyquist itself
    theirs = exact(torch.from_numpy(x)).numpy()
    lines = 500.0 * 2 ** (np.arange(4 * len(exact.frequencies)) / (4 * 8))
    time_edges = 50 * np.arange(theirs.shape[1] + 1)
    ours = space["linear_reassignment"](x, 3, 8000, lines, time_edges, exact.frequency_edges)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-9 * theirs.max())


def test_notebook_5_builds_the_batches_of_the_helper(table, store, profile):
    clips = table.sort_index()
    clip_ids, held_out = list(clips.index), clips["fold"] == 0
    codes = dict(zip(clip_ids, store.read("log", clip_ids), strict=True))
    space = {
        **vars(dataloaders),
        "DataBlock": DataBlock,
        "TransformBlock": TransformBlock,
        "CategoryBlock": CategoryBlock,
        "FuncSplitter": FuncSplitter,
        "VARIANTS": VARIANTS,
        "torch": torch,
        "set_seed": lambda *_, **__: None,
        "settings": profile,
        "store": store,
        "clips": clips,
        "clip_ids": clip_ids,
        "held_out": held_out,
        "codes": codes,
        "seen": np.stack([codes[clip_id] for clip_id in clips.index[~held_out]]) / 255,
    }
    exec(source_of(5, "block = DataBlock("), space)
    batches = []
    for dls in (space["dls"], dataloaders.make_dataloaders(table, store, "log_db", 0, profile)):
        for loader in dls.loaders:
            loader.rng = random.Random(3)
            torch.manual_seed(3)
            batches.append(loader.one_batch())
    for ours, helpers in zip(batches[:2], batches[2:], strict=True):
        torch.testing.assert_close(ours[0].float(), helpers[0].float(), atol=1e-5, rtol=0)
        assert ours[1].tolist() == helpers[1].tolist()


def test_notebook_10_builds_the_network_of_the_helper():
    space = {
        "nn": torch.nn,
        "table": pd.DataFrame({"label": list("abcde")}),
        "TakeSignal": networks.TakeSignal,
        "count_weights": networks.count_weights,
    }
    exec(source_of(10, "def block("), space)
    ours = torch.nn.Sequential(space["early"], space["late"], space["head"]).eval()
    theirs = networks.build_network("waveform", 5).eval()
    ours.load_state_dict(theirs.state_dict())
    waveform = torch.randn(2, 1, 1, 5000)
    with torch.no_grad():
        torch.testing.assert_close(ours(waveform), theirs(waveform))


def test_notebook_12_quotes_the_published_stack():
    (file,) = [file for file in NOTEBOOKS if file.stem.startswith("12_")]
    cells = nbformat.read(file, as_version=4).cells
    prose = " ".join(" ".join(c.source for c in cells if c.cell_type == "markdown").split())
    folder = experiment.ROOT / "results" / "esc10" / "stack"
    rows = pd.read_csv(folder / "conditions.csv").set_index("variant")
    stack, forest = rows.loc["lightgbm"], rows.loc["forest_on_statistics"]
    gain = f"{stack['difference']:.3f} MAP@3 ({stack['low']:+.3f} to {stack['high']:+.3f})"
    assert f"ahead of its best network by {gain}, which is not significant" in prose
    assert stack["verdict"] not in ("better", "worse") and rows["difference"].count() == 5
    assert f"a top-1 accuracy of {forest['top1_accuracy']:.3f}" in prose
    importance = pd.read_csv(folder / "importance.csv").set_index("member")["importance"]
    assert importance.idxmax() == "statistics"


def test_notebook_11_blends_as_fastai_does(table, store, profile):
    space = {"torch": torch}
    exec(source_of(11, "def blend("), space)
    dls = dataloaders.make_dataloaders(table, store, "log_db", 0, replace(profile, mixup=0.3))
    pictures, targets = dls.one_batch()
    mixup = MixUp(0.3)
    with Learner(dls, torch.nn.Linear(3, 4), loss_func=CrossEntropyLossFlat(), cbs=mixup) as learn:
        learn.epoch, learn.training, learn.dl = 0, True, dls.train
        learn._split((pictures, targets))
        learn("before_train")
        torch.manual_seed(3)
        learn("before_batch")
    torch.manual_seed(3)
    mixed, share, guests = space["blend"](pictures, 0.3)
    torch.testing.assert_close(mixed.as_subclass(torch.Tensor), learn.x.as_subclass(torch.Tensor))
    torch.testing.assert_close(share, mixup.lam)
    assert targets[guests].tolist() == mixup.yb1[0].tolist()
    assert (share >= 0.5).all() and len(share.unique()) > 1


def test_notebook_11_quotes_the_published_runs():
    (file,) = [file for file in NOTEBOOKS if file.stem.startswith("11_")]
    cells = nbformat.read(file, as_version=4).cells
    prose = [cell.source for cell in cells if cell.cell_type == "markdown"]
    (place,) = [i for i, text in enumerate(prose) if "## What we saw" in text]
    prose = " ".join("".join(prose[place - 1 :]).split("## Your turn")[0].split())
    folder = experiment.ROOT / "results" / "microcalls" / "recipe"
    published = pd.read_csv(folder / "conditions.csv").set_index("cell")
    printed = "".join(
        output.get("text", "")
        for cell in code_cells(nbformat.read(file, 4))
        for output in cell.outputs
    )
    for name, row in published.iterrows():
        assert re.search(rf"^{name} +{row['map3']:.3f}\b", printed, flags=re.MULTILINE), name
        if name == "whole":
            continue
        interval = f"{row['difference']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})"
        assert f"{interval}  {row['verdict']}" in printed
        said = re.search(rf"`{name}`[^`]*?{re.escape(interval)}, (\w+)", prose)
        assert said and said[1] == row["verdict"], name
    figures = {
        f"{value:.3f}"
        for value in published[["map3", "difference", "low", "high"]].abs().to_numpy().ravel()
    }
    assert set(re.findall(r"\d\.\d{3}", prose)) <= figures | {"0.942"}  # the team's own


def test_a_notebook_runs_alone_from_any_folder(work_folder, monkeypatch):
    monkeypatch.chdir(work_folder)
    few = ["log_db", "mel_db", "hires_q2"]
    parameters = {"dataset": "microcalls", "profile": "smoke", "seeds": 1, "representations": few}
    run_cells(NOTEBOOKS[6], parameters)
    summary = pd.read_csv(work_folder / "runs" / "microcalls" / "smoke" / "summary.csv")
    assert set(summary["variant"]) == set(few)


def test_notebook_8_opens_with_what_the_results_say():
    opening = read(NOTEBOOKS[7]).cells[0].source.replace("\n", " ")
    results = experiment.ROOT / "results"

    def from_log_db(name: str, representation: str) -> pd.Series:
        tests = pd.read_csv(results / name / "tests.csv")
        chosen = (tests["metric"] == "map3") & (tests["reference"] == "log_db")
        return tests[chosen].set_index("variant").loc[representation]

    esc10 = from_log_db("esc10", "hires_q2")
    assert not any(
        from_log_db("esc10", f"hires_q{q}")["p_holm"] < statistics.LEVEL for q in (1, 2, 4, 8)
    )
    interval = f"{esc10['low']:.3f} to {esc10['high']:+.3f}"
    assert f"q = 2: {esc10['difference']:+.3f}, 95 % interval {interval}" in opening
    runs = pd.read_csv(results / "fsdd" / "results.csv").groupby(["variant", "fold"])["map3"].mean()
    for q in (4, 8):  # a fold of FSDD is a speaker
        loss = -from_log_db("fsdd", f"hires_q{q}")["difference"]
        assert f"q = 4 and q = 8 are worse, by {loss:.3f} each" in opening
        assert (runs[f"hires_q{q}"] < runs["log_db"]).sum() == len(runs["log_db"]) == 6
    gain = gain_by_detail(results / "microcalls", "hires_q2")
    assert f"differ in time:** q = 2 gains {gain['time']:.3f}, but" in opening
    pairs = pd.read_csv(results / "microcalls" / "controls" / "details.csv")
    pairs = pairs.set_index(["detail", "variant", "reference"])["difference"]
    unmoved = pairs["time", "unmoved/gabor_q2", "grid/log_db"]
    assert f"nothing reassigned gain {unmoved:.3f}" in opening
    own = pairs["frequency", "grid/hires_q2", "unmoved/gabor_q2"]
    assert f"{own:.3f} better than its filters with nothing reassigned" in opening


def gain_by_detail(folder: Path, representation: str) -> pd.Series:
    """Return MAP@3 minus log dB's on microcalls that differ in time, and in frequency."""
    measured = []
    for name in (representation, "log_db"):
        scores = pd.read_csv(folder / "scores" / f"{name}.csv.gz").drop(
            columns=["variant", "group"]
        )
        measured.append(metrics.clip_metrics(scores).set_index(["clip_id", "seed"]))
    details = measured[0]["label"].map(microcalls.class_table()["detail"])
    return (measured[0]["map3"] - measured[1]["map3"]).groupby(details).mean()


IN_A_KERNEL = {"01", "06"}
"""Notebooks that `make run` executes in kernels here, as it does all of them in `.ci/run`."""


@pytest.fixture
def few_kernels(monkeypatch) -> None:
    """Let `make run` execute the other notebooks in this process and leave them as they are."""

    def run_notebook(source: Path, target: Path, parameters: dict, progress: bool = True) -> None:
        if source.stem[:2] in IN_A_KERNEL:
            in_a_kernel(source, target, parameters, progress)
        else:
            run_cells(source, parameters)
            shutil.copy(source, target)

    in_a_kernel = run.run_notebook
    monkeypatch.chdir(run.NOTEBOOKS)
    monkeypatch.setattr(run, "run_notebook", run_notebook)


def test_make_run_executes_all_and_prints_the_table(few_kernels, work_folder, monkeypatch, capsys):
    monkeypatch.setenv("MPLBACKEND", "Agg")  # as containers set it: figures are shown all the same
    assert cli.main(["run", "--dataset", "microcalls", "--profile", "smoke"]) == 0
    folder = work_folder / "runs" / "microcalls" / "smoke"
    main, _ = run.split_notebooks()
    executed = sorted((folder / "notebooks").glob("*.ipynb"))
    assert [file.name for file in executed] == [file.name for file in main]
    assert all("image/png" in file.read_text() for file in executed)
    summary = pd.read_csv(folder / "summary.csv")
    assert list(summary.columns)[: len(SUMMARY_COLUMNS)] == SUMMARY_COLUMNS  # more may follow
    assert set(summary["variant"]) == set(VARIANTS)
    assert summary["top3_error"].is_monotonic_increasing
    assert (folder / "chart.png").stat().st_size > 0
    printed = capsys.readouterr().out
    for word in ["3ch_log_db_windows", "results.csv", "summary.csv", "chart.png", "notebooks"]:
        assert word in printed
    assert "these scores say nothing" in printed
    assert "could not be read" not in printed


@pytest.mark.parametrize("source", run.split_notebooks()[1], ids=lambda file: file.stem)
def test_a_neighbour_runs_alone_at_smoke_size(source, work_folder, monkeypatch):
    monkeypatch.chdir(source.parent)
    run_cells(source, {"dataset": "microcalls", "profile": "smoke", "seeds": 1})
    assert not (work_folder / "runs" / "microcalls" / "smoke" / "results.csv").exists()


def test_notebooks_that_show_one_window_run_where_training_uses_several(work_folder, monkeypatch):
    monkeypatch.chdir(run.NOTEBOOKS)
    several = replace(PROFILES["smoke"].grid, windows=2)
    monkeypatch.setitem(ADJUSTMENTS, ("smoke", "microcalls"), {"grid": several})
    for source in NOTEBOOKS[3:5]:
        run_cells(source, {"dataset": "microcalls", "profile": "smoke", "seeds": 1})


def test_unreadable_clips_take_no_notebook_down(work_folder, monkeypatch, capsys):
    sounds = work_folder / "sounds"
    sounds.mkdir()
    lines = ["file,label"]
    for label, frequency in [("high", 3000.0), ("low", 300.0)]:
        for take, content in enumerate(["text", "empty", "silent", "good", "good", "good"]):
            file = sounds / f"{label}-{take}.wav"
            lines.append(f"sounds/{file.name},{label}")
            time = np.arange(22_050) / 22_050
            if content == "text":
                file.write_text("not audio")
            elif content == "empty":
                file.write_bytes(b"")
            else:
                level = 0.0 if content == "silent" else 0.1 * take
                soundfile.write(file, level * np.sin(2 * np.pi * frequency * time), 22_050)
    table = work_folder / "own.csv"
    table.write_text("\n".join(lines))
    monkeypatch.chdir(run.NOTEBOOKS)
    for source in NOTEBOOKS:
        if source.stem[:2] in ("01", "02", "04"):
            run_cells(source, {"dataset": str(table), "profile": "smoke"})
    printed = capsys.readouterr().out
    assert "high-0.wav" in printed and "low-1.wav" in printed
    monkeypatch.setattr(grid_module, "run_grid", lambda *arguments, **options: None)
    own = experiment.open_experiment(str(table), "smoke")
    own.run_folder.mkdir(parents=True, exist_ok=True)
    own.run_grid(own.load_table(), own.build_store(own.load_table()))
    run.print_cautions(own)
    said = capsys.readouterr().out
    assert "4 clips could not be read and were left out" in said
    assert "unreadable.csv" in said
    unreadable = pd.read_csv(work_folder / "runs" / "own" / "smoke" / "unreadable.csv")
    assert len(unreadable) == 4
    assert unreadable["reason"].str.contains("high-0.wav").sum() == 1
