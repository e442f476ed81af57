"""Right and wrong answers to the checks of roilab.exercises.scaling."""

import torch

RIGHT = 2 * 32 * 4096 * 2 * 1000

ANSWERS = {
    "cache": (
        [RIGHT, float(RIGHT), torch.tensor(RIGHT), 524e6],
        [RIGHT / 2, RIGHT // 4 * 2 + 1e9, RIGHT / 32, RIGHT / 1000, RIGHT * 2, RIGHT * 32],
    ),
    "row": (
        [(32001, "<point>"), [32001.0, "<point>"], (torch.tensor(32001), "<point>")],
        [
            (32002, "<point>"),
            (32000, "<point>"),
            (1, "<point>"),
            (31999, "<point>"),
            (32001, "<im_patch>"),
            (32001, "<bbox>"),
            (32001, "[PAD]"),
            (32001, "<im_end>"),
            32001,
        ],
    ),
}
