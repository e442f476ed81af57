"""Two layers put in front of the trained language model: the circuit that finds a region of an earlier round by its number.

A prompt says "region2 <bbox>" once and "region2" ever after, so a later question has to go from the number back to the token that
followed it. In large language models such induction heads (Olsson et al., arXiv 2209.11895) form in pretraining. From the few thousand
short dialogues that the tiny model reads they did not form in any schedule that was tried, so it is given one:

- the first layer looks two tokens back: a `<bbox>` learns the number before it ("region", "2", " ", `<bbox>`);
- the second one matches numbers and copies: the "2" of a later question takes over what the `<bbox>` that learned "2" shows, so that
  the layers behind meet it as if the region stood there. All other tokens look at the first one and copy nothing.

All else in the two layers starts at zero.
"""

import torch

BACK = 2  # tokens from a number to its <bbox>
REGIONS, PICTURE = 0.05, 0.2  # scale of regions and patches, which training has made 30 and 12 times as long as words


@torch.no_grad()
def insert_induction(model, mean=0.6, sharpness=3.0, write=0.1, match=3.2, sink=2.1, copy=0.6):
    """Put the two layers in front of `model.language_model`, a LlamaForCausalLM, in place; its configuration follows.

    The layers behind go on working without training if `write` is 0; otherwise they have to learn what the circuit writes.

    Args:
        model: a GPT4RoI whose tokenizer has the tokens "1" to "9", the numbers that are matched.
        mean: length of the mean of all embeddings; a direction that every token has is what lets a head look back by distance alone.
        sharpness, match, sink: scale of the queries and keys of the head that looks back, of those that match, and of their look
            at the first token where there is nothing to match.
        write, copy: the number that was found, and what was copied, arrive at this share of their normalised length.
    """
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer

    language, config = model.language_model.model, model.config.text_config
    find, found = (LlamaDecoderLayer(config, i).to(model.device, model.dtype) for i in range(2))
    for layer in (find, found):
        for projection in (layer.self_attn.o_proj, layer.mlp.down_proj):
            torch.nn.init.zeros_(projection.weight)
    language.layers = torch.nn.ModuleList([find, found, *language.layers])
    for i, layer in enumerate(language.layers):
        layer.self_attn.layer_idx = i
    config.num_hidden_layers = len(language.layers)

    common = _give_mean(model, mean)
    embeddings = model.get_input_embeddings().weight
    heads, size, width = config.num_attention_heads, config.head_dim, config.hidden_size
    _look_back(find.self_attn, common, sharpness)

    tokenizer = model.processor.tokenizer
    ids = [*tokenizer.convert_tokens_to_ids([str(n) for n in range(1, 10)]), tokenizer.bos_token_id]
    # Each row of `detect` [10, D] is 1 for its token and 0 for the others; in `written` [D, 9] the first layer leaves what it found.
    detect = torch.linalg.pinv(embeddings[ids] - mean * common).T
    detect -= (detect @ common)[:, None] * common
    numbers, first = detect[:-1], detect[-1]
    written = _unread(language.layers[2:], common)[:, : len(numbers)]
    find.self_attn.v_proj.weight[: len(numbers)] = numbers
    find.self_attn.o_proj.weight[:, : len(numbers)] = write * written

    queries = torch.cat([match * numbers, sink * common[None]])
    keys = torch.cat([match * written.T, sink * first[None]])
    slow = torch.tensor(_slowest(size, len(queries)))
    for projection, rows in ((found.self_attn.q_proj, queries), (found.self_attn.k_proj, keys)):
        projection.weight.zero_()
        for head in range(heads):
            projection.weight[head * size + slow] = rows
    basis = torch.linalg.qr(torch.randn(width, width))[0].to(detect)
    silent = torch.nn.functional.normalize(embeddings[ids[-1]], dim=0)
    # Of the first token nothing is copied.
    found.self_attn.v_proj.weight.copy_(basis - (basis @ silent)[:, None] * silent)
    found.self_attn.o_proj.weight.copy_(copy * basis.T)


def _give_mean(model, mean: float):
    """Gives every embedding (words, regions, patches) a mean along one direction, that in which words differ least: [D].

    The layers behind normalise what they read, and a scale of regions or patches hardly changes their answers; the circuit needs it,
    because what it writes would be lost beside a vector 30 times as long.
    """
    embeddings = model.get_input_embeddings().weight
    common = torch.linalg.svd(embeddings - embeddings.mean(0), full_matrices=False)[2][-1]
    embeddings += (mean - embeddings @ common)[:, None] * common
    # Regions and patches stay somewhat longer than words, so their share of the mean is larger.
    for linear, share, ratio in ((model.region_encoder.output, REGIONS, 1.6), (model.projector, PICTURE, 2.4)):
        linear.weight *= share
        linear.bias *= share
        linear.weight -= common[:, None] * (common @ linear.weight)
        linear.bias += (ratio * mean - linear.bias @ common) * common
    return common


def _unread(layers, common):
    """Orthonormal directions, those that the layers read least first: [D, D - 1], orthogonal to `common`."""
    names = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj")
    read = torch.cat([layer.get_submodule(name).weight for layer in layers for name in names])
    read = read - (read @ common)[:, None] * common
    # The very least is `common`, which was taken out.
    return torch.linalg.svd(read, full_matrices=False)[2].flip(0)[1:].T


def _look_back(attention, common, sharpness, frequencies=4):
    """Head 0 attends `BACK` tokens back, wherever it is and whatever stands there.

    With rotary embeddings (theta 10,000) the score at distance d is the sum of cos(frequency * (d - BACK)) over the fastest
    frequencies. The slowest one, which hardly turns, takes the sum's maximum away, so that a key's length does not matter.
    """
    half = attention.head_dim // 2
    angles = BACK * 10000 ** (-torch.arange(frequencies) / half)
    query, key = common.new_zeros(2, 2 * half)
    query[:frequencies] = 1
    key[:frequencies], key[half : half + frequencies] = angles.cos(), angles.sin()
    query[half - 1], key[half - 1] = frequencies**0.5, -(frequencies**0.5)
    for projection, row in ((attention.q_proj, query), (attention.k_proj, key)):
        projection.weight[: 2 * half] = sharpness * row[:, None] * common


def _slowest(head_dim: int, count: int) -> list[int]:
    """`count` dimensions of a head that rotary embeddings turn least."""
    half = head_dim // 2
    return [dim for pair in range(half - 1, -1, -1) for dim in (pair, pair + half)][:count]
