"""`QuizView`: the questions of a `roilab.evaluation.Quiz` one by one, for a person who answers them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import ipywidgets

from roilab.plotting import draw_regions
from roilab.presenting import LETTERS

from .parts import StaticTwin, button, close_tree, guarded, message, plain, set_class, style_sheet, visible

if TYPE_CHECKING:
    from roilab.evaluation import Answers, Quiz

NUMBERS = {
    "Q->A": "the answer to the question",
    "QA->R": "the reason, told the right answer",
    "Q->AR": "both, for the same question",
}
NOBODY = "anonymous"


class QuizView(StaticTwin, ipywidgets.VBox):
    """A name, then picture, question and four choices at a time; at the end the person's three numbers.

    A choice can be changed until "Next"; then it stays. Nothing is said about right or wrong before the end, except that a rationale
    question tells the right answer of the one before it, as the model is told.

    Args:
        quiz: what is asked.
        folder: where answers are kept, one file per person, which is continued; None: in memory, and a name is not needed.
        name: of the person; by default a field asks for it.

    Attributes:
        answers: the person's `roilab.evaluation.Answers`; None before there is a name.

    Raises:
        ValueError: as `Quiz.answers`, for the name.
    """

    def __init__(self, quiz: Quiz, folder: str | Path | None = None, name: str = ""):
        self.quiz, self.folder = quiz, folder
        self.answers: Answers | None = None
        self.lock = threading.RLock()
        self._chosen: int | None = None
        kept = "Your answers are kept under it." if folder is not None else "Answers are not kept in a file."
        self._name = ipywidgets.Text(placeholder="your name", tooltip=f"Your name. {kept}", layout={"width": "200px"})
        self._name.on_msg(self._key)
        self._begin = ipywidgets.HBox([self._name, button("Start", kept, self._start, button_style="primary")])
        self._begin.add_class("roilab-bar")
        self._said, self._progress, self._question, self._numbers = (ipywidgets.HTML() for _ in range(4))
        for each in (self._said, self._progress, self._numbers):
            each.add_class("roilab-status")
        self._question.add_class("roilab-run")
        asked = ipywidgets.Box([self._question])
        asked.add_class("roilab-text")
        asked.add_class("roilab-question")
        self._choices = [
            button(f"({letter})", f"Choose {letter}", lambda place=place: self._choose(place))
            for place, letter in enumerate(LETTERS)
        ]
        for each in self._choices:
            each.add_class("roilab-choice")
        self._next = button("Next", "Your choice stays", self._take, button_style="primary")
        self._next.layout.align_self = "flex-start"
        # No tooltip: the page's ImageView fails on one (ipywidgets 8.1).
        self._picture = ipywidgets.Image(format="png", layout={"max_width": "100%", "width": "400px"})
        side = ipywidgets.VBox([self._progress, asked, *self._choices, self._next])
        side.add_class("roilab-side")
        self._both = ipywidgets.HBox([self._picture, side])
        self._both.add_class("roilab-both")
        super().__init__([style_sheet(), self._begin, self._both, self._numbers, self._said])
        self.add_class("roilab")
        self.add_class("roilab-quiz")
        if name:
            self._open(name)
        self._show()

    def say(self, text: str, error: bool = False):
        """Show a line under the question."""
        self._said.value = message(text, error)

    def figure(self):
        """The question that is asked now and the one after it: the static twin of the widget."""
        return self.quiz.sheet(self._index or 0, 2)

    def close(self):
        """End the widget; what was answered stays."""
        if self.comm is not None:
            for each in (*self.children, self.layout):
                close_tree(each)
        super().close()

    @property
    def _index(self) -> int | None:
        """Of the question that is asked now; None before there is a name and after the last one."""
        return None if self.answers is None else self.answers.next

    # What the person does

    def _key(self, _, content, buffers):
        if content.get("event") == "submit":  # the Enter key in the name field
            self._start()

    @guarded
    def _start(self):
        if self.answers is None:
            self._open(self._name.value.strip() or ("" if self.folder is not None else NOBODY))
            self._show()
            self._choices[0].focus()

    def _open(self, name: str):
        self.answers = self.quiz.answers(name, self.folder)
        there = len(self.answers.letters)
        self.say(f"{self.answers.name}: {there} of {len(self.quiz)} questions are answered already." if there else "")

    @guarded
    def _choose(self, place: int):
        if self._index is not None:
            self._chosen = place
            self.say("")
            self._mark()

    @guarded
    def _take(self):
        if self._index is None:  # the second click of a double click
            return
        if self._chosen is None:  # the button stays enabled: keys may be faster than the kernel that would enable it
            self.say("Choose one of the four, then Next.")
            return
        try:
            self.say("")
            self.answers.add(LETTERS[self._chosen])
        finally:
            self._show()  # after an error too: there may be other answers in the file
        if self._index is not None:
            self._choices[0].focus()

    # What is seen

    def _show(self):
        """Bring the page up to date with the answers."""
        index = self._index
        self._chosen = None
        visible(self._begin, self.answers is None)
        visible(self._both, False)  # if its picture cannot be read, a question is not asked
        visible(self._numbers, self.answers is not None and index is None)
        if index is not None:
            item = self.quiz.items[index]
            self._progress.value = message(f"Question {index + 1} of {len(self.quiz)}")
            self._question.value = plain(item.text)
            self._picture.value = draw_regions(self.quiz.picture(index), item.boxes).figure._repr_png_()
            for made, text in zip(self._choices, item.lettered):
                made.description = text
            visible(self._both, True)
        elif self.answers is not None:
            self._numbers.value = self._table()
        self._mark()

    def _mark(self):
        """Show which choice is taken, not by colour alone."""
        item = None if self._index is None else self.quiz.items[self._index]
        for place, made in enumerate(self._choices):
            set_class(made, "roilab-chosen", place == self._chosen)
            made.icon = "check" if place == self._chosen else ""
            if item is not None:
                made.tooltip = f"Chosen: {LETTERS[place]}" if place == self._chosen else f"Choose {LETTERS[place]}"

    def _table(self) -> str:
        """The person's numbers as HTML."""
        rows = "".join(
            f"<tr><th>{plain(s.name)}</th><td>{plain(NUMBERS[s.name])}</td><td>{s.value:.1f} %</td>"
            f"<td>{round(s.value * s.n / 100)} of {s.n}</td><td>{s.low:.1f} - {s.high:.1f}</td></tr>"
            for s in self.quiz.human_row([self.answers]).scores
        )
        heads = "".join(f"<th>{each}</th>" for each in ("score", "what was chosen", "right", "", "95 % interval"))
        return f"{message(f'Thank you, {self.answers.name}: all {len(self.quiz)} questions are answered.')}<table><tr>{heads}</tr>{rows}</table>"
