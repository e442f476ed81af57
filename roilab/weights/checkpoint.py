"""Tensors of a checkpoint folder, one at a time: shards and index as transformers writes them, safetensors or `pytorch_model*.bin`.

Files are mapped into memory, so that only what is worked on takes memory of its own. (Files of torch before 1.6 cannot be mapped: one
of them is then held whole, of each folder.) Nothing in a file is executed: pickles are read with `weights_only=True`.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

LAYOUTS = (
    ("model.safetensors.index.json", "model.safetensors"),
    ("pytorch_model.bin.index.json", "pytorch_model.bin"),
)  # index and single file, the first layout that is there is taken


class Checkpoint:
    """The tensors of a folder, found by name.

    Args:
        folder: holds one of `LAYOUTS`.
    Attributes:
        files: paths that are read, in order.
        where: name of a tensor -> its file.
        shapes, dtypes: by name, read without the values.
    Raises:
        ValueError: no such layout, a shard is missing, unreadable, outside the folder, or not what the index says.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise ValueError(f"{self.folder} is not a folder")
        self._open: dict[Path, object] = {}
        index = self._index()
        self.files = [self.folder / name for name in dict.fromkeys(index.values())] if index else [self._single()]
        self.where, self.shapes, self.dtypes = {}, {}, {}
        for path in self.files:
            self._look(path)
        if index:
            lost = [name for name, file in index.items() if self.where.get(name) != self.folder / file]
            more = [name for name in self.where if name not in index]
            if lost or more:
                found = [f"{name} is not in {index[name]}" for name in lost] + [
                    f"{name} is not listed" for name in more
                ]
                raise ValueError(f"{self.folder}: shards and index do not agree: {some(found)}")

    def read(self, name: str) -> Tensor:
        """The tensor of this name, on the CPU; of a mapped file, its memory is the file's."""
        path = self.where[name]
        shard = self._shard(path)
        return shard[name] if isinstance(shard, dict) else guarded(path, lambda: shard.get_tensor(name))

    def hashes(self) -> dict[str, str]:
        """SHA-256 of every file of weights, by name."""
        return {path.name: sha256(path) for path in self.files}

    def _single(self) -> Path:
        for _, single in LAYOUTS:
            if (self.folder / single).is_file():
                return self.folder / single
        raise ValueError(f"{self.folder} has no weights: expected one of {', '.join(sum(LAYOUTS, ()))}")

    def _index(self) -> dict[str, str] | None:
        """Name -> file from the index; None if the folder holds a single file."""
        for index, single in LAYOUTS:
            path = self.folder / index
            if not path.is_file():
                if (self.folder / single).is_file():
                    return None
                continue
            found = read_json(path).get("weight_map")
            if not isinstance(found, dict) or not found or not all(isinstance(each, str) for each in found.values()):
                raise ValueError(f"{path} has no weight_map of names and files")
            for file in dict.fromkeys(found.values()):
                if Path(file).name != file or file in (".", "..") or "\\" in file or "\0" in file:
                    raise ValueError(f"{path} names {file!r}, which is not a file name in its own folder")
                if not (self.folder / file).is_file():
                    raise ValueError(f"{path} names {file}, which is not in {self.folder}")
            return found
        return None

    def _look(self, path: Path):
        shard = self._shard(path)
        for name in shard.keys():
            if name in self.where:
                raise ValueError(f"{name} is in {self.where[name].name} and in {path.name} of {self.folder}")
            self.where[name] = path
            if isinstance(shard, dict):
                self.shapes[name], self.dtypes[name] = tuple(shard[name].shape), shard[name].dtype
            else:
                piece = shard.get_slice(name)
                self.shapes[name] = tuple(piece.get_shape())
                self.dtypes[name] = _SAFETENSORS_DTYPES.get(piece.get_dtype(), piece.get_dtype())

    def _shard(self, path: Path):
        if path not in self._open:
            if path.suffix == ".safetensors":
                from safetensors import safe_open

                self._open[path] = guarded(path, lambda: safe_open(path, framework="pt"))
            else:
                mapped = _is_zip(path)
                if not mapped:  # one of these at a time
                    self._open = {each: shard for each, shard in self._open.items() if _is_zip(each)}
                self._open[path] = guarded(path, lambda: _load_pickle(path, mapped))
        return self._open[path]


_SAFETENSORS_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def _load_pickle(path: Path, mapped: bool) -> dict[str, Tensor]:
    state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    if not isinstance(state, dict) or not all(isinstance(k, str) and torch.is_tensor(v) for k, v in state.items()):
        raise ValueError("expected a dictionary of names and tensors")
    odd = [f"{name} is {each.layout}" for name, each in state.items() if each.layout != torch.strided]
    if odd:
        raise ValueError(f"expected plain tensors, but {odd[0]}")
    return state


def guarded(path: Path, read, what: str = "weights"):
    """What `read` returns; whatever a broken or hostile file makes a reader raise becomes a ValueError that names the file."""
    try:
        return read()
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} holds more than tensors, which is never loaded: {first_line(error)}") from None
    except MemoryError:
        raise ValueError(f"{path} asks for more memory than there is") from None
    except Exception as error:  # each reader has types of its own
        raise ValueError(f"{path} cannot be read as {what}: {first_line(error)}") from None


def _is_zip(path: Path) -> bool:
    """Whether torch.save wrote its zip format, which can be mapped (torch 1.6 and later), or a safetensors file."""
    if path.suffix == ".safetensors":
        return True
    with open(path, "rb") as file:
        return file.read(2) == b"PK"


def in_shards(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    """Names in order, cut into lists of at most `limit` bytes (a larger tensor is alone).

    Args:
        sizes: name -> bytes.
    """
    shards, size = [[]], 0
    for name, count in sizes.items():
        if shards[-1] and size + count > limit:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += count
    return shards


def read_json(path) -> dict:
    """A JSON file that holds an object.

    Raises:
        ValueError: it is not one.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {first_line(error)}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}, expected an object")
    return found


def sha256(path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def some(problems: list[str], shown: int = 12) -> str:
    """The first few, and how many more there are."""
    more = [f"and {len(problems) - shown} more"] if len(problems) > shown else []
    return "; ".join(problems[:shown] + more)


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
