"""Wan 2.2 Animate: the character of a picture moves as a person in a video does."""

from __future__ import annotations

from .canvas import Canvas, Output, Workflow
from .model_files import CLIP_VISION, SDPOSE, UMT5, WAN21_VAE, WAN22_ANIMATE, WAN_I2V_DISTILLED
from .parts import (
    BASELINE,
    DIAL,
    VIDEO_SIZE,
    decoded,
    load_unet,
    promote_size,
    prompts,
    psa,
    report,
    sample,
    save,
    start_image,
)
from .wan_negative import WAN_NEGATIVE

FPS, SHIFT = 16, 8.0
SIZE = {"width": 832, "height": 480, "length": 77}
# Of the stock templates, which download it.
DRIVING_VIDEO = "street_dance_drive.mp4"
FACE = 512
PROMPT = "A person dances in a street, the camera stands still."


def _animate(canvas: Canvas) -> None:
    canvas.group("Model")
    model = load_unet(canvas, WAN22_ANIMATE, SHIFT, WAN_I2V_DISTILLED)
    (patched,) = psa(canvas, model)
    canvas.group("Character and motion")
    image = start_image(canvas, "Reference image")
    driving = canvas.add("LoadVideo", "Driving video", size=VIDEO_SIZE, file=DRIVING_VIDEO)
    canvas.group("Video")
    with canvas.within("Motion to a character (Wan 2.2 Animate)"):
        canvas.group("Encoders")
        clip = canvas.add("CLIPLoader", clip_name=UMT5, type="wan", device="default")
        clip_vision = canvas.add("CLIPVisionLoader", clip_name=CLIP_VISION)
        vae = canvas.add("VAELoader", vae_name=WAN21_VAE)
        pose, face = _pose_and_face(canvas, driving)
        positive, negative = prompts(canvas, clip, PROMPT, WAN_NEGATIVE)
        seen = canvas.add("CLIPVisionEncode", clip_vision=clip_vision, image=image, crop="none")
        conditioned = canvas.add(
            "WanAnimateToVideo",
            positive=positive,
            negative=negative,
            vae=vae,
            clip_vision_output=seen,
            reference_image=image,
            face_video=face,
            pose_video=pose,
            batch_size=1,
            continue_motion_max_frames=5,
            video_frame_offset=0,
            **SIZE,
        )
        canvas.group("Sample and decode")
        conditioning = conditioned, Output(conditioned.node, 1)
        samples = sample(canvas, patched, conditioning, Output(conditioned.node, 2), steps=6, cfg=1.0, sampler="euler")
        # The reference is the first latent frame.
        trimmed = canvas.add("TrimVideoLatent", samples=samples, trim_amount=Output(conditioned.node, 3))
        _, video = decoded(canvas, trimmed, vae, FPS)
        canvas.promote(positive, text="prompt")
        promote_size(canvas, conditioned)
        canvas.promote(samples, seed="seed", steps="steps")
    canvas.group("Save")
    save(canvas, video, "psa_wan22_animate")
    report(canvas, samples, patched)


def _pose_and_face(canvas: Canvas, driving: Output) -> tuple[Output, Output]:
    """Frames of the pose, drawn as sticks, and of the face, cut out."""
    canvas.group("Pose and face")
    frames = canvas.add("GetVideoComponents", video=driving)
    sdpose = canvas.add("CheckpointLoaderSimple", ckpt_name=SDPOSE)
    keypoints = canvas.add(
        "SDPoseKeypointExtractor", model=sdpose, vae=Output(sdpose.node, 2), image=frames, batch_size=16
    )
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
            "A driving video to try: [street_dance_drive.mp4](https://raw.githubusercontent.com/Comfy-Org/"
            "workflow_templates/refs/heads/main/input/street_dance_drive.mp4), into `ComfyUI/input`.",
            "Wan Animate 2 looks at its pose video in calls that stay dense: with it little is gained.",
        ),
        _animate,
    ),
)
