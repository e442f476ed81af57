"""What the runs of the ablation (`ablation.py`) come to: a table and a figure."""

from ..evaluation.statistics import interval
from .arms import MODELS


def summary(results: list[dict]) -> dict[str, dict]:
    """arm -> `attributes`, `comparisons`, `all` (each {accuracy, interval, n, seeds: [accuracy of each]}) and `minutes`, in the order of `MODELS`.

    `minutes` are those of the longest run that was not interrupted, with its evaluation.
    Questions of all seeds are pooled; a share is the mean of its families, its interval Wilson's for the pooled number of questions.
    """
    from ..evaluation.scenes import ATTRIBUTES, COMPARED

    rows = {}
    for name in MODELS:
        mine = [each for each in results if each["arm"] == name]
        if not mine:
            continue
        minutes = [each["minutes_with_evaluation"] for each in mine if each["minutes_with_evaluation"]]
        rows[name] = {"minutes": max(minutes, default=None)}
        for key, asked in (
            ("attributes", ATTRIBUTES),
            ("comparisons", (*COMPARED, "leftmost", "largest")),
            ("all", list(mine[0]["families"])),
        ):
            means = [sum(each["families"][f]["accuracy"] for f in asked) / len(asked) for each in mine]
            rows[name][key] = _pooled(means, sum(each["families"][f]["n"] for each in mine for f in asked))
        for key in ("q_a", "qa_r", "q_ar"):
            rows[name][key] = _pooled([each["vcr"][key] for each in mine], sum(each["vcr"]["n"] for each in mine))
    return rows


def _pooled(seeds: list[float], n: int) -> dict:
    mean = sum(seeds) / len(seeds)
    return {"accuracy": mean, "interval": interval(round(mean * n), n), "n": n, "seeds": seeds}


COLUMNS = {
    "attributes": "mean of 8 attributes", "comparisons": "mean of 5 comparisons", "all": "mean of all families",
    "q_a": "Q->A", "qa_r": "QA->R", "q_ar": "Q->AR",
}  # fmt: skip


def table(results: list[dict]) -> str:
    """The summary as Markdown: per cent, with half the width of the 95 % interval and, where there are several seeds, their range."""
    lines = [
        "| arm | seeds | " + " | ".join(COLUMNS.values()) + " | minutes |",
        "| --- | ---: |" + " ---: |" * (len(COLUMNS) + 1),
    ]
    for name, row in summary(results).items():
        cells = []
        for key in COLUMNS:
            (low, high), seeds = row[key]["interval"], row[key]["seeds"]
            spread = f" [{100 * min(seeds):.1f}, {100 * max(seeds):.1f}]" if len(seeds) > 1 else ""
            cells.append(f"{100 * row[key]['accuracy']:.1f} ± {50 * (high - low):.1f}{spread}")
        minutes = "" if row["minutes"] is None else f"{row['minutes']:.1f}"
        lines.append(f"| {name} | {len(row['all']['seeds'])} | {' | '.join(cells)} | {minutes} |")
    return "\n".join(lines)


def figure(results: list[dict]):
    """The summary as points with their intervals, a panel per column but that of all families; chance is dashed."""
    from ..plotting import show_intervals

    rows = summary(results)
    columns = {
        title: {name: (row[key]["accuracy"], *row[key]["interval"]) for name, row in rows.items()}
        for key, title in COLUMNS.items()
        if key != "all"
    }
    return show_intervals(columns, chance={COLUMNS["q_a"]: 1 / 4, COLUMNS["qa_r"]: 1 / 4, COLUMNS["q_ar"]: 1 / 16})
