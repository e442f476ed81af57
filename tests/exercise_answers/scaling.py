"""Right and wrong answers to the checks of roilab.exercises.scaling."""

import torch

RIGHT = 2 * 32 * 4096 * 2 * 1000

ANSWERS = {
    "cache": (
        [RIGHT, float(RIGHT), torch.tensor(RIGHT), 524e6],
        [RIGHT / 2, RIGHT // 4 * 2 + 1e9, RIGHT / 32, RIGHT / 1000, RIGHT * 2, RIGHT * 32],
    ),
    "row": (
        [(32003, "<im_end>"), [32003.0, "<im_end>"], (torch.tensor(32003), "<im_end>")],
        [
            (32004, "<im_end>"),
            (32002, "<im_end>"),
            (3, "<im_end>"),
            (31999, "<im_end>"),
            (32003, "<point>"),
            (32003, "<im_start>"),
            (32003, "[PAD]"),
            (32003, "<bbox>"),
            32003,
        ],
    ),
}
