"""Configuration of GPT4RoI: every size of the model, for any scale.

Follows the composition of GPT4RoI (arXiv 2307.03601, section 3): a vision tower, a region encoder over several of its levels, a
language model. The configuration knows neither files nor training.
"""

from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

MOST_SAMPLES = 64  # RoIAlign samples per cell and axis; weights do not show how many there were
MOST_PIXELS = 1024  # of a side of a crop; weights do not show it either
MOST_CONTEXT, MOST_CROPS = 8, 8  # how large a crop is against its box, and crops of a region


class RegionConfig(PreTrainedConfig):
    """Sizes of the region encoder (paper sizes by default).

    Args:
        level_widths: channels of each input level, earliest layer first; its length is the number of levels `L`.
        width: channels `C` inside the encoder.
        fusion_rounds: rounds of exchange between neighbouring levels.
        norm_groups: groups of the GroupNorm after each fusion convolution.
        roi_size: side of the RoIAlign grid, in cells.
        sampling_ratio: RoIAlign samples per cell and axis, 0 to 64 (0: as many as fit).
        hidden_size: width of the flattened RoI vector and of the box embedding.
        position_hidden_size: hidden width of the box MLP.
        output_size: width of one region embedding, the language model's `D`.
        focal_size: side in pixels of a crop of each region that goes through the vision tower once more; 0: none. What the last level says
            of the crop becomes further channels of the region's cells. Not in the paper.
        focal_width: channels of a cell that come from each crop.
        focal_contexts: the crops of a region, each by how many times it is as wide and high as the box, 1 to 8. What one larger than the box
            shows has no place in the box: it is the same in all cells.
        words: K words of which a region's embedding is made a blend before the language model gets it (`regions.RegionWords`); 0: it gets the
            embedding itself, as in the paper.
    """

    model_type = "gpt4roi_region"
    base_config_key = "region_config"

    def __init__(
        self,
        level_widths=(1024, 1024, 1024, 1024),
        width=1024,
        fusion_rounds=5,
        norm_groups=64,
        roi_size=14,
        sampling_ratio=2,
        hidden_size=1024,
        position_hidden_size=256,
        output_size=4096,
        focal_size=0,
        focal_width=0,
        focal_contexts=(1.0,),
        words=0,
        **kwargs,
    ):
        self.level_widths = list(level_widths)
        self.width = width
        self.fusion_rounds = fusion_rounds
        self.norm_groups = norm_groups
        self.roi_size = roi_size
        self.sampling_ratio = sampling_ratio
        self.hidden_size = hidden_size
        self.position_hidden_size = position_hidden_size
        self.output_size = output_size
        self.focal_size = focal_size
        self.focal_width = focal_width
        self.focal_contexts = list(focal_contexts)
        self.words = words
        if not _is_whole(sampling_ratio) or not 0 <= sampling_ratio <= MOST_SAMPLES:
            raise ValueError(f"sampling_ratio is {sampling_ratio!r}, expected a whole number from 0 to {MOST_SAMPLES}")
        if not _is_whole(words) or words < 0:
            raise ValueError(f"words is {words!r}, expected a whole number, 0 or more")
        if not self.level_widths:
            raise ValueError("level_widths is empty: the region encoder needs at least one level")
        if width % norm_groups:
            raise ValueError(f"width {width} is not divisible by norm_groups {norm_groups}")
        if not _is_whole(focal_size) or not 0 <= focal_size <= MOST_PIXELS:
            raise ValueError(f"focal_size is {focal_size!r}, expected a whole number from 0 to {MOST_PIXELS}")
        if bool(focal_size) != bool(focal_width):
            raise ValueError(
                f"focal_size {focal_size} and focal_width {focal_width}: a crop has both a size and channels, or there is none"
            )
        if not self.focal_contexts or not all(1 <= each <= MOST_CONTEXT for each in self.focal_contexts):
            raise ValueError(
                f"focal_contexts are {self.focal_contexts}, expected at least one number from 1 to {MOST_CONTEXT}"
            )
        if len(self.focal_contexts) > MOST_CROPS:
            raise ValueError(f"{len(self.focal_contexts)} focal_contexts, expected at most {MOST_CROPS}")
        if width % 4:
            raise ValueError(f"width {width} is not divisible by 4, the quarters that neighbouring levels exchange")
        super().__init__(**kwargs)

    @property
    def num_levels(self) -> int:
        return len(self.level_widths)

    @property
    def cell_width(self) -> int:
        """Channels of a region's cells: of the fused levels, and of all crops."""
        return self.width + (self.focal_width * len(self.focal_contexts) if self.focal_size else 0)


class GPT4RoIConfig(PreTrainedConfig):
    """Vision tower + region encoder + language model.

    Args:
        vision_config, text_config, region_config: configurations (or their dicts) of the three parts.
        feature_layers: indices into the vision tower's `hidden_states`, one per level, earliest first (paper: -11, -8, -5, -2); of a network
            in stages into its `feature_maps` (see `vision.VisionTower`).
        image_layer: index of the hidden state or map whose patches become the image tokens (paper: -2).
        image_token_id, region_token_id: ids of `<im_patch>` and `<bbox>`.
        template: name of the prompt template (`vicuna_v0`, `chatml`, `tiny`).
        familiarity: whether the model knows what its training pictures look like (`vision.Familiarity`) and says so of others.
    """

    model_type = "gpt4roi"
    sub_configs = {"vision_config": AutoConfig, "text_config": AutoConfig, "region_config": RegionConfig}

    def __init__(
        self,
        vision_config=None,
        text_config=None,
        region_config=None,
        feature_layers=(-11, -8, -5, -2),
        image_layer=-2,
        image_token_id=None,
        region_token_id=None,
        template="vicuna_v0",
        familiarity=False,
        **kwargs,
    ):
        self.vision_config = _sub_config(vision_config, "clip_vision_model")
        self.text_config = _sub_config(text_config, "llama")
        if region_config is None:
            region_config = RegionConfig()
        self.region_config = RegionConfig(**region_config) if isinstance(region_config, dict) else region_config
        self.feature_layers = list(feature_layers)
        self.image_layer = image_layer
        self.image_token_id = image_token_id
        self.region_token_id = region_token_id
        self.template = template
        self.familiarity = familiarity
        for layer in (*self.feature_layers, image_layer):
            if not _is_whole(layer):
                raise ValueError(f"{layer!r} is given as a layer, expected whole numbers")
        if len(self.feature_layers) != self.region_config.num_levels:
            raise ValueError(
                f"{len(self.feature_layers)} feature_layers {self.feature_layers}, but the region encoder has "
                f"{self.region_config.num_levels} levels"
            )
        if self.region_config.output_size != self.text_config.hidden_size:
            raise ValueError(
                f"region output_size {self.region_config.output_size} does not match the language model's hidden_size "
                f"{self.text_config.hidden_size}"
            )
        super().__init__(**kwargs)


def _is_whole(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _sub_config(value, default_type: str):
    if value is None:
        return CONFIG_MAPPING[default_type]()
    if isinstance(value, dict):
        value = dict(value)
        return CONFIG_MAPPING[value.pop("model_type", default_type)](**value)
    return value
