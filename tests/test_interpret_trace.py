"""One pass that keeps attention rows and states: against transformers' own, in memory, and after mistakes."""

import threading

import pytest
import torch
from conftest import small_model, vision_config

import roilab
from roilab import Chat, interpret
from roilab.interpret.attending import NAME, Watch, attending
from roilab.interpret.memory import Peak, fitting
from roilab.interpret.passes import Scorer, logits_at, prepare, score, splice
from roilab.interpret.target import Target
from roilab.interpret.tracing import answer_positions, trace

BOXES = [(2, 2, 30, 30), (20, 8, 60, 40)]


def explain(model, picture, question="Is <region1> left of <region2>?", answer="yes it is"):
    return Target.of(Chat(model, picture), question, BOXES, answer=answer)


def other_model(kind: str):
    """A GPT4RoI with another LLaMA-type language model."""
    import transformers
    from conftest import REGION, TOKENIZERS

    tokenizer = TOKENIZERS["tiny"]()
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=len(tokenizer), hidden_size=48, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    return roilab.build(vision_config(), config, REGION, "tiny", tokenizer, device="cpu")


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["Llama", "Mistral", "Qwen2"])
def test_rows_and_states_are_those_of_transformers(picture, kind, implementation):
    model = other_model(kind)
    model.language_model.set_attn_implementation(implementation)
    explained = explain(model, picture)
    traced = trace(model, explained, positions=[0, 5, 9])
    assert model.language_model.config._attn_implementation == implementation
    model.language_model.set_attn_implementation("eager")
    with torch.no_grad():
        embeds = splice(model, prepare(model, explained))
        wanted = model.language_model(inputs_embeds=embeds, output_attentions=True, output_hidden_states=True)
    asked = [i - 1 for i in answer_positions(explained)]
    torch.testing.assert_close(
        traced.attention, torch.stack([each[0][:, asked] for each in wanted.attentions]), atol=1e-5, rtol=1e-5
    )
    states = torch.stack([each[0, [0, 5, 9]] for each in wanted.hidden_states])
    torch.testing.assert_close(
        traced.states[:-1], states[:-1], atol=1e-5, rtol=1e-5
    )  # transformers' last one is behind the norm
    norm = model.language_model.base_model.norm
    torch.testing.assert_close(norm(traced.states[-1]), states[-1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(traced.logits, wanted.logits[0, asked], atol=1e-4, rtol=1e-4)
    assert traced.difference < 1e-4
    assert traced.logprobs.sum().item() == pytest.approx(score(model, embeds, explained).item(), rel=1e-5)


def test_chosen_layers_alone_are_kept(model, picture):
    explained = explain(model, picture)
    traced = trace(model, explained, layers=[1], check=False)
    assert traced.layers == [1] and len(traced.attention) == 1 and traced.states is None
    torch.testing.assert_close(traced.attention[0], trace(model, explained).attention[1])
    assert trace(model, explained, attention=False, positions=[3]).attention is None


def test_everything_is_restored_after_an_exception(model, picture, monkeypatch):
    explained = explain(model, picture)
    before = model.language_model.config._attn_implementation
    layer = model.language_model.model.layers[1]

    def broken(*args, **kwargs):
        raise RuntimeError("broken on the way")

    hooks = sum(len(each._forward_hooks) + len(each._forward_pre_hooks) for each in model.modules())
    monkeypatch.setattr(layer.mlp, "forward", broken)
    with pytest.raises(RuntimeError, match="broken on the way"):
        trace(model, explained, positions=[1])
    monkeypatch.undo()
    assert model.language_model.config._attn_implementation == before
    assert hooks == sum(len(each._forward_hooks) + len(each._forward_pre_hooks) for each in model.modules())
    with torch.no_grad():
        embeds = splice(model, prepare(model, explained))
        plain = score(model, embeds, explained)
        with attending(model, {0: Watch(rows=torch.tensor([3]))}) as outer:
            with attending(model, {0: Watch(rows=torch.tensor([4]))}):
                pass
            score(model, embeds, explained)  # the inner one is gone, the outer one still watches
            assert outer[0].weights.shape[2] == 1 and model.language_model.config._attn_implementation == NAME
    torch.testing.assert_close(score(model, embeds, explained), plain)


def test_memory_grows_with_the_answer_not_with_the_square_of_the_sequence(picture):
    """At 400 positions the rows of 4 answer tokens take a hundredth of the maps that transformers would keep."""
    model = small_model(num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=8)
    tokens = 400 - len(explain(model, picture).ids)
    question = "Is <region1> left of <region2>?" + " and" * tokens
    explained = explain(model, picture, question)
    while len(explained.ids) > 404:
        question = question[: -4 * max(1, (len(explained.ids) - 400) // 4)]
        explained = explain(model, picture, question)
    length, answer = len(explained.ids), len(answer_positions(explained))
    assert length >= 400
    inputs = prepare(model, explained)
    maps = 4 * 8 * length**2 * 4  # layers x heads x T x T x 4 bytes
    with Peak() as plain, torch.no_grad():
        logits_at(model, splice(model, inputs), explained.predicting)
    with Peak() as rows:
        traced = trace(model, explained, inputs=inputs, check=False)
    model.language_model.set_attn_implementation("eager")
    with Peak() as whole, torch.no_grad():
        model.language_model(inputs_embeds=splice(model, inputs), output_attentions=True)
    assert traced.attention.nbytes == 4 * 8 * answer * length * 4
    assert whole.peak > maps  # the measure sees what is kept
    assert rows.peak - plain.peak < 0.1 * maps
    assert rows.peak < 0.3 * whole.peak


def test_a_scorer_reads_the_common_beginning_once(model, picture):
    explained = explain(model, picture)
    inputs = prepare(model, explained)
    with torch.no_grad():
        regions = inputs.regions + torch.randn(5, *inputs.regions.shape[1:], generator=torch.Generator().manual_seed(0))
        embeds = splice(model, inputs, regions=regions)
        wanted = score(model, embeds, explained)
    assert wanted.std() > 1e-3
    scorer = Scorer(model, explained, splice(model, inputs), batch=2)
    assert scorer.start == min(explained.positions("regions").tolist()) > model.processor.num_image_tokens
    torch.testing.assert_close(scorer(embeds), wanted, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(Scorer(model, explained, embeds[:1], start=0)(embeds), wanted, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="is behind position"):
        Scorer(model, explained, embeds[:1], start=len(explained.ids))


def test_mistakes_name_both_sides(model, picture):
    explained = explain(model, picture)
    with pytest.raises(ValueError, match="layer 7, but the layers are 0 to 1"):
        trace(model, explained, layers=[7])
    with pytest.raises(ValueError, match=f"position 999, but the sequence has {len(explained.ids)} positions"):
        trace(model, explained, positions=[999])


def test_threads_that_share_a_model_take_turns(model, picture):
    explained = Target.of(Chat(model, picture), "What is <region1>?", [(4, 4, 30, 30)], answer="She is running.")
    wanted = trace(model, explained).attention
    found, errors = [], []

    def work(layers):
        try:
            for _ in range(20):
                found.append((layers, trace(model, explained, layers).attention))
        except Exception as error:  # noqa: BLE001 - told below
            errors.append(error)

    threads = [threading.Thread(target=work, args=([layer],)) for layer in (0, 1, 0)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        Chat(model, picture, max_new_tokens=3).ask("What is it?")
    for thread in threads:
        thread.join()
    assert not errors and len(found) == 60
    for (layer,), rows in found:
        torch.testing.assert_close(rows[0], wanted[layer])


def test_batches_fit_a_stated_memory(model, picture):
    """At two limits, passes are as large as they may be and stay below: measured over the whole of the method."""
    explained = explain(model, picture)
    plain = interpret.cover(model, explained, "occlusion", batch=4).map
    for megabytes in (2, 8):
        sizes = []
        with Peak() as watched, interpret.listening(sizes.append):
            found = interpret.cover(model, explained, "occlusion", batch=f"{megabytes} MB")
        assert watched.peak < megabytes * 1.3e6  # what stands beside a pass: the picture, its baseline, the scores
        assert max(sizes) > (1 if megabytes == 2 else 4)
        torch.testing.assert_close(found.map, plain, atol=1e-4, rtol=1e-4)
    steps, few = [], []
    with interpret.listening(steps.append):
        whole = interpret.to_tokens(model, explained, steps=50, batch="1 GB")
    with interpret.listening(few.append), Peak() as watched:
        found = interpret.to_tokens(model, explained, steps=50, batch="6 MB")
    assert max(steps) == 50 and 1 < max(few) < 50 and watched.peak < 8e6
    torch.testing.assert_close(found.positions, whole.positions, atol=1e-4, rtol=1e-4)


def test_a_limit_that_cannot_be_kept_is_said():
    for batch in (0, -1, True, "2", "much", "2 TB of RAM"):
        with pytest.raises(ValueError, match="expected a number from 1 or an amount of memory"):
            fitting(batch, lambda: None)
    assert fitting(3, lambda: 1 / 0) == 3
    with pytest.raises(ValueError, match="one sequence alone needs 0.004 GB, the limit is 0.001 GB"):
        fitting("1 MB", lambda: torch.zeros(1_000_000))
    assert fitting("40 MB", lambda: torch.zeros(1_000_000)) == 9
