"""What a model does with regions, told from the outside: the region tests over several pictures, and what they say when put together.

Ours. Two questions are asked about two boxes of each picture, one about what region1 is like and one about where it is. Whether the second
answer is right is known from the boxes alone, so no picture needs labels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

import torch
from tqdm.auto import tqdm

from .regions import MATTERS, Bank, RegionTests, region_tests, token_bank
from .results import Result, origin
from .target import Target

LIKE = "There are <region1> and <region2>. What colour is <region1>?"
PLACE = "Is <region1> to the left of <region2>?"
HEALTHY, ONLY_TEXT, ONLY_PICTURE, ONLY_POSITIONS, IGNORES_ORDER, SWAPS = (
    "uses its region tokens",
    "reads only the text",
    "reads the picture, not the regions",
    "uses only positions",
    "ignores the order of regions",
    "swaps regions 1 and 2",
)
APART = 0.05  # of the picture's width: boxes whose middles are nearer are not left or right of each other


@dataclass
class RegionReport(Result):
    """What the region tests say about a model; drops are medians over the pictures, of log-probability.

    Attributes:
        pictures: how many.
        token, content: what the answer to the first question loses with another token for region1, or with the mean content alone.
        picture: what it loses without region1's pixels in the image tokens.
        exchanged: what the answer to the second question loses when the two tokens are exchanged.
        right: share of the second answers that are right; nan if none was yes or no.
        tests: per picture, the tests of both questions.
        origin: model, dtype and attention implementation.
    """

    also = ("finding",)

    pictures: int
    token: float
    content: float
    picture: float
    exchanged: float
    right: float
    tests: list[tuple[RegionTests, RegionTests]] = field(repr=False, default_factory=list)
    origin: dict = field(default_factory=dict)

    @property
    def finding(self) -> str:
        """What the model does, by what matters to its answers (see `MATTERS`)."""
        if self.token <= MATTERS:
            if self.exchanged > MATTERS:
                return ONLY_POSITIONS
            return ONLY_PICTURE if self.picture > MATTERS else ONLY_TEXT
        if self.exchanged <= MATTERS:
            return IGNORES_ORDER
        return SWAPS if self.right < 0.5 else HEALTHY

    def plot(self):
        """A figure; see `roilab.plotting.show_bars`."""
        from ..plotting import show_bars

        found = {
            "another token for region1": self.token,
            "mean content": self.content,
            "without its pixels": self.picture,
            "tokens exchanged (left of)": self.exchanged,
        }
        about = f"medians of {self.pictures} pictures; {self.right:.0%} of the answers to left of are right"
        return show_bars(found, self.finding, about, "loss of log-probability (dashed: half as likely)", dashed=MATTERS)


@torch.no_grad()
def region_report(
    model,
    pictures: Sequence[tuple],
    like: str = LIKE,
    place: str = PLACE,
    bank: Bank | None = None,
    progress: bool = False,
) -> RegionReport:
    """Runs the region tests on pictures with two boxes each and says what the model does with regions.

    Shows what the model's own answers to these questions rest on. Cannot show that the answers are right, apart from the second; and a
    model may treat other questions otherwise.

    Args:
        pictures: (picture, two boxes xyxy in its pixels, one further left than the other); 8 or more, medians of fewer are shaky.
        like: a question about region1, with both regions shown, that the picture alone does not answer.
        place: a question that is answered yes if region1 is left of region2, and else no.
        bank: tokens of other pictures; by default of drawn scenes.
        progress: show a bar.
    Raises:
        ValueError: no picture; not two boxes; boxes of which none is further left.
    """
    if not pictures:
        raise ValueError("0 pictures, expected at least 1")
    for picture, boxes in pictures:
        if len(boxes) != 2:
            raise ValueError(f"{len(boxes)} boxes, expected 2 for each picture")
        if abs(_middle(boxes[0]) - _middle(boxes[1])) < APART * picture.width:
            raise ValueError(f"boxes {boxes[0]} and {boxes[1]}: neither is left of the other")
    from ..chat import Chat

    bank = token_bank(model) if bank is None else bank
    tests, right = [], []
    for picture, boxes in tqdm(pictures, desc="region tests", disable=not progress):
        chat = Chat(model, picture)
        first, second = (Target.of(chat, question, boxes) for question in (like, place))
        tests.append((region_tests(model, first, 1, bank=bank), region_tests(model, second, 1, bank=bank)))
        said = re.findall(r"\b(yes|no)\b", second.answer.lower())
        if said:
            right.append((said[0] == "yes") == (_middle(boxes[0]) < _middle(boxes[1])))
    like_tests, place_tests = zip(*tests, strict=True)
    return RegionReport(
        pictures=len(tests),
        token=median(each.token_drop for each in like_tests),
        content=median(each.score - each.mean_content for each in like_tests),
        picture=median(each.picture_drop for each in like_tests),
        exchanged=median(each.score - each.exchanged for each in place_tests),
        right=sum(right) / len(right) if right else float("nan"),
        tests=tests,
        origin=origin(model),
    )


def _middle(box) -> float:
    return (box[0] + box[2]) / 2
