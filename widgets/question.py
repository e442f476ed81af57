"""The field in which questions are written: Enter asks, "<" offers the regions there are."""

from __future__ import annotations

import re

import ipywidgets

from .parts import close_tree, guarded, region_button
from .regions import RegionSet

_BEGUN = re.compile(r"<([a-z]*)([0-9]*)$")


class QuestionBox(ipywidgets.VBox):
    """A text field with offers.

    Enter is read off the text itself, as a new line at its end: text and key then come in one message and cannot overtake each other.

    Args:
        regions: what is offered.
        ask: `ask(question)`; its errors are shown by `say`.
    """

    def __init__(self, regions: RegionSet, ask):
        self.regions, self.lock, self._ask = regions, regions.lock, ask
        self._text = ipywidgets.Textarea(
            placeholder="Ask, for example: What is <region1>?   Enter sends, < offers the regions.", rows=2, continuous_update=True,
            tooltip="The question", layout={"width": "auto"},
        )  # fmt: skip
        self._text.observe(self._typed, "value")
        self._caret = 0
        self._offers = ipywidgets.HBox()
        self._offers.add_class("roilab-offers")
        self._changing = False
        super().__init__([self._text, self._offers])
        self.add_class("roilab-ask")

    @property
    def text(self) -> str:
        return self._text.value

    @text.setter
    def text(self, value: str):
        self._changing = True
        try:
            self._text.value = value
        finally:
            self._changing = False
        self._caret = len(value)
        self.show()

    def say(self, text: str, error: bool = False):
        """Errors show where they can be mended, in the offers' place."""
        label = ipywidgets.Label(text)
        label.add_class("roilab-error" if error else "roilab-said")
        self._set_offers([label])

    @guarded
    def submit(self):
        """Ask what is written."""
        question = self.text.strip()
        if not question:
            raise ValueError("write a question first")
        self._ask(question)
        self.text = ""

    def submit_or_focus(self):
        """Ask what is written; if there is nothing, go to the field."""
        if self.text.strip():
            self.submit()
        else:
            self._text.focus()

    @guarded
    def show(self):
        """Offer what fits to what was begun."""
        self._set_offers([self._offer(each) for each in self._fitting()])

    @guarded
    def _typed(self, change):
        if self._changing:
            return
        old, new = change["old"], change["new"]
        start = next((i for i, (a, b) in enumerate(zip(old, new)) if a != b), min(len(old), len(new)))
        rest = next((i for i, (a, b) in enumerate(zip(old[start:][::-1], new[start:][::-1])) if a != b), None)
        if rest is None:
            rest = min(len(old) - start, len(new) - start)
        self._caret = len(new) - rest
        typed = new[start : self._caret]
        if typed.endswith("\n") and typed.count("\n") == 1:  # the Enter key
            before = new[: self._caret - 1] + new[self._caret :]
            self.text = before
            self.submit()
        elif "\n" in typed:  # several lines were pasted
            caret = self._caret
            self.text = new.replace("\n", " ")
            self._caret = caret
        else:
            self.show()

    def _fitting(self) -> list:
        begun = _BEGUN.search(self.text[: self._caret])
        if begun is None or not "region".startswith(begun[1]) or (begun[2] and begun[1] not in ("", "region")):
            return []
        ordered = sorted(self.regions, key=lambda each: each.id)
        return [each for each in ordered if str(each.id).startswith(begun[2])]

    def _offer(self, region) -> ipywidgets.Button:
        text = f"{region.name} {region.label}".strip()
        return region_button(region.id, text, f"Write <{region.name}>", lambda: self._take(region.id))

    @guarded
    def _take(self, number: int):
        before, after = self.text[: self._caret], self.text[self._caret :].lstrip("0123456789")
        begun = _BEGUN.search(before)
        start = begun.start() if begun else self._caret
        self.text = f"{before[:start]}<region{number}>{after.removeprefix('>')}"
        self._text.focus()

    def _set_offers(self, widgets: list):
        old = self._offers.children
        if not widgets and not old:
            return
        self._offers.children = widgets
        for each in old:
            close_tree(each)
