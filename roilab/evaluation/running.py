"""Many questions about many pictures: batch by batch, each picture read once, every batch's predictions written down at once.

A predictions file is JSON lines: a header (the model's fingerprint, the records, the settings), then one prediction per line with its
`key`. An evaluation that was stopped (Ctrl-C, the kernel's stop button, a kill) continues with what is missing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tqdm.auto import tqdm

import roilab

from ..presenting import ARMS, text_only
from ..regions import RegionDialogue
from .reading import PictureReader, Row


@dataclass(frozen=True)
class Query:
    """One thing to ask.

    Attributes:
        key: names its prediction; unique.
        index: of the record whose picture it is about.
        record: its turns end with the question; not yet presented.
        answers: given answers to score, as turns; or none.
        about: what the prediction says beside what the model says (JSON-able).
    """

    key: str
    index: int
    record: RegionDialogue
    answers: tuple[str, ...] = ()
    about: dict = field(default_factory=dict)


def _line(path: Path, number: int, line: bytes) -> dict:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    known = isinstance(value, dict) and (isinstance(value.get("key"), str) or number == 1)
    if not known or (number == 1 and "roilab predictions" not in value):
        raise ValueError(
            f"{path}, line {number}: expected {'a prediction' if number > 1 else 'the header of predictions'}"
        )
    return value


Predict = Callable[[PictureReader, list[Row], list[Query]], list[dict]]


class Predictions:
    """Predictions by key, kept in a file if there is a path. A context manager.

    Args:
        path: JSON lines; continued if it exists; None: in memory only.
        header: what decides the predictions (JSON-able).
    Raises:
        ValueError: the file was made with another header, is no predictions file, or its folder is not there.
    """

    def __init__(self, path, header: dict):
        self.header = json.loads(json.dumps({"roilab predictions": 1} | header))
        self.known: dict[str, dict] = {}
        self.path, self._file = None if path is None else Path(path), None
        if self.path is not None:
            self._read(self.path)

    def _read(self, path: Path):
        if not path.absolute().parent.is_dir():
            raise ValueError(f"cannot write {path}: there is no folder {path.absolute().parent}")
        if path.exists() and not path.is_file():
            raise ValueError(f"{path} is no file of predictions, but a folder or a device")
        content = path.read_bytes() if path.exists() else b""
        whole = content.rfind(b"\n") + 1  # what follows is a line whose writing was cut short
        lines = [_line(path, number, line) for number, line in enumerate(content[:whole].splitlines(), 1)]
        if not lines and not json.dumps(self.header).encode().startswith(content):
            raise ValueError(f"{path} is no file of predictions")
        there = lines[0] if lines else self.header
        differing = sorted(key for key in self.header | there if self.header.get(key) != there.get(key))
        if differing:
            what = "; ".join(f"{key}: {there.get(key)!r} there, {self.header.get(key)!r} now" for key in differing)
            raise ValueError(
                f"{path} is of another evaluation ({what}): give a new file, or the same model, data and settings"
            )
        if whole < len(content):
            os.truncate(path, whole)
        self.known = {line["key"]: line for line in lines[1:]}

    def holds(self, query: Query, fields: Mapping[str, Callable[[object], bool]]) -> bool:
        """Whether there is a prediction for this query.

        Raises:
            ValueError: there is one, but it is about something else, or lacks one of the `fields` (name -> whether a value fits).
        """
        if query.key not in self.known:
            return False
        row = self.known[query.key]
        for name, value in json.loads(json.dumps(query.about)).items():
            if row.get(name) != value:
                raise ValueError(
                    f"{self.path}, prediction {query.key!r}: {name} is {row.get(name)!r}, expected {value!r}"
                )
        for name, fits in fields.items():
            if name not in row or not fits(row[name]):
                raise ValueError(
                    f"{self.path}, prediction {query.key!r}: {name} is {row.get(name)!r}: no such prediction"
                )
        return True

    def add(self, rows: Iterable[dict]):
        """Keeps predictions and writes them to the file; whatever stops the program, at most the last line is cut short."""
        rows = list(rows)
        self._write(rows)
        self.known.update((row["key"], row) for row in rows)

    def _write(self, rows: list[dict]):
        if self.path is None:
            return
        if self._file is None:  # only now: an evaluation that cannot begin leaves no file
            self._file = open(self.path, "a", encoding="utf-8")
            if self._file.tell() == 0:
                rows = [self.header, *rows]
        self._file.write("".join(json.dumps(row) + "\n" for row in rows))
        self._file.flush()

    def __enter__(self) -> Predictions:
        return self

    def __exit__(self, *_):
        if self._file is not None:
            self._file.close()


@torch.inference_mode()
def run(
    model, records, queries: Iterable[Query], predict: Predict, predictions: Predictions, *, arm: str = "regions", batch: int = 16,
    total: int | None = None, title: str = "", fields: Mapping[str, Callable[[object], bool]] | None = None,
):  # fmt: skip
    """Answers the queries that are not yet among the predictions.

    Args:
        records: `records.picture(index)` gives a PIL picture of the size that the record says.
        queries: those about one picture in a row (see `picture_order`), so that it is read and encoded once.
        predict: (reader, rows, their queries) -> per row what is found out about it.
        arm: one of `roilab.presenting.ARMS`.
        batch: rows at a time, and pictures that are held at a time.
        total: how many queries there are, for the progress bar.
        fields: name -> whether a value fits, of what scores are made of; predictions of a file are checked by it.
    Raises:
        ValueError: unknown arm, two queries of one key, a picture of another size than its record, a prediction of the file that is about something else.
    """
    if arm not in ARMS:
        raise ValueError(f"unknown arm {arm!r}; known: {', '.join(ARMS)}")
    if batch < 1:
        raise ValueError(f"batch is {batch}, expected at least 1")
    present, seen = ARMS[arm], set()
    block = _Block(model, predict, predictions, batch)
    name, read = None, None  # the last picture that was read
    with _evaluating(model), tqdm(total=total, desc=title or "questions", unit="q") as bar:
        for query in queries:
            if query.key in seen:
                raise ValueError(f"two queries have the key {query.key!r}: ids of records must differ")
            seen.add(query.key)
            if predictions.holds(query, fields or {}):
                bar.update()
                continue
            if present is not text_only and query.record.image != name:
                name, read = query.record.image, records.picture(query.index)
            record, picture = present(query.record, read)
            if picture is not None and picture.size != (record.width, record.height):
                sizes = f"{record.width} x {record.height}, its picture has {picture.width} x {picture.height}"
                raise ValueError(f"record {record.id} says {sizes} pixels")
            if block.is_full_for(picture):
                bar.update(block.flush())
            block.add(query, record, picture)
        bar.update(block.flush())


class _Block:
    """Queries about a few pictures, whose features are held together; their batches are sorted by length."""

    def __init__(self, model, predict, predictions, batch):
        self.model, self.predict, self.predictions, self.batch = model, predict, predictions, batch
        self.rows, self.pictures, self.place = [], [], {}

    def is_full_for(self, picture) -> bool:
        if picture is None:
            return len(self.rows) >= 8 * self.batch
        return id(picture) not in self.place and len(self.pictures) >= self.batch

    def add(self, query, record, picture):
        if picture is not None and id(picture) not in self.place:
            self.place[id(picture)] = len(self.pictures)
            self.pictures.append(picture)
        place = None if picture is None else self.place[id(picture)]
        self.rows.append(((place, record.turns, record.boxes), query))

    def flush(self) -> int:
        rows, pictures = self.rows, self.pictures
        self.rows, self.pictures, self.place = [], [], {}
        if not rows:
            return 0
        reader = PictureReader(self.model, pictures)
        rows.sort(key=lambda each: sum(len(turn["content"]) for turn in each[0][1]))
        for start in range(0, len(rows), self.batch):
            asked, queries = zip(*rows[start : start + self.batch])
            found = self.predict(reader, list(asked), list(queries))
            self.predictions.add({"key": q.key} | q.about | each for q, each in zip(queries, found, strict=True))
        return len(rows)


@contextlib.contextmanager
def _evaluating(model):
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def picture_order(records) -> tuple[list[int], str]:
    """Indices of the records with those of one picture in a row, otherwise as they are; and a hash of what they say."""
    first: dict[str, int] = {}
    places, digest = [], hashlib.sha256()
    for index in range(len(records)):
        record = records[index]
        places.append(first.setdefault(record.image, index))
        content = (record.id, record.image, record.boxes, record.labels, record.turns, record.choices)
        digest.update(json.dumps(content, default=str).encode())
    return sorted(range(len(places)), key=places.__getitem__), digest.hexdigest()[:16]


class Spread(Sequence):
    """`limit` records, spread evenly over all."""

    def __init__(self, records, limit: int):
        if limit < 1:
            raise ValueError(f"limit is {limit}, expected at least 1")
        count = min(limit, len(records))
        self.records, self.indices = records, [i * len(records) // count for i in range(count)]

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, index):
        return self.records[self.indices[index]]

    def picture(self, index):
        return self.records.picture(self.indices[index])


def fingerprint(model) -> str:
    """16 hexadecimal digits that change with the model's weights, configuration, words or prompt template.

    The weights enter by name, shape, dtype and the sum of their bits, which is exact on every device.
    """
    whole_numbers = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        bits = tensor.detach().contiguous().flatten().view(whole_numbers[tensor.element_size()])
        digest.update(f"{name} {list(tensor.shape)} {tensor.dtype} {bits.sum(dtype=torch.int64).item()}\n".encode())
    processor = model.processor
    vocabulary = sorted(processor.tokenizer.get_vocab().items())
    pictures = [processor.image_size, processor.image_processor.to_dict()]
    digest.update(
        json.dumps(
            [_sizes(model.config.to_dict()), processor.template, vocabulary, pictures], sort_keys=True, default=str
        ).encode()
    )
    return digest.hexdigest()[:16]


def _sizes(config):
    """A configuration without what changes when a model is saved and loaded."""
    passing = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version")
    if not isinstance(config, dict):
        return config
    return {key: _sizes(value) for key, value in config.items() if key not in passing}


def header(model, task: str, data: str, split: str, content: str, **settings) -> dict:
    """What a predictions file begins with."""
    made = dict(roilab=roilab.__version__, task=task, model=fingerprint(model), data=data, split=split, records=content)
    return made | settings
