"""Many targets, many methods, one table: how faithful maps are and where they lie."""

from __future__ import annotations

import contextlib
import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tqdm.auto import tqdm

from .attention import attention_map, relevance, rollout
from .attribution import to_pixels, to_tokens
from .faithfulness import Curves, deletion_insertion, energy_in_region, pointing_game
from .perturbation import cover
from .results import Scores
from .target import Target

ROW = {"target", "method", "question", "answer", "boxes"}  # what tells a row of a study from other JSON
METHODS: dict[str, Callable[[object, Target], Scores]] = {
    "attention": attention_map,
    "rollout": rollout,
    "relevance": relevance,
    "saliency": functools.partial(to_pixels, method="saliency"),
    "input x gradient": functools.partial(to_pixels, method="input_x_gradient"),
    "integrated gradients": to_pixels,
    "integrated gradients, image path": functools.partial(to_pixels, path="image"),
    "integrated gradients, image tokens": to_tokens,
    "occlusion": functools.partial(cover, method="occlusion"),
    "ablation": cover,
    "Shapley values": functools.partial(cover, method="shapley", samples=3),
}
"""name -> what makes a map of a target: the methods of this package, at the settings of a study."""


def study(
    model,
    targets: Sequence[Target],
    methods: Mapping[str, Callable[[object, Target], Scores]] | None = None,
    path=None,
    measures: Mapping[str, Callable[[int, Scores], float]] | None = None,
    steps: int = 8,
    seed: int = 0,
    progress: bool = True,
):
    """Runs methods on targets and measures every map.

    Ctrl-C loses at most the row at hand: with `path` the next call goes on from there.

    Args:
        targets: each with at least one region; localisation is measured by the first region's box.
        methods: name -> function of model and target; by default `METHODS`.
        path: file of JSON lines, a row each, that is continued.
        measures: column -> function of a target's index and a method's scores, measured beside the others.
        steps, seed: of `deletion_insertion`.
        progress: show a bar.
    Returns:
        A pandas DataFrame, a row per target and method: `target` (its index), `method`, `question`, `answer`, `boxes`, `pointing` (bool),
        `energy`, `deletion`, `insertion` and the same areas of the random and the centre order (`deletion_random`, ...), `seconds`.
    Raises:
        ValueError: a target without region; `path` holds rows of other targets, or something else.
    """
    import pandas

    methods = METHODS if methods is None else methods
    for i, target in enumerate(targets):
        if not target.boxes:
            raise ValueError(f"target {i} ({target.question!r}) shows no region (0 boxes)")
    rows = _kept(path, targets)
    done = {(row["target"], row["method"]) for row in rows}
    left = [(i, name) for i in range(len(targets)) for name in methods if (i, name) not in done]
    known: dict[int, Curves] = {}  # of the target at hand: the random and centre orders are the same for all methods
    for i, name in tqdm(left, desc="study", disable=not progress):
        row, curves = _measured(model, i, targets[i], methods[name], measures or {}, steps, seed, known.get(i))
        known = {i: curves}
        rows.append({"target": i, "method": name} | row)
        if path is not None:
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(rows[-1], ensure_ascii=False) + "\n")
    wanted = [row for row in rows if row["method"] in methods]
    order = {name: i for i, name in enumerate(methods)}
    return pandas.DataFrame(sorted(wanted, key=lambda row: (row["target"], order[row["method"]])))


def _measured(
    model, index: int, target: Target, method, measures, steps: int, seed: int, beside
) -> tuple[dict, Curves]:
    began = time.perf_counter()
    scores = method(model, target)
    seconds = time.perf_counter() - began
    curves = deletion_insertion(model, scores, steps=steps, seed=seed, beside=beside)
    row = {"question": target.question, "answer": target.answer, "boxes": target.boxes}
    row |= {"pointing": pointing_game(scores, target.boxes[0])}
    row |= {"energy": energy_in_region(scores, target.boxes[0]), "seconds": seconds}
    row |= {name: measure(index, scores) for name, measure in measures.items()}
    for order, (deletion, insertion) in curves.areas.items():
        suffix = "" if order == "method" else f"_{order}"
        row |= {f"deletion{suffix}": deletion, f"insertion{suffix}": insertion}
    return row, curves


def _row(path, number: int, line: str) -> dict:
    with contextlib.suppress(ValueError, RecursionError):
        row = json.loads(line)
        if isinstance(row, dict) and isinstance(row.get("target"), int) and row["target"] >= 0 and row.keys() >= ROW:
            return row
    raise ValueError(f"{path}, line {number}: expected a row of a study, with {', '.join(sorted(ROW))}")


def _kept(path, targets: Sequence[Target]) -> list[dict]:
    """Rows of an earlier call; a last line that was cut off is dropped."""
    if path is None or not Path(path).exists():
        return []
    rows, whole = [], []
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines(keepends=True)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} holds no rows of a study: {error}") from None
    for number, line in enumerate(lines, 1):
        if not line.endswith("\n"):
            break
        rows.append(_row(path, number, line))
        whole.append(line)
    for row in rows:
        i = row["target"]
        told = (row["question"], row["answer"], row["boxes"])
        if i >= len(targets) or told != (targets[i].question, targets[i].answer, targets[i].boxes):
            asked = f"{targets[i].question!r}" if i < len(targets) else "none"
            raise ValueError(
                f"{path} holds a row of target {i}, {row['question']!r}; this study's target {i} is {asked}"
            )
    Path(path).write_text("".join(whole), encoding="utf-8")
    return rows
