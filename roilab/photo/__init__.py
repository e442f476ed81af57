"""The model for photographs: `roilab.load("photo")`.

EfficientNet-Lite2 looks, SmolLM2-135M-Instruct talks; `roilab.fetch` gets both. This package carries what was trained
between and in them, on 2,412 boxes of 378 photographs: region encoder, projector and low-rank additions to the language model.

`putting_together`: the folder that `load` reads, made once. `questions`: the dialogues it was taught, made from boxes. `features`, `readout`,
`train`: how it was trained (`roilab train photo`). `evaluation`: `roilab evaluate photo`.
"""

from .putting_together import photo_folder

__all__ = ["photo_folder"]
