"""Whole columns that several workflows have."""

from __future__ import annotations

from typing import Any, NamedTuple

from .canvas import Canvas, Output
from .model_files import ModelFile
from .parts import Prompts, Size, decoded, load_unet, promote_size, psa, report, sample, save, save_video


def patched_model(
    canvas: Canvas, model: ModelFile, shift: float | None = None, lora: ModelFile | None = None
) -> Output:
    """A model in a column, its patch in the next: what stands in front of a subgraph."""
    canvas.group("Model")
    (patched,) = psa(canvas, load_unet(canvas, model, shift, lora))
    return patched


class Conditioned(NamedTuple):
    """What a node makes of prompts and pictures.

    Attributes:
        node: its first output.
    """

    node: Output

    @property
    def prompts(self) -> Prompts:
        """With what the pictures say."""
        return self.node, self.node.other(1)

    @property
    def latent(self) -> Output:
        """To start from."""
        return self.node.other(2)

    @property
    def reference_frames(self) -> Output:
        """How many frames of the latent are a reference, which stand in front of the clip."""
        return self.node.other(3)


def condition(canvas: Canvas, node_type: str, prompts: Prompts, vae: Output, size: Size, **inputs: Any) -> Conditioned:
    """One of core's nodes that take a model's pictures beside its prompts.

    Args:
        size: (width, height, frames) of the clip.
        inputs: the pictures, and widgets of this node alone.
    """
    positive, negative = prompts
    width, height, length = size
    shared = {"width": width, "height": height, "length": length, "batch_size": 1}
    return Conditioned(canvas.add(node_type, positive=positive, negative=negative, vae=vae, **inputs, **shared))


def sample_and_save(
    canvas: Canvas, model: Output, prompts: Prompts, latent: Output, vae: Output, fps: int, prefix: str, **how: Any
) -> Output:
    """A sampler, the video of what it makes, and what attention did; the samples go on. ``how`` as in ``sample``."""
    canvas.group("Sample and save")
    samples = sample(canvas, model, prompts, latent, **how)
    save_video(canvas, samples, vae, fps, prefix)
    report(canvas, samples, model)
    return samples


def sample_with_reference(
    canvas: Canvas, model: Output, conditioned: Conditioned, vae: Output, fps: int, **how: Any
) -> tuple[Output, Output]:
    """Inside a subgraph: samples, and the video of those that are not the reference. ``how`` as in ``sample``."""
    canvas.group("Sample and decode")
    samples = sample(canvas, model, conditioned.prompts, conditioned.latent, **how)
    return samples, without_reference(canvas, samples, conditioned, vae, fps)


def without_reference(canvas: Canvas, samples: Output, conditioned: Conditioned, vae: Output, fps: int) -> Output:
    """The video of samples whose first latent frames are the reference."""
    trimmed = canvas.add("TrimVideoLatent", samples=samples, trim_amount=conditioned.reference_frames)
    return decoded(canvas, trimmed, vae, fps)[1]


def promote_usual(canvas: Canvas, prompt: Output, size: Output, samples: Output) -> None:
    """Show on the subgraph what its user turns: the prompt, the size of the clip, and the sampler's seed and steps."""
    canvas.promote(prompt, text="prompt")
    promote_size(canvas, size)
    canvas.promote(samples, seed="seed", steps="steps")


def save_and_report(canvas: Canvas, video: Output, prefix: str, samples: Output, model: Output) -> None:
    """Behind a subgraph: the video that it makes, and what attention did."""
    canvas.group("Save")
    save(canvas, video, prefix)
    report(canvas, samples, model)


def compare(
    canvas: Canvas, dense: Output, patched: Output, prompts: Prompts, latent: Output, vae: Output, fps: int, **how: Any
) -> None:
    """Sample with both models, save the videos and their difference, and say how far they are from each other."""
    canvas.group("Sample twice, same seed")
    dense_samples = sample(canvas, dense, prompts, latent, **how, title="KSampler (dense)")
    samples = sample(canvas, patched, prompts, latent, **how, title="KSampler (PSA)")
    canvas.group("Videos")
    reference = save_video(canvas, dense_samples, vae, fps, "psa_compare_dense", "Save Video (dense)")
    video = save_video(canvas, samples, vae, fps, "psa_compare_psa", "Save Video (PSA)")
    report(canvas, samples, patched)
    compared = canvas.add("PSACompare", size=(560, 420), reference=reference, video=video, gain=4.0)
    difference = canvas.add("CreateVideo", images=compared.other(1), fps=float(fps))
    save(canvas, difference, "psa_compare_difference", "Save Video (difference)", size=(560, 600))
