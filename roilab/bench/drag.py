"""How long the browser and the kernel take to agree on a box, and how fast answers follow a box, under the mouse in a real JupyterLab."""

from __future__ import annotations

import json
import math
import re
import statistics
import tempfile
import time
from pathlib import Path

from .lab import chromium, jupyterlab, kernel, open_notebook, run_all, wait_for

NOTEBOOK = """\
from roilab.demo import sample_rounds
from roilab.widgets import RegionCanvas

image = sample_rounds(7)[0].scaled(480).image
canvas = RegionCanvas(image)
canvas"""
WHATIF = """\
import roilab
from roilab.widgets import WhatIf

scene = roilab.scenes.sample(7)
boxes = [each.box for each in scene.objects[:2]]
explorer = WhatIf(roilab.load(), scene.image, boxes, "What colour is <region1>?")
canvas = explorer.canvas
explorer"""
SECONDS = 4  # of a drag that answers follow
FAR = 0.15  # seconds there and back: a server on the other side of an ocean


def bench_drag(repeats: int = 3) -> dict[str, float]:
    """Milliseconds and messages of a drag of 60 moves, on the loopback and with 150 ms there and back."""
    near, far = (measure_drag(round_trip, repeats=repeats) for round_trip in (0.0, FAR))
    return {
        "drag_ms": near["ms"],
        "drag_ms_far": far["ms"],
        "drag_messages_sent": near["sent"],
        "drag_messages_received": near["received"],
        "drag_messages_received_far": far["received"],
    }


def bench_whatif(repeats: int = 3) -> dict[str, float]:
    """Answers per second of `WhatIf` while a region is dragged for four seconds, and milliseconds until the last place is answered."""
    with tempfile.TemporaryDirectory(prefix="roilab-drag-") as folder, chromium() as browser:
        (Path(folder) / "drag.ipynb").write_text(json.dumps(_notebook(WHATIF)), encoding="utf-8")
        with jupyterlab(folder) as lab:
            page = browser.new_page(viewport={"width": 1400, "height": 1200})
            open_notebook(page, lab, "drag.ipynb")
            run_all(page)
            page.locator(".roilab-says").wait_for()
            page.locator("canvas.roilab-canvas:visible").first.scroll_into_view_if_needed()
            drags = [_follow(page, turn) for turn in range(repeats + 1)][1:]
    return {
        "whatif_per_second": statistics.median(drag["answers"] / drag["drag_s"] for drag in drags),
        "whatif_ms": statistics.median(drag["ms"] for drag in drags),
    }


def _follow(page, turn: int) -> dict:
    """Drag region 1 over the picture, there or back, and count the answers that come while the mouse is down."""
    canvas = page.locator("canvas.roilab-canvas:visible").first.bounding_box()
    x1, y1, x2, y2 = kernel(page, "[float(side) for side in canvas.editor.view.box_to_canvas(canvas.regions[0].box)]")
    start = canvas["x"] + (x1 + x2) / 2, canvas["y"] + (y1 + y2) / 2
    middle = canvas["x"] + canvas["width"] / 2, canvas["y"] + canvas["height"] / 2
    before, moves = kernel(page, "explorer.updates"), SECONDS * 60
    page.mouse.move(*start)
    page.mouse.down()
    began = time.perf_counter()
    for move in range(1, moves + 1):
        time.sleep(max(0.0, began + move / 60 - time.perf_counter()))
        angle = 2 * math.pi * (move / moves + turn / 2)
        page.mouse.move(
            *(
                m + (s - m) * (1 - move / moves) + 60 * each(angle)
                for s, m, each in zip(start, middle, (math.cos, math.sin))
            )
        )
    drag_s = time.perf_counter() - began
    answers = kernel(page, "explorer.updates") - before
    released = time.perf_counter()
    page.mouse.up()
    last = kernel(page, "[explorer.wait(60), explorer.result.shapes == canvas.region_set.shapes]")
    while last != [True, True] and time.perf_counter() - released < 60:
        last = kernel(page, "[explorer.wait(60), explorer.result.shapes == canvas.region_set.shapes]")
    return {"answers": answers, "drag_s": drag_s, "ms": 1000 * (time.perf_counter() - released)}


def measure_drag(round_trip: float = 0.0, moves: int = 60, repeats: int = 3, source: str = NOTEBOOK) -> dict:
    """Medians over `repeats` drags, each of a new box; one more before them is not counted.

    Args:
        round_trip: seconds added to the way to the server and back.
        moves: mouse moves per drag, 60 per second, or as many as the browser keeps up with.
        source: the notebook's only cell; it shows a RegionCanvas `canvas` of the picture `image` (PIL).
    Returns:
        `ms` from mouse-up until the status says the final box and nothing on the canvas changes any more, `sent` and `received`
        messages to and from the kernel, `drag_s` from mouse-down to mouse-up, and all `drags`.
    Raises:
        RuntimeError: the box is not where the mouse was released, or the page did not come to rest within a minute.
    """
    with tempfile.TemporaryDirectory(prefix="roilab-drag-") as folder, chromium() as browser:
        (Path(folder) / "drag.ipynb").write_text(json.dumps(_notebook(source)), encoding="utf-8")
        with jupyterlab(folder, round_trip) as lab:
            page = browser.new_page(viewport={"width": 1400, "height": 1200})
            frames = _count_frames(page)
            open_notebook(page, lab, "drag.ipynb")
            run_all(page)
            page.locator("canvas.roilab-canvas:visible").first.scroll_into_view_if_needed()
            page.wait_for_timeout(1000 + 4000 * round_trip)  # the first drawing is not the drag's
            side = math.ceil(math.sqrt(repeats + 1))
            cells = [(column, row) for row in range(side) for column in range(side)][: repeats + 1]
            drags = [_drag(page, frames, cell, side, moves, round_trip) for cell in cells][1:]
    medians = {name: statistics.median(drag[name] for drag in drags) for name in ("ms", "sent", "received", "drag_s")}
    return medians | {"drags": drags}


def _notebook(source: str) -> dict:
    cell = {"cell_type": "code", "id": "drag", "metadata": {}, "execution_count": None, "outputs": [], "source": source}
    kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return {"cells": [cell], "metadata": {"kernelspec": kernelspec}, "nbformat": 4, "nbformat_minor": 5}


def _count_frames(page) -> dict[str, int]:
    """Counts that go up with every message between the page and a kernel."""
    frames = {"sent": 0, "received": 0}

    def listen(websocket):
        if "/channels" in websocket.url:  # the server's own events have another socket
            websocket.on("framesent", lambda _: frames.update(sent=frames["sent"] + 1))
            websocket.on("framereceived", lambda _: frames.update(received=frames["received"] + 1))

    page.on("websocket", listen)
    return frames


def _drag(page, frames: dict, cell: tuple[int, int], side: int, moves: int, round_trip: float) -> dict:
    """Draw one box in one of `side` x `side` cells of the canvas, so that no box is pressed that is already there."""
    canvas = page.locator("canvas.roilab-canvas:visible").first.bounding_box()
    corner, size = (canvas["x"], canvas["y"]), (canvas["width"], canvas["height"])
    if corner[1] < 0 or corner[1] + size[1] > page.viewport_size["height"]:
        raise RuntimeError(f"expected the whole canvas in a window of {page.viewport_size}, it is at {canvas}")
    ends = [[corner[i] + size[i] * (cell[i] + share) / side for i in (0, 1)] for share in (0.15, 0.8)]
    (x1, y1), (x2, y2) = ends = [[round(value) for value in end] for end in ends]
    page.mouse.move(x1, y1)
    page.wait_for_timeout(500 + 2000 * round_trip)  # what hovering changes is over
    page.evaluate(WATCH)
    before, start = dict(frames), time.perf_counter()
    page.mouse.down()
    for move in range(1, moves + 1):
        time.sleep(max(0.0, start + move / 60 - time.perf_counter()))
        page.mouse.move(x1 + (x2 - x1) * move / moves, y1 + (y2 - y1) * move / moves)
    page.mouse.up()
    drag_s = time.perf_counter() - start
    # As long as that nothing may come any more; a page that lags takes as long as it needs, and all of it is measured.
    wait_for(page, RESTS, 2000 + 2000 * round_trip, 60, "status and canvas have not come to rest")
    seen = page.evaluate("() => { window.roilabDrag.stop(); return window.roilabDrag; }")
    counts = {name: frames[name] - before[name] for name in frames}
    to_picture = [pixels / shown for pixels, shown in zip(kernel(page, "list(image.size)"), size)]
    expected = [(end[i] - corner[i]) * to_picture[i] for end in ends for i in (0, 1)]
    numbers = re.search(r"(\d+), (\d+) to (\d+), (\d+)", seen["text"])
    said = [float(number) for number in numbers.groups()] if numbers else []
    for what, box in (("status", said), ("kernel", kernel(page, "[float(side) for side in canvas.regions[-1].box]"))):
        # A pixel of rounding on either side, of the screen and of the picture.
        if len(box) != 4 or any(abs(a - b) > 1 + max(to_picture) for a, b in zip(box, expected)):
            raise RuntimeError(f"expected the box {expected} after the drag, {what} says {box} ({seen['text']!r})")
    changed = [seen[name] - seen["released"] for name in ("status", "canvas")]
    return {"ms": max(*changed, 0.0), "status_ms": changed[0], "canvas_ms": changed[1], "drag_s": drag_s} | counts


# The canvas is only looked at from mouse-up on, so that looking does not slow the drag; all of it, so that no late redrawing is missed.
# Times of the last changes: of the status' text, and of the canvas as it was when the mouse was released.
WATCH = """() => {
  const shown = name => [...document.querySelectorAll(name)].find(each => each.offsetParent !== null);
  const canvas = shown("canvas.roilab-canvas"), line = shown(".roilab-status"), context = canvas.getContext("2d");
  const drag = window.roilabDrag = {released: null, status: null, canvas: null, text: line.textContent};
  const look = () => {
    const pixels = new Uint32Array(context.getImageData(0, 0, canvas.width, canvas.height).data.buffer);
    let hash = 0;
    for (let i = 0; i < pixels.length; i++) hash = (Math.imul(hash, 31) + pixels[i]) | 0;
    return hash;
  };
  let hash, frame;
  const every = () => {
    const now = look();
    if (now !== hash) drag.canvas = performance.now();
    hash = now;
    frame = requestAnimationFrame(every);
  };
  document.addEventListener("mouseup", () => {
    hash = look();
    drag.released = drag.canvas = performance.now();
    frame = requestAnimationFrame(every);
  }, {capture: true, once: true});
  const observer = new MutationObserver(() => {
    if (line.textContent === drag.text) return;
    drag.text = line.textContent;
    drag.status = performance.now();
  });
  observer.observe(line, {subtree: true, childList: true, characterData: true});
  drag.stop = () => { observer.disconnect(); cancelAnimationFrame(frame); };
}"""

RESTS = """quiet => {
  const {released, status, canvas} = window.roilabDrag;
  return released !== null && status !== null && performance.now() - Math.max(released, status, canvas) > quiet;
}"""
