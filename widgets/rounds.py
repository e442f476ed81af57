"""How one round of a conversation looks: question, answer, remarks, and what can be done with it."""

from __future__ import annotations

import ipywidgets

from .conversation import ANSWERING, WAITING, Round, find_names, remarks
from .parts import button, close_tree, plain, region_button, set_class, visible

# Runs in the browser, on text that stands in the button's own data attribute.
_COPY = (
    "const done=()=>{this.textContent='Copied'};"
    "const old=()=>{const area=document.createElement('textarea');area.value=this.dataset.text;document.body.append(area);"
    "area.select();document.execCommand('copy');area.remove();done()};"
    "navigator.clipboard?navigator.clipboard.writeText(this.dataset.text).then(done,old):old()"
)


class RoundView(ipywidgets.VBox):
    """One round on the page.

    Args:
        round_: what to show.
        select: `select(number)` is called when a region's name is pressed.
        again: `again(round_)` is called to answer it anew.
    """

    def __init__(self, round_: Round, select, again):
        self.round, self._select = round_, select
        self._question, self._answer = ipywidgets.Box(), ipywidgets.Box()
        self._question.add_class("roilab-question")
        self._answer.add_class("roilab-answer")
        for each in (self._question, self._answer):
            each.add_class("roilab-text")
        self._stream = ipywidgets.HTML()
        self._remarks = ipywidgets.HTML()
        self._remarks.add_class("roilab-remarks")
        self._copy = ipywidgets.HTML()
        self._again = button(
            "Ask again", "Answer this question anew, with the boxes as they are now", lambda: again(round_)
        )
        self._under = ipywidgets.HBox([self._copy, self._again])
        self._under.add_class("roilab-under")
        self._shown: dict[str, object] = {}
        super().__init__([self._question, self._answer, self._remarks, self._under])
        self.add_class("roilab-round")

    def show(self, boxes: list):
        """Bring the page up to date; only what changed is sent."""
        each, there = self.round, {number for number, box in enumerate(boxes, 1) if box is not None}
        self._set("question", (each.question, there), lambda: self._fill(self._question, each.question, there))
        if each.is_open:
            self._set("answer", each.state, lambda: self._show_stream())
            said = each.said + " ▍" if each.state == ANSWERING else "waiting …"
            self._set("said", said, lambda: setattr(self._stream, "value", plain(said)))
        else:
            text = each.answer.text or "(nothing)" if each.answer else ""
            self._set("answer", (text, there), lambda: self._fill(self._answer, text, there))
            self._set("copied", text, lambda: setattr(self._copy, "value", _copy_button(text)))
        visible(self._answer, each.is_open or each.answer is not None)
        visible(self._under, not each.is_open)
        visible(self._copy, each.answer is not None)
        said = [f"<div>{plain(text)}</div>" for text in remarks(each, boxes)]
        self._set("remarks", said, lambda: setattr(self._remarks, "value", "".join(said)))
        visible(self._remarks, bool(said))
        stale = bool(each.changed(boxes)) and not each.is_open
        set_class(self._again, "roilab-wanted", stale)
        for name, on in (
            ("roilab-stale", stale),
            ("roilab-waiting", each.state == WAITING),
            ("roilab-failed", bool(each.error)),
        ):
            set_class(self, name, on)

    def _set(self, name: str, content, act):
        if self._shown.get(name, self) != content:
            act()
            self._shown[name] = content

    def _show_stream(self):
        self._stream.add_class("roilab-run")
        self._answer.children = [self._stream]

    def _fill(self, box: ipywidgets.Box, text: str, there: set[int]):
        """Text with a button for every region that it names."""
        old, children, end = box.children, [], 0
        for start, its_end, number in find_names(text):
            if text[end:start]:
                children.append(_run(text[end:start]))
            children.append(self._mention(number, there))
            end = its_end
        if text[end:] or not children:
            children.append(_run(text[end:]))
        box.children = children
        for each in old:
            if each is not self._stream:
                close_tree(each)

    def _mention(self, number: int, there: set[int]) -> ipywidgets.Button:
        def show():
            self._select(number)

        if number in there:
            made = region_button(number, f"region{number}", f"Show region {number}", show)
        else:
            made = button(f"region{number}", f"region {number} is not there", show)
            made.add_class("roilab-gone")
        made.add_class("roilab-mention")
        return made


def _run(text: str) -> ipywidgets.HTML:
    made = ipywidgets.HTML(plain(text))
    made.add_class("roilab-run")
    return made


def _copy_button(text: str) -> str:
    return f'<button class="roilab-copy" title="Copy the answer" data-text="{plain_attribute(text)}" onclick="{plain_attribute(_COPY)}">Copy</button>'


def plain_attribute(text: str) -> str:
    """Any text for an HTML attribute; line ends survive."""
    return plain(text.replace("\r", "").replace("\n", "\x00")).replace("\x00", "&#10;")
