"""Writing so that an interrupted write leaves the older folder whole; and putting results between the markers of a text."""

import contextlib
import ctypes
import errno
import glob
import os
import shutil
import sys
import tempfile
from pathlib import Path

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
# What a file system says to a call that it lacks: a mounted Google Drive and other FUSE folders, exFAT, shares of a network.
_LACKING = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM}


@contextlib.contextmanager
def atomic_folder(target):
    """Give a temporary folder beside `target`; when the block ends well, it takes the target's place in one step.

    Files of an existing target that the block did not write are kept, except what `stale` says belongs to the older write.
    Where the file system cannot exchange two folders (a mounted Google Drive, macOS, Windows) it takes two renames: a process that is killed
    between them leaves the older folder under a hidden name, and `clear_unfinished` puts it back.

    Args:
        target: the folder to write; it may exist.
    Yields:
        Path of the temporary folder.
    """
    target = Path(os.path.abspath(target))
    if target.exists() and not target.is_dir():
        raise ValueError(f"{target} is a file, expected a folder to save into")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    try:
        yield temporary
        readable = 0o777 & ~_umask()  # temporary folders and safetensors files start as the owner's alone
        for path in (*temporary.rglob("*"), temporary):
            with _where_possible():
                path.chmod(readable if path.is_dir() else readable & 0o666)
            _sync(path)
        if target.exists():
            _exchange(temporary, target)
            # Now the older folder has the temporary name; what others put there moves over.
            for path in _of_others(temporary, target):
                os.rename(path, target / path.name)
        else:
            os.rename(temporary, target)
        _sync(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_whole(path, content: bytes | str, sync: bool = True):
    """Write a file under a temporary name, then rename: whoever finds it under its own name finds it whole.

    Args:
        content: bytes, or text for UTF-8.
        sync: flush it to the disk before the renaming, so that it is whole after a power cut as well.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            if sync:
                file.flush()
                with _where_possible():
                    os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def clear_unfinished(target):
    """Remove what killed writes of `target` left beside it, by `atomic_folder` or `write_whole`; nobody may be writing it now.

    An older folder that a killed write left without its name gets it back. A folder with files of others that had yet to move to the new
    folder stays.
    """
    target = Path(target)
    for path in sorted(target.parent.glob(f".{glob.escape(target.name)}.*")):
        if path.suffix == ".part":
            path.unlink(missing_ok=True)
        elif not path.is_dir() or not path.name.endswith((".tmp", ".tmp.old")):
            continue
        elif path.suffix == ".old" and not target.exists():
            os.rename(path, target)
        elif not (target.exists() and _of_others(path, target)):
            shutil.rmtree(path, ignore_errors=True)


def _of_others(older: Path, target: Path) -> list[Path]:
    return [path for path in older.iterdir() if not (target / path.name).exists() and not stale(path.name)]


def stale(name: str) -> bool:
    """True for weight files of an earlier save, whose number of shards may have been another."""
    return name.startswith("model") and (name.endswith(".safetensors") or name.endswith(".safetensors.index.json"))


def _exchange(one: Path, two: Path):
    """Swap two folders. One step where the system has one (Linux); elsewhere two renames, undone if the second fails."""
    if sys.platform.startswith("linux"):
        renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
        if renameat2 and renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(two), _RENAME_EXCHANGE) == 0:
            return
    aside = two.with_name(one.name + ".old")
    os.rename(two, aside)
    try:
        os.rename(one, two)
    except BaseException:
        os.rename(aside, two)
        raise
    os.rename(aside, one)


def _sync(path: Path):
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders
    handle = os.open(path, os.O_RDONLY)
    try:
        with _where_possible():
            os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _where_possible():
    """Lets pass that a file system lacks a call; what else goes wrong, such as a full disk, is raised."""
    try:
        yield
    except OSError as error:
        if error.errno not in _LACKING:
            raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def around(path, marker: str) -> tuple[str, str]:
    """What stands before and after the lines between `<!-- marker -->` and `<!-- /marker -->` of a file, marks included.

    Raises:
        ValueError: the file lacks one of the two, or has them twice or in the wrong order.
    """
    start, end = f"<!-- {marker} -->\n", f"<!-- /{marker} -->"
    whole = Path(path).read_text(encoding="utf-8")
    if whole.count(start) != 1 or whole.count(end) != 1 or whole.index(start) > whole.index(end):
        raise ValueError(f"{path} needs one line {start.strip()!r} and, after it, one {end!r}")
    return whole.split(start)[0] + start, end + whole.split(end)[1]


def replace_between(path, marker: str, text: str):
    """Put `text` between the marks that `around` finds."""
    before, after = around(path, marker)
    Path(path).write_text(f"{before}{text.strip()}\n{after}", encoding="utf-8")
