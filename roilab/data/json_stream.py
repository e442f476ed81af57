"""Large JSON files, one value at a time: memory stays flat however long the file is.

Python writes a float that is not a number as `NaN`, which is not JSON; such a literal becomes the text "NaN" on the way into the parser,
so that only the record that holds it is malformed and not the rest of the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from .report import Report

CHUNK = 1 << 18
DEEPEST = 100  # lists and objects inside each other
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_WORD = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\b(?:NaN|Infinity)\b', re.DOTALL)
_LAST_WORD = re.compile(rb"[-A-Za-z]*\Z")
_ESCAPED = re.compile(rb"\\.", re.DOTALL)


def items(path: Path, prefix: str, report: Report, label: str = "") -> Iterator[tuple[str, Any]]:
    """The values at `prefix` ("annotations.item" is each element of the list "annotations", "item" of a list at the top).

    Args:
        report: a file that breaks off or is no JSON is reported with the byte up to which it was read, and ends the stream.
        label: of the progress bar, over the bytes of the file; by default the file's name.
    Yields:
        ("annotations[3]", value); numbers are ints and floats.
    """
    import ijson

    name = prefix.removesuffix("item").removesuffix(".") or "item"
    with open(path, "rb") as file, _bar(path, label) as bar:
        stream = _Numbers(file, bar)
        values = iter(ijson.items(stream, prefix, use_float=True))
        count = 0
        while True:
            try:
                value = next(values)
            except StopIteration:
                return
            except (ijson.JSONError, UnicodeDecodeError, ValueError) as error:
                reason = f"not valid JSON from here on, or cut off ({' '.join(str(error).split())[:120]})"
                after = f"after {name}[{count - 1}], " if count else ""
                report.broken(path, f"{after}before byte {file.tell():,}", reason)
                return
            yield f"{name}[{count}]", value
            count += 1


def lines(path: Path, report: Report, label: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a file with one JSON value per line: ("line 3", value). A line that is no JSON is reported and skipped."""
    with open(path, "rb") as file, _bar(path, label) as bar:
        for number, line in enumerate(file, start=1):
            bar.update(len(line))
            if not line.strip():
                continue
            try:
                value = json.loads(line)
                if b"\\ud" in line.lower():
                    json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair is no character
            except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
                report.add(path, f"line {number}", f"not valid JSON ({error})")
                continue
            yield f"line {number}", value


def has_key(path: Path, key: str) -> bool:
    """Whether the file's top level is an object with `key`; reads no further than to the key."""
    import ijson

    with open(path, "rb") as file:
        try:
            return any(
                prefix == "" and event == "map_key" and value == key
                for prefix, event, value in ijson.parse(_Numbers(file, tqdm(disable=True)))
            )
        except (ijson.JSONError, ValueError):  # UnicodeDecodeError is a ValueError
            return False


def _bar(path: Path, label: str):
    return tqdm(total=path.stat().st_size, desc=label or path.name, unit="B", unit_scale=True, leave=False)


class _Numbers:
    """A binary file whose `NaN` and `Infinity` outside of strings are read as "NaN" and "Infinity"; `bar` follows it.

    `read` raises ValueError where values are nested too deep.
    """

    def __init__(self, file, bar):
        self.file, self.bar = file, bar
        self.rest = b""  # what may go on in the next chunk
        self.inside = False  # whether a string is open where `rest` begins
        self.open = b""  # brackets of the lists and objects that are

    def read(self, size: int = -1) -> bytes:
        if size == 0:
            return b""
        while True:
            chunk = self.file.read(CHUNK)
            self.bar.update(len(chunk))
            data, self.rest = self.rest + chunk, b""
            if chunk:  # never cut an escape or a word in two
                cut = len(data) - len(_LAST_WORD.search(data[-9:])[0])
                row = cut - len(data[:cut].rstrip(b"\\"))
                data, self.rest = data[: cut - row % 2], data[cut - row % 2 :]
            if data or not chunk:
                return self._converted(data)

    def _converted(self, data: bytes) -> bytes:
        pieces = (_ESCAPED.sub(b"", data) if b"\\" in data else data).split(b'"')
        opened, self.inside = self.inside, self.inside ^ (len(pieces) % 2 == 0)
        self._check_depth(b"".join(pieces[opened::2]))
        if b"NaN" not in data and b"Infinity" not in data:
            return data
        # A string that goes on from the last chunk, or into the next one, is closed for the search.
        before, after = b'"' if opened else b"", b'"' if self.inside else b""
        whole = _WORD.sub(lambda m: m[0] if m[0][:1] == b'"' else b'"' + m[0] + b'"', before + data + after)
        return whole[len(before) : len(whole) - len(after)]

    def _check_depth(self, outside: bytes):
        """Keeps which lists and objects are open; `outside` is what stands outside of strings.

        The parser's names of what is open, "item.item.item", take memory with the square of the depth.
        """
        self.open += outside.translate(None, _NO_BRACKETS)
        for _ in range(DEEPEST):
            before, self.open = self.open, self.open.replace(b"[]", b"").replace(b"{}", b"")
            if len(self.open) == len(before):
                break
        if len(self.open) > DEEPEST:
            raise ValueError(f"more than {DEEPEST} lists and objects inside each other")
