"""Small things that every widget uses: buttons, plain text as HTML, the style sheet, errors shown where they happen."""

from __future__ import annotations

import base64
import functools
import html
import io
from importlib import resources

import ipywidgets
from PIL import Image

from roilab.plotting import DPI, region_colour, text_colour


def button(text: str, tooltip: str, on_click, **kwargs) -> ipywidgets.Button:
    """A button as wide as its text."""
    made = ipywidgets.Button(description=text, tooltip=tooltip, **kwargs)
    made.add_class("roilab-button")
    made.on_click(lambda _: on_click())
    return made


def region_button(number: int, text: str, tooltip: str, on_click) -> ipywidgets.Button:
    """A button in the colour of a region."""
    made = button(text, tooltip, on_click)
    made.style.button_color = region_colour(number)
    made.style.text_color = text_colour(region_colour(number))
    return made


def set_class(widget: ipywidgets.DOMWidget, name: str, on: bool):
    """Give a widget a CSS class, or take it away."""
    (widget.add_class if on else widget.remove_class)(name)


def visible(widget: ipywidgets.DOMWidget, on: bool):
    """Show or hide a widget."""
    set_class(widget, "roilab-hidden", not on)


def plain(text: str) -> str:
    """Any text as HTML that shows exactly this text."""
    return html.escape(text, quote=True).replace("\n", "<br>")


def message(text: str, error: bool = False) -> str:
    """A line of text as HTML that screen readers announce."""
    role, name = ("alert", "roilab-error") if error else ("status", "roilab-said")
    return f'<span role="{role}" class="{name}">{plain(text)}</span>'


def style_sheet() -> ipywidgets.HTML:
    """The rules of `style.css` for the page; it shows nothing itself."""
    sheet = (resources.files(__package__) / "style.css").read_text(encoding="utf-8")
    return ipywidgets.HTML(f"<style>{sheet}</style>", layout={"display": "none"})


def in_words(error: BaseException) -> str:
    """An error as one line for people; the kind of error is named where it is not the user's."""
    text = " ".join(str(error).split())
    if isinstance(error, ValueError | RuntimeError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def guarded(method):
    """A method that the browser calls: one thread at a time, and an error is shown in the widget (by `self.say`)."""

    @functools.wraps(method)
    def run(self, *args, **kwargs):
        with self.lock:
            try:
                return method(self, *args, **kwargs)
            except Exception as error:  # noqa: BLE001 - whatever it is, nobody reads the kernel's log
                self.say(in_words(error), error=True)

    return run


def close_tree(widget: ipywidgets.Widget):
    """Close a widget and all that it is made of: ipywidgets itself leaves children, layouts and styles in the kernel and on the page."""
    for child in (*getattr(widget, "children", ()), *getattr(widget, "_canvases", ())):
        close_tree(child)
    for part in (getattr(widget, "layout", None), getattr(widget, "style", None)):
        if isinstance(part, ipywidgets.Widget):
            part.close()
    widget.close()


class StaticTwin:
    """For widgets with a `figure()`: a saved notebook shows it where no kernel runs."""

    def _repr_mimebundle_(self, **kwargs):
        bundle = super()._repr_mimebundle_(**kwargs)
        return bundle | png_bundle(self.figure()) if isinstance(bundle, dict) else bundle


def png_bundle(figure) -> dict[str, str]:
    """A figure for a widget's MIME bundle: what is seen where no kernel runs. Small, because notebooks are kept."""
    drawn, data = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI)
    with Image.open(drawn) as picture:
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(data, "PNG", optimize=True)
    return {"image/png": base64.b64encode(data.getvalue()).decode("ascii")}
