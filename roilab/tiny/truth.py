"""What the language model of the text warm-up answers when regions are the truth in words: the ceiling of any region encoder before it."""

import random

import torch

from ..evaluation.reading import PictureReader, answer_all
from ..evaluation.scenes import count_vcr
from ..scenes import language, sample
from .statements import JUDGING
from .words import BLIND, bag_tensors, padded


class TruthReader(PictureReader):
    """Inputs of prompts about scenes as the warm-up shows them; instead of boxes, a row has pairs (slot, box)."""

    def __init__(self, warmup, processor, scenes):
        super().__init__(warmup.model[0], [])
        self.bag, self.scenes, self.processor = warmup.bag, scenes, processor

    def inputs(self, rows, add_generation_prompt=True, suffix=()):
        encoded, regions, places = [], [], []
        for index, turns, shown in rows:
            scene, ids = self.scenes[index], self.processor.encode_dialogue(turns, len(shown), add_generation_prompt)
            ids.input_ids += suffix
            encoded.append(ids)
            for slot, box in (shown[r] for r in ids.regions):
                regions.append(self.bag.row(scene, slot, [v / scene.size for v in box]))
            places.append(self.bag.place_ids(scene.setting))
        device, embedding = self.model.device, self.model.get_input_embeddings()
        batch = self.processor.pad(encoded, "left")
        bags = [each.to(device) for each in bag_tensors(regions)]
        return {key: batch[key].to(device) for key in ("input_ids", "attention_mask")} | dict(
            image_embeddings=self.bag.picture(embedding, padded(places).to(device))[:, None].expand(
                -1, self.processor.num_image_tokens, -1
            ),
            region_embeddings=self.bag(embedding, *bags).split([len(ids.regions) for ids in encoded]),
        )


@torch.inference_mode()
def answers_from_truth(warmup, processor, count: int = 200, reader=TruthReader) -> dict[str, float]:
    """Share of right answers, 0-1, by family, to one question of each about `count` validation scenes; "Q->A" and "Q->AR" as in VCR.

    Args:
        reader: how the truth is told, `TruthReader` or a subclass.
    """
    training = warmup.training
    warmup.eval()
    model, world = warmup.model[0], [sample(language.seed_of("val", i), held_out=False) for i in range(count)]
    reader, shares = reader(warmup, processor, world), {}
    for family in (*language.FAMILIES, *JUDGING):
        rows, asked = [], []
        for index, scene in enumerate(world) if family not in BLIND else ():
            rng = random.Random(f"{scene.seed} {family}")
            found = [JUDGING[family](scene, rng)] if family in JUDGING else language.questions(scene, rng, [family])
            for question in found:
                if question is not None:
                    pairs = list(zip(question.slots, question.boxes))
                    rows.append((index, [{"role": "user", "content": question.text}], pairs))
                    asked.append(question)
        if not rows:
            continue
        if family == "vcr":
            counts = [0] * 4
            count_vcr(model, reader, world, rows, asked, counts, "regions")
            shares |= {"Q->A": counts[0] / counts[3], "Q->AR": counts[2] / counts[3]}
        else:
            said = answer_all(model, reader, rows)
            right = (answer in map(language.plain, question.answers) for answer, question in zip(said, asked))
            shares[family] = sum(right) / len(rows)
    warmup.train(training)
    return shares
