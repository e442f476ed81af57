"""Between the region encoder and the language model: a region's embedding as a blend of words."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RegionWords(nn.Module):
    """Region embeddings -> what stands in the sentence for them: a blend of K words, the nearer the more, and a linear map of the embedding.

        weights = softmax(-sharpness * squared distance to each of `keys`)
        out     = weights @ values + rest(embedding)

    Not in the paper. A region encoder that was fitted on few pictures says much that is noise, and a language model needs many examples to
    learn to hear the word in it; so the word is picked out before. What has no word goes through `rest`. The embedding itself, and with it
    all that `roilab.interpret` finds and changes in it, stays linear in the region's cells.

    Args:
        count: K. size: D, of embeddings and words.
    """

    def __init__(self, count: int, size: int):
        super().__init__()
        self.keys = nn.Parameter(torch.empty(count, size))
        self.values = nn.Parameter(torch.empty(count, size))
        self.sharpness = nn.Parameter(torch.empty(()))
        self.rest = nn.Linear(size, size)
        self.reset_parameters()

    def reset_parameters(self):
        """Drawn anew: words of unit length on average, nothing beside them."""
        nn.init.normal_(self.keys, std=self.keys.shape[1] ** -0.5)
        nn.init.ones_(self.sharpness)
        for each in (self.rest.weight, self.rest.bias):
            nn.init.zeros_(each)
        with torch.no_grad():
            self.values.copy_(self.keys)

    def weights(self, embeddings: Tensor) -> Tensor:
        """[N, D] -> [N, K], float32: how much of each word; they sum to 1."""
        squared = torch.cdist(embeddings.float(), self.keys.float()).square()
        return (-self.sharpness.float() * squared).softmax(-1)

    def forward(self, embeddings: Tensor) -> Tensor:
        """[N, D] -> [N, D] in the parameters' dtype."""
        embeddings = embeddings.to(self.values)
        return self.weights(embeddings).to(self.values) @ self.values + self.rest(embeddings)
