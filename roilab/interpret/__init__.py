"""Seeing inside: where an answer looks, what it rests on, and whether a region token is used at all.

Every method explains a `Target`, a forced answer (`target`), and gives back a small result with `.to_dict()`.

What is explained: `target`; `passes`: what the language model reads, and the target's score; `attending`: attention seen and changed while
it runs; `tracing`: one pass that keeps attention rows and states; `memory`: batches that fit; `results`: scores, and where they come from.
Where an answer looks: `attention` (maps, rollout, relevance), `lens` (what a state would say). What contributes: `attribution` (captum's gradients, to
tokens and to pixels on either path), `perturbation` (captum's occlusion, ablation, Shapley values), `pictures` (those that say nothing).
What is needed: `knockout` (edges cut), `patching` (states of one pass in another), `anatomy` (a region token as a sum), `sensitivity` (boxes
moved), `live` (a box under the mouse), `regions` and `report` (whether a region token is used, and what a model does with regions).
Whether to believe it: `faithfulness`, `sanity`, `studies` (many targets), `scenes` (known truth).
"""

import importlib

_HOMES = {
    "Target": "target", "listening": "passes", "Trace": "tracing", "trace": "tracing", "attention_map": "attention", "rollout": "attention", "relevance": "attention",
    "logit_lens": "lens", "to_tokens": "attribution", "to_pixels": "attribution", "cover": "perturbation", "attention_knockout": "knockout",
    "knockout_by_layer": "knockout", "activation_patching": "patching", "attribution_patching": "patching", "region_anatomy": "anatomy",
    "recombined": "anatomy", "exchange_positions": "anatomy", "slope": "anatomy", "box_sensitivity": "sensitivity", "Live": "live", "Prospect": "live", "Scores": "results", "region_tests": "regions",
    "token_bank": "regions", "region_report": "report", "deletion_insertion": "faithfulness", "pointing_game": "faithfulness",
    "energy_in_region": "faithfulness", "sanity_checks": "sanity", "study": "studies", "METHODS": "studies", "randomised": "sanity", "rank_correlation": "sanity",
}  # fmt: skip

__all__ = sorted(_HOMES)


def __getattr__(name: str):
    # captum and transformers are imported by who explains something, not by who looks what there is.
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
