"""The notebooks as committed (in order, light, no errors) and as run: all eight, smoke size."""

import re
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import soundfile

from freesound_tagging import cli
from freesound_tagging.features.variants import VARIANTS
from freesound_tagging.runs import experiment
from freesound_tagging.runs import grid as grid_module
from freesound_tagging.runs import notebooks as run

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


@pytest.fixture(params=NOTEBOOKS, ids=lambda file: file.stem)
def notebook(request):
    return request.param, nbformat.read(request.param, as_version=4)


def code_cells(content):
    return [cell for cell in content.cells if cell.cell_type == "code" and cell.source.strip()]


def test_there_are_eight_numbered_in_order():
    assert [file.stem[:2] for file in NOTEBOOKS] == [f"{n:02d}" for n in range(1, 9)]


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


def test_links_lead_to_notebooks_that_exist(notebook):
    file, content = notebook
    text = "\n".join(cell.source for cell in content.cells if cell.cell_type == "markdown")
    for target in re.findall(r"\]\(([^)#]+\.ipynb)\)", text):
        assert (file.parent / target).exists(), target


def test_takes_data_set_and_profile_as_parameters(notebook):
    _, content = notebook
    tagged = [cell for cell in content.cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    assert 'dataset = "esc10"' in tagged[0].source and 'profile = "cpu"' in tagged[0].source


def test_holds_no_path_of_the_machine_it_was_run_on(notebook):
    file, _ = notebook
    text = file.read_text(encoding="utf-8")
    assert str(experiment.ROOT) not in text
    assert str(Path.home()) + "/" not in text


def test_holds_no_player_with_a_sound_in_it(notebook):
    file, _ = notebook
    text = file.read_text(encoding="utf-8")
    assert "data:audio" not in text and "<audio" not in text


def test_make_run_executes_all_eight_and_prints_the_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WORK_FOLDER", str(tmp_path))
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")  # no workers beside those of the tests
    assert cli.main(["run", "--dataset", "microcalls", "--profile", "smoke"]) == 0
    folder = tmp_path / "runs" / "microcalls" / "smoke"
    assert len(list((folder / "notebooks").glob("*.ipynb"))) == len(NOTEBOOKS)
    summary = pd.read_csv(folder / "summary.csv")
    assert list(summary.columns) == SUMMARY_COLUMNS
    assert set(summary["variant"]) == set(VARIANTS)
    assert summary["top3_error"].is_monotonic_increasing
    assert (folder / "chart.png").stat().st_size > 0
    printed = capsys.readouterr().out
    for word in ["3ch_log_db_windows", "results.csv", "summary.csv", "chart.png", "notebooks"]:
        assert word in printed
    assert "these scores say nothing" in printed
    assert "could not be read" not in printed


def test_unreadable_clips_take_no_notebook_down(tmp_path, monkeypatch, capsys):
    sounds = tmp_path / "sounds"
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
    table = tmp_path / "own.csv"
    table.write_text("\n".join(lines))
    monkeypatch.setenv("WORK_FOLDER", str(tmp_path))
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")  # no workers beside those of the tests
    parameters = {"dataset": str(table), "profile": "smoke"}
    for source in NOTEBOOKS:
        if source.stem[:2] in ("01", "02", "04"):
            run.run_notebook(source, tmp_path / "out" / source.name, parameters, progress=False)
    printed = (tmp_path / "out" / "04_generate_spectrograms.ipynb").read_text(encoding="utf-8")
    assert "high-0.wav" in printed and "low-1.wav" in printed
    monkeypatch.setattr(grid_module, "run_grid", lambda *arguments, **options: None)
    own = experiment.open_experiment(str(table), "smoke")
    own.run_folder.mkdir(parents=True, exist_ok=True)
    own.run_grid(own.load_table(), own.build_store(own.load_table()))
    run.print_cautions(own)
    said = capsys.readouterr().out
    assert "4 clips could not be read and were left out" in said
    assert "unreadable.csv" in said
    unreadable = pd.read_csv(tmp_path / "runs" / "own" / "smoke" / "unreadable.csv")
    assert len(unreadable) == 4
    assert unreadable["reason"].str.contains("high-0.wav").sum() == 1
