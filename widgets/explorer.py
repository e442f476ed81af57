"""What explorers have in common: a picture with regions, a question, an answer whose tokens are chosen by a click, and work in a thread."""

from __future__ import annotations

import dataclasses
import time
from collections import OrderedDict
from pathlib import Path

import ipywidgets

from roilab.chat import Chat
from roilab.interpret import Target
from roilab.plotting.style import SAVED_DPI

from .canvas import OnCanvas, RegionCanvas
from .conversation import marked
from .parts import StaticTwin, button, close_tree, guarded, message, plain, set_class, style_sheet, visible
from .working import Newest

KEPT = 64  # results that are remembered
PATIENCE = 30.0  # seconds that a figure waits for a result
SHOWN_EVERY = 0.1  # seconds between two updates of the progress bar
WHOLE = -1


class Explorer(OnCanvas, StaticTwin, ipywidgets.VBox):
    """Looks into an answer about regions of a picture; made by its subclasses.

    Whatever changes (a region, the question, the answer's token, a setting), the newest state is computed in a thread, older work is ended,
    and results are remembered. Errors appear in the widget.

    Args:
        model: a `GPT4RoI` with its `.processor`.
        image, regions, width, height: as for `RegionCanvas`.
        question: mentions regions as `<region1>`, `<region2>`, ...
        answer: the forced answer; by default what the model says.
        earlier: the answers of a `Chat` that the question follows.
    Attributes:
        canvas: the `RegionCanvas`. question, answer: fields, `.value` is their text.
        target: what is explained now, or None.
        result: what was found about it, as `roilab.interpret` gives it, or None.
    """

    QUESTION, ALL_TOKENS = "What colour is <region1>?", "whole answer"

    def __init__(self, model, image, regions=None, question=None, answer="", earlier=(), width: int = 400, height: int = 400):  # fmt: skip
        self.model, self.earlier = model, list(earlier)
        self.canvas = RegionCanvas(image, regions, width, height)
        self.region_set, self.lock = self.canvas.region_set, self.canvas.lock
        self.target = self.result = None
        self._targets, self._results = OrderedDict(), OrderedDict()
        self._showing, self._told, self._expected = False, 0.0, 1
        self._work = Newest(self.lock, self._progress, self._failed, self._idle)
        wide = {"width": "auto"}
        self.question = ipywidgets.Text(
            self.QUESTION if question is None else question, description="Question", continuous_update=False, layout=wide,
            tooltip="Mentions regions as <region1>, <region2>",
        )  # fmt: skip
        self.answer = ipywidgets.Text(
            answer, description="Answer", placeholder="what the model says", continuous_update=False, layout=wide,
            tooltip="An answer that is forced upon the model; empty: what it says itself",
        )  # fmt: skip
        self._tokens = ipywidgets.ToggleButtons(
            options=[(self.ALL_TOKENS, WHOLE)], value=WHOLE, style={"button_width": "auto"}, tooltip="What is explained"
        )
        self._tokens.add_class("roilab-answer-tokens")
        self._bar = ipywidgets.FloatProgress(min=0, max=1, layout={"width": "160px"})
        self._count = ipywidgets.Label()
        self._cancel = button("Cancel", "End the computation", self.cancel)
        self._busy = ipywidgets.HBox([self._bar, self._count, self._cancel])
        self._said, self._found = ipywidgets.HTML(), ipywidgets.HTML()
        self._found.add_class("roilab-found")
        for each in (self._busy, self._said):
            each.add_class("roilab-status")
        visible(self._busy, False)
        settings = ipywidgets.HBox(self.settings())
        settings.add_class("roilab-bar")
        side = ipywidgets.VBox(
            [self.question, self.answer, self._tokens, settings, self._busy, self._said, self._found],
            layout={"order": "1"},
        )
        side.add_class("roilab-side")
        self.canvas.layout.order = "0"
        both = ipywidgets.HBox([side, self.canvas])
        both.add_class("roilab-both")
        super().__init__([style_sheet(), both])
        self.add_class("roilab")
        self.add_class("roilab-explorer")
        for field in (self.question, self.answer, self._tokens, *self.controls.values()):
            field.observe(self._changed, "value")
        self._regions = None
        self._stop_observing = self.region_set.observe(lambda _: self._regions_changed())
        self._regions_changed()

    # What subclasses say

    @property
    def controls(self) -> dict:
        """name -> field whose value is a setting of `compute`."""
        return {}

    def settings(self) -> list:
        """The widgets that hold `controls`, as they are shown."""
        return list(self.controls.values())

    def enable(self):
        """Turn off the settings that mean nothing beside the others."""

    def compute(self, target: Target, **settings):
        """What is found about a target; in the thread."""
        raise NotImplementedError

    def expected(self, **settings) -> int:
        """About how many sequences `compute` reads."""
        return 1

    def show(self):
        """Bring the page up to date with `target` and `result`; returns the HTML of what was found."""
        raise NotImplementedError

    def draw(self):
        """A figure of `result`."""
        return self.result.plot()

    # From code

    @classmethod
    def of(cls, chat, **kwargs) -> Explorer:
        """Looks into the last answer of a `RegionChat`: its question, the rounds before it, and its regions, which both then share.

        Raises:
            ValueError: nothing was answered yet.
        """
        answered = [each for each in chat.conversation.rounds if each.answer]
        if not answered:
            raise ValueError("nothing to explore: 0 questions were answered")
        last = answered[-1]
        forced = last.answer.text if chat.chat.generate_kwargs.get("do_sample") else ""
        earlier = chat.conversation.answers_before(last)
        return cls(chat.chat.model, chat.canvas.image, chat.region_set, last.question, forced, earlier, **kwargs)

    def choose(self, token: int | None):
        """Explain one token of the answer, counted from 0, or the whole answer; as a click on it does."""
        self._tokens.value = WHOLE if token is None else token

    def wait(self, timeout: float | None = None) -> bool:
        """Until the newest state is computed; False if that takes longer than `timeout` seconds."""
        return self._work.wait(timeout)

    def cancel(self):
        """End the computation; what was found before stays, marked as out of date."""
        self._work.cancel()
        self.say("Cancelled.")

    def say(self, text: str, error: bool = False):
        """Show a line above what was found."""
        self._said.value = message(text, error)

    def figure(self):
        """What was found, as a matplotlib figure: the static twin of the widget. Waits for what is being computed, up to half a minute."""
        self.wait(PATIENCE)
        with self.lock:
            return self.canvas.figure() if self.result is None else self.draw()

    def save(self, path):
        """Write the result as numbers (`.json`) or the figure (`.png` and what matplotlib knows)."""
        if Path(path).suffix.lower() != ".json":
            self.figure().savefig(path, dpi=SAVED_DPI)
        elif self.result is None:
            raise ValueError(f"nothing was found yet that {path} could hold")
        else:
            self.result.save(path)

    def close(self):
        """End the widget and its computation; a shared `RegionSet` goes on."""
        if self.comm is not None:
            self._work.cancel()
            self._stop_observing()
            for child in self.children:
                close_tree(child)
        super().close()

    # Computing

    def _regions_changed(self):
        if self.region_set.regions != self._regions:  # and not only the selection
            self._regions = self.region_set.regions
            self._changed()

    @guarded
    def _changed(self, change=None):
        if not self._showing:
            self.enable()
            self._submit({name: field.value for name, field in self.controls.items()})

    def _submit(self, settings: dict):
        """Show what is known of the present state, or have it computed."""
        asked, token, shapes = self._asked(), self._tokens.value, self.region_set.shapes
        key = (asked, token, tuple(settings.items()))
        if key in self._results:
            self._work.cancel()
            self._done((key, *self._results[key]))
            return
        set_class(self._found, "roilab-outdated", self.result is not None)
        self._expected = max(1, self.expected(**settings))

        def job():
            target = self._target(asked, shapes)
            chosen = target.positions("answer").tolist()
            if 0 <= token < len(chosen):
                target = dataclasses.replace(target, chosen=[chosen[token]])
            return key, target, self.compute(target, **settings)

        self._work.submit(job, self._done)

    def _asked(self) -> tuple:
        numbers = {each.id for each in self.region_set}
        question = marked(self.question.value.strip(), numbers)
        return question, self.answer.value.strip(), repr(self.region_set.shapes)

    def _target(self, asked: tuple, shapes: list) -> Target:
        if asked not in self._targets:
            chat = Chat(self.model, self.canvas.image)
            chat.revise(shapes, self.earlier)
            question, answer, _ = asked
            self._keep(self._targets, asked, Target.of(chat, question, answer=answer or None))
        return self._targets[asked]

    def _done(self, found: tuple):
        key, self.target, self.result = found
        if key is not None:
            self._keep(self._results, key, (self.target, self.result))
        self._showing = True
        try:
            answer = self.target.positions("answer").tolist()
            pieces = [self.target.tokens[i].strip() or "␣" for i in answer]
            options = ((self.ALL_TOKENS, WHOLE), *((piece, i) for i, piece in enumerate(pieces)))
            if options != tuple(self._tokens.options):
                kept = self._tokens.value
                self._tokens.options = options
                self._tokens.value = kept if kept < len(pieces) else WHOLE
            if not self.answer.value:
                self.answer.placeholder = f"the model says: {self.target.answer}"
            self.say("")
            self._found.value = self.show()
            set_class(self._found, "roilab-outdated", False)
        finally:
            self._showing = False

    def _failed(self, text: str):
        with self.lock:
            self.say(text, error=True)

    def _progress(self, count: int):
        if time.monotonic() - self._told > SHOWN_EVERY:
            self._told = time.monotonic()
            self._bar.value = min(1.0, count / self._expected)
            self._count.value = f"{count} of about {self._expected} sequences" if self._expected > 1 else f"{count} sequences"  # fmt: skip
            visible(self._busy, True)

    def _idle(self):
        self._bar.value = 0
        visible(self._busy, False)

    @staticmethod
    def _keep(kept: OrderedDict, key, value):
        kept[key] = value
        kept.move_to_end(key)
        while len(kept) > KEPT:
            kept.popitem(last=False)


def bars(values: dict[str, float], colours: dict[str, str], unit: str, form: str = ".3g") -> str:
    """A table of names, bars and numbers (written in this `form`) as HTML; bars start at zero, to the left where a value is negative."""
    low, high = min(0.0, *values.values()), max(0.0, *values.values())
    span, rows = (high - low) or 1.0, []
    for name, value in values.items():
        left, width = 100 * (min(0.0, value) - low) / span, 100 * abs(value) / span
        colour = colours.get(name, "var(--roilab-line)")
        rows.append(
            f'<tr><th scope="row">{plain(name)}</th><td class="roilab-track"><div style="margin-left:{left:.2f}%;'
            f'width:{width:.2f}%;background:{colour}"></div></td><td class="roilab-number">{value:{form}}</td></tr>'
        )
    return f'<table class="roilab-bars"><caption>{plain(unit)}</caption>{"".join(rows)}</table>'
