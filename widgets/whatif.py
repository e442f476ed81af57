"""`WhatIf`: drag a region, and the next word and the answer follow."""

from __future__ import annotations

import time

import ipywidgets

from roilab.chat import Chat
from roilab.interpret import Live
from roilab.plotting.style import region_colour

from .explorer import Explorer, bars
from .parts import plain
from .working import one_thread


class WhatIf(Explorer):
    """What would the model say if this region were elsewhere? It follows while a region is dragged, resized or moved by keys.

    The picture is read once, each update reads what stands behind the first region. While the model is slower than the mouse, places in
    between are left out: the last one is always answered. Click a token of the first answer to see what else could have stood in its place.
    Arguments: those of `Explorer`.

    Attributes:
        result: the newest `interpret.Prospect`.
        seconds: what it took.
    """

    ALL_TOKENS = "the word that the boxes decide"

    def __init__(self, model, image, *args, **kwargs):
        self.seconds = float("nan")
        self._live: tuple | None = None
        self._shown = None
        self._time = ipywidgets.Label(tooltip="What the newest update took")
        super().__init__(model, image, *args, **kwargs)
        self.canvas.on_drag(self._dragged)

    def settings(self) -> list:
        return [self._time]

    @property
    def updates(self) -> int:
        """How often the model has answered."""
        return self._work.count

    def show(self) -> str:
        found, target = self.result, self.target
        words = {}
        for word, chance in zip(found.words, found.probabilities, strict=True):
            words.setdefault(word, chance)  # different tokens may read the same
        first = target.tokens[target.chosen[0]].strip()
        colours = {first: region_colour(target.regions[0]) if target.regions else ""}
        before = f"after “{found.before.strip()}”" if found.before.strip() else "of the answer"
        self._time.value = f"answered in {1000 * self.seconds:.0f} ms"
        return f'<p class="roilab-says" aria-live="polite">{plain(found.answer)}</p>' + bars(
            words, colours, f"probability of the next word {before}; coloured: “{first}”, of the first answer", ".3f"
        )

    def _dragged(self):
        if self.canvas.shapes != self._shown:
            self._changed()

    def _submit(self, settings: dict):
        shapes, token = self.canvas.shapes, self._tokens.value
        question, answer, _ = self._asked()
        self._shown = shapes
        key = (question, answer, None if token < 0 else token)

        def job():
            if self._live is None or self._live[0] != key:
                chat = Chat(self.model, self.canvas.image)
                chat.revise(shapes, self.earlier)
                self._live = key, Live(chat, question, answer or None, key[2])
            start = time.perf_counter()
            with one_thread(self.model):
                found = self._live[1](shapes)
            self.seconds = time.perf_counter() - start
            return None, self._live[1].target, found

        self._work.submit(job, self._done, end_running=False)
