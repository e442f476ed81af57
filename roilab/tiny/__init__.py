"""How the shipped tiny model is made, from nothing: `roilab train tiny`.

Stage 0 gives the two towers what CLIP and Vicuna bring at paper scale. Vision (`sight.py`): a CLIP-style ViT learns to name what lies in
a box, with heads that are thrown away afterwards. Language (`words.py`): the LLaMA-type model, whose first heads look back from the
beginning (`recall.py`), learns the dialogues (`dialogues.py`, `statements.py`) with every region slot filled by a bag of true words and
linear maps of where the box is and where people point and look, in a curriculum; then the region encoder learns to give those bags
(`align.py`). Then come the two stages of GPT4RoI (`roilab.training`): the region encoder alone, then everything but vision (`train.py`).
Every part saves checkpoints below `--out` and continues from them.
"""
