"""Shares the heads of a pipeline's models among GPUs, by diffusers' context parallelism (Ulysses).

A plan says what goes to each GPU in parts, and where the parts are put together again; for some classes diffusers has
one, for others this module. Only the video may be in parts, and attention of nothing else: text stays whole on every
GPU. Models whose text is in one attention with the video have no plan here: the parts of both would lie in turns, and
the video's tokens in an order that is not that of its grid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, NamedTuple

import diffusers

from ...settings.errors import ConfigError
from .families import family_of, heads_of, transformers_of

Plan = dict[str, Any]


def share_heads(target: Any, gpus: int) -> None:
    """Share the heads of a pipeline's transformers, or of one transformer, among processes with a GPU each.

    Every process of ``torchrun`` has to call it once the model is on its GPU, before or after
    :func:`~psa_core.hosts.diffusers.patch`.

    Args:
        target: as in :func:`~psa_core.hosts.diffusers.patch`.
        gpus: how many there are.

    Raises:
        TypeError: as in :func:`~psa_core.hosts.diffusers.patch`.
        ConfigError: these heads cannot be shared; the message says why.
    """
    transformers = transformers_of(target).values()
    for transformer in transformers:
        refusal = sharing_refusal(type(transformer), heads_of(family_of(transformer).modules(transformer)[0]), gpus)
        if refusal is None and _plan_of(transformer) is None:
            refusal = f"a {type(transformer).__name__} with attention of its own cannot be shared"
        if refusal is not None:
            raise ConfigError("gpus", gpus, refusal)
    for transformer in transformers:
        _share(transformer, gpus)


def sharing_refusal(kind: type, heads: int, gpus: int) -> str | None:
    """Why a transformer of this class with so many heads cannot be shared, for people; None where it can."""
    if getattr(diffusers, "ContextParallelConfig", None) is None:
        return f"diffusers {diffusers.__version__} shares no model among GPUs: install 0.36 or a newer one"
    if getattr(kind, "_cp_plan", None) is None and kind.__name__ not in _SHARING:
        return f"a {kind.__name__} cannot be shared among GPUs"
    return f"must divide the {heads} heads of a {kind.__name__}" if heads % gpus else None


class _Sharing(NamedTuple):
    """How the models of a class are shared.

    Attributes:
        plan: transformer -> its plan; None for one that cannot be.
        across: paths of attention beside the video's own that has keys of the video, as in :class:`~.families.Family`.
    """

    plan: Callable[[Any], Plan | None]
    across: tuple[str, ...] = ()


def _share(transformer: Any, gpus: int) -> None:
    kind: Any = diffusers.ContextParallelConfig
    # Also where they do not divide the tokens.
    uneven = {"ulysses_anything": True} if "ulysses_anything" in {field.name for field in fields(kind)} else {}
    transformer.enable_parallelism(config=kind(ulysses_degree=gpus, **uneven), cp_plan=_plan_of(transformer))
    sharing = _SHARING.get(type(transformer).__name__)
    if sharing is not None:
        # What is whole on every GPU needs none of the others.
        family = family_of(transformer)
        paths = (*family.attention, *sharing.across)
        shared = {id(module) for module in family._replace(attention=paths).modules(transformer)}
        for module in transformer.modules():
            if id(module) not in shared and hasattr(getattr(module, "processor", None), "_parallel_config"):
                module.processor._parallel_config = None


def _plan_of(transformer: Any) -> Plan | None:
    """The plan for a transformer; None where there is none, or a processor of its attention knows of no other GPU."""
    modules = family_of(transformer).modules(transformer)
    if not all(hasattr(module.processor, "_parallel_config") for module in modules):
        return None
    sharing = _SHARING.get(type(transformer).__name__)
    return transformer._cp_plan if sharing is None else sharing.plan(transformer)


def _skyreels(transformer: Any) -> Plan:
    # Forced diffusion has a noise level for every token.
    return {
        "rope": _angles(1, 4),
        "blocks.0": {"hidden_states": _split(1, 3)},
        "blocks.*": {"temb": _split(2, 4)},
        f"blocks.{len(transformer.blocks) - 1}": _gathered(),
    }


def _vace(transformer: Any) -> Plan:
    return {
        "rope": _angles(1, 4),
        "vace_blocks.0": {"hidden_states": _split(1, 3), "control_hidden_states": _split(1, 3)},
        "blocks.0": {"hidden_states": _split(1, 3)},
        "proj_out": _gathered(),
    }


def _kandinsky(transformer: Any) -> Plan | None:
    if transformer.config.attention_type != "regular":
        return None
    blocks = "visual_transformer_blocks"
    return {
        f"{blocks}.0": {"visual_embed": _split(1, 3)},
        f"{blocks}.*": {"rope": _split(1, 6)},
        f"{blocks}.{len(transformer.visual_transformer_blocks) - 1}": _gathered(),
    }


def _ltx(transformer: Any) -> Plan:
    # From a picture, every token has a noise level. Diffusers' own plan would have a mask of each head's text shared.
    return {
        "": {"timestep": _split(1, 2)},
        "rope": _angles(1, 3),
        "transformer_blocks.0": {"hidden_states": _split(1, 3)},
        "proj_out": _gathered(),
    }


def _ltx2(transformer: Any) -> Plan:
    angles = _angles(2, 4) if transformer.config.rope_type == "split" else _angles(1, 3)
    return {**_ltx(transformer), "rope": angles, "cross_attn_rope": angles}


_SHARING = {
    "SkyReelsV2Transformer3DModel": _Sharing(_skyreels),
    "WanVACETransformer3DModel": _Sharing(_vace),
    "Kandinsky5Transformer3DModel": _Sharing(_kandinsky),
    "LTXVideoTransformer3DModel": _Sharing(_ltx),
    "LTX2VideoTransformer3DModel": _Sharing(_ltx2, ("transformer_blocks.*.video_to_audio_attn",)),
}


def _split(dim: int, dims: int, output: bool = False) -> Any:
    # Diffusers before 0.36 has no such module.
    from diffusers.models._modeling_parallel import ContextParallelInput

    return ContextParallelInput(split_dim=dim, expected_dims=dims, split_output=output)


def _angles(dim: int, dims: int) -> dict[int, Any]:
    """Rotary cosines and sines, which a module gives."""
    return {0: _split(dim, dims, output=True), 1: _split(dim, dims, output=True)}


def _gathered() -> Any:
    from diffusers.models._modeling_parallel import ContextParallelOutput

    return ContextParallelOutput(gather_dim=1, expected_dims=3)
