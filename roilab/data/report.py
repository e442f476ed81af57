"""What was wrong with the files of a data set, and what its rules left out: counted, the first problems kept in full."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

KEPT = 20  # problems that are kept in full


class Malformed(ValueError):
    """A record breaks its format. Raised while one record is read; `Report.at` says where."""


class Filtered(Exception):
    """A record is well-formed, but a rule of the data set leaves it out."""


class MalformedRecord(ValueError):
    """A malformed record under `strict=True`: the message has file, position and reason."""


@dataclass(frozen=True)
class Problem:
    """One malformed record: the file's name, the place in it ("annotations[3]", "line 7", "byte 512") and the reason."""

    file: str
    position: str
    reason: str

    def __str__(self):
        return f"{self.file}, {self.position}: {self.reason}"


@dataclass
class Report:
    """Counts what a reader skips.

    Attributes:
        strict: raise `MalformedRecord` at the first problem.
        problems: number of malformed records, all of them skipped.
        kept: the first `KEPT` of them.
        skipped: rule -> number of well-formed records that it left out ("crowd", ...).
        unreadable: files that break off.
    """

    strict: bool = False
    problems: int = 0
    kept: list[Problem] = field(default_factory=list)
    skipped: Counter = field(default_factory=Counter)
    unreadable: set[str] = field(default_factory=set)

    @contextlib.contextmanager
    def at(self, file: str | Path, position: str):
        """Skips what the block reads if it raises `Malformed` or `Filtered`, and counts it."""
        try:
            yield
        except Malformed as error:
            self.add(file, position, str(error))
        except RecursionError:
            self.add(file, position, "lists or objects inside each other, too deep to be read")
        except Filtered as rule:
            self.filtered(str(rule))

    def add(self, file: str | Path, position: str, reason: str):
        """Counts one malformed record.

        Raises:
            MalformedRecord: if the report is strict.
        """
        problem = Problem(Path(file).name, position, " ".join(reason.split()))
        self.problems += 1
        if len(self.kept) < KEPT:
            self.kept.append(problem)
        if self.strict:
            raise MalformedRecord(str(problem))

    def broken(self, file: str | Path, position: str, reason: str):
        """Counts a file that cannot be read to its end, once however often it is tried."""
        if str(file) not in self.unreadable:
            self.unreadable.add(str(file))
            self.add(file, position, reason)

    def filtered(self, rule: str, count: int = 1):
        """Counts `count` records that a rule of the data set leaves out."""
        self.skipped[rule] += count

    def summary(self) -> str:
        """One line per kind of loss; empty if nothing was left out."""
        lines = [f"left out by rule: {', '.join(f'{n:,} {rule}' for rule, n in self.skipped.most_common())}"]
        lines = lines if self.skipped else []
        if self.problems:
            more = f", the first {len(self.kept)}:" if self.problems > len(self.kept) else ":"
            lines += [f"{self.problems:,} malformed records were skipped{more}", *map(str, self.kept)]
        return "\n".join(lines)

    def to_dict(self) -> dict:
        """JSON-able; `from_dict` is the way back."""
        return {"problems": self.problems, "kept": [asdict(p) for p in self.kept], "skipped": dict(self.skipped)}

    @classmethod
    def from_dict(cls, values: dict) -> Report:
        kept = [Problem(**problem) for problem in values["kept"]]
        return cls(problems=values["problems"], kept=kept, skipped=Counter(values["skipped"]))
