"""The vision tower: pixels -> patch tokens and the feature levels that the region encoder reads.

Follows GPT4RoI (arXiv 2307.03601, section 3): one network whose second-last layer gives the image tokens and several of whose layers give
the levels. Two kinds work, and only `VisionTower` knows which it has:

    transformer (CLIP, SigLIP, DINOv2, ...)     its `hidden_states`, all of one grid; class and register tokens are dropped
    network in stages (timm's, ResNet, Swin, ...)   its `feature_maps`, as a rule each twice as fine as the next: the levels as they are

Frozen means `requires_grad=False`: there is no `no_grad` here, so gradients reach the pixels.
"""

import copy
import inspect
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import AutoBackbone, AutoModel, PreTrainedConfig, PreTrainedModel

MOST_LEVELS = 4  # of a network in stages, unless more are asked for: as many as the paper has


@dataclass
class VisionFeatures:
    """What the vision tower says about B pictures.

    Attributes:
        patches: [B, P, C] tokens of the image layer, row by row.
        levels: L tensors [B, C_i, H_i, W_i], earliest layer first; those of a transformer have one size.
        grid: (H, W) in patches, H * W = P.
        picture: [B, 3, H, W] pixels, for region encoders that look at crops of it (`RegionConfig.focal_size`).
    """

    patches: Tensor
    levels: list[Tensor]
    grid: tuple[int, int]
    picture: Tensor | None = None

    def __len__(self) -> int:
        return len(self.patches)

    def to(self, *args, **kwargs) -> "VisionFeatures":
        """The same features on another device or in another dtype."""
        picture = None if self.picture is None else self.picture.to(*args, **kwargs)
        levels = [level.to(*args, **kwargs) for level in self.levels]
        return VisionFeatures(self.patches.to(*args, **kwargs), levels, self.grid, picture)

    def rows(self, rows: list[int]) -> "VisionFeatures":
        """The features of these pictures."""
        picture = None if self.picture is None else self.picture[rows]
        return VisionFeatures(self.patches[rows], [level[rows] for level in self.levels], self.grid, picture)


class VisionTower(nn.Module):
    """A transformers vision model read at several layers.

    Args:
        config: configuration of the vision model (or of a two-tower model that has a `vision_config`), with its `image_size`.
        feature_layers: indices into the model's states, one per level, earliest first. States are a transformer's `hidden_states` (0 is the
            embedding, -1 the last layer), or the `feature_maps` of a network in stages (`out_indices` of its configuration).
        image_layer: index of the state whose patches become the image tokens.
        model: use this vision model instead of a fresh one.
    Attributes:
        width: channels of an image token. level_widths: channels of each level.
        patch_size: pixels (rows, columns) to an image token; of a network in stages the stride of that map.
        num_states: how many states there are.
    Raises:
        ValueError: there is no such state; no image size, or one that is not a multiple of the stride.
    """

    def __init__(
        self, config: PreTrainedConfig, feature_layers: list[int], image_layer: int, model: nn.Module | None = None
    ):
        super().__init__()
        config = getattr(config, "vision_config", config)
        self.feature_layers = list(feature_layers)
        self.image_layer = image_layer
        self.model = unwrap(fresh_vision_model(config) if model is None else model)
        self._in_stages = in_stages(config)
        if self._in_stages:
            states = map_shapes(self.model)
        else:
            states = [(config.patch_size, config.hidden_size)] * (config.num_hidden_layers + 1)
        self.num_states = count = len(states)
        for index in [*self.feature_layers, image_layer]:
            if not -count <= index < count:
                kind = "feature maps" if self._in_stages else "hidden states"
                raise ValueError(
                    f"layer {index} asked for, but the vision model has {count} {kind} (-{count} to {count - 1})"
                )
        self.level_widths = [states[index][1] for index in self.feature_layers]
        self.patch_size, self.width = _pair(states[image_layer][0]), states[image_layer][1]
        if getattr(config, "image_size", None) is None:
            raise ValueError(
                f"the configuration {config.model_type} has no image_size, but pictures come in one size: pass "
                f"image_size= (a multiple of {max(stride for stride, _ in states)} pixels)"
            )
        self.image_size = _pair(config.image_size)
        coarsest = max(stride for stride, _ in states) if self._in_stages else 1
        if any(side < coarsest or side % coarsest for side in self.image_size):
            raise ValueError(
                f"image_size {self.image_size[0]} x {self.image_size[1]} is not a multiple of the vision model's "
                f"coarsest stride, {coarsest} pixels"
            )
        self._interpolates = "interpolate_pos_encoding" in inspect.signature(self.model.forward).parameters

    @property
    def grid(self) -> tuple[int, int]:
        """Patches (rows, columns) of a picture of the configured size."""
        return self.image_size[0] // self.patch_size[0], self.image_size[1] // self.patch_size[1]

    @property
    def num_patches(self) -> int:
        return self.grid[0] * self.grid[1]

    def train(self, mode: bool = True):
        """As of any module; but a frozen tower keeps its batch norms in eval mode, so that their running statistics stay as they are."""
        super().train(mode)
        if not any(each.requires_grad for each in self.parameters()):
            for module in self.modules():
                if getattr(module, "track_running_stats", False):
                    module.eval()
        return self

    def forward(self, pixel_values: Tensor) -> VisionFeatures:
        """Features of B pictures.

        Args:
            pixel_values: [B, 3, H, W], normalised pixels; H and W multiples of the patch size. For sizes other than the configured one
                a transformer interpolates its position embeddings.
        Raises:
            ValueError: wrong number of dimensions, or a picture smaller than one patch.
        """
        if pixel_values.dim() != 4:
            raise ValueError(f"pixel_values have the shape {list(pixel_values.shape)}, expected [B, 3, H, W]")
        size = tuple(pixel_values.shape[-2:])
        height, width = size[0] // self.patch_size[0], size[1] // self.patch_size[1]
        if height < 1 or width < 1:
            raise ValueError(
                f"pictures of {size[0]} x {size[1]} pixels, but one patch is {self.patch_size[0]} x {self.patch_size[1]}"
            )
        pixel_values = pixel_values.to(next(self.model.parameters()).dtype)
        if self._in_stages:
            maps = self.model(pixel_values, return_dict=True).feature_maps
            image = maps[self.image_layer]
            levels = [maps[i] for i in self.feature_layers]
            return VisionFeatures(image.flatten(2).transpose(1, 2), levels, tuple(image.shape[-2:]))
        options = {"interpolate_pos_encoding": True} if self._interpolates and size != self.image_size else {}
        states = self.model(pixel_values, output_hidden_states=True, return_dict=True, **options).hidden_states
        first = states[0].shape[1] - height * width  # class and register tokens come before the patches
        levels = [states[i][:, first:].transpose(1, 2).unflatten(2, (height, width)) for i in self.feature_layers]
        return VisionFeatures(states[self.image_layer][:, first:], levels, (height, width))


def in_stages(config: PreTrainedConfig) -> bool:
    """Whether a vision configuration is of a network in stages, whose feature maps are the levels, and not of a plain transformer."""
    return hasattr(config, "depths") or not hasattr(config, "num_hidden_layers")


def fresh_vision_model(config: PreTrainedConfig) -> nn.Module:
    """A vision model with random weights.

    Raises:
        ValueError: the configuration names a place to fetch a network from.
    """
    name = getattr(config, "backbone", None)
    if isinstance(name, str) and ":" in name:  # timm would read from there, whatever wrote the configuration
        raise ValueError(f"the vision model is {name!r}, expected the name of one of timm's own networks")
    return (AutoBackbone if in_stages(config) else AutoModel).from_config(config)


def pretrained_vision_model(source, config: PreTrainedConfig, dtype: torch.dtype) -> nn.Module:
    """The vision model of a folder or hub id, as this configuration wants it read."""
    if not in_stages(config):
        return AutoModel.from_pretrained(source, config=config, dtype=dtype)
    with torch.device("meta"):
        kind = type(fresh_vision_model(config))
    # Not the class's own: TimmBackbone's asks timm for weights by name instead of reading them.
    return PreTrainedModel.from_pretrained.__func__(kind, source, config=config, dtype=dtype)


@torch.no_grad()
def map_shapes(model: nn.Module) -> list[tuple[int, int]]:
    """(stride in pixels, channels) of each feature map of a network in stages, found by showing it a small blank picture."""
    weight, training, side = next(model.parameters()), model.training, 64
    blank = torch.zeros(1, 3, side, side, dtype=weight.dtype, device=weight.device)
    maps = model.eval()(blank, return_dict=True).feature_maps
    model.train(training)
    return [(side // each.shape[-1], each.shape[1]) for each in maps]


def pyramid_stages(config: PreTrainedConfig, stages: list[int] | None = None) -> list[int]:
    """Which stages of a network become levels: numbers from 0, finest first.

    Args:
        stages: these, negative ones counted from the end. By default the `out_indices` of the configuration if they are several (one is
            what transformers takes by itself), else the natural pyramid: of each stride the last stage, the coarsest four.
    Raises:
        ValueError: there is no such stage.
    """
    if stages is None and len(config.out_indices or ()) > 1:
        return list(config.out_indices)
    config = copy.deepcopy(config)
    with torch.device("meta"):
        count = len(fresh_vision_model(config).stage_names)
        if stages is not None:
            wrong = [stage for stage in stages if not -count <= stage < count]
            if wrong:
                raise ValueError(
                    f"stage {wrong[0]} asked for, but the vision model has {count} (-{count} to {count - 1})"
                )
            return sorted({stage % count for stage in stages})
        config.out_indices = list(range(count))
        shapes = map_shapes(fresh_vision_model(config))
    last = {stride: stage for stage, (stride, _) in enumerate(shapes)}
    return sorted(last.values())[-MOST_LEVELS:]


class Familiarity(nn.Module):
    """How far a picture lies from the training pictures, by the statistics of its patch tokens.

    Mean and standard deviation over the patches, [2 C], and their Mahalanobis distance (Lee et al., arXiv 1807.03888) to those of the
    pictures that `fit` has seen. All buffers: it has no parameters and is saved with the model.
    """

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(2 * width))
        self.register_buffer("whitening", torch.eye(2 * width))
        self.register_buffer("threshold", torch.tensor(float("inf")))

    @staticmethod
    def statistics(patches: Tensor) -> Tensor:
        """[B, P, C] -> [B, 2 C] in float32."""
        patches = patches.float()
        return torch.cat([patches.mean(1), patches.std(1)], 1)

    @torch.no_grad()
    def fit(self, statistics: Tensor, margin: float = 1.15, shrinkage: float = 0.01):
        """Learn from [n, 2 C] statistics of n pictures; beyond `margin` x their 99.9th percentile a picture is unfamiliar."""
        covariance = torch.cov(statistics.T)
        covariance += shrinkage * covariance.diagonal().mean() * torch.eye(len(covariance), device=covariance.device)
        self.mean.copy_(statistics.mean(0))
        self.whitening.copy_(torch.linalg.cholesky(torch.linalg.inv(covariance)))
        self.threshold.copy_(margin * self._distance(statistics).quantile(0.999))

    def _distance(self, statistics: Tensor) -> Tensor:
        return ((statistics - self.mean.float()) @ self.whitening.float()).norm(dim=1)

    def forward(self, patches: Tensor) -> Tensor:
        """Distances [B] of pictures with patch tokens [B, P, C]; compare with `threshold`."""
        return self._distance(self.statistics(patches))


def unwrap(model: nn.Module) -> nn.Module:
    """The vision transformer inside a two-tower model or a wrapper class (transformers' versions nest them differently)."""
    while hasattr(model, "vision_model"):
        model = model.vision_model
    return model


def _pair(size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
