"""Colab without Colab: every notebook's first cell, what pip would install there, the GPU, a deaf canvas, a Drive; and the lowest versions."""

import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import types
import venv
from pathlib import Path

import nbformat
import pytest
import torch

from roilab import files, notebook, weights

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


# The first cell


def first_cell(path: Path) -> str:
    return next(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")


def pip_line(path: Path) -> str:
    return re.search(r"%pip (.*)", first_cell(path))[1]


# Runs first cells as Colab's IPython does, with a `google.colab` that counts. `roilab` is where it is installed, but can be hidden;
# then %pip, which only takes notes, brings it back. Writes {notebook: {case: what happened}}.
DRIVER = r"""
import json, os, random, sys
from importlib.machinery import PathFinder
from pathlib import Path

import torch

here = Path.cwd()
sys.path.insert(0, "")  # as in a kernel
import google.colab  # as Colab's kernel does
from IPython.core.interactiveshell import InteractiveShell

shell, happened, kept, finders, paths = InteractiveShell.instance(), {}, {}, list(sys.meta_path), list(sys.path)
editable = [each for each in finders if each is not PathFinder and each.find_spec("roilab", None)]

def hide():
    kept.update({name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "roilab"})
    sys.meta_path[:] = [each for each in finders if each not in editable]
    sys.path[:] = [each for each in paths if not (Path(each) / "roilab" / "__init__.py").exists()]

def install():
    sys.modules.update(kept)
    sys.path[:] = paths
    sys.meta_path[:] = [*editable, *(each for each in finders if each not in editable)]  # before a mere folder, as a real one is

def pip(line):
    happened["pip"].append(line)
    install()

shell.register_magic_function(pip, "line", "pip")
results = {}
for name, source in json.loads(Path("cells.json").read_text()).items():
    for case in ("no folder", "folder", "installed"):
        os.chdir(here / ("without" if case == "no folder" else "with"))
        if case == "installed":
            install()
        else:
            hide()
        google.colab.output.calls.clear()
        happened = {"pip": []}
        random.seed()
        torch.seed()
        done = shell.run_cell(source)
        error = done.error_before_exec or done.error_in_exec
        happened |= {"error": error and f"{type(error).__name__}: {error}", "said": done.result, "calls": list(google.colab.output.calls)}
        happened |= {"random": random.random(), "torch": torch.rand(1).item()}
        results.setdefault(name, {})[case] = happened
(here / "results.json").write_text(json.dumps(results))
"""


@pytest.fixture(scope="module")
def cells_ran(tmp_path_factory):
    """{notebook: {"no folder", "folder", "installed": {pip, error, said, calls, random, torch}}}, all from one process."""
    room = tmp_path_factory.mktemp("colab")
    package = room / "modules" / "google" / "colab"
    package.mkdir(parents=True)  # google itself is a namespace, as it is there
    (package / "__init__.py").write_text("from . import output\n")
    (package / "output.py").write_text(
        "calls = []\n\ndef enable_custom_widget_manager():\n    calls.append('enabled')\n"
    )
    (room / "without").mkdir()
    (room / "with" / "roilab").mkdir(parents=True)  # a folder of the package's name, which is not the package
    (room / "with" / "roilab" / "pyproject.toml").touch()
    (room / "cells.json").write_text(json.dumps({path.stem: first_cell(path) for path in NOTEBOOKS}))
    (room / "driver.py").write_text(DRIVER)
    paths = os.pathsep.join([str(room / "modules"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environment = dict(os.environ, PYTHONPATH=paths, IPYTHONDIR=str(room / "ipython"), HF_HUB_OFFLINE="1")
    done = subprocess.run(
        [sys.executable, "driver.py"], cwd=room, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads((room / "results.json").read_text())


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.mark.parametrize("case", ["folder", "installed"])
def test_the_first_cell_sets_up_colab(cells_ran, path, case):
    ran = cells_ran[path.stem][case]
    assert ran["error"] is None and ran["calls"] == ["enabled"]
    assert ran["random"] == random.Random(0).random()
    assert ran["torch"] == torch.rand(1, generator=torch.Generator().manual_seed(0)).item()
    assert re.match(r"roilab \S+, Python \S+, torch \S+ on ", ran["said"])


def test_the_first_cell_installs_the_folder_and_what_the_notebook_needs(cells_ran, path):
    assert cells_ran[path.stem]["installed"]["pip"] == []
    (line,) = cells_ran[path.stem]["folder"]["pip"]
    asked = re.fullmatch(r"install -q \./roilab(?:\[([a-z,]+)\])?", line)  # no other package: Colab's torch stays
    assert asked, line
    extras = set((asked[1] or "").split(",")) - {""}  # test_notebooks.py runs it without the packages of the others
    assert extras <= PROJECT["optional-dependencies"].keys() - {"test", "all"}


def test_without_the_folder_the_first_cell_says_how_to_get_it(cells_ran, path):
    ran = cells_ran[path.stem]["no folder"]
    assert ran["error"] == "AssertionError: upload the project as roilab.zip, `!unzip -q` it, run this again"
    assert ran["pip"] == [] and ran["calls"] == []


def test_the_first_cells_begin_alike():
    starts = {re.sub(r"\[[a-z,]+\]", "", first_cell(path).split("import roilab\n")[0]) for path in NOTEBOOKS}
    assert len(starts) == 1, starts


# What pip does beside a torch that is there


def stub(site: Path, name: str, version: str, *needs: str):
    """What pip sees of a package that is installed."""
    folder = site / f"{name}-{version}.dist-info"
    folder.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {n}" for n in needs)]
    (folder / "METADATA").write_text("\n".join(lines) + "\n")
    (folder / "INSTALLER").write_text("pip\n")
    (folder / "RECORD").touch()


@pytest.mark.slow
def test_pip_keeps_the_torch_that_is_there(tmp_path):
    extras = {each for path in NOTEBOOKS for each in re.sub(r".*roilab", "", pip_line(path)).strip("[]").split(",")}
    asked = ",".join(sorted(extras - {""}))
    venv.create(tmp_path / "venv")
    (site,) = (tmp_path / "venv").rglob("site-packages")
    stub(site, "torch", "2.6.0")
    stub(site, "torchvision", "0.21.0", "torch==2.6.0")
    source, report = tmp_path / "source", tmp_path / "report.json"
    source.mkdir()  # a copy, since building writes into the folder
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("roilab", "widgets"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("assets", "__pycache__"))
    python = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--dry-run", "-q", "--report", report]
    done = subprocess.run([*command, f"{source}[{asked}]"], cwd=tmp_path, capture_output=True, text=True, timeout=900)
    if re.search("NewConnectionError|ConnectTimeoutError|NameResolutionError", done.stderr):
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr
    chosen = {each["metadata"]["name"].lower() for each in json.loads(report.read_text())["install"]}
    assert {"roilab", "transformers", "ipycanvas", "accelerate", "pycocoevalcap"} <= chosen
    assert not chosen & {"torch", "torchvision"}


# The GPU


@pytest.mark.parametrize(
    ("cuda", "capability", "device", "dtype"),
    [
        (True, (7, 5), "cuda", torch.float16),  # a T4
        (True, (8, 0), "cuda", torch.bfloat16),  # an A100
        (False, None, "cpu", torch.float32),
    ],
)
def test_a_gpu_is_used_when_present(monkeypatch, cuda, capability, device, dtype):
    from roilab.model import GPT4RoI
    from roilab.weights import loading

    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    moved, from_pretrained = [], GPT4RoI.from_pretrained
    monkeypatch.setattr(GPT4RoI, "to", lambda self, where: moved.append(str(where)) or self)
    monkeypatch.setattr(
        GPT4RoI, "from_pretrained", lambda source, dtype, **more: from_pretrained(source, dtype=dtype, **more)
    )
    assert (weights.default_device(), weights.default_dtype(device)) == (device, dtype)
    assert loading.load("tiny").dtype == dtype and moved == [device]


def test_the_set_up_line_names_the_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    assert notebook.setup().endswith(f"torch {torch.__version__} on Tesla T4")


# A canvas that hears nothing


def test_on_colab_the_numbers_are_open_and_do_without_the_canvas(picture, monkeypatch):
    from test_widgets_canvas import find_button

    from roilab.widgets import RegionCanvas

    assert not RegionCanvas(picture).table.is_open
    colab = types.ModuleType("google.colab")
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    canvas = RegionCanvas(picture)
    assert canvas._opener.value and canvas.table.is_open and "roilab-hidden" not in canvas.table._dom_classes
    find_button(canvas.table, "Add box").click()
    for field, side in zip(canvas.table._rows[1]._sides, (5, 6, 20, 30), strict=True):
        field.value = side
    assert [each.box for each in canvas.regions] == [(5, 6, 20, 30)] and canvas.selected == 1
    assert (
        not canvas._alive
        and "roilab-hidden" not in canvas._hint._dom_classes
        and "Boxes as numbers" in canvas._hint.value
    )


# Checkpoints on a mounted Drive


def refusing(code):
    def refused(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    return refused


@pytest.fixture
def drive(tmp_path, monkeypatch):
    """A folder where nothing can be exchanged, linked or given rights, and where folders cannot be flushed; counts what it refused."""
    fsync, refused = os.fsync, []

    def of_files(handle):
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            refused.append("fsync")
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(handle)

    def exchange(*args):
        refused.append("renameat2")
        return -1

    def chmod(*args, **kwargs):
        refused.append("chmod")
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "chmod", chmod)
    monkeypatch.setattr(os, "fsync", of_files)
    monkeypatch.setattr(files, "ctypes", types.SimpleNamespace(CDLL=lambda *_, **__: types.SimpleNamespace(renameat2=exchange)))  # fmt: skip
    for name in ("link", "symlink"):
        monkeypatch.setattr(os, name, refusing(errno.EPERM))
    return tmp_path, refused


def contents(folder: Path) -> dict:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a Drive is mounted on Linux")


@linux
def test_a_model_is_saved_to_a_drive_and_loaded(drive, model):
    folder, refused = drive
    for _ in range(2):  # new, and in the place of an older one
        model.save_pretrained(folder / "model")
    assert set(refused) == {"chmod", "fsync", "renameat2"} and os.listdir(folder) == ["model"]
    loaded = weights.load(folder / "model", device="cpu")
    for name, each in model.named_parameters():
        torch.testing.assert_close(loaded.get_parameter(name), each, rtol=0, atol=0)


@linux
@pytest.mark.parametrize("at", [1, 2])
def test_a_failed_save_to_a_drive_leaves_the_older_folder(drive, model, monkeypatch, at):
    folder, _ = drive
    model.save_pretrained(folder / "model")
    (folder / "model" / "notes.txt").write_text("mine")
    before, rename, renamed = contents(folder / "model"), os.rename, []

    def failing(*args, **kwargs):
        renamed.append(args)
        if len(renamed) == at:  # of the two that exchange
            refusing(errno.EIO)()
        rename(*args, **kwargs)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(OSError, match="Input/output error"):
        model.save_pretrained(folder / "model")
    assert contents(folder / "model") == before and os.listdir(folder) == ["model"]


@linux
def test_a_run_goes_on_from_its_checkpoint_on_a_drive(drive):
    import stages
    from conftest import small_model

    from roilab import training

    folder, refused = drive
    records = {"shapes": stages.records(6)}

    def run(out, press_at=None):
        shown = []

        def present(record, picture):
            shown.append(record)
            if len(shown) == press_at:
                signal.raise_signal(signal.SIGINT)  # Ctrl-C
            return record, picture

        recipe = stages.recipe(steps=4, save_every=1, trainable=("projector",))
        return training.train(small_model(), recipe, records, out, progress=False, present=present)

    whole, first = run(folder / "whole"), run(folder / "cut", press_at=6)
    assert first.interrupted and 0 < first.steps < 4 and list((folder / "cut").glob("checkpoint-*"))
    second = run(folder / "cut")
    assert [each["loss"] for each in second.losses] == [each["loss"] for each in whole.losses] and second.steps == 4
    assert sorted(os.listdir(folder / "cut")) == ["checkpoint-4", "log.jsonl", "model", "recipe.json"]
    assert {"chmod", "fsync"} <= set(refused)


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_what_a_drive_really_loses_is_an_error(tmp_path, monkeypatch, code):
    files.write_whole(tmp_path / "log", "old")
    monkeypatch.setattr(os, "fsync", refusing(code))
    with pytest.raises(OSError, match=os.strerror(code)):
        files.write_whole(tmp_path / "log", "new")
    with pytest.raises(OSError, match=os.strerror(code)), files.atomic_folder(tmp_path / "model") as folder:
        (folder / "config.json").write_text("{}")
    assert contents(tmp_path) == {"log": b"old"} and os.listdir(tmp_path) == ["log"]


@linux
@pytest.mark.parametrize("call", ["rename", "rmtree"])
def test_a_kill_between_the_two_renames_is_mended(drive, monkeypatch, call):
    folder, _ = drive
    target = folder / "model"
    target.mkdir()
    (target / "model.safetensors").write_text("old")

    class Killed(BaseException):
        pass

    rename, renamed = os.rename, []

    def dying(*args):
        renamed.append(args)
        if len(renamed) >= {"rename": 2, "rmtree": 3}[call]:  # the process is gone: nothing is undone
            raise Killed
        rename(*args)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", dying)
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(Killed), files.atomic_folder(target) as new:
            (new / "model.safetensors").write_text("new")
    assert len(os.listdir(folder)) == 2
    files.clear_unfinished(target)
    assert os.listdir(folder) == ["model"]
    assert (target / "model.safetensors").read_text() == {"rename": "old", "rmtree": "new"}[call]


# The lowest versions


def lower_bounds() -> dict[str, str]:
    """Name -> lowest version, of the package with the extra test and the extras that this one names."""
    extras = PROJECT["optional-dependencies"]
    (others,) = [each for each in extras["test"] if each.startswith("roilab[")]
    asked = [*PROJECT["dependencies"], *extras["test"]]
    asked += [each for name in others.removeprefix("roilab[").strip("]").split(",") for each in extras[name]]
    return dict(each.split(";")[0].strip().split(">=") for each in asked if each != others)


def test_the_lowest_versions_are_those_of_pyproject():
    text = (ROOT / "tests" / "lowest.txt").read_text(encoding="utf-8")
    own, others = (dict(re.findall(r"^([\w-]+)==(\S+)", part, re.MULTILINE)) for part in text.split("\n\n"))
    assert {name: parts(low) for name, low in own.items()} == {name: parts(low) for name, low in lower_bounds().items()}
    assert others and not set(own) & set(others)


def parts(version: str) -> list[int]:
    """Of a version; zeros at its end say nothing."""
    return [int(each) for each in re.sub(r"(\.0)+$", "", version).split(".")]
