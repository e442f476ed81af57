"""GPT4RoI: a vision tower, a region encoder and a language model that reads pictures and regions as if they were words.

Follows arXiv 2307.03601, section 3. The splice of picture and regions into the word embeddings happens in one place, `embed`:

    ids          <s>  <im_start> <im_patch> x P <im_end>  What is region1  <bbox>   doing ?
                  |       |           |            |        |   |    |       |        |
    embeddings  words   words   projector(patches) words  words ...    region_encoder(boxes) ...

Importing this module registers configuration, model and processor with transformers' Auto classes.
Axes: B batch, T sequence, P patches, N regions of one picture, D language-model width.
"""

import contextlib
import inspect
import os
import threading

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoProcessor, GenerationConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from .config import GPT4RoIConfig, RegionConfig
from .files import atomic_folder
from .memory import CACHE
from .processing import GPT4RoIProcessor
from .regions import RegionEncoder, RegionWords
from .vision import Familiarity, VisionFeatures, VisionTower

ALONE = threading.RLock()
"""Held while something is generated, and while `roilab.interpret` watches or changes a pass: threads that share a model take turns."""


class GPT4RoI(PreTrainedModel):
    """Vision tower + projector + region encoder + language model, every size from the configuration.

    Submodules `vision`, `projector`, `region_encoder`, `region_words` (if there are any) and `language_model` are ordinary modules: hooks reach them.
    `processor` is set by `roilab.load` and `roilab.build`; it is not part of the weights.
    """

    config_class = GPT4RoIConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    accepts_loss_kwargs = True
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _no_split_modules = ["RegionEncoder"]
    _skip_keys_device_placement = [CACHE]

    def __init__(
        self, config: GPT4RoIConfig, vision_model: nn.Module | None = None, language_model: nn.Module | None = None
    ):
        super().__init__(config)
        self.processor: GPT4RoIProcessor | None = None
        self.vision = VisionTower(config.vision_config, config.feature_layers, config.image_layer, vision_model)
        self.projector = nn.Linear(self.vision.width, config.text_config.hidden_size)
        self.region_encoder = RegionEncoder(config.region_config)
        self.region_encoder.cells.look = self._look
        region = config.region_config
        self.region_words = RegionWords(region.words, region.output_size) if region.words else None
        self.familiarity = Familiarity(self.vision.width) if config.familiarity else None
        self.language_model = (
            AutoModelForCausalLM.from_config(config.text_config) if language_model is None else language_model
        )
        for part in filter(None, (self.region_encoder, self.region_words)):
            for module in part.modules():
                module._pytorch_init = True
        self.vision.requires_grad_(False)
        self.post_init()

    def _init_weights(self, module: nn.Module):
        # The region encoder keeps PyTorch's own fan-in initialisation: a fixed std of 0.02 starves narrow convolutions.
        # (transformers guards the init functions, so that loaded weights stay untouched.)
        if not getattr(module, "_pytorch_init", False):
            super()._init_weights(module)
        elif hasattr(module, "reset_parameters"):
            module.reset_parameters()

    # The language model owns the words and how to generate them.
    @property
    def generation_config(self) -> GenerationConfig:
        return self.language_model.generation_config

    @generation_config.setter
    def generation_config(self, value: GenerationConfig):
        if "language_model" in self._modules:
            self.language_model.generation_config = value

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module):
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, value: nn.Module):
        self.language_model.set_output_embeddings(value)

    def resize_token_embeddings(self, new_num_tokens: int | None = None, *args, **kwargs) -> nn.Module:
        """Add or drop rows of the word embeddings and of the output layer; new rows start as the mean of the old ones."""
        old = self.get_input_embeddings().num_embeddings
        embeddings = self.language_model.resize_token_embeddings(
            new_num_tokens, *args, **{"mean_resizing": False} | kwargs
        )
        self.config.text_config.vocab_size = self.language_model.config.vocab_size = embeddings.num_embeddings
        if embeddings.num_embeddings > old:
            for layer in {
                id(each): each for each in (embeddings, self.get_output_embeddings()) if each is not None
            }.values():
                fill_with_mean(layer, old)
        return embeddings

    def save_pretrained(self, save_directory, is_main_process: bool = True, **kwargs):
        """One folder: configuration, safetensors, generation configuration and, if there is one, the processor.

        A killed save leaves the older folder whole. Arguments are transformers'.
        """
        if not is_main_process or kwargs.get("push_to_hub"):
            return super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)
        with atomic_folder(save_directory) as folder:
            super().save_pretrained(folder, **kwargs)
            self.generation_config.save_pretrained(folder)
            if self.processor is not None:
                self.processor.save_pretrained(folder)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """transformers' `from_pretrained`; the generation configuration of the folder goes to the language model.

        Raises:
            Exception: of a damaged folder, whatever transformers meets; `roilab.load` checks a folder first, and says what is wrong with it.
                Nothing in a folder is executed by either.
        """
        result = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = result[0] if isinstance(result, tuple) else result
        model.vision.requires_grad_(False)  # loading replaces the parameters
        hub = {
            key: kwargs[key]
            for key in ("cache_dir", "revision", "token", "local_files_only", "subfolder")
            if key in kwargs
        }
        there = os.path.isfile(os.path.join(pretrained_model_name_or_path, "generation_config.json"))
        with contextlib.nullcontext() if there else contextlib.suppress(OSError):
            # a folder without one keeps the language model's defaults
            model.generation_config = GenerationConfig.from_pretrained(pretrained_model_name_or_path, **hub)
        return model if not isinstance(result, tuple) else (model, *result[1:])

    def encode_image(self, pixel_values: Tensor) -> VisionFeatures:
        """Vision features of [B, 3, H, W] normalised pixels, on the vision tower's device."""
        features = self.vision(pixel_values.to(next(self.vision.parameters()).device))
        if self.config.region_config.focal_size:
            features.picture = pixel_values.to(features.patches)
        return features

    def _look(self, crops: Tensor) -> Tensor:
        """[N, 3, S, S] -> the last level of the vision tower [N, C, h, w]."""
        return self.vision(crops).levels[-1]

    def fuse(self, features: VisionFeatures) -> list[Tensor]:
        """The fused pyramid of the region encoder: depends on the picture only, so keep it for every box.

        Raises:
            ValueError: the region encoder looks at crops, and the features have no picture.
        """
        fused = self.region_encoder.fuse(features.levels, features.grid)
        if not self.config.region_config.focal_size:
            return fused
        if features.picture is None:
            raise ValueError("the region encoder looks at crops of the picture, but these features have no picture")
        return [*fused, features.picture]

    def embed(
        self,
        input_ids: Tensor,
        features: VisionFeatures | None = None,
        pixel_values: Tensor | None = None,
        boxes: list[Tensor] | None = None,
        fused: list[Tensor] | None = None,
        region_embeddings: list[Tensor] | None = None,
        image_embeddings: Tensor | None = None,
        masks: list[Tensor] | None = None,
    ) -> Tensor:
        """Word embeddings with the picture and the regions spliced in: the only place where that happens.

        Args:
            input_ids: [B, T] ids; `<im_patch>` and `<bbox>` positions are filled.
            features, pixel_values: the pictures, as vision features or as pixels [B, 3, H, W]; features win.
            boxes: B tensors [N, 4], normalised xyxy in [0, 1], in the order of the `<bbox>` positions; None: no regions.
            fused: the fused pyramid of `fuse`, if already computed.
            region_embeddings: B tensors [N, D] instead of boxes.
            image_embeddings: [B, P, D] instead of projected patches.
            masks: B tensors [N, r, r] beside the boxes, by which the RoI cells are multiplied; by default all ones.
        Returns:
            [B, T, D].
        Raises:
            ValueError: the number of patches or regions differs from the number of positions for them.
        """
        input_ids = input_ids.to(self.get_input_embeddings().weight.device)
        words = self.get_input_embeddings()(input_ids)
        image_slots = input_ids == self.config.image_token_id
        region_slots = input_ids == self.config.region_token_id
        slots = region_slots.sum(1).tolist()

        if boxes is not None and region_embeddings is not None:
            raise ValueError("both boxes and region_embeddings given: pass one of them")
        _check_regions(
            slots,
            boxes if region_embeddings is None else region_embeddings,
            "boxes" if region_embeddings is None else "region embeddings",
        )
        need_levels = region_embeddings is None and fused is None and sum(slots) > 0
        if features is None and pixel_values is not None and (image_embeddings is None or need_levels):
            features = self.encode_image(pixel_values)

        if image_embeddings is None and features is not None:
            image_embeddings = self.projector(features.patches)
        _check_patches(image_slots.sum(1).tolist(), image_embeddings)
        if image_embeddings is not None:
            words = words.masked_scatter(image_slots[..., None], image_embeddings.to(words))

        if sum(slots):
            if region_embeddings is None:
                if fused is None and features is None:
                    raise ValueError(
                        f"{sum(slots)} <bbox> positions with boxes, but no picture: pass pixel_values, features or fused"
                    )
                region_embeddings = self.region_encoder.pool(
                    self.fuse(features) if fused is None else fused, list(boxes), masks
                )
            regions = torch.cat(list(region_embeddings))
            if self.region_words is not None:
                regions = self.region_words(regions)
            words = words.masked_scatter(region_slots[..., None], regions.to(words))
        return words

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        boxes: list[Tensor] | None = None,
        features: VisionFeatures | None = None,
        fused: list[Tensor] | None = None,
        region_embeddings: list[Tensor] | None = None,
        image_embeddings: Tensor | None = None,
        masks: list[Tensor] | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        position_ids: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        regions: list[list[int]] | None = None,
        **kwargs,
    ) -> CausalLMOutputWithPast:
        """Logits and, with labels, the loss. The picture and region arguments are those of `embed`.

        Args:
            input_ids: [B, T]; or `inputs_embeds` [B, T, D] as `embed` returned them.
            attention_mask: [B, T_all] of 0/1 (T_all counts cached positions too), or a 4-D mask together with position_ids.
            labels: [B, T], -100 where nothing is to be learned; position t is learned from the positions before it.
            position_ids: [B, T]; by default they count the 1s of the mask, so padding on either side changes nothing.
            num_items_in_batch: labelled tokens of the whole (accumulated) batch: the loss is the sum divided by it; by default the
                mean over this batch's labelled tokens.
            regions: what `processor.collate` tells beside the inputs; not used.
            kwargs: passed to the language model (the cache as transformers calls it, `use_cache`, `output_attentions`, ...).
        Returns:
            `loss` (scalar or None), `logits` [B, T, vocabulary], and what the language model returns beside them.
        """
        if inputs_embeds is None:
            inputs_embeds = self.embed(
                input_ids, features, pixel_values, boxes, fused, region_embeddings, image_embeddings, masks
            )
        if position_ids is None and attention_mask is not None and attention_mask.dim() == 2:
            position_ids = mask_positions(attention_mask)[:, -inputs_embeds.shape[1] :]
        kwargs["return_dict"] = True
        if labels is not None:
            kwargs.setdefault("use_cache", False)
        outputs = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            **kwargs,
        )
        loss = None if labels is None else next_token_loss(outputs.logits, labels, num_items_in_batch)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=outputs.logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            **{CACHE: getattr(outputs, CACHE)},
        )

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        boxes: list[Tensor] | None = None,
        features: VisionFeatures | None = None,
        fused: list[Tensor] | None = None,
        region_embeddings: list[Tensor] | None = None,
        image_embeddings: Tensor | None = None,
        masks: list[Tensor] | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs,
    ):
        """New tokens only: [B, new] (or transformers' output object with `return_dict_in_generate=True`).

        Prompts of a batch are padded on the left. Everything else is transformers' `generate`: `do_sample`, `streamer`,
        `max_new_tokens`, the cache, ...
        """
        if inputs_embeds is None:
            inputs_embeds = self.embed(
                input_ids, features, pixel_values, boxes, fused, region_embeddings, image_embeddings, masks
            )
        if attention_mask is None:
            attention_mask = torch.ones(inputs_embeds.shape[:2], dtype=torch.long)
        attention_mask = attention_mask.to(inputs_embeds.device)
        config = kwargs.get("generation_config") or self.generation_config
        if (kwargs.get("stop_strings") or config.stop_strings) and "tokenizer" not in kwargs:
            if self.processor is None:
                raise ValueError("stop_strings need a tokenizer: set model.processor or pass tokenizer=")
            kwargs["tokenizer"] = self.processor.tokenizer
        with ALONE:
            return self.language_model.generate(inputs_embeds=inputs_embeds, attention_mask=attention_mask, **kwargs)


def mask_positions(attention_mask: Tensor) -> Tensor:
    """[B, T] mask of 0/1 -> position ids that count its 1s from 0; padded positions get 0 or the last position."""
    return (attention_mask.long().cumsum(1) - 1).clamp(min=0)


def keeping_logits(language_model: nn.Module, positions: Tensor) -> dict:
    """The argument by which a language model computes logits at these positions alone; empty if it cannot."""
    able = "logits_to_keep" in inspect.signature(language_model.forward).parameters
    return {"logits_to_keep": positions} if able else {}


def next_token_loss(logits: Tensor, labels: Tensor, num_items: Tensor | int | None = None) -> Tensor:
    """Cross-entropy of each label given the logits one position earlier; a batch without labels gives 0, not NaN.

    Args:
        logits: [B, T, vocabulary].
        labels: [B, T], -100 is ignored.
        num_items: divide the sum by this; None: by the number of labels here.
    """
    targets = labels[:, 1:].to(logits.device)
    kept = targets != -100
    total = F.cross_entropy(logits[:, :-1][kept].float(), targets[kept], reduction="sum")
    if num_items is None:
        num_items = kept.sum().clamp(min=1)
    return total / (num_items.to(total.device) if torch.is_tensor(num_items) else num_items)


@torch.no_grad()
def fill_with_mean(layer: nn.Module, start: int):
    """Rows (and biases) from `start` on become the mean of the rows before, in float32."""
    for values in (layer.weight, getattr(layer, "bias", None)):
        if values is not None:
            values[start:] = values[:start].float().mean(0).to(values.dtype)


def _check_regions(slots: list[int], given, name: str):
    counts = [0] * len(slots) if given is None else [len(each) for each in given]
    if len(counts) != len(slots):
        raise ValueError(f"{name} for {len(counts)} items, but the batch has {len(slots)}")
    for item, (wanted, found) in enumerate(zip(slots, counts, strict=True)):
        if wanted != found:
            raise ValueError(f"item {item}: {wanted} <bbox> positions, {found} {name}")


def _check_patches(slots: list[int], image_embeddings: Tensor | None):
    if image_embeddings is not None and len(image_embeddings) != len(slots):
        raise ValueError(f"{len(image_embeddings)} pictures, but the batch has {len(slots)} items")
    patches = 0 if image_embeddings is None else image_embeddings.shape[1]
    for item, wanted in enumerate(slots):
        if wanted != patches:
            raise ValueError(f"item {item}: {wanted} <im_patch> positions, {patches} image patches")


AutoConfig.register(RegionConfig.model_type, RegionConfig, exist_ok=True)
AutoConfig.register(GPT4RoIConfig.model_type, GPT4RoIConfig, exist_ok=True)
AutoModel.register(GPT4RoIConfig, GPT4RoI, exist_ok=True)
AutoModelForCausalLM.register(GPT4RoIConfig, GPT4RoI, exist_ok=True)
AutoProcessor.register(GPT4RoIConfig, GPT4RoIProcessor, exist_ok=True)
