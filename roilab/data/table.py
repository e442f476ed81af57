"""Records in an Arrow table on disk, made once from a data set's files and memory-mapped ever after.

A table is found by the content of the files it was made of (and by what else decides it), so a changed file is read anew and a moved or
copied one is not.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ..files import write_whole
from ..regions import RegionDialogue
from .report import MalformedRecord, Report

VERSION = 1  # of the records: raise it when a reader makes other ones of the same files
BATCH = 500  # records that are in memory at a time
CACHE = Path.home() / ".cache" / "roilab"


def features():
    """The columns of a table: the fields of `RegionDialogue`."""
    from datasets import Features, List, Value

    text, whole = Value("string"), Value("int32")
    return Features(
        id=text, source=text, image=text, width=whole, height=whole, boxes=List(List(Value("float64"))), labels=List(text),
        turns=List(dict(role=text, content=text)),
        choices=dict(
            question=text, answers=List(text), answer_label=whole, rationales=List(text), rationale_label=whole, type=text
        ),
    )  # fmt: skip


def build(
    read: Callable[[Report], Iterator[RegionDialogue]], files: Mapping[str, Path], settings: dict, cache: Path | None = None,
    strict: bool = False,
):  # fmt: skip
    """The table of what `read` yields, from the cache if it was made before.

    Args:
        read: report -> records; called only if the table has to be made.
        files: role -> file, whose contents decide the table together with `settings` (JSON-able).
        cache: folder of the tables; by default `CACHE`.
        strict: raise at the first malformed record.
    Returns:
        (`datasets.Dataset`, memory-mapped; `Report` of the reading that made it).
    Raises:
        MalformedRecord: strict, and there is one.
    """
    import datasets

    cache = Path(cache or CACHE)
    cache.mkdir(parents=True, exist_ok=True)
    contents = {role: content_hash(path, cache) for role, path in sorted(files.items())}
    name = hashlib.sha256(json.dumps([VERSION, settings, contents], sort_keys=True).encode()).hexdigest()[:32]
    arrow, beside = cache / f"{name}.arrow", cache / f"{name}.json"
    if not (arrow.exists() and beside.exists()):
        report = Report(strict)
        _write(read(report), arrow)
        write_whole(beside, json.dumps(report.to_dict()), sync=False)
    report = Report.from_dict(json.loads(beside.read_text(encoding="utf-8")))
    if strict and report.problems:
        raise MalformedRecord(str(report.kept[0]))
    return datasets.Dataset.from_file(str(arrow)), report


def _write(records: Iterator[RegionDialogue], path: Path):
    import pyarrow as pa

    schema = features().arrow_schema
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        with pa.OSFile(str(part), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            batch: list[dict] = []
            for record in records:
                batch.append(dataclasses.asdict(record))
                if len(batch) == BATCH:
                    writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=schema))
                    batch.clear()
            if batch:
                writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=schema))
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def content_hash(path: Path, cache: Path) -> str:
    """SHA-256 of a file's content; remembered in `cache` for as long as size, time of change and place stay the same."""
    state = path.stat()
    key = hashlib.sha256(
        json.dumps([str(path.resolve()), state.st_size, state.st_mtime_ns, state.st_ino]).encode()
    ).hexdigest()[:32]
    known = cache / f"{key}.hash"
    if not known.exists():
        with open(path, "rb") as file:
            digest = hashlib.sha256()
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        write_whole(known, digest.hexdigest(), sync=False)
    return known.read_text()


def names_below(folder: Path) -> str:
    """SHA-256 of the names of all files below a folder, for records that depend on which of them are there."""
    names = sorted(
        os.path.relpath(os.path.join(place, name), folder) for place, _, files in os.walk(folder) for name in files
    )
    return hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest()


def record_of(row: dict) -> RegionDialogue:
    """A row of the table as the record that it was made of."""
    choices = row["choices"]
    if choices is not None and choices["answers"] is None:  # Arrow may keep an absent struct as one of absent fields
        choices = None
    return RegionDialogue(**row | {"choices": choices})
