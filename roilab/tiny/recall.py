"""How the tiny model starts: so that it can look back at what was said before.

A prompt says "region2 <bbox>" once and "region2" ever after, so a later question has to go from the number back to the token that
followed it. In large language models such induction heads (Olsson et al., arXiv 2209.11895) form in pretraining. From the few
thousand short dialogues that the tiny model reads they did not form in any schedule that was tried. So it starts with

- quiet blocks: what they write does not drown the words that the next ones read;
- three heads of its first and second layer that look back, find and copy; like all others they are trained from the first step on.
"""

import torch
from torch.nn.functional import normalize

QUIET = 0.1  # what a block writes at first, as a share of what the usual initialisation would have it write


@torch.no_grad()
def start_looking_back(model, mean=0.25, sharpness=(1.7, 3.0), write=0.12, frequencies=4):
    """Prepares the random language model of `model`, a GPT4RoI with a LlamaForCausalLM, in place.

    Head h of the first layer attends h + 1 tokens back, wherever it is and whatever stands there, and writes down what it saw; head h of
    the second layer attends where the first one wrote down the present word, and copies what stands there. With rotary embeddings
    (theta 10,000) the score at distance d is the sum of cos(frequency * (d - distance)) over the fastest frequencies; the
    slowest one, which hardly turns, takes the sum's maximum away, so that a key's length does not matter. Words are matched in the
    slow half of a head's dimensions.

    Args:
        mean: share of one direction that every word embedding is given: by it a head can look back by distance alone.
        sharpness: scale of queries and keys, of the heads that look back and of those that match.
        write: what these heads write, as a share of the length of what they read.
    """
    layers, embeddings = model.language_model.model.layers, model.get_input_embeddings().weight
    for layer in layers:
        layer.self_attn.o_proj.weight.mul_(QUIET)
        layer.mlp.down_proj.weight.mul_(QUIET)
    common = normalize(torch.randn(embeddings.shape[1]), dim=0).to(embeddings)
    embeddings += (mean - embeddings @ common)[:, None] * common
    first, second = layers[0].self_attn, layers[1].self_attn
    size, half = first.head_dim, first.head_dim // 2
    slow = [dim for pair in range(half // 2, half) for dim in (pair, pair + half)]
    seen, copied = _basis(common), _basis(common)
    for head in range(min(3, first.config.num_attention_heads - 1)):
        rows = slice(head * size, (head + 1) * size)
        angles = (head + 1) * 10000 ** (-torch.arange(frequencies) / half)
        query, key = common.new_zeros(2, size)
        query[:frequencies] = 1
        key[:frequencies], key[half : half + frequencies] = angles.cos(), angles.sin()
        query[half - 1], key[half - 1] = frequencies**0.5, -(frequencies**0.5)
        for projection, row in ((first.q_proj, query), (first.k_proj, key)):
            projection.weight[rows] = sharpness[0] * row[:, None] * common
        read = _basis(common)[:size]
        first.v_proj.weight[rows] = read
        first.o_proj.weight[:, rows] = write * seen[rows].T
        for projection, basis in ((second.q_proj, read), (second.k_proj, seen[rows])):
            projection.weight[rows] = 0
            projection.weight[[rows.start + dim for dim in slow]] = sharpness[1] * basis[: len(slow)]
        second.v_proj.weight[rows] = copied[rows]
        second.o_proj.weight[:, rows] = write * copied[rows].T


def _basis(common):
    """Random orthonormal rows [D - 1, D], orthogonal to `common`."""
    random_rows = torch.randn(len(common), len(common)).to(common)
    random_rows[0] = common
    return torch.linalg.qr(random_rows.T)[0].T[1:]
