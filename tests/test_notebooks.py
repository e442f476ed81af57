"""The committed notebooks: complete, small and readable as they are; and they still give what they show when they run anew."""

import difflib
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from roilab.notebook import WIDGET, is_progress_bar

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
LOCAL = ("/home/", "/root/", "/Users/", "/tmp/", ":\\\\Users")
LARGEST = 1_000_000  # bytes
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w])")


def named(path: Path) -> str:
    return path.stem


@pytest.fixture(params=NOTEBOOKS, ids=named)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def is_live(cell) -> bool:
    """Tagged "live": a model is trained in it, or what was trained is asked, so words and numbers differ from machine to machine."""
    return "live" in cell.metadata.get("tags", [])


def test_there_are_notebooks():
    assert [path.name for path in NOTEBOOKS][:1] == ["00_quickstart.ipynb"]


def test_it_was_executed_from_top_to_bottom_without_errors(notebook):
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    failed = [output.ename for cell in cells for output in cell.outputs if output.output_type == "error"]
    assert not failed
    assert any(cell.outputs for cell in cells)


def test_it_is_valid_small_and_carries_no_widget_state(path, notebook):
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert "widgets" not in notebook.metadata
    assert path.stat().st_size < LARGEST


def test_every_widget_has_a_picture_for_readers_without_a_kernel(notebook):
    for number, cell in enumerate(notebook.cells):
        if not any(WIDGET in output.get("data", {}) for output in cell.get("outputs", [])):
            continue
        following = next((each for each in notebook.cells[number + 1 :] if each.cell_type == "code"), None)
        shown = [*cell.outputs, *(following.outputs if following else [])]
        assert any("image/png" in output.get("data", {}) for output in shown), f"cell {number}: {cell.source}"


def test_what_differs_from_machine_to_machine_is_held_by_assertions(notebook):
    live = [cell for cell in code_cells(notebook) if is_live(cell)]
    assert not live or any(re.search(r"^assert ", cell.source, re.MULTILINE) for cell in live)


def test_it_names_no_folder_of_the_machine_it_was_made_on(notebook):
    for number, cell in enumerate(notebook.cells):
        texts = [cell.source, *(text for output in cell.get("outputs", []) for text in texts_of(output))]
        found = [name for name in LOCAL for text in texts if name in text]
        assert not found, f"cell {number} has {found}"


def test_its_cells_are_short_and_it_begins_with_a_title(notebook):
    lengths = [len(cell.source.strip().splitlines()) for cell in code_cells(notebook)]
    assert statistics.median(lengths) <= 10 and max(lengths) <= 30, lengths
    first = notebook.cells[0]
    assert first.cell_type == "markdown" and re.match(r"# \S", first.source)
    assert [
        cell.source for cell in notebook.cells if cell.cell_type == "markdown" and cell.source.startswith("# ")
    ] == [first.source]


def texts_of(output) -> list[str]:
    """All text of one output; pictures are not text, and a widget's Python form is for nobody."""
    if output.output_type == "stream":
        return [output.text]
    if output.output_type == "error":
        return ["\n".join(output.traceback)]
    data = output.data
    return [] if WIDGET in data else [text for kind, text in sorted(data.items()) if kind.startswith("text/")]


# Executed anew


def printed(cell) -> str:
    """What a reader reads below a cell, without warnings, which are of the versions; streams come in pieces of any size."""
    kept = [output for output in cell.outputs if output.get("name") != "stderr"]
    texts = []
    for i, output in enumerate(kept):
        before = kept[i - 1] if i else None
        if before and output.output_type == before.output_type == "stream" and output.name == before.name:
            texts[-1] += output.text
        else:
            texts += texts_of(output)
    text = "".join(text if text.endswith("\n") else f"{text}\n" for text in texts)
    text = re.sub(r"'roilab \d.*?'", "'roilab …'", text)  # versions, device and threads
    return re.sub(r"0x[0-9a-f]{6,}", "0x…", text)


def kinds(cell) -> list[list[str]]:
    """MIME types of what a cell shows, in order."""
    shown = [output for output in cell.outputs if output.output_type in ("execute_result", "display_data")]
    return [sorted(output.data) for output in shown if not is_progress_bar(output)]


def difference(committed: str, now: str) -> str:
    """ "" if the texts have the same words, and numbers that agree but for floating noise; otherwise where they differ."""
    if NUMBER.sub("#", committed) == NUMBER.sub("#", now):
        pairs = zip(NUMBER.findall(committed), NUMBER.findall(now), strict=True)
        if all(a == b or float(a) == pytest.approx(float(b), rel=1e-3, abs=1e-6) for a, b in pairs):
            return ""
    lines = difflib.unified_diff(committed.splitlines(), now.splitlines(), "committed", "now", lineterm="", n=1)
    return "\n".join(lines) or f"committed {committed!r}, now {now!r}"


def test_noise_is_forgiven_and_words_and_numbers_are_not():
    assert difference("a box 12.30001 wide\n", "a box 12.30002 wide\n") == ""
    assert "-a box 12.3 wide" in difference("a box 12.3 wide", "a box 12.4 wide")
    assert "+purple" in difference("green\n", "purple\n")
    assert difference("one 1", "one 1 2") and difference("region1", "region2") and difference("x\n", "x\n\n")
    cell = nbformat.v4.new_code_cell(
        outputs=[nbformat.v4.new_output("stream", name=n, text=n) for n in ("stdout", "stderr")]
    )
    assert printed(cell) == "stdout\n"


OPTIONAL = {each.split(">=")[0] for name in EXTRAS.keys() - {"test", "all"} for each in EXTRAS[name]}


def asked_for(notebook) -> set[str]:
    """The packages of the extras that the first cell installs on Colab."""
    extras = re.search(r"%pip install -q \./roilab(\S*)", code_cells(notebook)[0].source)[1]
    bounds = [each for extra in re.findall(r"\w+", extras) for each in EXTRAS[extra]]
    return {each.split(">=")[0] for each in bounds}


def without(packages: set[str], folder: Path, monkeypatch):
    """Other processes of Python, such as a kernel, will find these packages not installed."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        f"""
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *args, **more: None if name in {sorted(packages)} else find(name, *args, **more)
"""
    )
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)


def test_a_notebook_can_be_run_without_packages(tmp_path, monkeypatch):
    without({"ijson", "peft"}, tmp_path / "without", monkeypatch)
    code = (
        "from importlib.util import find_spec as f; print([n for n in ('ijson', 'peft', 'json', 'nbformat') if f(n)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['json', 'nbformat']"
    assert {"ijson", "peft"} < OPTIONAL


@pytest.mark.notebook
def test_it_runs_from_top_to_bottom_and_says_what_it_said(path, notebook, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    without(OPTIONAL - asked_for(notebook), tmp_path / "without", monkeypatch)
    again = nbformat.read(path, as_version=4)
    for cell in code_cells(again):
        cell.outputs, cell.execution_count = [], None
    nbclient.NotebookClient(
        again,
        timeout=600,
        kernel_name="python3",
        store_widget_state=False,
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    problems = []
    for number, (cell, new) in enumerate(zip(code_cells(notebook), code_cells(again), strict=True), 1):
        head = f"In [{number}], which begins {cell.source.splitlines()[0]!r}"
        if kinds(cell) != kinds(new):
            problems.append(f"{head}, shows {kinds(new)}, committed are {kinds(cell)}")
        if not is_live(cell) and (text := difference(printed(cell), printed(new))):
            problems.append(f"{head}, says something else:\n{text}")
    assert not problems, "\n\n".join(["run the notebook anew and commit it, or mend what has changed:", *problems])
