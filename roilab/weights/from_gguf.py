"""A GGUF file of a LLaMA-type language model (as llama.cpp runs them) -> model and tokenizer of transformers, by the package gguf.

Quantized tensors become the values that they stand for. transformers reads such files too, but keeps them packed or not depending on its
version, and its tokenizer leaves out how the file says that digits are split.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

_OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_INNER = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}  # fmt: skip
CONTROL = 3  # among the types of tokens: those that text never becomes


def read_gguf(path, dtype: torch.dtype = torch.float16):
    """(LlamaForCausalLM in eval mode, its tokenizer) of a file.

    Raises:
        ValueError: the file is of another architecture or tokenizer, or its tensors are not those of a LLaMA of these sizes.
    """
    from gguf import GGUFReader
    from transformers import LlamaConfig, LlamaForCausalLM

    reader = GGUFReader(path)
    told = {key: field.contents() for key, field in reader.fields.items()}
    for key, expected in (
        ("general.architecture", "llama"), ("tokenizer.ggml.model", "gpt2"), ("tokenizer.ggml.pre", "smollm"),
    ):  # fmt: skip
        if told.get(key) != expected:
            raise ValueError(f"{path}: {key} is {told.get(key)!r}, but only {expected!r} is read")
    heads, key_heads = told["llama.attention.head_count"], told["llama.attention.head_count_kv"]
    state = _state(reader, heads, key_heads, dtype)
    config = LlamaConfig(
        vocab_size=len(told["tokenizer.ggml.tokens"]), hidden_size=told["llama.embedding_length"],
        intermediate_size=told["llama.feed_forward_length"], num_hidden_layers=told["llama.block_count"], num_attention_heads=heads,
        num_key_value_heads=key_heads, max_position_embeddings=told["llama.context_length"],
        rms_norm_eps=round(told["llama.attention.layer_norm_rms_epsilon"], 12), tie_word_embeddings="lm_head.weight" not in state,
        rope_parameters={"rope_type": "default", "rope_theta": told["llama.rope.freq_base"]}, dtype=dtype,
        **{f"{name}_token_id": told.get(f"tokenizer.ggml.{key}_token_id") for name, key in _NAMED.items() if name != "unk"},
    )  # fmt: skip
    model = LlamaForCausalLM(config).to(dtype)
    if config.tie_word_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    problems = [
        f"{name} is {list(state[name].shape) if name in state else 'missing'}, expected {list(each.shape)}"
        for name, each in model.state_dict().items()
        if name not in state or state[name].shape != each.shape
    ] + [f"{name} is unknown" for name in state.keys() - model.state_dict().keys()]
    if problems:
        raise ValueError(f"{path}: {'; '.join(problems[:4])}")
    model.load_state_dict(state)
    return model.eval(), _tokenizer(told)


_NAMED = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}


def _state(reader, heads: int, key_heads: int, dtype: torch.dtype) -> dict[str, Tensor]:
    from gguf.quants import dequantize

    state = {}
    for tensor in reader.tensors:
        match = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.weight", tensor.name)
        layer, short = match.groups() if match else (None, None)
        name = (_OUTER if layer is None else _INNER).get(short)
        if name is None:
            raise ValueError(f"{tensor.name} is not a tensor of a LLaMA")
        values = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy()).to(dtype)
        if short in ("attn_q", "attn_k"):
            values = _halves(values, heads if short == "attn_q" else key_heads)
        state[f"{name}.weight" if layer is None else f"model.layers.{layer}.{name}.weight"] = values
    return state


def _halves(weight: Tensor, heads: int) -> Tensor:
    """Rows of each head from pairs (0, h, 1, h + 1, ...), as llama.cpp rotates them, to halves (0, 1, ..., h, h + 1, ...)."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).transpose(1, 2).reshape(rows, columns)


def _tokenizer(told: dict):
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = told["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in told["tokenizer.ggml.merges"]]
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    kinds = told["tokenizer.ggml.token_type"]
    backend.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token, kind in zip(tokens, kinds) if kind == CONTROL]
    )
    named = {f"{name}_token": told.get(f"tokenizer.ggml.{key}_token_id") for name, key in _NAMED.items()}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        clean_up_tokenization_spaces=False,
        **{name: tokens[number] for name, number in named.items() if number is not None},
    )
    tokenizer.chat_template = told.get("tokenizer.chat_template")
    return tokenizer
