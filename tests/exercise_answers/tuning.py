"""Right and wrong answers to the checks of roilab.exercises.tuning."""

import math

import numpy as np
import torch

NAMES = ("refcocog", "vg", "vcr_full")
SHARES = (2000 / 14750, 1350 / 14750, 11400 / 14750)


def named(*values):
    return dict(zip(NAMES, values))


def rate(step, steps, warmup, peak):
    if step < warmup:
        return peak * step / warmup
    return peak * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


def rate_by_torch(step, steps, warmup, peak):
    """What torch's own schedules say."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps - warmup)
    rates = [peak * k / warmup for k in range(warmup)]
    for _ in range(steps - warmup + 1):
        rates.append(falling.get_last_lr()[0])
        optimizer.step()
        falling.step()
    return torch.tensor(rates[step])


def falling(shape):
    """The right warm-up, then a shape of (step, steps, warmup)."""
    return lambda step, steps, warmup, peak: peak * (step / warmup if step < warmup else shape(step, steps, warmup))


def part(step, steps, warmup):
    return (step - warmup) / (steps - warmup)


def half(x):
    return (1 + math.cos(math.pi * x)) / 2


ANSWERS = {
    "shares": (
        [
            named(*SHARES),
            named(0.136, 0.092, 0.773),
            named(0.14, 0.09, 0.77),
            dict(reversed(named(*SHARES).items())),
            named(*map(torch.tensor, SHARES)),
            named(*np.array(SHARES, np.float32)),
        ],
        [
            named(1 / 3.5, 0.5 / 3.5, 2 / 3.5),
            named(2000 / 10400, 2700 / 10400, 5700 / 10400),
            named(13.6, 9.2, 77.3),
            named(2000, 1350, 11400),
            named(2000 / 10400, 1350 / 10400, 11400 / 10400),
            named(2000 / 10250, 5400 / 10250, 2850 / 10250),
            named(1 / 3, 1 / 3, 1 / 3),
            named(SHARES[0], SHARES[2], SHARES[1]),
            {"refcocog": 0.15, "vg": 0.85},
            named("14 %", "9 %", "77 %"),
            list(SHARES),
        ],
    ),
    "step_loss": (
        [1.25, [1.25], np.float32(1.25), torch.tensor(1.25), (10 * 2.0 + 30 * 1.0) / 40],
        [1.5, 3.0, 50, 1.75, 25, 0.625, 1.0, 2.0, 1.3, (2.0, 1.0), "five quarters"],
    ),
    "schedule": (
        [
            rate,
            rate_by_torch,
            lambda step, steps, warmup, peak: (
                peak * min(step / warmup if warmup else 1, half(max(0, part(step, steps, warmup))))
            ),
        ],
        [
            lambda step, steps, warmup, peak: peak * half(step / steps),
            lambda step, steps, warmup, peak: peak * half(max(0, part(step, steps, warmup))),
            falling(lambda *when: 1 - part(*when)),
            falling(lambda step, steps, warmup: half(step / steps)),
            lambda step, steps, warmup, peak: peak * half(step / steps) * (min(1, step / warmup) if warmup else 1),
            falling(lambda step, steps, warmup: half((step - warmup) / steps)),
            falling(lambda *when: half(2 * part(*when))),
            falling(lambda *when: math.cos(math.pi / 2 * part(*when))),
            falling(lambda *when: math.cos(math.pi * part(*when))),
            lambda step, steps, warmup, peak: rate(step, steps, warmup, 1),
            lambda step, *given: rate(step, *given) if step >= given[1] else given[2] * (step + 1) / given[1],
            falling(lambda *when: 1),
            lambda step, *given: rate(step, *given) if step >= given[1] else given[2] * (1 - half(step / given[1])),
            # A floor, a warm-up twice as steep, and no way out where the warm-up has no steps.
            falling(lambda *when: 0.1 + 0.9 * half(part(*when))),
            lambda step, *given: rate(step, *given) if step >= given[1] else given[2] * min(1, 2 * step / given[1]),
            lambda step, steps, warmup, peak: peak * min(step / warmup, half(max(0, part(step, steps, warmup)))),
            lambda step, *given: [rate(step, *given), 0],
            lambda step, *given: None,
            2e-5,
        ],
    ),
    "credit": (
        [(22, 5), [22.0, 5.0], np.array([22, 5]), torch.tensor([22, 5])],
        [
            (27, 5),
            (22, 27),
            (22, 40),
            (62, 40),
            (5, 22),
            (-22, -5),
            (1.55, 1.14),
            (55, 14.3),
            (0.22, 0.05),
            (22, 35),
            22,
            "22 and 5",
        ],
    ),
}
