"""The notebooks as committed: in order, executed, light, readable. `.ci/run` executes them."""

import re
from pathlib import Path

import nbformat
import numpy as np
import pytest

from freesound_tagging.experiment import ROOT
from freesound_tagging.listen import listen, strip_players

FILES = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
WORDS = 1_500


class Notebook:
    def __init__(self, file: Path):
        self.file, self.text = file, file.read_text(encoding="utf-8")
        self.cells = nbformat.reads(self.text, as_version=4).cells
        self.code = [c for c in self.cells if c.cell_type == "code" and c.source.strip()]
        self.prose = "\n".join(c.source for c in self.cells if c.cell_type == "markdown")


@pytest.fixture(scope="module", params=FILES, ids=lambda file: file.stem)
def notebook(request) -> Notebook:
    return Notebook(request.param)


def test_they_are_numbered_in_order_and_listed():
    assert [int(file.stem[:2]) for file in FILES] == list(range(1, len(FILES) + 1))
    listed = (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")
    assert [file.name for file in FILES if file.name not in listed] == []


def test_committed_executed_in_order_without_errors(notebook):
    assert [cell.execution_count for cell in notebook.code] == [
        number + 1 for number in range(len(notebook.code))
    ]
    outputs = [output for cell in notebook.code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]


def test_can_be_rendered_and_read_through(notebook):
    assert len(notebook.text.encode()) < 500_000
    assert "application/vnd.jupyter.widget-view+json" not in notebook.text  # not rendered
    assert len(notebook.prose.split()) <= WORDS
    assert not re.findall(r"fontsize=[1-8]\b", notebook.text)


def test_opens_with_what_it_reads_and_writes_and_closes_with_exercises(notebook):
    assert all(word in notebook.cells[0].source for word in ["Reads", "Writes", "Time"])
    exercises = notebook.prose.split("## Your turn")[1]
    solutions = notebook.file.parent / "solutions" / f"{notebook.file.stem}.md"
    answers = solutions.read_text(encoding="utf-8")
    asked = re.findall(r"^\d\. ", exercises, flags=re.MULTILINE)
    assert len(asked) == len(re.findall(r"<details><summary>\d\. ", answers)) == 3
    for block in re.findall(r"```python\n(.*?)```", answers, flags=re.DOTALL):
        compile(block, solutions.name, "exec")


def test_links_lead_to_files_that_exist(notebook):
    for target in re.findall(r"\]\(([^):#]+)\)", notebook.prose):
        assert (notebook.file.parent / target).exists(), target


def test_takes_data_set_profile_and_seeds_as_parameters(notebook):
    (cell,) = [cell for cell in notebook.code if "parameters" in cell.metadata.get("tags", [])]
    assert re.search(r'^dataset = "(esc10|microcalls)"', cell.source, flags=re.MULTILINE)
    # The neighbours take an hour; their committed outputs are of a smoke run, and say so.
    profile = "smoke" if "those of a `smoke` run" in notebook.cells[0].source else "cpu"
    assert f'profile = "{profile}"' in cell.source and "seeds = None" in cell.source


def test_holds_no_path_of_the_machine_it_was_run_on_and_no_sound(notebook):
    for unwanted in (str(ROOT), f"{Path.home()}/", "data:audio", "<audio"):
        assert unwanted not in notebook.text


def test_players_play_and_are_stripped(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    listen(np.zeros(11_025), 22_050, "a <trill>")
    (data,) = shown
    assert "<audio" in data["text/html"] and "a &lt;trill&gt;" in data["text/html"]
    assert "a <trill>, 0.5 s" in data["text/plain"] and "\n" not in data["text/plain"]
    output = nbformat.v4.new_output("display_data", data=data)
    content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=[output])])
    strip_players(content)
    assert list(content.cells[0].outputs[0].data) == ["text/plain"]
