"""Rows of the table of hostile inputs (`test_hostile.py`): entry point, class of bad input, what is tried, what may come of it.

A row is a function that makes its inputs in the folder `world.here` and tries them with `attempt(call, says)`. A try ends in one of three
ways, and anything else (another exception, a hang, code of a file that ran, a file half written, a connection) fails the row:

    refused     one of the documented exceptions, whose text holds `says`
    counted     left out and reported: the call returned `COUNTED`
    accepted    the call returned something else
"""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import shutil
import signal
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

COUNTED = object()
LONGEST = 60  # seconds; a call that takes longer hangs
MUST = "must be refused"
LEFT_OUT = "refused or counted"
EITHER = "refused or accepted"  # damage may leave something valid
UNHARMED = "accepted"  # it only looks bad


@dataclass(frozen=True)
class Row:
    """One line of the table; `raises` are the exceptions that the entry point documents."""

    entry: str
    kind: str
    outcome: str
    raises: tuple[type[Exception], ...]
    function: Callable

    def __str__(self):
        return f"{self.entry}: {self.kind}"


ROWS: list[Row] = []
COUNTS: dict[Row, Counter] = {}


def hostile(entry: str, kind: str, outcome: str = MUST, raises=ValueError):
    """Makes a function (world, attempt) a row."""

    def add(function):
        ROWS.append(Row(entry, kind, outcome, raises if isinstance(raises, tuple) else (raises,), function))
        return function

    return add


class Hang(BaseException):
    pass


class Escaped(BaseException):
    """A file or a text reached out."""


class World:
    """What rows share.

    Attributes:
        model, picture: of conftest.py.
        here: an empty folder for the row at hand.
        marker: a file that hostile code would create.
        kept: what is expensive to make, by name.
    """

    def __init__(self, root: Path, model, picture):
        self.root, self.model, self.picture, self.kept = root, model, picture, {}
        self.marker, self.here = root / "marker", root / "here"

    def once(self, name: str, make: Callable):
        if name not in self.kept:
            self.kept[name] = make()
        return self.kept[name]

    def folder(self, source: Path, name: str = "copy") -> Path:
        """A copy of a folder, to be damaged, in `here`."""
        shutil.rmtree(self.here / name, ignore_errors=True)
        return Path(shutil.copytree(source, self.here / name))

    def saved(self) -> Path:
        """The small model's folder; not to be changed."""

        def make():
            self.model.save_pretrained(self.root / "saved")
            return self.root / "saved"

        return self.once("saved", make)

    def evil(self):
        """Something whose unpickling creates the marker."""
        return Evil(self.marker)

    def code(self) -> str:
        """Python source that creates the marker."""
        return f"open({str(self.marker)!r}, 'w').close()\n\n\nclass Thing:\n    pass\n"

    def check(self):
        assert not self.marker.exists(), "code of a file ran"
        half = [path.name for path in self.here.rglob("*") if path.suffix in (".part", ".tmp")]
        assert not half, f"half-written: {half}"


class Evil:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


def run(row: Row, world: World) -> Counter:
    """Tries a row, once; its counts."""
    if row not in COUNTS:
        shutil.rmtree(world.here, ignore_errors=True)
        world.here.mkdir()
        counts: Counter = Counter()

        def attempt(call: Callable, says: str = ""):
            counts[_tried(row, call, says)] += 1
            world.check()

        with _no_connections():
            row.function(world, attempt)
        assert counts, f"{row} tries nothing"
        forbidden = {MUST: ("accepted", "counted"), LEFT_OUT: ("accepted",), EITHER: (), UNHARMED: ("refused",)}
        wrong = {name: counts[name] for name in forbidden[row.outcome] if counts[name]}
        assert not wrong, f"{row} ({row.outcome}): {wrong}"
        COUNTS[row] = counts
    return COUNTS[row]


def _tried(row: Row, call: Callable, says: str) -> str:
    try:
        with _limited():
            found = call()
    except row.raises as error:
        text = str(error)
        assert re.search(says, text), f"{row}: {text!r} does not say {says!r}"
        assert text.strip(), f"{row}: {type(error).__name__} without a word"
        return "refused"
    except Exception as error:
        raise AssertionError(f"{row}: {type(error).__name__} escaped: {error}") from error
    return "counted" if found is COUNTED else "accepted"


@contextlib.contextmanager
def _limited():
    def stop(*_):
        raise Hang(f"longer than {LONGEST} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LONGEST)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _no_connections():
    def refuse(*arguments):
        raise Escaped(f"a connection to {arguments[1:]}")

    before = socket.socket.connect
    socket.socket.connect = refuse
    try:
        yield
    finally:
        socket.socket.connect = before


def table() -> str:
    """The counts of all rows that ran, as Markdown."""
    lines = [
        "| entry point | bad input | expected | refused | counted | accepted |",
        "| --- | --- | --- | ---: | ---: | ---: |",
    ]
    for row, counts in COUNTS.items():
        numbers = " | ".join(str(counts[name]) for name in ("refused", "counted", "accepted"))
        lines.append(f"| {row.entry} | {row.kind} | {row.outcome} | {numbers} |")
    total = sum(COUNTS.values(), Counter())
    lines.append(f"| all {len(COUNTS)} | | | {total['refused']} | {total['counted']} | {total['accepted']} |")
    return "\n".join(lines)


# What files are damaged with

NO_JSON = {
    "empty": b"", "cut off": b'{"a": [1, 2', "no JSON": b"regions: 1", "not UTF-8": b'{"a": "\xff\xfe"}', "deep": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000, "NUL bytes": b"\0" * 100, "a long number": b'{"a": ' + b"9" * 5000 + b"}",
    "a pickle": pickle.dumps({"a": 1}),
}  # fmt: skip
NO_OBJECT = {"a list": b"[1]", "a number": b"5", "a text": b'"x"', "null": b"null", "a huge number": b"1e400"}
VALUES = [
    None,
    True,
    -1,
    0,
    10**12,
    1.5,
    float("nan"),
    float("inf"),
    10**400,
    "",
    "many",
    "../../x",
    "\ud800",
    [],
    {},
    [[[1]]],
    {"a": 1},
]
"""What may stand in the place of any value of a JSON file."""


def mutations(value):
    """A hypothesis strategy: `value`, JSON-able, with one key deleted or one value replaced by one of `VALUES`; never `value` itself."""
    from hypothesis import strategies as st

    places = list(_places(value))

    def changed(place, new):
        return _changed(value, place, new)

    deletions = st.sampled_from([place for place in places if place]).map(lambda place: changed(place, _changed))
    replacements = st.builds(changed, st.sampled_from(places), st.sampled_from(VALUES))
    return st.one_of(deletions, replacements)


def search(examples: int):
    """Settings of hypothesis: always the same examples; `HOSTILE_SEARCH=20` in the environment looks at 20 times as many."""
    from hypothesis import HealthCheck, settings

    times = int(os.environ.get("HOSTILE_SEARCH", "1"))
    return settings(
        deadline=None, derandomize=True, max_examples=times * examples, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


def _places(value, before=()):
    """Paths of keys and indices to all values; of a list, its first two."""
    yield before
    pairs = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, each in pairs:
        yield from _places(each, (*before, key))


def _changed(value, place, new):
    """`value` with another one at a place; `new` is `_changed` itself: without what stands there."""
    if not place:
        return new
    first, rest = place[0], place[1:]
    copy = dict(value) if isinstance(value, dict) else list(value)
    if not rest and new is _changed:
        del copy[first]
    else:
        copy[first] = _changed(copy[first], rest, new)
    return copy
