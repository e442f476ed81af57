"""The widgets as people use them: JupyterLab in a headless Chromium, with mouse, fingers and keys.

What a test does to the page arrives in the kernel some time later, in order. So a test first waits for what the page then shows, or polls the
kernel; that something did *not* happen is asserted after a later event has shown its effect.
"""

import contextlib
import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from conftest import made_photo_folder
from playwright.sync_api import expect

from roilab.bench.lab import IDLE, chromium, jupyterlab, kernel, open_notebook, run_all, theme, wait_for
from roilab.demo import DESK

pytestmark = pytest.mark.browser
expect.set_options(timeout=20_000)

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
GREEN = re.compile(r"\bgreen\b")  # the model may answer in any of its wordings
WINDOW = {"width": 1400, "height": 1200}
PRELUDE = """\
import threading, time
import numpy
from PIL import Image
from transformers import LogitsProcessor, LogitsProcessorList
import roilab
from roilab.chat import Answer
from roilab.plotting import region_colour
from roilab.scenes.language import seed_of
from roilab import interpret
from roilab.widgets import AttentionExplorer, AttributionExplorer, RegionCanvas, RegionChat, RegionLens, WhatIf

model = roilab.load("tiny")
scene = roilab.scenes.sample(seed_of("test", 3))
person, kite, ball = (scene.object(number).box for number in (0, 1, 4))

def picture(width, height):
    across, down = numpy.linspace(0, 255, width), numpy.linspace(0, 255, height)[:, None]
    return Image.fromarray(numpy.stack([across + 0 * down, 0 * across + down, 0 * across + 0 * down + 90], 2).astype("uint8"))
"""
PICTURES = {
    "larger than the canvas, pixel for pixel": ("picture(900, 700)", 1.0),
    "a scene, fitted": ("scene.image", None),
    "4000 x 3000, fitted": ("picture(4000, 3000)", None),
    "4000 x 3000, enlarged": ("picture(4000, 3000)", 2.5),
}
HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script> **bold** [x](javascript:window.hacked=1) & &lt;b&gt;'


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    for path in NOTEBOOKS.glob("*.ipynb"):
        shutil.copy(path, folder)
    for name in ("stage", "second"):
        cells = [nbformat.v4.new_code_cell(PRELUDE), nbformat.v4.new_markdown_cell("After it.")]
        kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(
            nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernelspec}), folder / f"{name}.ipynb"
        )
    with jupyterlab(folder) as lab:
        yield lab


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


class Stage:
    """An open notebook whose first cell shows the widget under test: `canvas` or, in `chat`, a RegionChat."""

    def __init__(self, page, lab, name: str):
        self.page, self.name = page, name
        open_notebook(page, lab, name)
        run_all(page)
        self.panel = page.locator(".jp-NotebookPanel:visible")  # there are others after a reload
        self.canvas = self.find("canvas.roilab-canvas:visible").first
        self.status = self.find(".roilab > .roilab-status").first
        self.zoom = self.find(".roilab-zoom")
        self.question = self.find(".roilab-ask textarea")
        self.offers = self.find(".roilab-offers button")
        self.rounds = self.find(".roilab-round")
        self.answers = self.find(".roilab-answer:visible")
        self.rows = self.find(".roilab-row")
        self.table = self.panel.get_by_text("Boxes as numbers", exact=True)

    def find(self, selector: str):
        return self.panel.locator(selector)

    def show(self, source: str):
        """Run this in the place of what the cell showed before, and wait until its canvas is painted."""
        self.page.evaluate(SET_SOURCE, source)
        run_all(self.page)
        self.ready()

    def ready(self):
        self.canvas.wait_for()
        self.canvas.scroll_into_view_if_needed()
        self.page.wait_for_function(PAINTED)

    def kernel(self, code: str):
        return kernel(self.page, code)

    def becomes(self, code: str, expected, seconds: float = 20):
        """The kernel's value of `code` becomes this."""
        end = time.monotonic() + seconds
        while (found := self.kernel(code)) != expected and time.monotonic() < end:
            self.page.wait_for_timeout(50)
        assert found == expected

    def boxes(self) -> dict[int, list[float]]:
        """The kernel's boxes by number; ask after the page has shown what is waited for."""
        code = "with canvas.lock:\n    kept = [[each.id, *map(float, each.box)] for each in canvas.regions]\nkept"
        return {number: box for number, *box in self.kernel(code)}

    # The mouse, in CSS pixels of the canvas

    def on_page(self, x: float, y: float) -> tuple[int, int]:
        """The page's pixel at a point of the canvas: a hand moves the mouse by whole ones."""
        rect = self.canvas.bounding_box()
        return round(rect["x"] + x), round(rect["y"] + y)

    def in_picture(self, *points) -> list[tuple[float, float]]:
        """Where these pixels of the page are in the picture, unrounded."""
        rect = self.canvas.bounding_box()
        left, top, scale, width, height = self.kernel(
            "[float(value) for v in [canvas.editor.view] for value in (v.left, v.top, v.scale, v.width, v.height)]"
        )
        return [
            (left + (x - rect["x"]) * width / rect["width"] / scale,
             top + (y - rect["y"]) * height / rect["height"] / scale)
            for x, y in points
        ]  # fmt: skip

    def to_canvas(self, x: float, y: float) -> tuple[float, float]:
        """Where a point of the picture is on the canvas."""
        return tuple(self.kernel(f"[float(value) for value in canvas.editor.view.to_canvas({x}, {y})]"))

    def drag(self, start, end, steps: int = 5, release: bool = True):
        """Press, move, release; returns the two pixels of the page."""
        mouse, start, end = self.page.mouse, self.on_page(*start), self.on_page(*end)
        mouse.move(*start)
        mouse.down()
        mouse.move(*end, steps=steps)
        if release:
            mouse.up()
        return start, end

    def drag_in_picture(self, start, end):
        return self.drag(self.to_canvas(*start), self.to_canvas(*end))

    def draw(self, number: int, start, end) -> list[float]:
        """Draw a new box with the mouse, check that it becomes this region, right to half a pixel of the picture."""
        (x1, y1), (x2, y2) = self.in_picture(*self.drag(start, end))
        self.says(f"region{number}")
        box = self.boxes()[number]
        assert box == pytest.approx([min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)], abs=0.5 + 1e-6)
        return box

    def says(self, start: str):
        """The line under the picture begins like this."""
        expect(self.status).to_have_text(re.compile(rf"^\s*{re.escape(start)}(?!\d)"))

    def says_box(self, number: int, box):
        x1, y1, x2, y2 = box
        self.says(f"region{number}: {x1:g}, {y1:g} to {x2:g}, {y2:g} ({x2 - x1:g} × {y2 - y1:g} pixels)")

    # What is painted

    def has_edge(self, number: int, box, there: bool = True):
        """Wait until the left edge of a box is painted in the region's colour, or is not."""
        x1, y1, x2, y2 = box
        x, y = self.to_canvas(x1, y1 + (y2 - y1) * 0.72)  # handles are at the corners and halfway
        colour = self.kernel(f"region_colour({number})")
        self.page.wait_for_function(COLOUR_AT, arg=[x, y, colour, there])

    # Keys and buttons

    def press(self, *keys: str):
        for key in keys:
            self.page.keyboard.press(key)

    def button(self, text: str):
        return self.find(".roilab-button:visible").get_by_text(text, exact=True).first

    def open_table(self):
        self.table.click()
        self.button("Add box").wait_for()

    def set_number(self, row: int, side: int, value: float):
        field = self.rows.nth(row).locator("input").nth(side)
        field.fill(f"{value:g}")
        field.press("Enter")

    def sides(self, row: int) -> list[float]:
        return [float(self.rows.nth(row).locator("input").nth(side).input_value()) for side in range(4)]

    def ask(self, question: str):
        self.question.click()
        self.page.keyboard.type(question)
        expect(self.question).to_have_value(question)
        self.page.keyboard.press("Enter")
        expect(self.question).to_have_value("")


SET_SOURCE = """source => {
  window.jupyterapp.shell.currentWidget.content.model.cells.get(0).sharedModel.setSource(source);
}"""

PAINTED = """() => {
  const canvas = [...document.querySelectorAll("canvas.roilab-canvas")].find(each => each.offsetParent !== null);
  if (!canvas) return false;
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  const colours = new Set();
  for (let i = 0; i < data.length; i += 4004) if (data[i + 3] === 255) colours.add(data[i] << 16 | data[i + 1] << 8 | data[i + 2]);
  return colours.size > 3;
}"""

COLOUR_AT = """([x, y, colour, there]) => {
  const canvas = [...document.querySelectorAll("canvas.roilab-canvas")].find(each => each.offsetParent !== null);
  const sharp = canvas.width / parseFloat(canvas.style.width);
  const [r, g, b] = canvas.getContext("2d").getImageData(Math.floor(x * sharp), Math.floor(y * sharp), 1, 1).data;
  const wanted = [1, 3, 5].map(i => parseInt(colour.slice(i, i + 2), 16));
  return Math.max(...[r, g, b].map((value, i) => Math.abs(value - wanted[i]))) <= 6 === there;
}"""


@pytest.fixture(scope="module")
def _stage(lab, browser):
    page = browser.new_page(viewport=WINDOW)
    yield Stage(page, lab, "stage.ipynb")
    page.close()


@pytest.fixture
def stage(_stage):
    """The notebook that most tests show their widget in: one page and one kernel, so that modules are imported once."""
    yield _stage
    _stage.page.mouse.up()
    _stage.page.keyboard.press("Escape")


@pytest.fixture(scope="module")
def second(lab, browser):
    """Another notebook, on a screen that can be touched. Its kernel keeps few widgets: a page that is loaded anew asks for all of them."""
    context = browser.new_context(has_touch=True, viewport=WINDOW)
    yield Stage(context.new_page(), lab, "second.ipynb")
    context.close()


@pytest.fixture
def canvas_900(stage):
    stage.show("canvas = RegionCanvas(picture(900, 700))\ncanvas.zoom_to(1.0)\ncanvas")
    return stage


# The explorers


def explore(stage, kind: str, question: str, more: str = ""):
    stage.show(
        f"explorer = {kind}(model, scene.image, [person, kite], {question!r})\ncanvas = explorer.canvas\n{more}explorer"
    )
    expect(stage.find(".roilab-found table").first).to_be_visible()


def choose(field, text: str):
    """Take an option of a drop-down list, whose blanks ipywidgets writes as no-break spaces."""
    field.select_option(label=text.replace(" ", "\xa0"))


def number_of(stage, name: str):
    """The number in the row of this name."""
    return stage.find(".roilab-bars tr").filter(has=stage.page.get_by_text(name, exact=True)).locator(".roilab-number")


def wanted(stage, code: str) -> str:
    """A number of `interpret`, called directly in the kernel on the explorer's question and boxes, as the page writes numbers."""
    prepare = (
        "chat = roilab.Chat(model, scene.image)\nchat.revise(canvas.region_set.shapes)\n"
        "explained = interpret.Target.of(chat, explorer.question.value)\n"
    )
    return stage.kernel(f"{prepare}{code}")


def test_attention_is_explored_by_clicks(stage):
    explore(stage, "AttentionExplorer", "What colour is <region1>?")
    everywhere = wanted(stage, "f\"{interpret.attention_map(model, explained).parts['region1']:.3g}\"")
    expect(number_of(stage, "region1")).to_have_text(everywhere)
    stage.find(".roilab-answer-tokens button").get_by_text("blue", exact=True).click()
    only = "explained.chosen[:] = [i for i in explained.chosen if 'blue' in explained.tokens[i]]\n"
    code = only + "f\"{interpret.attention_map(model, explained, %s).parts['region1']:.3g}\""
    word = wanted(stage, code % "None, None")
    assert word != everywhere
    expect(number_of(stage, "region1")).to_have_text(word)
    choose(stage.find(".roilab-side select").nth(1), "1")
    expect(number_of(stage, "region1")).to_have_text(wanted(stage, code % "[1], None"))
    choose(stage.find(".roilab-side select").nth(2), "0")
    expect(number_of(stage, "region1")).to_have_text(wanted(stage, code % "[1], [0]"))
    expect(stage.find(".roilab-token-chosen")).to_contain_text("blue")
    choose(stage.find(".roilab-side select").first, "relevance")
    relevance = only + "f\"{interpret.relevance(model, explained).parts['region1']:.3g}\""
    expect(number_of(stage, "region1")).to_have_text(wanted(stage, relevance))


def test_a_dragged_region_is_explained_anew_and_a_mistake_is_said(stage):
    explore(stage, "AttentionExplorer", "What colour is <region1>?")
    before = number_of(stage, "region1").inner_text()
    person = stage.kernel("list(map(float, person))")
    middle = (person[0] + person[2]) / 2, (person[1] + person[3]) / 2
    stage.drag_in_picture(middle, (middle[0] - 30, middle[1] + 20))
    expect(number_of(stage, "region1")).not_to_have_text(before)
    now = wanted(stage, "f\"{interpret.attention_map(model, explained).parts['region1']:.3g}\"")
    expect(number_of(stage, "region1")).to_have_text(now)
    question = stage.find(".roilab-side input[type=text]").first
    question.fill("What is <region9>?")
    question.press("Enter")
    expect(stage.find(".roilab-side .roilab-error")).to_contain_text("region9")
    question.fill("What is <region2>?")
    question.press("Enter")
    expect(stage.find(".roilab-side .roilab-error")).to_have_count(0)
    expect(number_of(stage, "region2")).to_be_visible()


def test_attribution_to_tokens_and_pixels_and_a_slow_method_that_is_cancelled(stage):
    explore(stage, "AttributionExplorer", "What colour is <region1>?")
    code = "f\"{interpret.to_tokens(model, explained).parts['region1']:.3g}\""
    expect(number_of(stage, "region1")).to_have_text(wanted(stage, code))
    expect(stage.find(".roilab-remark").first).to_contain_text("a gap of")
    methods = stage.find(".roilab-side select").first
    choose(methods, "saliency, pixels")
    choose(stage.find(".roilab-side select").nth(1), "regions")
    code = "f\"{100 * interpret.energy_in_region(interpret.to_pixels(model, explained, 'saliency', 'regions'), person):.3g}\""
    expect(number_of(stage, "inside region1")).to_have_text(wanted(stage, code))
    shown = number_of(stage, "inside region1").inner_text()
    choose(methods, "shapley, pixels")
    orders = stage.find(".roilab-side input[type=number]").last
    orders.fill("200")
    orders.press("Enter")
    expect(stage.find(".roilab-side").get_by_text(re.compile(r"of about \d+ sequences"))).to_be_visible()
    stage.find(".roilab-side .roilab-button:visible").get_by_text("Cancel", exact=True).click()
    expect(stage.find(".roilab-side")).to_contain_text("Cancelled.")
    assert number_of(stage, "inside region1").inner_text() == shown
    choose(methods, "feature ablation, pixels")
    code = "f\"{100 * interpret.energy_in_region(interpret.cover(model, explained, fill='mean', path='regions'), person):.3g}\""
    expect(number_of(stage, "inside region1")).to_have_text(wanted(stage, code))


def test_what_if_follows_the_mouse_before_it_is_released_and_does_not_fall_behind(stage):
    explore(stage, "WhatIf", "What colour is <region1>?")
    says = stage.find(".roilab-says")
    expect(says).to_contain_text("blue")
    person, kite, ball = (stage.kernel(f"list(map(float, {name}))") for name in ("person", "kite", "ball"))

    def middle(box):
        return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2

    before = stage.kernel("explorer.updates")
    stage.drag(stage.to_canvas(*middle(person)), stage.to_canvas(*middle(ball)), steps=120, release=False)
    expect(says).to_contain_text("green")  # the mouse is still down
    assert stage.kernel("[list(each.box) for each in canvas.regions]")[0] == person
    stage.page.mouse.up()
    stage.becomes("[explorer.wait(20), explorer.result.shapes == canvas.region_set.shapes]", [True, True])
    updates = stage.kernel("explorer.updates") - before
    assert 2 <= updates < 120
    answer, probability = wanted(
        stage, "[chat.ask(explorer.question.value).text, f'{explorer.result.probabilities[0]:.3f}']"
    )
    expect(says).to_have_text(answer)
    expect(stage.find(".roilab-bars .roilab-number").first).to_have_text(probability)


def test_the_lens_reads_the_region_that_is_selected_by_a_key(stage):
    explore(stage, "RegionLens", "Is <region1> larger than <region2>?")
    heads, cells = stage.find(".roilab-lens tr").first, stage.find(".roilab-lens tr").nth(1).locator("td")
    expect(heads).to_contain_text("region1")
    code = "(lambda lens: [f'{lens.tokens[0][%d][0].strip()}{lens.probabilities[0, %d, 0]:.2f}'])(interpret.logit_lens(model, explained))[0]"
    expect(cells.first).to_have_text(wanted(stage, code % (0, 0)))
    stage.canvas.focus()
    stage.press("2")
    expect(heads).to_contain_text("region2")
    expect(cells.first).to_have_text(wanted(stage, code % (1, 1)))


def test_hostile_text_stays_text_in_explorers(stage):
    for kind in ("AttentionExplorer", "WhatIf"):
        more = f"explorer.answer.value = {HOSTILE!r}\ncanvas.region_set.relabel(1, {HOSTILE!r})\nexplorer.wait(60)\n"
        explore(stage, kind, f"{HOSTILE} <region1>", more)
        question = stage.find(".roilab-side input[type=text]").first
        question.fill(f"{HOSTILE} <region9>")
        question.press("Enter")
        expect(stage.find(".roilab-side .roilab-error")).to_be_visible()
        assert stage.page.evaluate("window.hacked") is None
        assert stage.find(".roilab-explorer img[src=x], .roilab-explorer script").count() == 0


@pytest.mark.parametrize("kind", ["AttentionExplorer", "AttributionExplorer", "WhatIf", "RegionLens"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_explorers_have_contrast_and_fit_a_narrow_window(stage, kind, dark):
    theme(stage.page, dark)
    try:
        explore(stage, kind, "Is <region1> larger than <region2>?")
        stage.page.mouse.move(1, 1)
        found = stage.page.evaluate(TEXTS.replace(".roilab-chat", ".roilab-explorer"))
        assert len(found) > 20
        assert not [each for each in found if each["size"] < 12]
        assert not [each for each in found if each["ratio"] < 4.5]
        stage.page.set_viewport_size({"width": 700, "height": 1200})
        end = time.monotonic() + 20  # JupyterLab takes its time to follow the window
        while (
            wide := stage.page.evaluate(TOO_WIDE.replace(".roilab-chat", ".roilab-explorer"))
        ) and time.monotonic() < end:
            stage.page.wait_for_timeout(100)
        assert wide == []
    finally:
        stage.page.set_viewport_size(WINDOW)
        theme(stage.page, False)


# The quickstart


@pytest.fixture(scope="module")
def quickstart(lab, browser):
    page = browser.new_page(viewport=WINDOW)
    open_notebook(page, lab, "00_quickstart.ipynb")
    run_all(page, timeout=120)
    yield page
    page.close()


def test_the_quickstart_runs_in_the_browser_and_its_first_chat_can_be_drawn_on_and_asked(quickstart):
    page = quickstart
    first = page.locator(".roilab-chat").first
    canvas = first.locator("canvas.roilab-canvas:visible")
    canvas.scroll_into_view_if_needed()
    page.wait_for_function(PAINTED)
    before = kernel(page, "[list(map(float, each.box)) for each in chat.regions]")
    assert len(before) == 2 and page.locator("canvas.roilab-canvas").count() == 3
    # Region 2 lies on the kite; it goes back to the ball, which changes what was asked about it.
    place = canvas.bounding_box()
    scale = place["width"] / 224
    middles = kernel(page, "[[(b[0] + b[2]) / 2, (b[1] + b[3]) / 2] for b in (kite.box, ball.box)]")
    start, end = ([round(place["xy"[i]] + middle[i] * scale) for i in (0, 1)] for middle in middles)
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(*end, steps=5)
    page.mouse.up()
    expect(first.locator(".roilab > .roilab-status").first).to_have_text(re.compile("^region2: "))
    expect(first.locator(".roilab-stale .roilab-answer").first).to_be_visible()
    moved = kernel(page, "[float(side) for side in chat.region_set[2].box]")
    for side, old, (a, b) in zip(moved, before[1], list(zip(start, end)) * 2, strict=True):
        assert side - old == pytest.approx((b - a) / scale, abs=0.5 + 1e-6)
    field = first.locator(".roilab-ask textarea")
    field.click()
    page.keyboard.type("What colour is <region2>?")
    page.keyboard.press("Enter")
    expect(first.locator(".roilab-answer:visible")).to_have_count(5)
    expect(first.locator(".roilab-answer:visible").last).to_have_text(GREEN)


# A conversation


def test_draw_ask_move_and_ask_again_with_the_page_alone(stage):
    stage.show("chat = RegionChat(model, scene.image)\ncanvas = chat.canvas\nchat")
    person, kite, ball = (stage.kernel(f"list(map(float, {name}))") for name in ("person", "kite", "ball"))
    stage.drag_in_picture(person[:2], person[2:])
    stage.says("region1")
    stage.drag_in_picture(ball[:2], ball[2:])
    stage.says("region2")
    stage.question.click()
    stage.page.keyboard.type("What colour is <")
    expect(stage.offers).to_have_text(["region1", "region2"])
    stage.offers.nth(1).click()
    expect(stage.question).to_have_value("What colour is <region2>")
    expect(stage.question).to_be_focused()
    stage.page.keyboard.type("?")
    stage.page.keyboard.press("Enter")
    expect(stage.answers.last).to_have_text(GREEN)
    expect(stage.question).to_have_value("")
    expect(stage.find(".roilab-stale")).to_have_count(0)

    middles = [((box[0] + box[2]) / 2, (box[1] + box[3]) / 2) for box in (ball, kite)]
    stage.drag_in_picture(*middles)
    expect(stage.find(".roilab-stale")).to_have_count(1)
    expect(stage.find(".roilab-stale .roilab-remarks")).to_contain_text("Out of date: region2 changed")
    stage.find(".roilab-stale").get_by_text("Ask again", exact=True).click()
    expect(stage.answers.last).to_have_text(re.compile(r"\bpurple\b"))
    expect(stage.find(".roilab-stale")).to_have_count(0)
    stage.becomes("chat.history[-1]['role'] == 'assistant' and 'purple' in chat.history[-1]['content']", True)


def test_a_photograph_is_drawn_on_and_asked_about(stage):
    made_photo_folder()
    stage.show(
        "from roilab.demo import PHOTOGRAPH\nphoto = roilab.load('photo')\nchat = RegionChat(photo, PHOTOGRAPH)\ncanvas = chat.canvas\nchat"
    )
    _, screen, keyboard = DESK.values()
    stage.drag_in_picture(screen[:2], screen[2:])
    stage.says("region1")
    stage.ask("What is <region1>?")
    expect(stage.answers.last).to_have_text("A tv.")
    expect(stage.find(".roilab-stale")).to_have_count(0)
    x1, y1, x2, y2 = keyboard
    stage.kernel(f"chat.region_set.resize(1, {[x1, y1, x2, y2]})")
    expect(stage.find(".roilab-stale .roilab-remarks")).to_contain_text("Out of date: region1 changed")
    stage.find(".roilab-stale").get_by_text("Ask again", exact=True).click()
    expect(stage.answers.last).to_have_text("A keyboard.")


def test_a_region_named_in_the_conversation_is_selected_by_a_click(stage):
    stage.show(
        "chat = RegionChat(model, scene.image, [person, ball])\ncanvas = chat.canvas\n"
        'chat.ask("What is <region2>?")\nchat.ask("Is <region1> larger than <region2>?")\nchat'
    )
    assert stage.kernel("canvas.selected") is None
    question = stage.find(".roilab-question").nth(1)
    expect(question.locator(".roilab-mention")).to_have_text(["region1", "region2"])
    question.locator(".roilab-mention").nth(1).click()
    stage.says("region2")
    stage.becomes("canvas.selected", 2)
    question.locator(".roilab-mention").first.click()
    stage.says("region1")
    stage.becomes("canvas.selected", 1)


def test_an_answer_is_copied_to_the_clipboard(stage):
    stage.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    stage.show("chat = RegionChat(model, scene.image, [ball])\ncanvas = chat.canvas\nchat")
    stage.ask("What colour is <region1>?")
    expect(stage.answers.last).to_have_text(GREEN)
    copy = stage.find(".roilab-copy").last
    copy.click()
    expect(copy).to_have_text("Copied")
    copied, shown = stage.page.evaluate("() => navigator.clipboard.readText()"), stage.answers.last.inner_text()
    assert copied.split() == shown.split() and "green" in copied


def test_an_answer_can_be_stopped_while_the_canvas_and_the_waiting_questions_live_on(stage):
    stage.show(
        """\
class Slow(LogitsProcessor):
    seconds = 0.25
    def __call__(self, ids, scores):
        time.sleep(Slow.seconds)
        return scores

chat = RegionChat(model, scene.image, [ball], min_new_tokens=60, max_new_tokens=60, logits_processor=LogitsProcessorList([Slow()]))
canvas = chat.canvas
chat"""
    )
    stop = stage.button("Stop")
    expect(stop).to_be_disabled()
    stage.ask("What is <region1>?")
    expect(stage.answers.first).to_have_text(re.compile(r"\w+ \w+.*▍"))  # words, while it goes on
    first = stage.answers.first.inner_text()
    stage.ask("What colour is <region1>?")
    expect(stage.answers).to_have_count(2)
    expect(stage.answers.nth(1)).to_have_text("waiting …")
    stage.drag_in_picture((140, 20), (210, 120))
    stage.says("region2")
    assert stage.kernel("[each.state for each in chat.conversation.rounds]") == ["answering", "waiting"]
    stage.page.wait_for_function(
        "first => document.querySelector('.roilab-answer').innerText.length > first.length", arg=first
    )
    stop.click()
    expect(stop).to_be_disabled()
    expect(stage.rounds.first.locator(".roilab-remarks")).to_have_text("The answer was cut short.")
    kept = stage.answers.first.inner_text()
    assert kept.startswith(first.removesuffix("▍").strip()) and "▍" not in kept
    assert stage.kernel("chat.conversation.rounds[0].answer.text") == kept
    expect(stage.rounds.nth(1).locator(".roilab-remarks")).to_have_text("Stopped before it was answered.")
    expect(stage.answers).to_have_count(1)
    assert stage.kernel("[each.state for each in chat.conversation.rounds]") == ["done", "dropped"]

    stage.kernel("Slow.seconds = 0")
    stage.rounds.nth(1).get_by_text("Ask again", exact=True).click()
    expect(stage.answers).to_have_count(2)
    stage.becomes("[each.state for each in chat.conversation.rounds]", ["done", "done"])
    expect(stage.answers.nth(1)).to_have_text(re.compile("green"))


def test_a_mistake_is_said_in_the_conversation_and_can_be_asked_again(stage):
    stage.show(
        "chat = RegionChat(model, scene.image, [person, ball])\ncanvas = chat.canvas\nchat.region_set.remove(2)\nchat"
    )
    stage.ask("What is <region2>?")
    failed = stage.find(".roilab-failed")
    expect(failed.locator(".roilab-remarks")).to_have_text(
        "No answer: there is no region 2 on the picture; the regions: 1"
    )
    expect(stage.answers).to_have_count(0)
    stage.button("Undo").click()
    failed.get_by_text("Ask again", exact=True).click()
    expect(stage.answers).to_have_text([re.compile("ball")])
    expect(failed).to_have_count(0)
    stage.ask("What is <region9>?")
    expect(failed.locator(".roilab-remarks")).to_have_text(
        "No answer: there is no region 9 on the picture; the regions: 1, 2"
    )
    failed.get_by_text("Ask again", exact=True).click()
    expect(failed.locator(".roilab-remarks")).to_contain_text("there is no region 9")
    expect(stage.answers).to_have_count(1)


def test_hostile_text_is_shown_as_text_and_exported_as_it_is(stage, tmp_path):
    page = stage.page
    stage.show(
        f"""\
hostile = {HOSTILE!r}

gate = threading.Event()

def stream(question):
    yield hostile
    yield hostile
    gate.wait(30)
    chat.chat.answer = Answer(hostile * 2, question=question)

chat = RegionChat(model, scene.image, [person, ball])
canvas = chat.canvas
chat.chat.revise, chat.chat.stream = lambda boxes, earlier: None, stream
chat"""
    )
    stage.open_table()
    for text, row in ((HOSTILE, 0), ("<b>fat</b>", 1)):
        label = stage.rows.nth(row).locator("input").nth(4)
        label.fill(text)
        label.press("Enter")
    stage.becomes("[each.label for each in canvas.regions]", [HOSTILE, "<b>fat</b>"])
    stage.rows.first.locator("button").first.click()
    expect(stage.status).to_contain_text(f"region1 ({HOSTILE}): ")
    stage.question.click()
    page.keyboard.type("<")
    expect(stage.offers).to_have_text([f"region1 {HOSTILE}", "region2 <b>fat</b>"])
    page.keyboard.press("Backspace")
    expect(stage.question).to_have_value("")
    stage.ask(HOSTILE)
    expect(stage.find(".roilab-question").last).to_have_text(HOSTILE)
    expect(stage.answers.last).to_contain_text(HOSTILE)  # as it comes
    expect(stage.answers.last).to_contain_text("▍")
    stage.kernel("gate.set()")
    expect(stage.answers.last).to_have_text(HOSTILE * 2)
    stage.ask(f"What is <region7>{HOSTILE}?")
    expect(stage.find(".roilab-failed .roilab-question")).to_have_text(f"What is region7{HOSTILE}?")
    expect(stage.find(".roilab-failed .roilab-remarks")).to_contain_text("there is no region 7")

    stage.button("Export").click()
    saved = {}
    for name in ("JSON", "Markdown"):
        with page.expect_download() as download:
            stage.find(".roilab-chat").get_by_text(name, exact=True).click()
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        saved[path.name] = path.read_text(encoding="utf-8")
    assert saved.keys() == {"roilab-conversation.json", "roilab-conversation.md"}
    record = json.loads(saved["roilab-conversation.json"])
    assert [each["label"] for each in record["regions"]["regions"]] == [HOSTILE, "<b>fat</b>"]
    assert [each["question"] for each in record["rounds"]] == [HOSTILE, f"What is <region7>{HOSTILE}?"]
    assert record["rounds"][0]["answer"]["text"] == HOSTILE * 2
    text = saved["roilab-conversation.md"]
    assert "<img" not in text.replace(r"\<", "") and "**bold**" not in text
    assert text.replace("\\", "").count(HOSTILE) == 5  # label, question, answer (twice), failed question

    elements = "img:not([src^='blob:']), b, em, strong, script, a[href^='javascript']"
    assert stage.find(f".roilab-chat :is({elements})").count() == 0
    assert page.evaluate("window.hacked === undefined")


# The mouse


@pytest.mark.parametrize("name", PICTURES)
def test_boxes_drawn_resized_and_moved_are_right_to_a_pixel(stage, name):
    source, scale = PICTURES[name]
    stage.show(f"canvas = RegionCanvas({source})\n{f'canvas.zoom_to({scale})' if scale else ''}\ncanvas")
    box = stage.draw(1, (61, 73), (207, 171))
    stage.has_edge(1, box)
    stage.draw(2, (333, 301), (240, 222))  # from the lower right corner to the upper left one

    stage.press("1")
    stage.says("region1")
    (x1, y1), (x2, y2) = stage.in_picture(*stage.drag(stage.to_canvas(*box[2:]), (225, 203)))
    new = stage.in_picture(stage.on_page(225, 203))[0]
    expect(stage.status).not_to_contain_text(f"to {box[2]:g}, {box[3]:g} ")
    resized = stage.boxes()[1]
    assert resized == pytest.approx([*box[:2], box[2] + x2 - x1, box[3] + y2 - y1], abs=0.5 + 1e-6)
    assert resized[2:] == pytest.approx(new, abs=1 + 1 / stage.kernel("canvas.editor.view.scale"))  # as the eye sees it
    stage.says_box(1, resized)

    (x1, y1), (x2, y2) = stage.in_picture(*stage.drag((120, 110), (151, 92)))
    expect(stage.status).not_to_contain_text(f"to {resized[2]:g}, {resized[3]:g} ")
    moved = stage.boxes()[1]
    assert [moved[2] - moved[0], moved[3] - moved[1]] == [resized[2] - resized[0], resized[3] - resized[1]]
    assert moved[:2] == pytest.approx([resized[0] + x2 - x1, resized[1] + y2 - y1], abs=0.5 + 1e-6)
    stage.has_edge(1, moved)
    stage.has_edge(1, box, there=False)


def test_every_handle_moves_its_own_edges(canvas_900):
    stage = canvas_900
    box = stage.draw(1, (150, 120), (330, 280))
    places = {
        "nw": (0, 0),
        "n": (0.5, 0),
        "ne": (1, 0),
        "e": (1, 0.5),
        "se": (1, 1),
        "s": (0.5, 1),
        "sw": (0, 1),
        "w": (0, 0.5),
    }
    for handle, (right, down) in places.items():
        x, y = stage.to_canvas(box[0] + right * (box[2] - box[0]), box[1] + down * (box[3] - box[1]))
        (x1, y1), (x2, y2) = stage.in_picture(*stage.drag((x, y), (x + 13, y + 7)))
        by = round(x2 - x1), round(y2 - y1)
        pulled = [by[0] * ("w" in handle), by[1] * ("n" in handle), by[0] * ("e" in handle), by[1] * ("s" in handle)]
        box = [old + change for old, change in zip(box, pulled, strict=True)]
        stage.says_box(1, box)
        assert stage.boxes() == {1: box}, handle


def test_delete_undo_and_redo_by_keys_and_buttons(canvas_900):
    stage = canvas_900
    one = stage.draw(1, (40, 40), (160, 140))
    two = stage.draw(2, (250, 200), (400, 330))
    stage.press("Delete")
    stage.says("1 region, none selected.")
    assert stage.boxes() == {1: one}
    stage.has_edge(2, two, there=False)
    stage.press("Control+z")
    stage.says("2 regions, none selected.")
    assert stage.boxes() == {1: one, 2: two}
    stage.has_edge(2, two)
    stage.press("Control+Shift+Z")
    stage.says("1 region, none selected.")
    stage.button("Undo").click()
    stage.says("2 regions")
    assert stage.boxes() == {1: one, 2: two}
    stage.button("Undo").click()
    stage.says("1 region")
    assert stage.boxes() == {1: one}
    stage.button("Undo").click()
    stage.says("No regions yet.")
    expect(stage.button("Undo")).to_be_disabled()
    for count in ("1 region", "2 regions", "1 region"):
        stage.button("Redo").click()
        stage.says(count)
    expect(stage.button("Redo")).to_be_disabled()
    assert stage.boxes() == {1: one}


def test_a_release_outside_the_canvas_is_made_up_for_and_commits_once(canvas_900):
    stage = canvas_900
    stage.kernel("changes = []\ncanvas.observe(lambda change: changes.append(change['new']), 'regions')")
    mouse, width = stage.page.mouse, stage.canvas.bounding_box()["width"]
    start, _ = stage.drag((380, 90), (width + 60, 150), release=False)
    mouse.up()  # the canvas is not told
    end = stage.on_page(470, 210)
    mouse.move(*end, steps=4)
    expect(stage.button("Cancel")).to_be_enabled()  # the drag is still going on
    assert stage.kernel("len(changes)") == 0
    mouse.down()
    mouse.up()
    stage.says("region1")
    (x1, y1), (x2, y2) = stage.in_picture(start, end)
    assert stage.boxes()[1] == pytest.approx([x1, y1, x2, y2], abs=0.5 + 1e-6)
    stage.draw(2, (60, 250), (160, 330))
    assert stage.kernel("[len(each) for each in changes]") == [1, 2]


def test_a_drag_beyond_the_canvas_ends_at_the_border_of_the_picture(stage):
    stage.show("canvas = RegionCanvas(picture(900, 700))\ncanvas")
    width, height = (stage.canvas.bounding_box()[side] for side in ("width", "height"))
    start, _ = stage.drag((300, 200), (width - 2, height - 2), release=False)
    stage.page.mouse.move(*stage.on_page(width + 40, height + 30), steps=3)
    stage.page.mouse.move(*stage.on_page(width - 1, height - 1), steps=3)
    stage.page.mouse.up()
    stage.says("region1")
    (x, y) = stage.in_picture(start)[0]
    assert stage.boxes()[1] == pytest.approx([x, y, 900, 700], abs=2)


def test_escape_forgets_a_drag(canvas_900):
    stage = canvas_900
    stage.draw(1, (40, 40), (160, 140))
    stage.drag((300, 100), (420, 200), release=False)
    expect(stage.button("Cancel")).to_be_enabled()
    stage.press("Escape")
    expect(stage.button("Cancel")).to_be_disabled()
    expect(stage.canvas).to_be_focused()
    stage.page.mouse.up()
    stage.drag((100, 90), (180, 150), release=False)  # a move
    expect(stage.button("Cancel")).to_be_enabled()
    before = stage.boxes()
    stage.press("Escape")
    expect(stage.button("Cancel")).to_be_disabled()
    stage.page.mouse.up()
    stage.draw(2, (250, 250), (350, 350))
    assert stage.boxes()[1] == before[1] and len(stage.boxes()) == 2


def test_a_click_selects_the_smallest_box_and_the_new_box_tool_draws_inside(canvas_900):
    stage = canvas_900
    stage.draw(1, (40, 40), (400, 300))
    stage.panel.get_by_text("New box", exact=True).click()
    stage.draw(2, (100, 100), (200, 180))
    stage.panel.get_by_text("Select", exact=True).click()
    stage.page.mouse.click(*stage.on_page(350, 250))
    stage.says("region1")
    stage.becomes("canvas.selected", 1)
    stage.page.mouse.click(*stage.on_page(150, 140))
    stage.says("region2")
    stage.becomes("canvas.selected", 2)
    stage.page.mouse.click(*stage.on_page(500, 400))
    stage.says("2 regions, none selected.")
    assert len(stage.boxes()) == 2


def test_a_lasso_and_a_point_are_drawn_kept_and_asked_about(stage):
    stage.show("chat = RegionChat(model, scene.image)\ncanvas = chat.canvas\nchat")
    mouse = stage.page.mouse
    note = stage.find(".roilab-status").get_by_text("trained on boxes only")
    expect(note).to_have_count(0)
    x1, y1, x2, y2 = stage.kernel("list(map(float, ball))")
    middle, radii = ((x1 + x2) / 2, (y1 + y2) / 2), ((x2 - x1) / 2 + 5, (y2 - y1) / 2 + 3)
    turns = [6 * step / 48 for step in range(49)]  # not quite round: it is closed on release
    path = [
        stage.on_page(*stage.to_canvas(middle[0] + radii[0] * math.cos(t), middle[1] + radii[1] * math.sin(t)))
        for t in turns
    ]
    stage.panel.get_by_text("Lasso", exact=True).click()
    mouse.move(*path[0])
    mouse.down()
    for place in path[1:]:
        mouse.move(*place)
    mouse.up()
    stage.says("region1: outline of")
    drawn = stage.in_picture(*path)
    kind, outline = stage.kernel(
        "[canvas.regions[0].kind, [list(map(float, each)) for each in canvas.regions[0].outline]]"
    )
    assert kind == "polygon" and 10 <= len(outline) <= 40
    assert all(min(math.dist(point, each) for each in drawn) < 0.1 for point in outline)  # it was thinned, not moved
    sides = [side(values) for side in (min, max) for values in zip(*drawn, strict=True)]
    assert stage.boxes()[1] == pytest.approx(sides, abs=1)
    stage.page.wait_for_function(
        COLOUR_AT, arg=[*stage.to_canvas(*_between(outline)), stage.kernel("region_colour(1)"), True]
    )
    expect(note).to_be_visible()

    person = stage.kernel("list(map(float, person))")
    spot = stage.on_page(*stage.to_canvas((person[0] + person[2]) / 2, (person[1] + person[3]) / 2))
    stage.canvas.focus()
    stage.press("p")
    mouse.click(*spot)
    stage.says("region2: point at")
    place = stage.kernel("[canvas.regions[1].kind, list(map(float, canvas.regions[1].place))]")
    assert place[0] == "point" and place[1] == pytest.approx(stage.in_picture(spot)[0], abs=0.5 + 1e-6)
    expect(note).to_have_count(1)

    stage.ask("What colour is <region1>?")
    expect(stage.answers).to_have_text([GREEN])
    stage.kernel("direct = roilab.Chat(model, scene.image)")
    assert stage.kernel("direct.ask('What colour is <region1>?', canvas.region_set.shapes).text") == (
        stage.kernel("chat.conversation.rounds[0].answer.text")
    )
    assert stage.kernel("direct.regions == chat.chat.regions and direct.regions[0] == canvas.regions[0].shape")
    assert stage.kernel("direct.regions[0]") == outline
    stage.press("Escape")
    stage.canvas.focus()
    stage.press("v", "1", "ArrowRight")
    expect(stage.find(".roilab-stale .roilab-remarks")).to_contain_text("Out of date: region1 changed")
    moved = stage.kernel("[list(map(float, each)) for each in canvas.regions[0].outline]")
    assert [point for each in moved for point in each] == pytest.approx(
        [value for x, y in outline for value in (x + 1, y)]
    )


def _between(outline) -> tuple[float, float]:
    """The middle of the longest edge, far from the handles of the box."""
    (ax, ay), (bx, by) = max(zip(outline, [*outline[1:], outline[0]], strict=True), key=lambda edge: math.dist(*edge))
    return (ax + bx) / 2, (ay + by) / 2


# Numbers


def test_the_wheel_and_the_pan_tool_move_an_enlarged_picture_and_draw_nothing(canvas_900):
    stage, place = canvas_900, "[round(canvas.editor.view.left), round(canvas.editor.view.top)]"
    left, top = stage.kernel(place)
    stage.page.mouse.move(*stage.on_page(200, 200))
    stage.page.mouse.wheel(40, 60)
    stage.becomes(place, [left + 40, top + 60])
    stage.find(".roilab .jupyter-button").get_by_text("Pan", exact=True).click()
    stage.drag((300, 200), (260, 170))
    stage.becomes(place, [left + 80, top + 90])
    stage.press("v")
    stage.draw(1, (100, 100), (180, 160))
    assert len(stage.boxes()) == 1


def test_a_label_stays_with_the_region_that_was_selected_while_it_was_typed(stage):
    stage.show("canvas = RegionCanvas(scene.image, [person, ball])\ncanvas")
    field = stage.find(".roilab-bar input[placeholder=label]")
    inside = {1: [(170, 110), (171, 110)], 2: [(80, 180), (81, 180)]}  # of the person, of the ball
    stage.drag_in_picture(*inside[1])
    stage.says("region1")
    field.click()
    stage.page.keyboard.type("in a hurry")
    stage.drag_in_picture(*inside[2])
    stage.says("region2")
    expect(field).to_have_value("")
    stage.becomes("[each.label for each in canvas.regions]", ["in a hurry", ""])


def test_a_number_moves_the_box_and_a_drag_changes_the_numbers(canvas_900):
    stage = canvas_900
    box = stage.draw(1, (100, 100), (250, 220))
    stage.open_table()
    stage.canvas.scroll_into_view_if_needed()
    expect(stage.rows).to_have_count(1)
    assert stage.sides(0) == box
    stage.set_number(0, 0, box[0] + 60)
    new = [box[0] + 60, *box[1:]]
    stage.says_box(1, new)
    assert stage.boxes() == {1: new}
    stage.has_edge(1, new)
    stage.has_edge(1, box, there=False)
    x, y = stage.to_canvas((new[0] + new[2]) / 2, (new[1] + new[3]) / 2)
    stage.drag((x, y), (x + 30, y + 40))
    expect(stage.rows.first.locator("input").nth(0)).not_to_have_value(f"{new[0]:g}")
    moved = stage.boxes()[1]
    assert moved[0] > new[0] and moved[1] > new[1]
    for side in range(4):
        expect(stage.rows.first.locator("input").nth(side)).to_have_value(f"{moved[side]:g}")


def test_a_number_that_cannot_be_is_refused_in_words_and_the_field_shows_the_box(canvas_900):
    stage = canvas_900
    box = stage.draw(1, (100, 100), (250, 220))
    stage.open_table()
    stage.set_number(0, 0, box[2] + 5)
    expect(stage.status.locator(".roilab-error")).to_contain_text("region 1")
    expect(stage.rows.first.locator("input").nth(0)).to_have_value(f"{box[0]:g}")
    assert stage.boxes() == {1: box}


def test_everything_works_through_the_table_when_the_canvas_hears_nothing(stage):
    page = stage.page
    page.evaluate(DEAF)
    try:
        stage.show("chat = RegionChat(model, scene.image)\ncanvas = chat.canvas\nchat")
        stage.drag_in_picture((20, 20), (90, 90))
        stage.open_table()
        stage.button("Add box").click()
        expect(stage.rows).to_have_count(1)
        assert stage.boxes() == {1: [56, 56, 168, 168]}  # the drag before was not heard
        ball = [round(side) for side in stage.kernel("list(map(float, ball))")]
        for side in (1, 0, 3, 2):  # so that no step is an empty box
            stage.set_number(0, side, ball[side])
            expect(stage.rows.first.locator("input").nth(side)).to_have_value(f"{ball[side]:g}")
        stage.says_box(1, ball)
        label = stage.rows.first.locator("input").nth(4)
        label.fill("the ball")
        label.press("Enter")
        expect(stage.status).to_contain_text("region1 (the ball): ")
        stage.panel.get_by_placeholder("B2 or B2:D5").fill("B2:D3")
        stage.panel.get_by_placeholder("B2 or B2:D5").press("Enter")
        stage.button("Add cells").click()
        expect(stage.rows).to_have_count(2)
        stage.says_box(2, [28, 28, 112, 84])
        stage.button("→").click()
        stage.button("→").click()
        stage.button("↓").click()
        stage.says_box(2, [30, 29, 114, 85])
        stage.button("Lower").click()
        expect(stage.rows.first.locator("button").first).to_have_text("2")
        stage.becomes("[each.id for each in canvas.regions]", [2, 1])
        stage.button("Higher").click()
        expect(stage.rows.first.locator("button").first).to_have_text("1")
        stage.rows.nth(1).get_by_text("✕").click()
        expect(stage.rows).to_have_count(1)
        stage.becomes("[each.id for each in canvas.regions]", [1])
        stage.button("Undo").click()
        expect(stage.rows).to_have_count(2)
        assert stage.boxes() == {1: ball, 2: [30, 29, 114, 85]}
        stage.ask("What colour is <region1>?")
        expect(stage.answers.last).to_have_text(GREEN)
        expect(stage.find(".roilab-table img")).to_be_visible()  # the still picture, for a canvas that shows nothing
    finally:
        page.evaluate("window.roilabDeaf.abort()")


DEAF = """() => {
  window.roilabDeaf = new AbortController();
  const swallow = event => { if (event.target.tagName === "CANVAS") event.stopImmediatePropagation(); };
  const names = "mousedown mousemove mouseup mouseout wheel touchstart touchmove touchend touchcancel keydown";
  for (const name of names.split(" "))
    window.addEventListener(name, swallow, {capture: true, signal: window.roilabDeaf.signal});
}"""


# Fingers


def test_one_finger_draws_and_two_zoom(second):
    stage = second
    stage.show("canvas = RegionCanvas(scene.image)\ncanvas")
    session = stage.page.context.new_cdp_session(stage.page)

    def touch(kind: str, *points):
        fingers = [
            dict(zip("xy", stage.on_page(*point), strict=True), id=number) for number, point in enumerate(points)
        ]
        session.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": fingers})

    touch("Start", (60, 70))
    for step in range(1, 6):
        touch("Move", (60 + 28 * step, 70 + 22 * step))
    touch("End")
    stage.says("region1")
    (x1, y1), (x2, y2) = stage.in_picture(stage.on_page(60, 70), stage.on_page(200, 180))
    box = stage.boxes()[1]
    assert box == pytest.approx([x1, y1, x2, y2], abs=0.5 + 1e-6)
    stage.has_edge(1, box)

    fitting = stage.zoom.inner_text()
    touch("Start", (200, 240))
    touch("Start", (200, 240), (280, 240))
    for step in range(1, 6):
        touch("Move", (200 - 16 * step, 240), (280 + 16 * step, 240))
    touch("End")
    expect(stage.zoom).not_to_have_text(fitting)
    # The last movement reaches the kernel after the first one has changed the label.
    stage.becomes("round(canvas.editor.view.scale / canvas.editor.view.fitting, 3)", 3.0)
    expect(stage.zoom).to_have_text(f"{300 * stage.kernel('canvas.editor.view.fitting'):.0f} %")
    assert stage.boxes() == {1: box}
    stage.button("Fit").tap()
    expect(stage.zoom).to_have_text(fitting)


# Keys


def test_keys_select_move_and_draw_and_jupyterlab_hears_none_of_them(stage):
    page = stage.page
    stage.show("canvas = RegionCanvas(scene.image, [(20, 20, 120, 130), (140, 60, 200, 160)])\ncanvas")
    cells = "() => [...window.jupyterapp.shell.currentWidget.content.model.cells].map(cell => [cell.type, cell.sharedModel.getSource()])"
    before, execution = page.evaluate(cells), stage.find(".jp-InputPrompt").first.inner_text()
    stage.canvas.focus()
    stage.press("2")
    stage.says("region2")
    stage.becomes("canvas.selected", 2)
    stage.press("9", "Tab")  # there is no region 9; after 2 comes 1
    stage.says("region1")
    stage.press("ArrowRight", "ArrowRight", "ArrowDown", "Shift+ArrowDown")
    stage.says_box(1, [22, 31, 122, 141])
    assert stage.boxes() == {1: [22, 31, 122, 141], 2: [140, 60, 200, 160]}
    stage.press("Shift+Tab")
    stage.says("region2")
    stage.press("+")
    expect(stage.zoom).not_to_have_text(f"{100 * stage.kernel('canvas.editor.view.fitting'):.0f} %")
    stage.press("0")
    expect(stage.zoom).to_have_text(f"{100 * stage.kernel('canvas.editor.view.fitting'):.0f} %")

    stage.press("b")
    expect(stage.find(".roilab-bar .mod-active")).to_have_text("New box")
    stage.drag_in_picture((40, 50), (90, 110))  # inside region 1
    stage.says("region3")
    assert stage.boxes()[3] == pytest.approx([40, 50, 90, 110], abs=1) and stage.boxes()[1] == [22, 31, 122, 141]
    stage.press("v")
    expect(stage.find(".roilab-bar .mod-active")).to_have_text("Select")

    # To JupyterLab: a cell above, below, cut, paste, delete, undo, to Markdown, save, find, run.
    for key in ("a", "b", "x", "c", "v", "d", "d", "z", "m", "s", "y", "Shift+m", "Control+s", "Shift+Enter", "1"):
        stage.press(key)
    stage.says("region1")
    assert page.evaluate(cells) == before and stage.find(".jp-InputPrompt").first.inner_text() == execution
    assert page.locator(".jp-Dialog").count() == 0
    expect(stage.canvas).to_be_focused()
    stage.press("Delete")
    stage.says("2 regions, none selected.")
    assert page.evaluate(cells) == before
    assert stage.boxes().keys() == {2, 3}


def test_tab_reaches_the_controls_then_the_canvas_and_after_escape_goes_on(stage):
    page = stage.page
    stage.show("canvas = RegionCanvas(scene.image, [(20, 20, 120, 130), (140, 60, 200, 160)])\ncanvas")
    enabled = stage.find(".roilab-bar .roilab-button:visible:enabled").all_inner_texts()
    stage.find(".roilab .jupyter-button").first.focus()
    reached = []
    while not reached or reached[-1] != "canvas" and len(reached) < 30:
        reached.append(page.evaluate(FOCUSED))
        stage.press("Tab")
    # The last press selected a region: the canvas keeps the Tab key.
    stage.says("region1")
    assert reached[:5] == ["Select", "New box", "Point", "Lasso", "Pan"] and reached[-1] == "canvas"
    assert [each for each in reached if each in enabled] == enabled == ["+", "Next"]
    stage.press("Tab")
    stage.says("region2")
    expect(stage.canvas).to_be_focused()

    stage.press("Escape")
    expect(stage.canvas).not_to_be_focused()
    stage.press("Tab")
    assert stage.canvas.evaluate(IS_BEFORE), f"Tab went to {page.evaluate(FOCUSED)!r}, which is not after the canvas"
    stage.canvas.focus()
    stage.press("Escape")
    expect(stage.canvas).not_to_be_focused()
    stage.press("Shift+Tab")
    assert stage.find(".roilab :focus").count() == 1  # one of its controls
    assert not stage.canvas.evaluate(IS_BEFORE), f"Shift+Tab went to {page.evaluate(FOCUSED)!r}"
    assert stage.kernel("canvas.selected") == 2


def test_a_question_is_written_with_offers_by_keys_alone(stage):
    page = stage.page
    stage.show("chat = RegionChat(model, scene.image, [ball])\ncanvas = chat.canvas\nchat")
    stage.canvas.focus()
    stage.press("Enter")  # nothing is written: to the question
    expect(stage.question).to_be_focused()
    page.keyboard.type("What colour is <")
    expect(stage.offers).to_have_text(["region1"])
    stage.press("Tab")
    assert page.evaluate(FOCUSED) == "region1"
    stage.press("Enter")
    expect(stage.question).to_have_value("What colour is <region1>")
    expect(stage.question).to_be_focused()
    page.keyboard.type("?")
    stage.press("Enter")
    expect(stage.answers.last).to_have_text(GREEN)


def test_tab_reaches_the_table_of_numbers_and_a_key_opens_it(stage):
    stage.show("canvas = RegionCanvas(scene.image, [ball])\ncanvas")
    stage.find(".roilab .jupyter-button").first.focus()
    reached = []
    while not {"Boxes as numbers", "canvas"} & {*reached} and len(reached) < 30:
        stage.press("Tab")
        reached.append(stage.page.evaluate(FOCUSED))
    assert reached[-1] == "Boxes as numbers", f"Tab goes to {reached}"
    stage.press("Enter")
    expect(stage.rows).to_have_count(1)
    stage.button("Add box").focus()
    stage.press("Enter")
    expect(stage.rows).to_have_count(2)
    assert len(stage.boxes()) == 2


IS_BEFORE = (
    "canvas => Boolean(canvas.compareDocumentPosition(document.activeElement) & Node.DOCUMENT_POSITION_FOLLOWING)"
)

FOCUSED = """() => {
  const focused = document.activeElement;
  if (focused.tagName === "CANVAS") return "canvas";
  return (focused.innerText || focused.getAttribute("aria-label") || focused.tagName).trim();
}"""


# The page


QUIZ = """\
from roilab.evaluation import Quiz
from roilab.regions import RegionDialogue
from roilab.widgets import QuizView

class Held(list):
    def picture(self, index):
        return scene.image

choices = dict(
    question="What is <region1> doing?", answers=["running", "sitting", HOSTILE, "<b>waving</b>"], answer_label=0,
    rationales=["one leg is up", "it sits", "it waves", "it sleeps"], rationale_label=0, type="activity",
)
turns = [dict(role="user", content=choices["question"]), dict(role="assistant", content="running")]
held = Held(
    RegionDialogue(str(i), "vcr_full", "", scene.size, scene.size, [list(person)], None, turns, choices) for i in range(2)
)
view = QuizView(Quiz(held, 4), "quiz-answers")
view
"""


def test_the_quiz_is_answered_by_mouse_and_keys(stage):
    stage.page.evaluate(SET_SOURCE, f"HOSTILE = {HOSTILE!r}\n{QUIZ}")
    run_all(stage.page)
    quiz, choices = stage.find(".roilab-quiz"), stage.find(".roilab-choice:visible")
    following = quiz.get_by_role("button", name="Next")
    name = quiz.locator("input[type=text]")
    name.fill("Ann")
    name.press("Enter")
    expect(quiz).to_contain_text("Question 1 of 4")
    expect(choices.nth(3)).to_have_text("(D) <b>waving</b>")
    following.click()
    expect(quiz).to_contain_text("Choose one of the four, then Next.")

    chosen = quiz.locator(".roilab-chosen")
    for place, text in ((1, "(B) sitting"), (0, "(A) running")):  # a choice may be changed until "Next"
        choices.nth(place).click()
        expect(chosen).to_have_text([text])  # for a moment both may be marked
    following.click()
    expect(quiz).to_contain_text("Question 2 of 4")
    expect(quiz).to_contain_text("Right answer: (A) running")
    expect(choices.nth(0)).to_be_focused()
    for key in ("Enter", "Tab", "Tab", "Tab", "Tab", "Enter"):  # choose A, pass the other choices, next
        stage.page.keyboard.press(key)
    expect(quiz).to_contain_text("Question 3 of 4")
    for number in (3, 4):
        expect(quiz).to_contain_text(f"Question {number} of 4")
        choices.nth(1).click()
        following.click()
    expect(quiz).to_contain_text("Thank you, Ann: all 4 questions are answered.")
    expect(quiz).to_contain_text("1 of 2")
    assert stage.kernel("''.join(view.quiz.answers('Ann', 'quiz-answers').letters)") == "AABB"
    assert stage.page.evaluate("window.hacked") is None


def test_a_reloaded_page_shows_the_regions_again_and_goes_on(second):
    stage, page = second, second.page
    stage.show("chat = RegionChat(model, scene.image)\ncanvas = chat.canvas\nchat")
    ball = stage.kernel("list(map(float, ball))")
    stage.drag_in_picture(ball[:2], ball[2:])
    stage.says("region1")
    stage.ask("What colour is <region1>?")
    expect(stage.answers.last).to_have_text(GREEN)
    before = stage.boxes()
    page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    page.wait_for_function("() => !window.jupyterapp.shell.currentWidget.context.model.dirty")
    page.reload(wait_until="domcontentloaded")
    wait_for(page, IDLE, stage.name, 60, "the reloaded notebook has no idle kernel")
    stage.ready()
    stage.says_box(1, before[1])
    assert stage.boxes() == before
    stage.has_edge(1, before[1])
    expect(stage.answers).to_have_text([GREEN])
    person = stage.kernel("list(map(float, person))")
    stage.drag_in_picture(person[:2], person[2:])
    stage.says("region2")
    stage.has_edge(2, stage.boxes()[2])
    assert stage.boxes()[2] == pytest.approx(person, abs=1) and stage.boxes()[1] == before[1]
    stage.ask("What is <region2>?")
    expect(stage.answers).to_have_text([GREEN, re.compile("person")])


@pytest.fixture
def narrow(stage):
    stage.page.set_viewport_size({"width": 700, "height": 1200})
    stage.show("chat = RegionChat(model, scene.image, [person])\ncanvas = chat.canvas\nchat")
    yield stage
    stage.page.set_viewport_size(WINDOW)


def test_a_narrow_window_holds_the_whole_widget(narrow):
    narrow.ask("What is <region1>?")
    expect(narrow.answers.last).to_have_text(re.compile("person"))
    assert narrow.page.evaluate(TOO_WIDE) == []


def test_a_narrow_window_holds_the_table_of_numbers(narrow):
    narrow.open_table()
    expect(narrow.rows).to_have_count(1)
    assert narrow.page.evaluate(TOO_WIDE) == []


def test_in_a_narrow_window_the_canvas_keeps_its_shape_and_the_mouse_is_right(narrow):
    width, height = narrow.kernel("[canvas.editor.view.width, canvas.editor.view.height]")
    rect = narrow.canvas.bounding_box()
    assert rect["width"] < width, "not narrow enough to shrink the canvas"
    assert rect["width"] / rect["height"] == pytest.approx(width / height, rel=0.01)
    share = rect["width"] / width
    narrow.draw(2, (20 * share, 300 * share), (180 * share, 440 * share))
    narrow.has_edge(2, narrow.boxes()[2])


TOO_WIDE = """() => {
  const root = [...document.querySelectorAll(".roilab-chat")].find(each => each.checkVisibility()), area = root.closest(".jp-OutputArea-output");
  const right = Math.min(area.getBoundingClientRect().right, window.innerWidth) + 1, wide = [];
  if (area.scrollWidth > area.clientWidth) wide.push(`the output: ${area.scrollWidth} > ${area.clientWidth}`);
  for (const each of [root, ...root.querySelectorAll("*")]) {
    const place = each.getBoundingClientRect();
    if (each.matches("button") && each.checkVisibility() && each.scrollWidth > each.clientWidth)
      wide.push(`a button shows only a part of ${each.innerText}`);
    if (each.checkVisibility() && place.width && place.right > right)
      wide.push(`${each.tagName} ${each.className}: ${place.right} > ${right}`);
  }
  return wide;
}"""


@pytest.fixture(scope="module", params=["light", "dark"])
def themed(request, _stage):
    """A conversation in all its states, with the table open, in both themes."""
    stage = _stage
    theme(stage.page, request.param == "dark")
    stage.show(
        """\
chat = RegionChat(model, scene.image, [person, ball, kite])
canvas = chat.canvas
canvas.region_set.relabel(2, "the ball")
for question in ("What is <region1>?", "What colour is <region2>?", "What is <region3>?", "Is <region1> larger than <region2>?"):
    chat.ask(question)
canvas.region_set.move(2, 3, 4)
canvas.region_set.remove(3)
try:
    chat.ask("What is <region9>?")
except ValueError:
    pass
chat"""
    )
    stage.open_table()
    stage.rows.nth(1).locator("button").first.click()
    stage.says("region2")
    stage.button("Export").click()
    stage.question.click()
    stage.page.keyboard.type("What is <")
    expect(stage.offers).to_have_count(2)
    yield stage
    theme(stage.page, False)


def test_no_text_is_small_and_all_has_contrast(themed):
    themed.page.mouse.move(1, 1)
    found = themed.page.evaluate(TEXTS)
    texts = {each["text"] for each in found}
    assert len(found) > 60 and {"Undo", "Ask again", "the ball"} <= texts and any(map(GREEN.search, texts))
    small = [each for each in found if each["size"] < 12]
    assert not small, f"under 12 px: {small}"
    faint = [each for each in found if each["ratio"] < 4.5]
    assert not faint, f"contrast under 4.5: {faint}"


def test_an_error_has_contrast(themed):
    themed.question.fill("")
    expect(themed.offers).to_have_count(0)
    themed.button("Ask").click()
    expect(themed.find(".roilab-offers .roilab-error")).to_have_text("write a question first")
    themed.set_number(0, 0, 1000)
    expect(themed.status.locator(".roilab-error")).to_be_visible()
    found = [each for each in themed.page.evaluate(TEXTS) if "roilab-error" in each["within"]]
    assert len(found) == 2 and all(each["ratio"] >= 4.5 for each in found), found


def test_the_focus_can_be_seen(themed):
    page = themed.page
    places = {
        "button": ".roilab-bar .roilab-button:enabled",
        "chip": ".roilab-mention",
        "canvas": "canvas.roilab-canvas",
    }
    places |= {
        "number": ".roilab-row input",
        "question": ".roilab-ask textarea",
        "again": ".roilab-under .roilab-button",
    }
    places |= {"copy": ".roilab-copy", "link": ".roilab-chat a", "tool": ".roilab-bar .widget-toggle-button"}
    unseen = []
    page.keyboard.press("Shift")  # from here on the keyboard is used, and :focus-visible holds
    for name, selector in places.items():
        place = themed.find(selector).locator("visible=true").first
        place.focus()
        expect(place).to_be_focused()
        outline = page.evaluate(OUTLINE)
        if outline["style"] == "none" or outline["width"] < 2 or outline["ratio"] < 3:
            unseen.append((name, outline))
    assert not unseen


COLOURS = """
  const paint = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = colour => {
    paint.clearRect(0, 0, 1, 1);
    paint.fillStyle = "#000";
    paint.fillStyle = colour;
    paint.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = paint.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, under, alpha = top[3]) => [0, 1, 2].map(i => top[i] * alpha + under[i] * (1 - alpha)).concat(1);
  const background = element => {
    if (!element) return [255, 255, 255, 1];
    const own = rgba(getComputedStyle(element).backgroundColor);
    return own[3] === 1 ? own : over(own, background(element.parentElement));
  };
  const luminance = colour => {
    const [r, g, b] = colour.map(value => value / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (one, two) => {
    const [dark, light] = [luminance(one), luminance(two)].sort((a, b) => a - b);
    return (light + 0.05) / (dark + 0.05);
  };
"""

# Every visible text within the widgets: its words, size in px, contrast with what is behind it, and classes around it.
TEXTS = (
    "() => {"
    + COLOURS
    + """
  const found = [];
  const look = (element, text, style, share = 1) => {
    const seen = {checkOpacity: true, checkVisibilityCSS: true};
    if (!text.trim() || !element.checkVisibility(seen) || element.closest(":disabled, style, script, option")) return;
    let opacity = share, within = "";
    for (let each = element; each; each = each.parentElement) opacity *= parseFloat(getComputedStyle(each).opacity);
    for (let each = element; each && !each.matches(".roilab-chat"); each = each.parentElement) within += ` ${each.className}`;
    const behind = background(element), ink = rgba(style.color);
    const ratio = Math.round(100 * contrast(over(ink, behind, ink[3] * opacity), behind)) / 100;
    found.push({text: text.trim(), size: parseFloat(style.fontSize), ratio, within: within.trim()});
  };
  for (const root of document.querySelectorAll(".roilab-chat")) {
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const element = walker.currentNode.parentElement;
      look(element, walker.currentNode.data, getComputedStyle(element));
    }
    for (const field of root.querySelectorAll("input:not([type=checkbox]), textarea, select")) {
      if (field.value) look(field, field.value, getComputedStyle(field));
      else {
        const style = getComputedStyle(field, "::placeholder");
        look(field, field.placeholder || "", style, parseFloat(style.opacity));
      }
    }
  }
  return found;
}"""
)

OUTLINE = (
    "() => {"
    + COLOURS
    + """
  const focused = document.activeElement, style = getComputedStyle(focused);
  const behind = background(focused.parentElement);
  return {style: style.outlineStyle, width: parseFloat(style.outlineWidth), colour: style.outlineColor,
          ratio: contrast(over(rgba(style.outlineColor), behind), behind), what: focused.outerHTML.slice(0, 120)};
}"""
)


# The command


def test_the_command_opens_the_quickstart(browser, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token, log = "sesame", tmp_path / "log"
    folders = {f"JUPYTER_{name}_DIR": str(tmp_path / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    folders |= {f"JUPYTERLAB_{name}_DIR": str(tmp_path / name.lower()) for name in ("SETTINGS", "WORKSPACES")}
    command = [sys.executable, "-m", "roilab.cli", "lab", "--no-browser", "--port", str(port)]
    with open(log, "w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [*command, f"--ServerApp.token={token}"], env={**os.environ, **folders}, cwd=tmp_path, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        end = time.monotonic() + 60
        while not (printed := re.search(r"http://(?:localhost|127\.0\.0\.1):\d+/\S+", log.read_text())):
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        url = printed[0].replace("token=...", f"token={token}")  # a token that was given is not printed
        page = browser.new_page(viewport=WINDOW)
        page.goto(url if "token=" in url else f"{url}?token={token}", wait_until="domcontentloaded")
        expect(page.locator(".jp-NotebookPanel:visible")).to_have_count(1, timeout=30_000)
        expect(page.locator(".jp-NotebookPanel:visible h1")).to_have_text(re.compile("Quickstart: draw and ask"))
        expect(page.locator(".lm-TabBar-tab.jp-mod-current")).to_contain_text("00_quickstart.ipynb")
        page.close()
    finally:
        _end(process)


def _end(process: subprocess.Popen):
    """The command, the server that it started, and the kernels."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        all_of_it = psutil.Process(process.pid).children(recursive=True)
        for each in all_of_it[:1] or [process]:
            each.terminate()
        for each in psutil.wait_procs(all_of_it, timeout=15)[1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
    process.terminate()
    process.wait(20)
