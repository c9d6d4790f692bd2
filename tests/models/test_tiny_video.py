"""The tiny video model: its language, and weights that know how clips look."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from psa_core import ConfigError
from psa_core.models.tiny_video.vocabulary import (
    NONE,
    SIZE,
    SLOTS,
    TEXT_DIM,
    Words,
    embed,
    indices,
    read_prompt,
    words_of,
)
from research.tiny_video import clips

pytest.importorskip("diffusers", minversion="0.35")
safetensors = pytest.importorskip("safetensors")

from psa_core.models.tiny_video.files import AUTOENCODER, TRANSFORMER, WEIGHTS  # noqa: E402
from psa_core.models.tiny_video.model import load_pipeline  # noqa: E402
from psa_core.models.tiny_video.text import PromptTokenizer  # noqa: E402

all_words = st.builds(Words, *(st.sampled_from((NONE, *slot)) for slot in SLOTS))


@pytest.fixture(name="pipeline", scope="module")
def make_pipeline():
    return load_pipeline()


def write_prompt(words: Words) -> str:
    """A prompt that says these words."""
    objects = [write_object(words[i : i + 3]) for i in (0, 3)]
    ground = " ".join(word for word in (words.ground, words.pattern) if word != NONE)
    prompt = " and ".join(objects) if objects[1] else objects[0]
    return f"{prompt} over {ground}".strip() if ground else prompt


def write_object(words: tuple[str, ...]) -> str:
    colour, shape, motion = words
    moving = f"moving {motion}" if motion in ("left", "right", "up", "down") else motion
    said = [word for word in (colour, shape, moving) if word != NONE]
    return " ".join(["an" if said[0] == "orange" else "a", *said]) if said else ""


@given(all_words)
def test_numbers_of_words_say_which_words_they_are(words: Words) -> None:
    assert words_of(indices(words)) == words
    assert len(set(indices(words))) == len(SLOTS)
    rows = embed(words)
    assert rows.shape == (len(SLOTS), TEXT_DIM)
    assert rows.count_nonzero(1).tolist() == [1] * len(SLOTS)
    assert rows.argmax(1).tolist() == indices(words)


@given(all_words)
def test_a_prompt_that_was_written_is_read_as_it_was(words: Words) -> None:
    if words[:3] == (NONE,) * 3:
        words = words._replace(colour_2=NONE, shape_2=NONE, motion_2=NONE)
    assert read_prompt(write_prompt(words)) == words


def test_prompts_as_people_write_them() -> None:
    said = read_prompt("A red circle, moving left and an Orange star turning over the navy stripes.")
    assert said == Words("red", "circle", "left", "orange", "star", "turning", "stripes", "navy")
    assert read_prompt("") == Words()
    assert write_prompt(Words("orange", "star")) == "an orange star"


@pytest.mark.parametrize(
    ("prompt", "word"), [("a red dog", "dog"), ("a red blue star", "blue"), ("star and star and star", "star")]
)
def test_a_word_that_does_not_fit_is_named(prompt: str, word: str) -> None:
    with pytest.raises(ConfigError, match=f"word = '{word}'"):
        read_prompt(prompt)


def test_a_prompt_fills_the_sequence_with_whole_copies() -> None:
    tokens = PromptTokenizer()(["a red star", ""], max_length=20, padding="max_length")
    assert tokens.input_ids.shape == (2, 16)
    assert torch.equal(tokens.input_ids[:, :8], tokens.input_ids[:, 8:])
    assert tokens.attention_mask.all()


def test_the_weights_are_small_and_have_wans_names() -> None:
    assert sum(file.stat().st_size for file in WEIGHTS.rglob("*") if file.is_file()) < 40e6
    with safetensors.safe_open(TRANSFORMER, "pt") as weights:
        names = set(weights.keys())
        assert weights.metadata()["config"] == '{"transformer": {"text_dim": 64}}'
        assert weights.get_slice("blocks.11.self_attn.q.weight").get_shape() == [256, 256]
    assert {"head.modulation", "patch_embedding.weight", "blocks.0.modulation", "blocks.0.norm3.weight"} <= names
    with safetensors.safe_open(AUTOENCODER, "pt") as weights:
        names = set(weights.keys())
        assert weights.get_slice("decoder.head.0.gamma").get_shape() == [16, 1, 1, 1]
    assert {"conv1.weight", "encoder.downsamples.0.residual.2.weight", "decoder.middle.1.to_qkv.weight"} <= names


@torch.no_grad()
def test_the_autoencoder_shows_a_clip_again(pipeline) -> None:
    scenes = clips.random_scenes(1, torch.Generator().manual_seed(3))
    times, rows, columns = torch.arange(9)[None], torch.arange(96, 224)[None], torch.arange(96, 256)[None]
    clip = clips.draw(scenes, times, rows, columns)
    latents = pipeline.vae.encode(clip).latent_dist.mode()
    error = (pipeline.vae.decode(latents).sample - clip).square().mean()
    assert 10 * torch.log10(4 / error) > 30
    # Wan's scale, roughly: a window is no average clip.
    deviation = latents.std((0, 2, 3, 4)) / torch.tensor(pipeline.vae.config.latents_std)
    assert deviation.min() > 0.3
    assert deviation.max() < 3


@torch.no_grad()
def test_copies_of_a_prompt_change_nothing(pipeline) -> None:
    latents = torch.randn(1, 16, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    text = embed(read_prompt("a red circle"))[None]
    once, often = (
        pipeline.transformer(latents, torch.tensor([500.0]), words, return_dict=False)[0]
        for words in (text, text.repeat(1, 64, 1))
    )
    assert (once - often).norm() < 1e-4 * once.norm()


@torch.no_grad()
def test_the_transformer_knows_how_clips_look(pipeline) -> None:
    """At this noise, who knows nothing of clips is off by 1.7 at least, the variance of clean latents and noise."""
    generator = torch.Generator().manual_seed(0)
    scenes = clips.random_scenes(1, generator)
    sizes = torch.arange(9)[None], torch.arange(clips.HEIGHT)[None], torch.arange(clips.WIDTH)[None]
    latents = pipeline.vae.encode(clips.draw(scenes, *sizes)).latent_dist.mode()
    mean, deviation = (
        torch.tensor(x).view(1, -1, 1, 1, 1)
        for x in (pipeline.vae.config.latents_mean, pipeline.vae.config.latents_std)
    )
    clean = (latents - mean) / deviation
    noise = torch.randn(clean.shape, generator=generator)
    words = words_of(scenes.word_numbers()[0].tolist())
    velocity = pipeline.transformer(
        torch.lerp(clean, noise, 0.7), torch.tensor([700.0]), embed(words)[None], return_dict=False
    )[0]
    assert (velocity - (noise - clean)).square().mean() < 0.8


def test_the_pipeline_refuses_words_that_it_does_not_know(pipeline) -> None:
    with pytest.raises(ConfigError, match="word = 'dog'"):
        pipeline("a dog", num_frames=5, height=32, width=32, num_inference_steps=1)


def test_embeddings_have_the_length_of_normal_numbers() -> None:
    assert embed(Words()).norm(dim=1).tolist() == pytest.approx([SIZE] * 8)
    assert pytest.approx(TEXT_DIM) == SIZE**2
