"""What one person answered to a quiz: final, since a rationale question tells the answer of the one before it, and kept in a file."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import write_whole
from ..presenting import LETTERS

if TYPE_CHECKING:
    from .quiz import Quiz


class Answers:
    """One person's answers, in the order of the questions, and their file. Made by `Quiz.answers`.

    Attributes:
        quiz, name: whose questions, and who answers.
        path: the file, written whole after every answer; None: in memory only.
        letters: the letter of each question that was answered.

    Raises:
        ValueError: the file cannot be read, is no file of answers or one of another quiz, or has letters that no question has.
    """

    def __init__(self, quiz: Quiz, name: str, path: Path | None = None):
        self.quiz, self.name, self.path = quiz, name, path
        self.letters: tuple[str, ...] = self._read()

    @property
    def next(self) -> int | None:
        """Index of the question to be answered now; None after the last."""
        return len(self.letters) if len(self.letters) < len(self.quiz) else None

    def add(self, letter: str):
        """The answer to question `next`; it stays.

        Raises:
            ValueError: not one of A to D, everything is answered, or the file has other answers by now (open in two places).
        """
        if letter not in tuple(LETTERS):
            raise ValueError(f"the answer is {letter!r}, expected one of {', '.join(LETTERS)}")
        if self.path is not None and self.path.exists() and (there := self._read()) != self.letters:
            had, self.letters = len(self.letters), there
            raise ValueError(
                f"{self.path} has {len(there)} answers now, {had} expected: the quiz is open elsewhere too"
            )
        if self.next is None:
            raise ValueError(f"{len(self.letters)} of {len(self.quiz)} questions are answered; there is no other")
        letters = (*self.letters, letter)
        if self.path is not None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                content = {"roilab quiz": 1, "quiz": self.quiz.fingerprint, "answers": letters}
                write_whole(self.path, json.dumps(content) + "\n")
            except OSError as error:
                raise ValueError(f"{self.path} cannot be written: {error}") from error
        self.letters = letters

    def _read(self) -> tuple[str, ...]:
        if self.path is None or not self.path.exists():
            return ()
        try:
            content = json.loads(self.path.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise ValueError(f"{self.path} cannot be read as JSON: {error}") from error
        if not isinstance(content, dict) or content.get("roilab quiz") != 1:
            raise ValueError(f"{self.path} is no file of answers to a quiz")
        if content.get("quiz") != self.quiz.fingerprint:
            raise ValueError(
                f"{self.path} answers another quiz ({content.get('quiz')!r} there, {self.quiz.fingerprint!r} now): "
                "take another folder, or the same records, number of questions and seed"
            )
        letters = content.get("answers")
        if not isinstance(letters, list):
            raise ValueError(f"{self.path}: 'answers' is {letters!r}, expected a list of letters")
        if len(letters) > len(self.quiz):
            raise ValueError(f"{self.path} has {len(letters)} answers, the quiz {len(self.quiz)} questions")
        for number, letter in enumerate(letters, 1):
            if letter not in tuple(LETTERS):
                raise ValueError(f"{self.path}, answer {number} is {letter!r}, expected one of {', '.join(LETTERS)}")
        return tuple(letters)


def checked_name(name: str) -> str:
    """A person's name as it can stand in a file name on every system: letters and digits of any script, and blanks, - _ ' . within.

    Raises:
        ValueError: anything else.
    """
    if not isinstance(name, str) or not name.strip():
        raise ValueError("write a name first: answers are kept under it")
    name = unicodedata.normalize("NFC", " ".join(name.split()))
    wrong = [sign for sign in name if unicodedata.category(sign)[0] not in "LMN" and sign not in " -_'."]
    if wrong or unicodedata.category(name[0])[0] not in "LN":
        raise ValueError(
            f"the name {name!r} has {wrong[0] if wrong else name[0]!r} where it cannot stand: "
            "letters and digits first, then also blanks, - _ ' and ."
        )
    if len(name.encode()) > 120:
        raise ValueError(f"the name has {len(name.encode())} bytes, expected at most 120")
    if re.match(r"(con|prn|aux|nul|(com|lpt)\d)(\.|$)", name, re.IGNORECASE):  # Windows keeps these for devices
        raise ValueError(f"the name {name!r} is one that Windows gives to no file; add a letter")
    return name
