"""A language model in 4 bits, beside a vision tower and a region encoder as they are: 7B for a GPU of 16 GB."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .loading import default_device, default_dtype

if TYPE_CHECKING:
    import torch
    from transformers import BitsAndBytesConfig

WHOLE = ["vision", "projector", "region_encoder", "familiarity", "lm_head"]
"""What is not quantised: the parts that were trained here, the vision tower (0.3 billion parameters), and the output layer."""


def four_bit(device=None, dtype: torch.dtype | None = None) -> BitsAndBytesConfig:
    """For `load(folder, quantization_config=four_bit())`: NF4 with double quantisation (QLoRA, arXiv 2305.14314).

    Args:
        device: where the model will be; by default cuda if present, else cpu (slow; bitsandbytes 0.48 or newer).
        dtype: in which 4-bit layers compute; by default that of `load` (float16 on a T4, which has no native bfloat16).
    Raises:
        ValueError: bitsandbytes is not installed.
    """
    import importlib.util

    if importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError("4 bits need bitsandbytes: pip install 'roilab[gpu]'")
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype or default_dtype(device or default_device()),
        llm_int8_skip_modules=WHOLE,
    )
