"""Wan 2.2 Animate and Wan Animate 2: the character of a picture moves as a person in a video does."""

from __future__ import annotations

from typing import Any

from .canvas import Canvas, Output, Workflow
from .columns import (
    Conditioned,
    condition,
    patched_model,
    promote_usual,
    sample_with_reference,
    save_and_report,
    without_reference,
)
from .model_files import CLIP_VISION, SDPOSE, UMT5, WAN21_VAE, WAN22_ANIMATE, WAN_ANIMATE2, WAN_I2V_DISTILLED
from .parts import BASELINE, DIAL, VIDEO_SIZE, load_unet, promote_size, prompts, psa, start_image
from .wan_negative import WAN_NEGATIVE

FPS, SHIFT, SHIFT_2 = 16, 8.0, 5.0
SIZE, SIZE_2 = (832, 480, 77), (480, 832, 81)
STEPS = 6
# Of the stock templates, which download it.
DRIVING_VIDEO = "street_dance_drive.mp4"
FACE = 512
VIDEO_TO_TRY = (
    "A driving video to try: [street_dance_drive.mp4](https://raw.githubusercontent.com/Comfy-Org/workflow_templates/"
    "refs/heads/main/input/street_dance_drive.mp4), into `ComfyUI/input`."
)
PROMPT = "A person dances in a street, the camera stands still."
# Each of the two is told what the other shows.
LOOKS = "Character: as in the reference image. Background: a quiet street between brick houses, soft daylight."
MOTION = "A person dancing."


def _animate(canvas: Canvas) -> None:
    patched = patched_model(canvas, WAN22_ANIMATE, SHIFT, WAN_I2V_DISTILLED)
    image, driving = _character_and_motion(canvas)
    with canvas.within("Motion to a character (Wan 2.2 Animate)"):
        canvas.group("Encoders")
        clip, clip_vision, vae = _encoders(canvas)
        pose, face = _pose_and_face(canvas, driving)
        conditioning = prompts(canvas, clip, PROMPT, WAN_NEGATIVE)
        seen = canvas.add("CLIPVisionEncode", clip_vision=clip_vision, image=image, crop="none")
        conditioned = condition(
            canvas,
            "WanAnimateToVideo",
            conditioning,
            vae,
            SIZE,
            clip_vision_output=seen,
            reference_image=image,
            face_video=face,
            pose_video=pose,
            continue_motion_max_frames=5,
            video_frame_offset=0,
        )
        how: dict[str, Any] = {"steps": STEPS, "cfg": 1.0, "sampler": "euler"}
        samples, video = sample_with_reference(canvas, patched, conditioned, vae, FPS, **how)
        promote_usual(canvas, conditioning[0], conditioned.node, samples)
    save_and_report(canvas, video, "psa_wan22_animate", samples, patched)


def _animate2(canvas: Canvas) -> None:
    canvas.group("Model")
    unet = load_unet(canvas, WAN_ANIMATE2, lora=WAN_I2V_DISTILLED)
    # What it computes of the driving video is the same in every step.
    cached = canvas.add("WanAnimate2Cache", model=unet, device="gpu", dtype="int8")
    (patched,) = psa(canvas, canvas.add("ModelSamplingSD3", model=cached, shift=SHIFT_2))
    image, driving = _character_and_motion(canvas)
    with canvas.within("Motion to a character (Wan Animate 2)"):
        canvas.group("Encoders")
        clip, clip_vision, vae = _encoders(canvas)
        frames = canvas.add("GetVideoComponents", video=driving)
        first = canvas.add("ImageFromBatch", image=frames, batch_index=0, length=1)
        seen, seen_pose = (
            canvas.add("CLIPVisionEncode", clip_vision=clip_vision, image=each, crop="none") for each in (image, first)
        )
        conditioning = prompts(canvas, clip, LOOKS, WAN_NEGATIVE)
        motion = canvas.add("CLIPTextEncode", "Prompt of the motion", size=(380, 120), clip=clip, text=MOTION)
        conditioned = condition(
            canvas,
            "WanAnimate2ToVideo",
            conditioning,
            vae,
            SIZE_2,
            reference_image=image,
            pose_video=frames,
            clip_vision_output=seen,
            positive_pose=motion,
            clip_vision_output_pose=seen_pose,
            video_frame_offset=0,
            pose_strength=1.0,
            pose_start_percent=0.0,
            pose_end_percent=1.0,
            reference_image_strength=1.0,
        )
        samples, sigmas = _sample2(canvas, patched, conditioned)
        video = without_reference(canvas, samples, conditioned, vae, FPS)
        canvas.promote(conditioning[0], text="prompt")
        canvas.promote(motion, text="motion")
        promote_size(canvas, conditioned.node)
        canvas.promote(samples, noise_seed="seed")
        canvas.promote(sigmas, steps="steps")
        canvas.promote(conditioned.node, pose_strength="pose_strength", reference_image_strength="reference_strength")
    save_and_report(canvas, video, "psa_wan_animate2", samples, patched)


def _sample2(canvas: Canvas, model: Output, conditioned: Conditioned) -> tuple[Output, Output]:
    """Samples as its authors make them, and the steps that they take."""
    canvas.group("Sample and decode")
    positive, negative = conditioned.prompts
    sigmas = canvas.add("BasicScheduler", model=model, scheduler="simple", steps=STEPS, denoise=1.0)
    samples = canvas.sampler(
        "SamplerCustom",
        model=model,
        positive=positive,
        negative=negative,
        sampler=canvas.add("KSamplerSelect", sampler_name="lcm"),
        sigmas=sigmas,
        latent_image=conditioned.latent,
        add_noise=True,
        noise_seed=0,
        cfg=1.0,
    )
    return samples, sigmas


def _character_and_motion(canvas: Canvas) -> tuple[Output, Output]:
    """An image and a video, in front of the subgraph that takes them."""
    canvas.group("Character and motion")
    image = start_image(canvas, "Reference image")
    driving = canvas.add("LoadVideo", "Driving video", size=VIDEO_SIZE, file=DRIVING_VIDEO)
    canvas.group("Video")
    return image, driving


def _encoders(canvas: Canvas) -> tuple[Output, Output, Output]:
    """Of text, of what is seen, and of pixels."""
    clip = canvas.add("CLIPLoader", clip_name=UMT5, type="wan", device="default")
    clip_vision = canvas.add("CLIPVisionLoader", clip_name=CLIP_VISION)
    return clip, clip_vision, canvas.add("VAELoader", vae_name=WAN21_VAE)


def _pose_and_face(canvas: Canvas, driving: Output) -> tuple[Output, Output]:
    """Frames of the pose, drawn as sticks, and of the face, cut out."""
    canvas.group("Pose and face")
    frames = canvas.add("GetVideoComponents", video=driving)
    sdpose = canvas.add("CheckpointLoaderSimple", ckpt_name=SDPOSE)
    keypoints = canvas.add("SDPoseKeypointExtractor", model=sdpose, vae=sdpose.other(2), image=frames, batch_size=16)
    # The face has an input of its own.
    drawn = canvas.add(
        "SDPoseDrawKeypoints",
        keypoints=keypoints,
        draw_body=True,
        draw_hands=True,
        draw_face=False,
        draw_feet=False,
        stick_width=4,
        face_point_size=2,
        score_threshold=0.5,
        draw_head=True,
    )
    boxes = canvas.add("SDPoseFaceBBoxes", keypoints=keypoints, scale=1.5, force_square=True)
    face = canvas.add(
        "CropByBBoxes",
        image=frames,
        bboxes=boxes,
        output_width=FACE,
        output_height=FACE,
        padding=0,
        keep_aspect="stretch",
    )
    return drawn, face


WAN_ANIMATE = (
    Workflow(
        "wan22_animate_14b",
        "Wan 2.2 Animate 14B, motion to a character",
        "The character of the reference image moves as the person in the driving video; 832 x 480, 77 frames (32,760 "
        "tokens), 6 steps with a LoRA. Pose and face are taken from the video by SDPose.",
        (
            BASELINE,
            DIAL,
            VIDEO_TO_TRY,
        ),
        _animate,
    ),
    Workflow(
        "wan_animate2_14b",
        "Wan Animate 2, motion to a character",
        "The character of the reference image moves as the person in the driving video, which is used as it is; 480 x "
        "832, 81 frames, 6 steps with a LoRA. Each frame sees its frame of the driving video exactly.",
        (
            BASELINE,
            DIAL,
            VIDEO_TO_TRY,
            "`prompt` says what character and background look like, `motion` what happens in the driving video.",
            "Out of memory: `device` of Wan Animate 2 Cache at `cpu`.",
        ),
        _animate2,
    ),
)
