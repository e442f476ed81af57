"""Right and wrong answers to the checks of roilab.exercises.measuring."""

import random

import numpy as np
import torch


def places(groups):
    """{record: indices of its answers}"""
    found = {}
    for i, group in enumerate(groups):
        found.setdefault(group, []).append(i)
    return found


def sample(groups, rng):
    records = list(places(groups).values())
    return [i for record in rng.choices(records, k=len(records)) for i in record]


def sample_in_numpy(groups, rng):
    names = sorted(set(groups))
    drawn = [names[rng.randrange(len(names))] for _ in names]
    return np.concatenate([np.flatnonzero(np.array(groups) == name) for name in drawn])


def sample_by_weights(groups, rng):
    """As the package's own bootstrap does: how often each record was drawn, then each answer that often."""
    names = list(dict.fromkeys(groups))
    drawn = [rng.choice(names) for _ in names]
    times = torch.tensor([drawn.count(group) for group in groups])
    return torch.arange(len(groups)).repeat_interleave(times)


def sample_of(draw):
    """All answers of the records that draw(groups, records, rng) names."""

    def wrong(groups, rng):
        record = places(groups)
        return [i for name in draw(groups, sorted(record), rng) for i in record[name]]

    return wrong


def sample_in_one_piece(groups, rng):
    """Right where the answers of a record stand side by side."""
    names = sorted(set(groups))
    drawn = [rng.choice(names) for _ in names]
    return [i for name in drawn for i in range(groups.index(name), groups.index(name) + groups.count(name))]


def sample_without_repeats(groups, rng):
    names = sorted(set(groups))
    drawn = [rng.choice(names) for _ in names]
    return [i for i, group in enumerate(groups) if group in drawn]


ANSWERS = {
    "three_numbers": (
        [(60, 60, 40), [60.0, 60.0, 40.0], np.array([60, 60, 40]), torch.tensor([3, 3, 2]) / 5 * 100],
        [
            (60, 60, 36),
            (60, 60, 60),
            (60, 66.7, 40),
            (60, 60, 66.7),
            (0.6, 0.6, 0.4),
            (3, 3, 2),
            (60, 60, 80),
            (60, 40, 60),
            (60, 40),
            "60, 60 and 40",
        ],
    ),
    "by_likelihood": (
        [(2, 0), [2, 0], np.array([2, 0]), (torch.tensor(2), torch.tensor(0))],
        [(0, 2), (2, 2), (0, 0), (3, 1), (1, 3), (1, 1), (3, 3), (3, 0), (2, 1), (2, 3), (0, 3), 2, "CA", ("C", "A")],
    ),
    "interval": (
        [7.84, 7.8, [7.84], np.float64(7.84), 196 * torch.tensor(0.8 * 0.2 / 100).sqrt()],
        [
            4.0,
            15.7,
            6.58,
            10.3,
            8,
            0.3136,
            78.4,
            0.784,
            17.5,
            0.0784,
            0.04,
            16,
            0.0016,
            80,
            (72.16, 87.84),
            np.array([72.16, 87.84]),
            "7.84",
        ],
    ),
    "resampled": (
        [sample, sample_in_numpy, sample_by_weights],
        [
            lambda groups, rng: rng.choices(range(len(groups)), k=len(groups)),
            sample_of(lambda groups, records, rng: rng.sample(records, k=len(records))),
            sample_of(lambda groups, records, rng: [rng.choice(records)]),
            lambda groups, rng: rng.choices(sorted(set(groups)), k=len(set(groups))),
            lambda groups, rng: sample(groups, random.Random(0)),
            lambda groups, rng: sample(groups, random),
            lambda groups, rng: rng.choices(list(places(groups).values()), k=len(set(groups))),
            sample_without_repeats,
            sample_of(lambda groups, records, rng: rng.choices(records, k=len(groups))),
            sample_of(lambda groups, records, rng: rng.choices(records, k=2)),
            sample_of(lambda groups, records, rng: [rng.choice(records)] * len(records)),
            sample_of(lambda groups, records, rng: rng.choices(records[:-1], k=len(records))),
            sample_of(lambda groups, records, rng: rng.choices(groups, k=len(records))),
            lambda groups, rng: [i + 1 for i in sample(groups, rng)],
            lambda groups, rng: [i / 2 for i in sample(groups, rng)],
            lambda groups, rng: len(sample(groups, rng)),
            sample_in_one_piece,
            lambda groups, rng: [],
            [0, 1, 2],
        ],
    ),
}
