"""CogVideoX's names: every parameter of diffusers' transformer has one in ComfyUI's model, and back."""

from __future__ import annotations

from typing import Any

import pytest

from psa_core.models.cogvideox.names import core_name, core_parameter, diffusers_name


@pytest.mark.parametrize(
    ("diffusers", "core"),
    [
        ("transformer_blocks.0.attn1.to_q", "blocks.0.q"),
        ("transformer_blocks.41.attn1.to_out.0", "blocks.41.attn_out"),
        ("transformer_blocks.7.attn1.norm_k", "blocks.7.norm_k"),
        ("transformer_blocks.7.ff.net.0.proj", "blocks.7.ff_proj"),
        ("transformer_blocks.7.ff.net.2", "blocks.7.ff_out"),
        ("transformer_blocks.7.norm1.linear", "blocks.7.norm1.linear"),
        ("time_embedding.linear_1", "time_embedding_linear_1"),
        ("ofs_embedding.linear_2", "ofs_embedding_linear_2"),
        ("patch_embed.text_proj", "patch_embed.text_proj"),
        ("norm_out.norm", "norm_out.norm"),
    ],
)
def test_names_go_there_and_back(diffusers: str, core: str) -> None:
    assert core_name(diffusers) == core
    assert diffusers_name(core) == diffusers
    assert core_name(core) == core


@pytest.mark.parametrize("last", ["weight", "bias", "scale_weight"])
def test_parameters_keep_their_last_part(last: str) -> None:
    assert core_parameter(f"transformer_blocks.3.attn1.to_v.{last}") == f"blocks.3.v.{last}"


def test_a_parameter_without_a_module_stays() -> None:
    assert core_parameter("scaled_fp8") == "scaled_fp8"
    assert core_parameter("patch_embed.pos_embedding") == "patch_embed.pos_embedding"


@pytest.mark.parametrize("ofs", [None, 32])
def test_every_parameter_of_diffusers_goes_back_and_none_meets_another(ofs: int | None) -> None:
    models = pytest.importorskip("diffusers", minversion="0.35")
    model: Any = models.CogVideoXTransformer3DModel(
        num_attention_heads=1,
        attention_head_dim=64,
        time_embed_dim=32,
        ofs_embed_dim=ofs,
        text_embed_dim=8,
        num_layers=2,
        attention_bias=True,
        use_rotary_positional_embeddings=True,
    )
    names = {name.rpartition(".")[0] for name in model.state_dict()}

    renamed = {core_name(name) for name in names}

    assert {diffusers_name(name) for name in renamed} == names
    assert len(renamed) == len(names)
    assert not any("transformer_blocks" in name or "attn1" in name or ".net." in name for name in renamed)
