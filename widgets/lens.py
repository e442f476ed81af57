"""`RegionLens`: layer by layer, what a region token would say."""

from __future__ import annotations

import ipywidgets

from roilab import interpret
from roilab.plotting.style import region_colour, text_colour

from .explorer import Explorer
from .parts import guarded, plain, visible

TOP = 4


class RegionLens(Explorer):
    """The logit lens on a region token: the words that each layer's state would be decoded to, beside those of a shuffled picture.

    Select a region on the picture to read its token. What also comes out of the picture with shuffled patches does not come from what the
    region shows. Arguments: those of `Explorer`.

    Attributes:
        result: the `interpret.Lens` of all regions of the question.
    """

    def __init__(self, model, image, *args, **kwargs):
        self._words = ipywidgets.Text(
            placeholder="words to follow, with commas", description="Words", continuous_update=False,
            tooltip="The probability of these words is shown for every layer", layout={"width": "auto"},
        )  # fmt: skip
        self._region = ipywidgets.Dropdown(options=[("region1", 0)], description="Region", layout={"width": "190px"})
        super().__init__(model, image, *args, **kwargs)
        visible(self._tokens, False)
        self._region.observe(lambda _: self._turn(), "value")
        self._stop_selecting = self.region_set.observe(lambda _: self._selected())

    @property
    def controls(self) -> dict:
        return {"words": self._words}

    def settings(self) -> list:
        return [self._region, self._words]

    def compute(self, target, words):
        wanted = [each.strip() for each in words.split(",") if each.strip()]
        return interpret.logit_lens(self.model, target, words=wanted, top=TOP)

    def draw(self):
        return self.result.plot(self._region.value or 0)

    def show(self) -> str:
        numbers = self.target.regions
        options = tuple((f"region{number}", place) for place, number in enumerate(numbers))
        if options != tuple(self._region.options):
            self._region.options = options
        place = self._region.value or 0
        colour = region_colour(numbers[place])
        heads = [
            f'<th colspan="{TOP}" style="background:{colour};color:{text_colour(colour)}">region{numbers[place]}</th>'
        ]
        heads += [f"<th>{plain(word)}</th>" for word in self.result.words]
        heads.append(f'<th colspan="{TOP}">picture shuffled</th>')
        rows = []
        for depth in range(len(self.result.tokens)):
            name = "embedding" if depth == 0 else f"layer {depth}"
            cells = [_words(self.result, depth, place)]
            cells += [_number(found[depth, place].item()) for found in self.result.words.values()]
            cells.append(_words(self.result.control, depth, place))
            rows.append(f'<tr><th scope="row">{name}</th>{"".join(cells)}</tr>')
        return f'<table class="roilab-lens"><tr><th></th>{"".join(heads)}</tr>{"".join(rows)}</table>'

    def close(self):
        """End the widget and its computation; a shared `RegionSet` goes on."""
        if self.comm is not None:
            self._stop_selecting()
        super().close()

    @guarded
    def _turn(self):
        if self.result is not None and not self._showing:
            self._found.value = self.show()

    def _selected(self):
        if self.target is not None and self.region_set.selected in self.target.regions:
            self._region.value = self.target.regions.index(self.region_set.selected)


def _words(lens, depth: int, place: int) -> str:
    found = zip(lens.tokens[depth][place], lens.probabilities[depth, place].tolist(), strict=True)
    return "".join(
        f'<td style="--roilab-chance:{100 * chance:.0f}%">{plain(token.strip() or "␣")}<small>{chance:.2f}</small></td>'
        for token, chance in found
    )


def _number(chance: float) -> str:
    return f'<td class="roilab-number">{chance:.3f}</td>'
