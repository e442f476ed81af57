"""`RegionChat`: a picture with its regions, and a dialogue about them."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path

import ipywidgets

from roilab.chat import Answer, Chat
from roilab.pictures import read_picture
from roilab.plotting import show_dialogue
from roilab.plotting.style import SAVED_DPI

from .answering import Answering
from .canvas import FRAME, OnCanvas, RegionCanvas
from .conversation import JSON_FORMAT, Conversation, Round, markdown, marked
from .parts import StaticTwin, button, close_tree, guarded, message, style_sheet, visible
from .question import QuestionBox
from .regions import RegionSet
from .rounds import RoundView

FILE_NAME = "roilab-conversation"


class RegionChat(OnCanvas, StaticTwin, ipywidgets.VBox):
    """Draw regions, ask about them, move them, ask again.

    Answers are made in a thread of their own: the canvas stays alive, and questions asked meanwhile wait for their turn. An answer about a
    region that changed afterwards is marked, left out of later prompts, and can be asked for again. Errors appear in the conversation.

    Args:
        model: a `GPT4RoI` with its `.processor`.
        image, regions, width, height: as for `RegionCanvas`.
        generate_kwargs: for every answer, as for `Chat`.

    Attributes:
        canvas: the `RegionCanvas`.
        chat: the `Chat` behind it, as the newest answer left it.
        conversation: the rounds.
    """

    def __init__(self, model, image, regions=None, width: int = 480, height: int = 480, **generate_kwargs):
        picture = read_picture(image)
        self.chat = Chat(model, picture, **generate_kwargs)
        self.canvas = RegionCanvas(picture, regions, width, height)
        self.region_set, self.lock = self.canvas.region_set, self.canvas.lock
        self.conversation = Conversation()
        self._answering = Answering(self.chat, self.conversation, self.lock, self._show_answering, self.say)
        self._shown_at = 0.0
        self._views: dict[Round, RoundView] = {}
        self._rounds = ipywidgets.VBox()
        self._rounds.add_class("roilab-rounds")
        scroll = ipywidgets.Box([self._rounds], layout={"max_height": f"{height}px"})
        scroll.add_class("roilab-scroll")
        self.question = QuestionBox(self.region_set, self._submit)
        self._said = ipywidgets.HTML()
        self._said.add_class("roilab-status")
        self._links = ipywidgets.HTML()
        self._links.add_class("roilab-status")
        self._stop = button("Stop", "End the answer; its words so far are kept", self.stop, disabled=True)
        self._all_again = button("Ask all again", "Answer anew what is out of date", self._ask_all_again)
        self._all_again.add_class("roilab-wanted")
        buttons = [
            button("Ask", "Enter in the question or on the picture does the same", self.question.submit, button_style="primary"),
            self._stop, self._all_again,
            button("Clear", "Forget the questions and answers; the regions stay", self.clear),
            button("Export", "The conversation as files", self._export),
        ]  # fmt: skip
        bar = ipywidgets.HBox(buttons)
        bar.add_class("roilab-bar")
        side = ipywidgets.VBox([scroll, self.question, bar, self._said, self._links], layout={"order": "1"})
        side.add_class("roilab-side")
        self.canvas.layout.order = "0"
        both = ipywidgets.HBox([side, self.canvas])
        both.add_class("roilab-both")
        super().__init__([style_sheet(), both])
        self.add_class("roilab-chat")
        self.canvas.on_ask(self.question.submit_or_focus)
        self._stop_observing = self.region_set.observe(lambda _: self._show())
        self._show()

    # From code

    @property
    def history(self) -> list[dict]:
        """What was said: dicts of `role` ("user", "assistant" or "note") and `content`."""
        return self.conversation.turns(self.region_set.shapes)

    def ask(self, question: str, wait: bool = True) -> Answer | None:
        """Ask as if it were typed. With `wait`, the answer is returned; otherwise it appears when it is there.

        Raises:
            ValueError: what the conversation shows too: no such region, an empty or too long question.
        """
        if wait:
            self._check_wait()
        with self.lock:
            if not isinstance(question, str) or not question.strip():
                raise ValueError(f"the question is {question!r}, expected words")
            question = question.encode("utf-8", "replace").decode("utf-8").strip()  # lone surrogates cannot be saved
            round_ = self.conversation.add(marked(question, self._numbers()), self.region_set.shapes)
            self._answering.add(round_)
        return self._answering.result(round_) if wait else None

    def ask_again(self, round_: Round | None = None, wait: bool = True) -> Answer | None:
        """Answer a round anew with the regions as they are now, by default the last one."""
        if wait:
            self._check_wait()
        with self.lock:
            if round_ is None:
                if not self.conversation.rounds:
                    raise ValueError("nothing was asked yet (0 rounds)")
                round_ = self.conversation.rounds[-1]
            if not round_.is_open:
                round_.question = marked(round_.question, self._numbers())  # a region may have come since
                self._answering.add(self.conversation.prepare(round_, self.region_set.shapes))
        return self._answering.result(round_) if wait else None

    def stop(self):
        """End the answer that is being made and forget the questions that wait; they stay on the page."""
        self._answering.stop()

    def clear(self):
        """Forget the questions and answers; the regions stay."""
        self.stop()
        with self.lock:
            self.conversation.rounds.clear()
            self.say("")
            self._show()

    def wait(self, timeout: float | None = None):
        """Until everything that was asked is answered; `timeout` in seconds."""
        self._answering.wait(timeout)

    def say(self, text: str, error: bool = False):
        """Show a line under the question."""
        self._said.value = message(text, error)

    # Keeping

    def to_json(self) -> str:
        """Regions and rounds as JSON text, without the picture."""
        with self.lock:
            record = {
                "format": JSON_FORMAT,
                "regions": self.region_set.to_dict(),
                "rounds": self.conversation.to_dict(),
            }
            return json.dumps(record, ensure_ascii=False)

    def to_markdown(self) -> str:
        """Regions and rounds as Markdown."""
        with self.lock:
            return markdown(self.conversation, self.region_set)

    def figure(self):
        """Picture and dialogue as a matplotlib figure: the static twin of the widget."""
        with self.lock:
            return show_dialogue(self.canvas.image, self.region_set.shapes, self.history)

    def save(self, path):
        """Write the conversation as `.json` or `.md`, or the figure (`.png` and what matplotlib knows)."""
        kind, path = Path(path).suffix.lower(), Path(path)
        if kind == ".json":
            path.write_text(self.to_json() + "\n", encoding="utf-8")
        elif kind == ".md":
            path.write_text(self.to_markdown(), encoding="utf-8")
        else:
            self.figure().savefig(path, dpi=SAVED_DPI)

    @classmethod
    def from_json(cls, model, image, text: str, **kwargs) -> RegionChat:
        """A conversation that `to_json` wrote, about the same picture.

        Raises:
            ValueError: not such a text, or another picture.
        """
        try:
            record = json.loads(text)
            found, regions, rounds = record["format"], record["regions"], record["rounds"]
        except (TypeError, ValueError, KeyError, RecursionError) as error:
            raise ValueError(f"not a saved conversation: {type(error).__name__}: {error}") from error
        if found != JSON_FORMAT:
            raise ValueError(f"the conversation has the format {found!r}, expected {JSON_FORMAT!r}")
        conversation = Conversation.from_dict(rounds)
        made = cls(model, image, RegionSet.from_dict(regions), **kwargs)
        made.conversation.rounds = conversation.rounds
        made._show()
        return made

    def close(self):
        """End the widget and its answer."""
        if self.comm is not None:
            self.stop()
            self._stop_observing()
            self.region_set.reserve((), self)
            for child in self.children:
                close_tree(child)
        super().close()

    # Answering, in a thread

    def _submit(self, question: str):
        self.say("")
        self.ask(question, wait=False)

    def _numbers(self) -> set[int]:
        return {each.id for each in self.region_set}

    def _check_wait(self):
        if self.lock._is_owned():  # in a callback: the answer needs the lock that this thread holds
            raise RuntimeError(
                "waiting for an answer inside a callback of the regions would never end: ask with wait=False"
            )

    # Showing

    @guarded
    def _show(self):
        rounds, boxes = self.conversation.rounds, self.region_set.shapes
        self.region_set.reserve(self.conversation.numbers, self)
        if list(self._views) != rounds:
            old, self._views = self._views, {}
            for each in rounds:
                self._views[each] = old.pop(each, None) or RoundView(each, self._select, self._again)
            self._rounds.children = list(self._views.values())
            for gone in old.values():
                close_tree(gone)
        for each in rounds:
            self._views[each].show(boxes)
        self._stop.disabled = not any(each.is_open for each in rounds)
        stale = [each for each in rounds if each.changed(boxes) and not each.is_open]
        visible(self._all_again, len(stale) > 1)
        self.question.show()

    def _show_answering(self, round_: Round | None):
        """New words of a round, not more often than anybody can see; or, without one, whatever has changed."""
        if round_ is None:
            self._show()
        elif round_ in self._views and time.monotonic() - self._shown_at > FRAME:  # it may have been cleared away
            self._views[round_].show(self.region_set.shapes)
            self._shown_at = time.monotonic()

    @guarded
    def _select(self, number: int):
        if number not in self.region_set:
            raise ValueError(f"region {number} is not on the picture any more")
        self.canvas.editor.select(number)

    @guarded
    def _again(self, round_: Round):
        self.ask_again(round_, wait=False)

    @guarded
    def _ask_all_again(self):
        for each in self.conversation.rounds:
            if each.changed(self.region_set.shapes):
                self.ask_again(each, wait=False)

    @guarded
    def _export(self):
        kinds = (
            ("JSON", "json", "application/json", self.to_json()),
            ("Markdown", "md", "text/markdown", self.to_markdown()),
        )
        links = []
        for name, ending, kind, text in kinds:
            data = base64.b64encode(text.encode()).decode("ascii")
            links.append(f'<a download="{FILE_NAME}.{ending}" href="data:{kind};base64,{data}">{name}</a>')
        self._links.value = "Save as " + " or ".join(links) + ", as it is now."
