"""`roilab study`: what interpretability is worth where the truth is known, measured on drawn scenes and written as tables with 95 % intervals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ..evaluation.statistics import bootstrap, interval, weighted_means
from ..files import write_whole
from ..weights import load
from .regions import TOKEN
from .report import HEALTHY, IGNORES_ORDER, ONLY_POSITIONS, ONLY_TEXT, SWAPS
from .sanity import randomised
from .scenes import exchanged_positions, findings, scene_study, verdicts, world

PLANTED = {
    "tiny": HEALTHY,
    "tiny-ignores-order": IGNORES_ORDER,
    "tiny-only-positions": ONLY_POSITIONS,
    "tiny-only-text": ONLY_TEXT,
    "tiny-swaps-1-and-2": SWAPS,
}
"""Model -> what `region_report` should say of it."""
RANDOM = "tiny, random weights"
# Of the rows of a study: what follows from the seed, or differs from machine to machine.
LEFT_OUT = ("question", "boxes", "seconds")
COLUMNS = {
    "pointing": "pointing game, %", "energy": "energy in the region, %", "deletion": "deletion", "insertion": "insertion", "edit": "correlation with edits",
}  # fmt: skip


def measure(scenes: int = 200, seed: int = 3, out: Path = Path("study")) -> dict:
    """Runs everything that `table` tells; what is done in `out` is not done again.

    Args:
        scenes: test scenes for every measurement. seed: which, as in `roilab evaluate`.
        out: folder of finished parts.
    Returns:
        `findings` {model: {finding: reports}}, `verdicts` {model: {verdict: answers}}, `positions` {name: [right, n]}, `methods`: rows of
        `scene_study`, numbers to five digits.
    """
    out.mkdir(parents=True, exist_ok=True)
    shown = world(scenes, seed)

    def part(name: str, work):
        path = out / f"{name}-{scenes}-{seed}.json"
        if not path.exists():
            write_whole(path, json.dumps(work(), indent=1) + "\n")
        return json.loads(path.read_text())

    models = {"tiny": "tiny", "tiny-shuffled-regions": "tiny-shuffled-regions", RANDOM: None}
    return {
        "scenes": scenes,
        "seed": seed,
        "findings": {name: part(f"findings-{name}", lambda name=name: findings(load(name), shown)) for name in PLANTED},
        "verdicts": {
            name: part(
                f"verdicts-{source or 'random'}",
                lambda source=source: verdicts(load(source) if source else randomised(load()), shown),
            )
            for name, source in models.items()
        },
        "positions": part("positions", lambda: exchanged_positions(load(), shown)),
        "methods": [
            {
                name: round(row[name], 5) if isinstance(row[name], float) else row[name]
                for name in row
                if name not in LEFT_OUT
            }
            for row in scene_study(load(), shown, path=out / f"methods-{scenes}-{seed}.jsonl").to_dict("records")
        ],
    }


def table(results: dict) -> str:
    """The results as Markdown."""
    known = list(PLANTED.values())
    said = [*known, *sorted({each for row in results["findings"].values() for each in row} - set(known))]
    lines = ["| model | " + " | ".join(said) + " | right, % |", "| --- |" + " ---: |" * (len(said) + 1)]
    for name, row in results["findings"].items():
        share = _share(row.get(PLANTED[name], 0), sum(row.values()))
        lines.append(f"| {name} | {' | '.join(str(row.get(each, 0)) for each in said)} | {share} |")
    lines += ["", f"| model | answers, % of which the region tests say that it {TOKEN} |", "| --- | ---: |"]
    lines += [
        f"| {name} | {_share(row.get(TOKEN, 0), sum(row.values()))} |" for name, row in results["verdicts"].items()
    ]
    lines += ["", "| positions of two tokens exchanged | as it should, % |", "| --- | ---: |"]
    lines += [f"| {name} | {_share(right, n)} |" for name, (right, n) in results["positions"].items()]
    lines += ["", "| method | " + " | ".join(COLUMNS.values()) + " |", "| --- |" + " ---: |" * len(COLUMNS)]
    return "\n".join([*lines, *_methods(results["methods"])])


def _methods(rows: list[dict]) -> list[str]:
    lines = []
    for name in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == name]
        lines.append(_line(name, {column: [row[column] for row in mine] for column in COLUMNS}))
    first = [row for row in rows if row["method"] == rows[0]["method"]]  # the same for all methods
    for order in ("random", "centre"):
        areas = {column: [row[f"{column}_{order}"] for row in first] for column in ("deletion", "insertion")}
        lines.append(_line(f"{order} order", areas))
    return lines


def _line(name: str, columns: dict[str, list[float]]) -> str:
    """A row of the last table: means with half the width of their bootstrap intervals."""
    cells = []
    for column in COLUMNS:
        if column not in columns:
            cells.append("")
            continue
        values = np.array(columns[column], dtype=float)[:, None] * (100 if "%" in COLUMNS[column] else 1)
        ((low, high),) = bootstrap(weighted_means(values), range(len(values)))
        digits = 1 if "%" in COLUMNS[column] else 3
        cells.append(f"{np.nanmean(values):.{digits}f} ± {(high - low) / 2:.{digits}f}")
    return f"| {name} | {' | '.join(cells)} |"


def _share(right: int, n: int) -> str:
    low, high = interval(right, n)
    return f"{100 * right / max(n, 1):.1f} ({100 * low:.1f} - {100 * high:.1f}), {n}"
