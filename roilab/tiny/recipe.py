"""Sizes and schedule of the shipped tiny model, and recipes as options of a command."""

from dataclasses import dataclass, fields


@dataclass
class TinyRecipe:
    """Sizes and schedule of the shipped tiny model."""

    image_size: int = 128
    patch_size: int = 16
    vision_width: int = 160
    vision_layers: int = 5
    scenes: int = 36_000
    vision_steps: int = 5000
    vision_batch: int = 64
    vision_lr: float = 1.5e-3
    vocabulary: int = 768
    text_width: int = 128
    text_layers: int = 6
    region_width: int = 48
    fusion_rounds: int = 2
    text_share: float = 1.0
    alignment_steps: int = 1500
    alignment_batch: int = 32
    alignment_lr: float = 4e-3
    batch: int = 16
    stage1_steps: int = 80
    stage1_lr: float = 3e-4
    stage2_steps: int = 1800
    stage2_lr: float = 1e-3
    stage2_region_share: float = 0.2


def parse(parser, kind, argv=None):
    """Arguments of a command of which every field of a recipe is an option: (the recipe, all arguments as a dict).

    Args:
        parser: argparse's, with the other arguments of the command.
        kind: the recipe's dataclass, whose fields have defaults.
    """
    for field in fields(kind):
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=type(field.default),
            default=field.default,
            help="default: %(default)s",
        )
    arguments = vars(parser.parse_args(argv))
    return kind(**{field.name: arguments[field.name] for field in fields(kind)}), arguments
