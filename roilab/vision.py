"""The vision tower: pixels -> patch tokens and the feature levels that the region encoder reads.

Follows GPT4RoI (arXiv 2307.03601, section 3): one transformer encoder whose second-last layer gives the image tokens and several of
whose layers give the levels. Any ViT of transformers with `hidden_states` works (CLIP, SigLIP, DINOv2, ...); tokens in front of the
patches (class, registers) are dropped. Frozen means `requires_grad=False`: there is no `no_grad` here, so gradients reach the pixels.
"""

import inspect
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedConfig


@dataclass
class VisionFeatures:
    """What the vision tower says about B pictures.

    Attributes:
        patches: [B, P, C] tokens of the image layer, row by row.
        levels: L tensors [B, C, H, W], earliest layer first.
        grid: (H, W) in patches, H * W = P.
    """

    patches: Tensor
    levels: list[Tensor]
    grid: tuple[int, int]

    def __len__(self) -> int:
        return len(self.patches)

    def to(self, *args, **kwargs) -> "VisionFeatures":
        """The same features on another device or in another dtype."""
        return VisionFeatures(
            self.patches.to(*args, **kwargs), [level.to(*args, **kwargs) for level in self.levels], self.grid
        )


class VisionTower(nn.Module):
    """A transformers vision model read at several layers.

    Args:
        config: configuration of the vision model (or of a two-tower model that has a `vision_config`).
        feature_layers: indices into `hidden_states` (0 is the embedding, -1 the last layer), one per level, earliest first.
        image_layer: index of the hidden state whose patches become the image tokens.
        model: use this vision model instead of a fresh one.
    """

    def __init__(
        self, config: PreTrainedConfig, feature_layers: list[int], image_layer: int, model: nn.Module | None = None
    ):
        super().__init__()
        config = getattr(config, "vision_config", config)
        self.feature_layers = list(feature_layers)
        self.image_layer = image_layer
        self.patch_size = _pair(config.patch_size)
        self.image_size = _pair(config.image_size)
        count = config.num_hidden_layers + 1
        for index in [*self.feature_layers, image_layer]:
            if not -count <= index < count:
                raise ValueError(
                    f"layer {index} asked for, but the vision model has {count} hidden states (-{count} to {count - 1})"
                )
        self.model = unwrap(AutoModel.from_config(config) if model is None else model)
        self._interpolates = "interpolate_pos_encoding" in inspect.signature(self.model.forward).parameters

    @property
    def grid(self) -> tuple[int, int]:
        """Patches (rows, columns) of a picture of the configured size."""
        return self.image_size[0] // self.patch_size[0], self.image_size[1] // self.patch_size[1]

    @property
    def num_patches(self) -> int:
        return self.grid[0] * self.grid[1]

    def forward(self, pixel_values: Tensor) -> VisionFeatures:
        """Features of B pictures.

        Args:
            pixel_values: [B, 3, H, W], normalised pixels; H and W multiples of the patch size. Sizes other than the configured one
                use interpolated position embeddings.
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
        options = {"interpolate_pos_encoding": True} if self._interpolates and size != self.image_size else {}
        dtype = next(self.model.parameters()).dtype
        states = self.model(
            pixel_values.to(dtype), output_hidden_states=True, return_dict=True, **options
        ).hidden_states
        first = states[0].shape[1] - height * width  # class and register tokens come before the patches
        levels = [states[i][:, first:].transpose(1, 2).unflatten(2, (height, width)) for i in self.feature_layers]
        return VisionFeatures(states[self.image_layer][:, first:], levels, (height, width))


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
