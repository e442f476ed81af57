"""`AttentionExplorer` and `AttributionExplorer`: where an answer looks, and what contributes to it, picked by clicks."""

from __future__ import annotations

import ipywidgets

from roilab import interpret
from roilab.interpret.attending import decoder_layers
from roilab.interpret.attribution import GRADIENTS, PATHS
from roilab.interpret.perturbation import METHODS as COVERING
from roilab.plotting.scores import OPACITY, map_over_picture, score_colours
from roilab.plotting.style import region_colour, text_colour

from .explorer import Explorer, bars
from .parts import plain

ALL = -1
STEPS, SAMPLES = 64, 5


class ScoreExplorer(Explorer):
    """An explorer whose result are `interpret.Scores`: a map over the picture, a bar per part, the words with their scores."""

    @property
    def scores(self):
        """The scores that are shown, or None; waits for nothing."""
        return self.result

    def show(self) -> str:
        self._blend()
        return "".join([self.remark(), self._parts(), self._words(), self._scale()])

    def _scale(self) -> str:
        values = self.result.map
        limit, what = values.abs().max().item(), "patch" if self.result.pixels is None else "pixel"
        ends = f"blue -{limit:.2g}, white 0, red {limit:.2g}" if (values < 0).any() else f"dark 0, light {limit:.2g}"
        return f'<p class="roilab-remark">Scores of a {what} in the map: {ends}.</p>'

    def remark(self) -> str:
        """HTML of what the method found out about itself."""
        return ""

    def _opacity_field(self) -> ipywidgets.FloatSlider:
        slider = ipywidgets.FloatSlider(
            OPACITY, min=0, max=1, step=0.05, description="Map", readout=False, layout={"width": "200px"},
            tooltip="How much of the map, how much of the picture",
        )  # fmt: skip
        slider.observe(lambda _: self._blend(), "value")
        return slider

    def _blend(self):
        with self.lock:
            if self.result is not None:
                self.canvas.show_picture(map_over_picture(self.result, self._opacity.value))

    def _parts(self) -> str:
        target, scores = self.target, self.result
        colours = {f"{before}region{n}": region_colour(n) for n in target.regions for before in ("", "inside ")}
        if scores.positions is not None:
            return bars(scores.parts, colours, "sum of the scores of a part")
        shares = {
            f"inside region{number}": 100 * interpret.energy_in_region(scores, shape)
            for number, shape in zip(target.regions, target.shapes, strict=True)
        }
        return bars(shares, colours, "% of the positive scores") if shares else ""

    def _words(self) -> str:
        target, scores = self.target, self.result
        if scores.positions is None:
            return ""
        places = target.positions("question", "regions", "answer").tolist()
        values, words = scores.positions[places].tolist(), []
        for place, value, colour in zip(places, values, score_colours(values), strict=True):
            part = target.parts[place]
            text = f"<{part}>" if part.startswith("region") else target.tokens[place].strip() or "␣"
            chosen = " roilab-token-chosen" if place in target.chosen else ""
            words.append(
                f'<span class="roilab-token{chosen}" style="background:{colour};color:{text_colour(colour)}">{plain(text)}'
                f"<small>{value:.2g}</small></span>"
            )
        return f'<div class="roilab-tokens" aria-label="words and their scores">{"".join(words)}</div>'


class AttentionExplorer(ScoreExplorer):
    """Where an answer looks: attention by layer and head, rollout or relevance, over the picture, per part and per word.

    Click a token of the answer to explain it alone. Attention is not a cause: `WhatIf` and the region tests ask what an answer needs.
    Arguments: those of `Explorer`.
    """

    def __init__(self, model, image, regions=None, question=None, *args, **kwargs):
        config = model.language_model.config
        small = {"width": "150px"}
        self._method = ipywidgets.Dropdown(options=["attention", "rollout", "relevance"], description="Method")
        layers, heads = len(decoder_layers(model)), config.num_attention_heads
        self._layer = ipywidgets.Dropdown(options=[("all", ALL), *((str(i), i) for i in range(layers))], description="Layer", layout=small)  # fmt: skip
        self._head = ipywidgets.Dropdown(options=[("all", ALL), *((str(i), i) for i in range(heads))], description="Head", layout=small)  # fmt: skip
        self._sinks = ipywidgets.Checkbox(
            True, description="with sinks", indent=False, tooltip="Off: the attention of sinks is shared out among the others",
            layout={"width": "110px"},
        )  # fmt: skip
        self._generic = ipywidgets.Text(
            placeholder="a question without regions", description="minus", continuous_update=False,
            tooltip="The attention that the answer to this question pays to the image is taken off, e.g. What is in the picture?",
        )  # fmt: skip
        self._opacity = self._opacity_field()
        super().__init__(model, image, regions, question, *args, **kwargs)

    @property
    def controls(self) -> dict:
        return {"method": self._method, "layer": self._layer, "head": self._head, "sinks": self._sinks, "generic": self._generic}  # fmt: skip

    def settings(self) -> list:
        return [*self.controls.values(), self._opacity]

    def compute(self, target, method, layer, head, sinks, generic):
        if method != "attention":
            return getattr(interpret, method)(self.model, target)
        layers, heads = (None if each == ALL else [each] for each in (layer, head))
        return interpret.attention_map(self.model, target, layers, heads, sinks, generic.strip() or None)

    def enable(self):
        for each in (self._layer, self._head, self._sinks, self._generic):
            each.disabled = self._method.value != "attention"

    def remark(self) -> str:
        found = self.result.settings.get("sink_positions")
        if found is None:
            return ""
        told = ", ".join(f"{i} ({self.target.parts[i]} “{self.target.tokens[i].strip()}”)" for i in found)
        return f'<p class="roilab-remark">Without the sinks at position {plain(told)}.</p>'


class AttributionExplorer(ScoreExplorer):
    """What contributes to an answer: gradients to tokens or to pixels on either path, and parts of the picture covered, by captum.

    Click a token of the answer to explain it alone. Slow methods show how far they are and can be cancelled. Arguments: those of `Explorer`.
    """

    METHODS = [
        *((f"{name.replace('_', ' ')}, tokens", ("tokens", name)) for name in reversed(GRADIENTS)),
        *((f"{name.replace('_', ' ')}, pixels", ("pixels", name)) for name in reversed(GRADIENTS)),
        *((f"{name.replace('_', ' ')}, pixels", ("cover", name)) for name in COVERING),
    ]

    def __init__(self, model, image, regions=None, question=None, *args, **kwargs):
        self._method = ipywidgets.Dropdown(options=self.METHODS, description="Method", layout={"width": "320px"})
        small = {"width": "180px"}
        self._path = ipywidgets.Dropdown(options=PATHS, description="Path", layout=small)
        self._baseline = ipywidgets.Dropdown(options=["mean", "blur", "black", "zero"], description="Baseline", layout=small)  # fmt: skip
        self._steps = ipywidgets.BoundedIntText(STEPS, min=50, max=1024, description="Steps", layout=small)
        self._samples = ipywidgets.BoundedIntText(SAMPLES, min=1, max=200, description="Orders", layout=small)
        self._opacity = self._opacity_field()
        super().__init__(model, image, regions, question, *args, **kwargs)

    @property
    def controls(self) -> dict:
        return {"method": self._method, "path": self._path, "baseline": self._baseline, "steps": self._steps, "samples": self._samples}  # fmt: skip

    def settings(self) -> list:
        return [*self.controls.values(), self._opacity]

    def compute(self, target, method, path, baseline, steps, samples):
        kind, name = method
        if kind == "tokens":
            return interpret.to_tokens(self.model, target, name, baseline, steps)
        if kind == "pixels":
            return interpret.to_pixels(self.model, target, name, path, baseline, steps)
        return interpret.cover(self.model, target, name, fill=baseline, path=path, samples=samples)

    def expected(self, method, path, baseline, steps, samples) -> int:
        (kind, name), (rows, columns) = method, self.model.vision.grid
        if kind != "cover":
            return steps + 2 if name == "integrated_gradients" else 1
        return {"occlusion": (rows - 1) * (columns - 1), "shapley": samples * rows * columns}.get(name, rows * columns)

    def enable(self):
        kind, name = self._method.value
        self._path.disabled = kind == "tokens"
        self._baseline.disabled = kind != "cover" and name != "integrated_gradients"
        self._steps.disabled = name != "integrated_gradients"
        self._samples.disabled = name != "shapley"

    def remark(self) -> str:
        found = self.result.settings
        if "gap_share" not in found:
            return ""
        text = (
            f"The scores add up to {found['difference'] + found['gap']:.3f} of the {found['difference']:.3f} between answer and baseline: "
            f"a gap of {100 * found['gap_share']:.1f} %."
        )
        if not found["complete"]:
            text += " Too large to believe the map: take more steps."
        return f'<p class="roilab-remark{"" if found["complete"] else " roilab-error"}">{plain(text)}</p>'
