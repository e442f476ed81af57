"""The project's own promises: packaging, the README's commands, its map, cheap imports."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]


def command(marker):
    return re.search(rf"^<!-- {marker} -->\n```bash\n(.*?)\n```$", README, re.MULTILINE | re.DOTALL)[1]


def run_python(code):
    """What a fresh interpreter prints."""
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=ROOT, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_dependencies_have_lower_bounds_only():
    requirements = PROJECT["dependencies"] + [r for extra in PROJECT["optional-dependencies"].values() for r in extra]
    for requirement in requirements:
        if not requirement.startswith("roilab["):
            bound = requirement.split(";")[0].strip()
            assert re.fullmatch(r"[A-Za-z0-9._-]+>=[0-9.]+", bound), requirement
    bounds = dict(r.split(">=") for r in PROJECT["dependencies"])
    assert (bounds["torch"], bounds["torchvision"], bounds["transformers"]) == ("2.6", "0.21", "5.6")


def test_extras():
    extras = PROJECT["optional-dependencies"]
    assert set(extras) == {"train", "eval", "convert", "gpu", "photo", "test", "all"}
    assert extras["all"] == ["roilab[train,eval,convert,gpu,photo,test]"]


def test_every_package_is_declared():
    here = {str(p.parent.relative_to(ROOT)).replace(os.sep, ".") for p in (ROOT / "roilab").rglob("__init__.py")}
    assert set(PYPROJECT["tool"]["setuptools"]["packages"]) == here | {"roilab.widgets"}


def test_the_script_and_the_version():
    import roilab
    from roilab import cli

    assert PROJECT["scripts"]["roilab"] == "roilab.cli:main" and callable(cli.main)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert roilab.__version__ == PROJECT["version"] == str(citation["version"])


def test_environment_for_conda():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment["name"] == "roilab" and environment["channels"]
    plain = [d for d in environment["dependencies"] if isinstance(d, str)]
    pip = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    assert "python>=3.10" in plain and "pip" in plain
    assert pip == [["-e .[all]"]]


def test_two_commands_complete_from_nothing():
    fences = re.findall(r"^```bash\n(.*?)\n```$", README, re.MULTILINE | re.DOTALL)
    assert [f for f in fences if "apt-get" in f] == [command("demo command"), command("test command")]
    for line in (command("demo command"), command("test command")):
        assert "\n" not in line and "sudo" not in line
        steps = [step.strip() for step in line.split("&&")]
        assert steps[:3] == ["apt-get update", "apt-get install -y git python3-venv", "python3 -m venv .venv"]
        assert steps[3].startswith(".venv/bin/pip install -e ")
        assert all(re.match(r"(apt-get|python3|\.venv/bin/\w+) ", step) for step in steps)
    assert command("demo command").split("&&")[-1].strip().startswith(".venv/bin/roilab demo")
    assert command("test command").split("&&")[-1].strip().startswith(".venv/bin/python -m pytest")


def test_ci_takes_the_test_command_from_the_readme():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    function = re.search(r"^readme_test_command\(\) \{.*?^\}", script, re.MULTILINE | re.DOTALL)[0]
    done = subprocess.run(
        ["bash", "-c", function + "\nreadme_test_command"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == command("test command")


def test_the_map_of_folders_is_true():
    table = README[README.index("## The folders") :]
    named = re.findall(r"\[`([^`]+)`\]\(([^)]+)\)", table)
    assert len(named) >= 8
    for shown, target in named:
        assert shown.rstrip("/") == target.rstrip("/")
        assert (ROOT / target).exists(), f"the README's map names {shown}, which does not exist"
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode == 0 and tracked.stdout:
        folders = {line.split("/")[0] for line in tracked.stdout.splitlines() if "/" in line} - {".ci"}
        assert folders <= {target.split("/")[0] for _, target in named}, "a folder is missing in the README's map"


def test_links_of_the_readme_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def test_places_for_measured_numbers():
    for name in ("evaluate tiny", "study", "bench inside", "bench whatif", "bench"):
        assert README.index(f"<!-- {name} -->") < README.index(f"<!-- /{name} -->")


def test_licence():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text and "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text


def test_importing_roilab_is_cheap():
    heavy = ("torch", "transformers", "matplotlib", "captum", "ipywidgets", "numpy", "PIL")
    assert run_python(f"import sys, roilab; print([m for m in {heavy} if m in sys.modules])") == "[]"
    assert run_python(f"import sys, roilab.cli; print([m for m in {heavy} if m in sys.modules])") == "[]"


def test_widgets_are_installed_as_part_of_the_package():
    shown = run_python("import roilab.widgets as w; print(w.__file__); print(*w.__all__)").splitlines()
    assert Path(shown[0]) == ROOT / "widgets" / "__init__.py"
    assert shown[1].split() == [
        "AttentionExplorer", "AttributionExplorer", "QuizView", "Region", "RegionCanvas", "RegionChat", "RegionLens", "RegionSet", "WhatIf",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_wheel_holds_everything(tmp_path):
    # From a copy of what git would ship, so that no build folder appears here and nothing untracked helps.
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    files = listed.stdout.splitlines() if listed.returncode == 0 else []
    if not files:
        pytest.skip("needs a git checkout, to copy the files that belong to the project")
    source = tmp_path / "source"
    for name in files:
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--quiet",
        "--wheel-dir",
        str(tmp_path),
        ".",
    ]
    done = subprocess.run(build, cwd=source, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("roilab-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
        archive.extractall(tmp_path / "installed")
    for name in files:
        if (name.startswith("roilab/") and name.endswith(".py")) or name.startswith("roilab/assets/"):
            assert name in inside
        if name.startswith("widgets/"):
            assert name.replace("widgets/", "roilab/widgets/", 1) in inside
    assert any(name.endswith("licenses/LICENSE") for name in inside)
    code = "import roilab, roilab.widgets, roilab.scenes, roilab.cli; print(roilab.__file__); print(roilab.widgets.__file__)"
    environment = dict(os.environ, PYTHONPATH=str(tmp_path / "installed"))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(line.startswith(str(tmp_path)) for line in done.stdout.splitlines())
