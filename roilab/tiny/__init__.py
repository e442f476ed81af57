"""How the shipped tiny model is made, from nothing: `roilab train tiny`.

Stage 0 gives the two towers what CLIP and Vicuna bring at paper scale. Vision (`sight.py`): a CLIP-style ViT learns to name what lies in
a box, with heads that are thrown away afterwards. Language (`words.py`): the LLaMA-type model learns the dialogues with every region
slot filled by a bag of true words and a linear map of the box, in a curriculum; then the region encoder learns to give those bags.
Then come the two stages of GPT4RoI (`roilab.training`): the region encoder alone, then everything but vision (`train.py`). Last, two
layers are put in front of the language model that find a region by its number, and the others learn to use them (`circuit.py`). Every
part saves checkpoints below `--out` and continues from them.
"""
