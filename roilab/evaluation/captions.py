"""Region captioning: a generated caption per ground-truth box, scored by CIDEr (arXiv 1411.5726) and METEOR through pycocoevalcap.

Both need Java: METEOR is a Java program, and CIDEr counts the words of a tokenizer that is one. Captions of one box (several people's, or
several records of a picture) are references of one region.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec

import numpy as np

from ..presenting import one_by_one, spoken
from .reading import answer_all
from .results import Result, scores_of
from .running import Predictions, Query, Spread, header, picture_order, run


def missing() -> str:
    """Why CIDEr and METEOR cannot be computed here; "" if they can."""
    if find_spec("pycocoevalcap") is None:
        return "CIDEr and METEOR are left out: pycocoevalcap is not installed (pip install 'roilab[eval]')."
    if shutil.which("java") is None:
        return "CIDEr and METEOR are left out: Java is not installed, and METEOR and the tokenizer that CIDEr counts by are Java programs."
    return ""


def evaluate_captions(
    model, records: Sequence, data: str = "", split: str = "", *, arm: str = "regions", limit: int | None = None, predictions=None,
    batch: int = 16, max_new_tokens: int = 64,
) -> Result:  # fmt: skip
    """CIDEr and METEOR of greedy captions, each region asked about alone in its record's own words.

    Args:
        records: `RegionDialogue` records whose rounds ask for a caption of one region, and `.picture(index)`.
        max_new_tokens: longest caption.
        data, split, arm, limit, predictions, batch: as in `evaluate_choices`.
    Returns:
        `Result`; predictions hold `id`, `image`, `box`, `caption`, `references` and, where they were computed, `CIDEr` and `METEOR`.
    Raises:
        ValueError: no round about one region, a predictions file of another evaluation.
    """
    records = records if limit is None else Spread(records, limit)
    order, content = picture_order(records)
    references, asked, skipped = _regions(records, order)
    if not asked:
        raise ValueError(f"none of {len(records)} records has a round about exactly one region")

    def queries():
        for key, (index, place) in asked.items():
            alone = one_by_one(records[index])[place][1]
            about = {
                "id": records[index].id,
                "image": alone.image,
                "box": alone.boxes[0],
                "references": references[key],
            }
            yield Query(key, index, replace(alone, turns=alone.turns[:1]), (), about)

    def predict(reader, rows, _):
        return [{"caption": text} for text in answer_all(reader.model, reader, rows, max_new_tokens)]

    settings = dict(arm=arm, limit=limit, max_new_tokens=max_new_tokens)
    with Predictions(predictions, header(model, "captions", data, split, content, **settings)) as kept:
        run(
            model,
            records,
            queries(),
            predict,
            kept,
            arm=arm,
            batch=batch,
            total=len(asked),
            title=data or "captions",
            fields={"caption": lambda found: isinstance(found, str)},
        )
    made = [dict(kept.known[key]) for key in sorted(asked, key=asked.__getitem__)]
    result = Result(data, split, [], settings | {"model": kept.header["model"], "regions": len(made)}, predictions=made)
    if skipped:
        result.notes.append(f"{skipped} rounds that are not about exactly one region are left out.")
    if missing():
        result.notes.append(missing())
    else:
        _score(result)
    return result


def _regions(records, order):
    """Per region: its references; the (record, place among its rounds) that asks for it. And how many rounds are about no one region."""
    references: dict[str, list[str]] = {}
    asked: dict[str, tuple[int, int]] = {}
    skipped = 0
    for index in order:
        record = records[index]
        rounds = one_by_one(record)
        skipped += len(record.turns) // 2 - len(rounds)
        for place, (_, alone) in enumerate(rounds):
            key = f"{record.image} {' '.join(f'{side:.2f}' for side in alone.boxes[0])}"
            asked.setdefault(key, (index, place))
            references.setdefault(key, []).append(spoken(alone.turns[1]["content"]))
    return references, asked, skipped


def _score(result: Result):
    made = result.predictions
    values, meteor = caption_scores([p["caption"] for p in made], [p["references"] for p in made])

    def statistic(weights):
        return np.array([weights @ values["CIDEr"] / weights.sum(), meteor(weights)])

    names = [("CIDEr", "generated", "all"), ("METEOR", "generated", "all")]
    result.scores += scores_of(names, statistic, [p["id"] for p in made], [len(made)] * 2)
    for place, prediction in enumerate(made):
        prediction |= {name: float(column[place]) for name, column in values.items()}


def caption_scores(captions: Sequence[str], references: Sequence[Sequence[str]]):
    """CIDEr and METEOR as pycocoevalcap computes them.

    Args:
        captions: one per region.
        references: per region at least one.
    Returns:
        ({"CIDEr": [n], "METEOR": [n]} per region; a function: weights [n], whole numbers -> METEOR of the regions drawn that often).
        CIDEr of all is the mean; METEOR is not, it is computed from matches summed over the regions.
    """
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    given = _tokenized(PTBTokenizer(), [[caption] for caption in captions])
    truth = _tokenized(PTBTokenizer(), references)
    _, cider = Cider().compute_score(truth, given)
    meteor = _Meteor(truth, given)
    return {"CIDEr": np.array(cider), "METEOR": meteor.segments}, meteor


def _tokenized(tokenizer, texts: Sequence[Sequence[str]]) -> dict[int, list[str]]:
    # One line per text: every kind of line break would count as the next text's beginning.
    lines = {i: [{"caption": " ".join(text.split()) or "."} for text in each] for i, each in enumerate(texts)}
    tokens = tokenizer.tokenize(lines)
    if {i: len(each) for i, each in tokens.items()} != {i: len(each) for i, each in lines.items()}:
        raise ValueError(
            f"the tokenizer gave {sum(map(len, tokens.values()))} texts for {sum(map(len, lines.values()))}"
        )
    return tokens


class _Meteor:
    """METEOR of all regions or of any resample: the matches are counted once, then summed."""

    def __init__(self, truth: dict, given: dict):
        from pycocoevalcap.meteor.meteor import Meteor

        self._meteor, counts = Meteor(), []
        count = self._meteor._stat

        def remember(caption, references):
            counts.append(count(caption, references))
            return counts[-1]

        self._meteor._stat = remember
        self.value, segments = self._meteor.compute_score(truth, given)
        self.segments, self.counts = np.array(segments), np.array([line.split() for line in counts], dtype=float)
        # Where every word of both matches in one piece, METEOR adds no chunk to the sum: chunks measure disorder.
        words, words_there, chunks, matched, matched_there = self.counts[:, [0, 1, 20, 21, 22]].T
        self.counts[(words == matched) & (words_there == matched_there) & (chunks == 1), 20] = 0

    def __call__(self, weights: np.ndarray) -> float:
        if (weights == 1).all():
            return self.value
        process = self._meteor.meteor_p
        process.stdin.write(f"EVAL ||| {' '.join(f'{v:.1f}' for v in weights @ self.counts)}\n".encode())
        process.stdin.flush()
        process.stdout.readline()  # of the one segment
        return float(process.stdout.readline())
