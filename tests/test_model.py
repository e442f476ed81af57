import copy

import pytest
import torch
import torch.nn.functional as F
from conftest import small_model
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoProcessor, TextStreamer
from transformers.generation.streamers import BaseStreamer

from roilab.config import GPT4RoIConfig
from roilab.model import GPT4RoI, mask_positions, next_token_loss


def turns(*texts):
    return [{"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(texts)]


@pytest.fixture
def examples(picture):
    """Different numbers of regions, none included, and different lengths."""
    other = picture.rotate(180)
    return [
        {
            "image": picture,
            "boxes": [[1, 2, 30, 40], [10, 5, 60, 20]],
            "turns": turns("Is <region2> larger than <region1>?", "No.", "Why <region1>?", "It is red."),
        },
        {"image": other, "boxes": [], "turns": turns("Describe.", "A small red ball with stripes.")},
        {"image": picture, "boxes": [[5, 5, 20, 30]], "turns": turns("<region1>?", "She is running.")},
    ]


def collate(model, examples, **kwargs):
    batch = model.processor.collate(examples, **kwargs)
    batch.pop("regions")
    return batch


def questions(examples):
    return [{**each, "turns": each["turns"][:1]} for each in examples]


def test_embed_puts_patches_and_regions_in_their_places(model, examples):
    batch = collate(model, examples)
    ids = batch["input_ids"]
    embedded = model.embed(ids, pixel_values=batch["pixel_values"], boxes=batch["boxes"])
    features = model.encode_image(batch["pixel_values"])
    patches = model.projector(features.patches)
    regions = model.region_encoder(features.levels, batch["boxes"], features.grid)
    words = model.get_input_embeddings()(ids)
    for item in range(3):
        image, region = ids[item] == model.config.image_token_id, ids[item] == model.config.region_token_id
        assert image.sum() == 16 and region.sum() == len(batch["boxes"][item])
        torch.testing.assert_close(embedded[item][image], patches[item])
        torch.testing.assert_close(embedded[item][region], regions[item])
        torch.testing.assert_close(embedded[item][~image & ~region], words[item][~image & ~region])
    # The first example names region 2 first: its box comes first.
    torch.testing.assert_close(batch["boxes"][0][0] * torch.tensor([64, 48, 64, 48.0]), torch.tensor([10, 5, 60, 20.0]))


def test_given_embeddings_replace_pictures_and_boxes(model, examples):
    batch = collate(model, examples)
    features = model.encode_image(batch["pixel_values"])
    fused = model.fuse(features)
    whole = model(batch["input_ids"], batch["attention_mask"], batch["pixel_values"], batch["boxes"]).logits
    images, regions = model.projector(features.patches), model.region_encoder.pool(fused, batch["boxes"])
    for given in (
        {"features": features, "boxes": batch["boxes"]},
        {"features": features, "fused": fused, "boxes": batch["boxes"]},
        {"image_embeddings": images, "region_embeddings": regions},
        {"image_embeddings": images, "fused": fused, "boxes": batch["boxes"]},
    ):
        torch.testing.assert_close(model(batch["input_ids"], batch["attention_mask"], **given).logits, whole)
    embeds = model.embed(batch["input_ids"], features, boxes=batch["boxes"])
    torch.testing.assert_close(model(inputs_embeds=embeds, attention_mask=batch["attention_mask"]).logits, whole)


def test_counts_that_do_not_match_are_named(model, examples):
    batch = collate(model, examples)
    ids, pixels, boxes = batch["input_ids"], batch["pixel_values"], batch["boxes"]
    width = model.config.text_config.hidden_size
    cases = [
        ({"pixel_values": pixels, "boxes": [boxes[0][:1], *boxes[1:]]}, "item 0: 2 <bbox> positions, 1 boxes"),
        ({"pixel_values": pixels}, "item 0: 2 <bbox> positions, 0 boxes"),
        ({"pixel_values": pixels, "boxes": boxes[:2]}, "boxes for 2 items, but the batch has 3"),
        ({"pixel_values": pixels, "boxes": [boxes[0], boxes[2], boxes[2]]}, "item 1: 0 <bbox> positions, 1 boxes"),
        (
            {"pixel_values": pixels, "region_embeddings": [torch.zeros(1, width)] * 3},
            "item 0: 2 <bbox> positions, 1 region embeddings",
        ),
        ({"boxes": boxes}, "item 0: 16 <im_patch> positions, 0 image patches"),
        (
            {"image_embeddings": torch.zeros(3, 15, width), "boxes": boxes, "pixel_values": pixels},
            "16 <im_patch> positions, 15 image patches",
        ),
        ({"pixel_values": pixels[:2], "boxes": boxes}, "2 pictures, but the batch has 3 items"),
        (
            {"image_embeddings": torch.zeros(3, 16, width), "boxes": boxes},
            "3 <bbox> positions with boxes, but no picture",
        ),
    ]
    for given, message in cases:
        with pytest.raises(ValueError) as error:
            model.embed(ids, **given)
        assert message in str(error.value)


def test_loss_is_the_mean_over_the_labelled_tokens(model, examples):
    batch = collate(model, examples)
    output = model(**batch)
    assert output.logits.shape == (*batch["input_ids"].shape, len(model.processor.tokenizer))
    total, count = 0.0, 0
    for item, row in enumerate(batch["labels"]):
        for position, label in enumerate(row.tolist()):
            if label != -100:
                total -= torch.log_softmax(output.logits[item, position - 1].double(), -1)[label].item()
                count += 1
    assert output.loss.item() == pytest.approx(total / count, rel=1e-5)
    summed = model(**batch, num_items_in_batch=torch.tensor(7)).loss
    assert summed.item() == pytest.approx(total / 7, rel=1e-5)
    assert model(**batch, num_items_in_batch=count).loss.item() == pytest.approx(output.loss.item(), rel=1e-5)


def test_loss_without_any_label_is_zero():
    logits = torch.randn(1, 3, 5, requires_grad=True)
    loss = next_token_loss(logits, torch.full((1, 3), -100))
    loss.backward()
    assert loss.item() == 0 and torch.isfinite(logits.grad).all()


def test_first_label_has_nothing_to_be_predicted_from():
    logits = torch.randn(1, 3, 5)
    labels = torch.tensor([[4, 2, -100]])
    expected = F.cross_entropy(logits[0, :1], torch.tensor([2]))
    torch.testing.assert_close(next_token_loss(logits, labels), expected)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_batch_equals_its_items(examples, attention):
    model = small_model()
    model.set_attn_implementation(attention)
    assert model.language_model.config._attn_implementation == attention
    for side in ("right", "left"):
        batch = collate(model, examples, padding_side=side)
        logits = model(**batch).logits
        for item, example in enumerate(examples):
            alone = collate(model, [example])
            kept = batch["attention_mask"][item].bool()
            torch.testing.assert_close(logits[item][kept], model(**alone).logits[0], atol=1e-4, rtol=1e-4)


def test_generated_batch_equals_its_items(model, examples):
    batch = collate(model, questions(examples), padding_side="left", add_generation_prompt=True)
    assert batch["attention_mask"][:, 0].tolist() == [1, 0, 0]
    del batch["labels"]
    options = {"max_new_tokens": 12, "min_new_tokens": 12, "return_dict_in_generate": True, "output_logits": True}
    together = model.generate(**batch, **options)
    assert together.sequences.shape == (3, 12)
    for item, example in enumerate(questions(examples)):
        alone = collate(model, [example], add_generation_prompt=True)
        del alone["labels"]
        single = model.generate(**alone, **options)
        assert single.sequences[0].tolist() == together.sequences[item].tolist()
        torch.testing.assert_close(
            torch.stack(single.logits)[:, 0], torch.stack(together.logits)[:, item], atol=1e-3, rtol=1e-3
        )
    assert len({tuple(row) for row in together.sequences.tolist()}) > 1, "the items must matter"


def test_regions_and_pictures_matter(model, examples):
    batch = collate(model, examples[:1])
    base = model(**batch).logits
    moved = model(**batch | {"boxes": [batch["boxes"][0].flip(0)]}).logits
    other = model(**batch | {"pixel_values": batch["pixel_values"].flip(-1)}).logits
    first = (batch["input_ids"][0] == model.config.region_token_id).nonzero()[0, 0]
    assert (moved - base)[0, :first].abs().max() < 1e-5 < (moved - base)[0, first:].abs().max()
    assert (other - base).abs().max() > 1e-3


def test_generate_equals_a_greedy_loop_over_forward(model, examples):
    inputs = collate(model, questions(examples[:1]), add_generation_prompt=True)
    del inputs["labels"]
    ids = inputs["input_ids"]
    rest = {key: inputs[key] for key in ("pixel_values", "boxes")}
    places = [model.config.image_token_id, model.config.region_token_id]
    expected = []
    for _ in range(6):
        logits = model(ids, **rest).logits[0, -1]
        logits[places] = -torch.inf
        expected.append(logits.argmax().item())
        ids = torch.cat([ids, torch.tensor([[expected[-1]]])], 1)
    assert model.generate(**inputs, max_new_tokens=6, min_new_tokens=6)[0].tolist() == expected


def test_sampling_and_streaming(model, examples):
    inputs = collate(model, questions(examples[:1]), add_generation_prompt=True)
    del inputs["labels"]

    class Collect(BaseStreamer):
        def __init__(self):
            self.ids, self.ended = [], False

        def put(self, value):
            self.ids += value.flatten().tolist()

        def end(self):
            self.ended = True

    options = {"do_sample": True, "temperature": 2.0, "max_new_tokens": 10}
    torch.manual_seed(0)
    one = model.generate(**inputs, **options)[0].tolist()
    torch.manual_seed(0)
    streamer = Collect()
    two = model.generate(**inputs, **options, streamer=streamer)[0].tolist()
    assert one == two == streamer.ids and streamer.ended
    assert len({tuple(model.generate(**inputs, **options)[0].tolist()) for _ in range(4)}) > 1
    TextStreamer(model.processor.tokenizer)  # transformers' own streamers take the same ids


def test_gradients_reach_all_but_vision_and_the_pixels(examples):
    model = small_model().train()
    batch = collate(model, examples)
    batch["pixel_values"].requires_grad_()
    model(**batch).loss.backward()
    assert batch["pixel_values"].grad.abs().sum() > 0
    for name, parameter in model.named_parameters():
        if name.startswith("vision."):
            assert not parameter.requires_grad and parameter.grad is None, name
        else:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_gradient_checkpointing_changes_nothing(examples):
    model = small_model().train()
    batch = collate(model, examples)
    model(**batch).loss.backward()
    plain = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
    model.zero_grad()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    assert model.is_gradient_checkpointing
    model(**batch).loss.backward()
    for name, gradient in plain.items():
        torch.testing.assert_close(dict(model.named_parameters())[name].grad, gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_trainer_steps(examples, tmp_path):
    """transformers.Trainer takes model, collator and lists of boxes as they are."""
    pytest.importorskip("accelerate", reason="transformers.Trainer needs accelerate")
    from transformers import Trainer, TrainingArguments

    model = small_model()
    arguments = TrainingArguments(
        str(tmp_path), max_steps=3, per_device_train_batch_size=2, gradient_accumulation_steps=2, learning_rate=1e-2, report_to=[],
        remove_unused_columns=False, use_cpu=True, disable_tqdm=True, save_strategy="no", logging_steps=1, warmup_steps=0,
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=examples * 4, data_collator=lambda rows: collate(model, rows))
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 3 and losses[-1] < losses[0]


@pytest.mark.parametrize("tied", [True, False])
def test_save_and_load(examples, tmp_path, tied):
    model = small_model(tie_word_embeddings=tied)
    model.save_pretrained(tmp_path / "saved")
    again = GPT4RoI.from_pretrained(tmp_path / "saved").eval()
    batch = collate(model, examples)
    torch.testing.assert_close(again(**batch).logits, model(**batch).logits, atol=0, rtol=0)
    assert (again.language_model.lm_head.weight is again.get_input_embeddings().weight) == tied
    for name in ("feature_layers", "image_layer", "image_token_id", "region_token_id", "template"):
        assert getattr(again.config, name) == getattr(model.config, name), name
    assert again.config.region_config.roi_size == 4 and again.config.vision_config.patch_size == 8
    assert again.generation_config.to_dict() == model.generation_config.to_dict()
    assert not any(each.requires_grad for each in again.vision.parameters())


def test_auto_classes(tmp_path, model):
    model.save_pretrained(tmp_path / "saved")
    assert isinstance(AutoConfig.from_pretrained(tmp_path / "saved"), GPT4RoIConfig)
    assert isinstance(AutoModel.from_pretrained(tmp_path / "saved"), GPT4RoI)
    assert isinstance(AutoModelForCausalLM.from_pretrained(tmp_path / "saved"), GPT4RoI)
    assert type(AutoProcessor.from_pretrained(tmp_path / "saved")) is type(model.processor)


def test_new_rows_start_as_the_mean_of_the_old():
    for tied in (True, False):
        model = small_model(tie_word_embeddings=tied)
        before = model.get_input_embeddings().weight.detach().clone()
        head = model.get_output_embeddings().weight.detach().clone()
        model.resize_token_embeddings(len(before) + 3)
        assert model.config.text_config.vocab_size == len(before) + 3 == model.get_output_embeddings().out_features
        torch.testing.assert_close(model.get_input_embeddings().weight[-3:], before.mean(0).expand(3, -1))
        torch.testing.assert_close(model.get_output_embeddings().weight[-3:], head.mean(0).expand(3, -1))
        torch.testing.assert_close(model.get_input_embeddings().weight[:-3], before)
        assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied


def test_position_ids_follow_the_mask(model, examples):
    seen = []
    handle = model.language_model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["position_ids"]), with_kwargs=True
    )
    try:
        batch = collate(model, examples, padding_side="left")
        model(**batch)
    finally:
        handle.remove()
    assert seen[0].shape == batch["input_ids"].shape
    for row, mask in zip(seen[0], batch["attention_mask"].bool()):
        assert row[mask].tolist() == list(range(mask.sum()))
    assert mask_positions(torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0]])).tolist() == [[0, 0, 0, 1], [0, 1, 2, 2]]


def test_region_encoder_keeps_fan_in_initialisation():
    weight = small_model().region_encoder.fusion.rounds[0].conv.weight
    assert weight.std().item() == pytest.approx(1 / (3 * 16 * 9) ** 0.5, rel=0.1)  # not transformers' 0.02


def test_hooks_reach_every_part(model, examples):
    batch = collate(model, examples)
    seen = []
    modules = [model.vision, model.projector, model.region_encoder.output, model.language_model.model.layers[1]]
    handles = [module.register_forward_hook(lambda module, *_: seen.append(module)) for module in modules]
    try:
        model(**batch)
    finally:
        for handle in handles:
            handle.remove()
    assert len(seen) == 4 and all(any(each is module for each in seen) for module in modules)


def test_half_precision_runs(examples):
    model = copy.deepcopy(small_model()).to(torch.bfloat16)
    output = model(**collate(model, examples))
    assert output.logits.dtype == torch.bfloat16 and torch.isfinite(output.loss)
