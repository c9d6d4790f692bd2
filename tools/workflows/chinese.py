"""The notes of the workflows in Chinese, sentence by sentence."""

from __future__ import annotations

FILES = "**文件**，放在 `ComfyUI/models` 中："
NO_FILES = "**文件**：无。模型和自编码器随节点包提供。"
FROM = "来自"
PARTS = "，连同全部 {parts} 个分卷，"
TO_TRY = "**可以试试**"
NOTE_TITLE = "说明"

CHINESE: dict[str, str] = {
    # Titles.
    "Tiny model: PSA at work, nothing to download": "微型模型：看 PSA 如何工作，无需下载",
    "Tiny model: dense beside PSA": "微型模型：稠密与 PSA 对比",
    "Tiny model: a calibration, saved and taken over": "微型模型：保存并沿用校准",
    "Wan 2.1 1.3B, text to video": "Wan 2.1 1.3B，文生视频",
    "Wan 2.1 14B, text to video": "Wan 2.1 14B，文生视频",
    "Wan 2.1 14B, image to video": "Wan 2.1 14B，图生视频",
    "Wan 2.1 VACE 14B, a reference image to video": "Wan 2.1 VACE 14B，参考图像生视频",
    "Radial Mask: a long clip with Wan 2.1 1.3B": "径向掩码：用 Wan 2.1 1.3B 生成长片段",
    "Dense beside PSA": "稠密与 PSA 对比",
    "Wan 2.2 5B, text or image to video": "Wan 2.2 5B，文生视频或图生视频",
    "Wan 2.2 A14B, text to video": "Wan 2.2 A14B，文生视频",
    "Wan 2.2 A14B, text to video in 4 steps": "Wan 2.2 A14B，4 步文生视频",
    "Wan 2.2 A14B, image to video": "Wan 2.2 A14B，图生视频",
    "Wan 2.2 A14B, image to video in 4 steps": "Wan 2.2 A14B，4 步图生视频",
    "Wan 2.2 Animate 14B, motion to a character": "Wan 2.2 Animate 14B，把动作迁移到角色",
    "The character of the reference image moves as the person in the driving video; 832 x 480, 77 frames (32,760 "
    "tokens), 6 steps with a LoRA. Pose and face are taken from the video by SDPose.": (
        "参考图像中的角色按驱动视频里的人物动作；832 x 480，77 帧（32,760 个 token），用 LoRA 采样 6 步。姿态和面部由 SDPose 从视频中提取。"
    ),
    "A driving video to try: [street_dance_drive.mp4](https://raw.githubusercontent.com/Comfy-Org/workflow_templates/"
    "refs/heads/main/input/street_dance_drive.mp4), into `ComfyUI/input`.": (
        "可以试用的驱动视频：[street_dance_drive.mp4](https://raw.githubusercontent.com/Comfy-Org/"
        "workflow_templates/refs/heads/main/input/street_dance_drive.mp4)，放入 `ComfyUI/input`。"
    ),
    "Wan Animate 2, motion to a character": "Wan Animate 2，把动作迁移到角色",
    "The character of the reference image moves as the person in the driving video, which is used as it is; 480 x "
    "832, 81 frames, 6 steps with a LoRA. Each frame sees its frame of the driving video exactly.": (
        "参考图像中的角色按驱动视频里的人物动作，驱动视频无需预处理；480 x 832，81 帧，用 LoRA 采样 6 步。每一帧都精确地看到驱动视频中对应的帧。"
    ),
    "`prompt` says what character and background look like, `motion` what happens in the driving video.": (
        "`prompt` 写角色和背景的样子，`motion` 写驱动视频中的动作。"
    ),
    "Out of memory: `device` of Wan Animate 2 Cache at `cpu`.": "显存不足：把 Wan Animate 2 Cache 的 `device` 设为 `cpu`。",
    "LTX-2.3, text to video with sound": "LTX-2.3，文生有声视频",
    "LTX-2.3, image to video with sound": "LTX-2.3，图生有声视频",
    "LTX-2.5, text to video with sound": "LTX-2.5，文生有声视频",
    "LTX-2.5, image to video with sound": "LTX-2.5，图生有声视频",
    "MiniMax H3, text to video with sound": "MiniMax H3，文生有声视频",
    "MiniMax H3, image to video with sound": "MiniMax H3，图生有声视频",
    "MiniMax H3, image to video with sound in 8 steps": "MiniMax H3，8 步图生有声视频",
    "HunyuanVideo 1.5, text to video": "HunyuanVideo 1.5，文生视频",
    "CogVideoX-5B, text to video": "CogVideoX-5B，文生视频",
    "CogVideoX-5B, image to video": "CogVideoX-5B，图生视频",
    "CogVideoX-5B in 4 steps, with the PSA LoRA": "CogVideoX-5B，使用 PSA LoRA，4 步",
    "CogVideoX1.5-5B, text to video": "CogVideoX1.5-5B，文生视频",
    "CogVideoX1.5-5B, image to video": "CogVideoX1.5-5B，图生视频",
    # What they make.
    "A video model of 17 million parameters comes with the pack. Press Run: a CPU takes a minute or two. It shows how the "
    "nodes go together; only long clips of large models gain speed.": (
        "节点包自带一个 1700 万参数的视频模型。按“运行”即可，CPU 需要一两分钟。它演示各节点如何配合；只有大模型的长片段才会加速。"
    ),
    "The bundled model sampled twice with one seed, dense and sparse. PSA Compare shows how near they are, PSA Report what "
    "attention did.": "自带模型用同一种子采样两次：稠密和稀疏。“PSA 对比”显示两者有多接近，“PSA 报告”显示注意力做了什么。",
    "The first run measures which recipe suits each head of the bundled model, and Save Calibration writes it into a file. "
    "Later runs load it and measure nothing.": (
        "第一次运行测量自带模型的每个头最适合哪种方案，“保存校准”把结果写入文件。之后的运行加载它，不再测量。"
    ),
    "832 x 480, 81 frames (32,760 tokens), 30 steps. The first steps stay dense, the others run sparse.": (
        "832 x 480，81 帧（32,760 个 token），30 步。最初几步保持稠密，其余稀疏运行。"
    ),
    "832 x 480, 81 frames (32,760 tokens), 30 steps. A Sparsity Schedule keeps the first quarter of the steps dense, "
    "however many there are.": (
        "832 x 480，81 帧（32,760 个 token），30 步。“稀疏度调度”使前四分之一的步保持稠密，不论总步数多少。"
    ),
    "A start image and a prompt; 832 x 480, 81 frames. Choose an image of your own in Load Image.": (
        "一张起始图像和一段提示词；832 x 480，81 帧。请在“加载图像”中选择自己的图像。"
    ),
    "8 steps at 640 x 352, then 3 at 1280 x 704 (14,080 tokens of video), 121 frames at 24 a second. The small steps stay "
    "dense: they are short.": (
        "先在 640 x 352 下走 8 步，再在 1280 x 704 下走 3 步（视频 14,080 个 token），121 帧，每秒 24 帧。小尺寸的步保持稠密，因为序列短。"
    ),
    "A start image and a prompt; 8 steps at 640 x 352, then 3 at 1280 x 704 (14,080 tokens of video), 121 frames at 24 a "
    "second. The small steps stay dense: they are short.": (
        "一张起始图像和一段提示词；先在 640 x 352 下走 8 步，再在 1280 x 704 下走 3 步（视频 14,080 个 token），121 帧，每秒 24 帧。"
        "小尺寸的步保持稠密，因为序列短。"
    ),
    "Longer: `length` to 8 times a number, plus 1; most of the time is then attention.": (
        "更长的视频：把 `length` 设为 8 的倍数加 1；这时大部分时间都花在注意力上。"
    ),
    "The subject of the image in a new scene; 832 x 480, 81 frames, 30 steps. The control branch runs sparse too.": (
        "图像中的主体出现在新的场景中；832 x 480，81 帧，30 步。控制分支也稀疏运行。"
    ),
    "A control video, such as a pose or depth: open the subgraph and connect its frames to `control_video`.": (
        "控制视频（例如姿态或深度）：打开子图，把它的帧接到 `control_video`。"
    ),
    "1344 x 768, 124 frames at 24 a second (37,296 tokens of video), 20 steps. Text and sound stay exact for every token of "
    "the video.": "1344 x 768，124 帧，每秒 24 帧（视频 37,296 个 token），20 步。对视频的每个 token，文本和声音都保持精确。",
    "A start image and a prompt; 1344 x 768, 124 frames at 24 a second, 20 steps. Text, image and sound stay exact for "
    "every token of the video.": (
        "一张起始图像和一段提示词；1344 x 768，124 帧，每秒 24 帧，20 步。对视频的每个 token，文本、图像和声音都保持精确。"
    ),
    "With the turbo LoRA, before the patch; a start image, 1344 x 768, 124 frames at 24 a second.": (
        "使用 turbo LoRA，放在补丁之前；一张起始图像，1344 x 768，124 帧，每秒 24 帧。"
    ),
    "Give `width` and `height` the proportions of your image.": ("让 `width` 和 `height` 的宽高比与你的图像一致。"),
    "A last image too: open the subgraph and connect its input to `last_frame` of `MiniMaxH3ImageToVideo`.": (
        "还可以给出末尾图像：打开子图，把它的输入接到 `MiniMaxH3ImageToVideo` 的 `last_frame`。"
    ),
    "1280 x 720, 121 frames at 24 a second (111,600 tokens of video), 20 steps. The text stays exact for every token of the "
    "video.": "1280 x 720，121 帧，每秒 24 帧（视频 111,600 个 token），20 步。对视频的每个 token，文本都保持精确。",
    "Out of memory in VAE Decode: take VAE Decode (Tiled) in its place.": (
        "“VAE 解码”显存不足时，换用“VAE 解码（分块）”。"
    ),
    "With the turbo LoRA put its loader before the patch, and take its 8 steps: `quality` fits them.": (
        "使用 turbo LoRA 时，把它的加载器放在补丁之前，并采用它的 8 步：`quality` 与之相适。"
    ),
    "832 x 480, 161 frames (63,960 tokens). A mask by distance of frames decides what is looked at; nothing is estimated "
    "from the content. The node draws what it keeps.": (
        "832 x 480，161 帧（63,960 个 token）。由帧间距离的掩码决定看哪些部分，不根据内容估计。节点会画出它保留的部分。"
    ),
    "One prompt and seed, sampled twice: as the model is, and patched. PSA Compare shows how near the two videos are, PSA "
    "Report what attention did.": (
        "同一提示词和种子采样两次：原样的模型和打过补丁的模型。“PSA 对比”显示两个视频有多接近，“PSA 报告”显示注意力做了什么。"
    ),
    "1280 x 704, 121 frames at 24 a second (27,280 tokens), 20 steps. For image to video connect a Load Image to "
    "`start_image`.": (
        "1280 x 704，121 帧，每秒 24 帧（27,280 个 token），20 步。图生视频时，把“加载图像”接到 `start_image`。"
    ),
    "Both experts patched; 832 x 480, 81 frames, 20 steps, the second half by the low-noise one.": (
        "两个专家都打了补丁；832 x 480，81 帧，20 步，后一半由低噪声专家完成。"
    ),
    "Both experts with their 4-step LoRAs, both patched; 832 x 480, 81 frames.": (
        "两个专家各带其 4 步 LoRA，都打了补丁；832 x 480，81 帧。"
    ),
    "Both experts patched; a start image, 832 x 480, 81 frames, 20 steps.": (
        "两个专家都打了补丁；一张起始图像，832 x 480，81 帧，20 步。"
    ),
    "Both experts with their 4-step LoRAs, both patched; a start image, 832 x 480, 81 frames.": (
        "两个专家各带其 4 步 LoRA，都打了补丁；一张起始图像，832 x 480，81 帧。"
    ),
    "720 x 480, 49 frames at 8 a second (17,776 tokens with the prompt), 50 steps; the first of them stay dense.": (
        "720 x 480，49 帧，每秒 8 帧（含提示词 17,776 个 token），50 步；最初几步保持稠密。"
    ),
    "A start image and a prompt; 720 x 480, 49 frames at 8 a second, 50 steps.": (
        "一张起始图像和一段提示词；720 x 480，49 帧，每秒 8 帧，50 步。"
    ),
    "A LoRA that was trained with Pyramid Sparse Attention: 4 steps, cfg 1, every step sparse.": (
        "一个用金字塔稀疏注意力训练的 LoRA：4 步，cfg 1，每一步都稀疏。"
    ),
    "1360 x 768, 81 frames at 16 a second (45,106 tokens with the prompt), 50 steps; the first of them stay dense.": (
        "1360 x 768，81 帧，每秒 16 帧（含提示词 45,106 个 token），50 步；最初几步保持稠密。"
    ),
    "A start image and a prompt; 1360 x 768, 81 frames at 16 a second, 50 steps.": (
        "一张起始图像和一段提示词；1360 x 768，81 帧，每秒 16 帧，50 步。"
    ),
    # Advice.
    "Prompts are words that it knows: Tiny Video Prompt lists them in its help, and refuses others.": (
        "提示词只能用它认识的词：“微型视频提示词”的帮助中列出了这些词，其他词会被拒绝。"
    ),
    "`enabled` off in PSA Attention Patch, same seed: the baseline to compare with.": (
        "在“PSA 注意力补丁”中关闭 `enabled`，种子不变：用来比较的基准。"
    ),
    "`enabled` off in both patches, same seed: the baseline to compare with.": (
        "在两个补丁中都关闭 `enabled`，种子不变：用来比较的基准。"
    ),
    "Drafts: `quality` at `fast`. Finals: `near_dense`, which is slower and nearer to the baseline.": (
        "草稿：`quality` 选 `fast`。成片：选 `near_dense`，更慢，但更接近基准。"
    ),
    "`quality` of both patches: `fast` for drafts, `near_dense` for finals.": (
        "两个补丁的 `quality`：草稿选 `fast`，成片选 `near_dense`。"
    ),
    "Turn `quality` in PSA Attention Patch and run again: watch the picture and the report.": (
        "改变“PSA 注意力补丁”的 `quality` 再运行一次：看看画面和报告的变化。"
    ),
    "On an NVIDIA card set `backend` to `auto`, which uses the kernels.": (
        "在 NVIDIA 显卡上把 `backend` 设为 `auto`，就会使用内核。"
    ),
    "`quality` at `fast` and at `near_dense`: how near the videos are, and at what density.": (
        "`quality` 分别选 `fast` 和 `near_dense`：看看两个视频有多接近，密度又是多少。"
    ),
    "Run, press R so that Load Calibration lists the file, and run again: the error on PSA Attention Patch is then that of "
    "recipes from the first run.": (
        "运行后按 R，使“加载校准”列出该文件，再运行一次：此时“PSA 注意力补丁”上的误差就是第一次运行所选方案的误差。"
    ),
    "With `mine.yaml` from `user/psa_presets/calibrations` beside a graph, every head does the same elsewhere.": (
        "把 `user/psa_presets/calibrations` 中的 `mine.yaml` 与工作流一起分享，每个头在别处也会采用同样的方案。"
    ),
    "Only the PSA half runs again when `quality` changes.": "更改 `quality` 后，只有 PSA 那一半会重新运行。",
    "`attention`: `dense` in the Preset Loader, same seed: the baseline to compare with.": (
        "“预设加载器”中 `attention` 选 `dense`，种子不变：用来比较的基准。"
    ),
    "Drag the borders of the bar in the Preset Loader: to the left it is faster, to the right nearer to dense. Without a "
    "Preset Loader the patch's `quality` decides.": (
        "拖动“预设加载器”中色条的边界：向左更快，向右更接近稠密。不接“预设加载器”时，由补丁的 `quality` 决定。"
    ),
    "Clips under 8,192 tokens stay dense; at 832 x 480 that is up to 17 frames.": (
        "少于 8,192 个 token 的片段保持稠密；在 832 x 480 下即不超过 17 帧。"
    ),
    "With a 4 to 8 step LoRA put its loader before the patch, and take its steps and cfg 1: `quality` fits them.": (
        "使用 4 到 8 步的 LoRA 时，把它的加载器放在补丁之前，步数照 LoRA，cfg 设为 1：`quality` 适合任何步数。"
    ),
    "1280 x 720 (75,600 tokens): the larger the clip, the more of the time is attention, and the more there is to gain.": (
        "1280 x 720（75,600 个 token）：片段越大，注意力所占的时间越多，可以节省的也越多。"
    ),
    "`last_dense` in the Sparsity Schedule keeps steps at the end dense, `dense_layers` whole layers.": (
        "“稀疏度调度”中的 `last_dense` 使末尾若干步保持稠密，`dense_layers` 使整层保持稠密。"
    ),
    "Give `WanImageToVideo` the proportions of your image.": "让 `WanImageToVideo` 的宽高比与你的图像一致。",
    "`mode`: `coarsen` pools what `radial only` would cut, `intersect` lets PSA choose within the mask: "
    "then turn `quality` from `preset` to `balanced`.": (
        "`mode`：`coarsen` 池化 `radial only` 会去掉的部分，`intersect` 让 PSA 在掩码之内选择：这时请把 `quality` 从 `preset` 改为 "
        "`balanced`。"
    ),
    "`decay_factor`: smaller is faster and sees less; 0.2 to 1 are usual.": (
        "`decay_factor`：越小越快，看到的也越少；通常取 0.2 到 1。"
    ),
    "`scene_boundaries`, such as `0, 80, 161`: scenes that see each other only as `scene_adjacency` says.": (
        "`scene_boundaries`，例如 `0, 80, 161`：各场景只按 `scene_adjacency` 所说的方式互相可见。"
    ),
    "Any model of Wan or CogVideoX will do: replace the loaders, and the patch recognises it.": (
        "任何 Wan 或 CogVideoX 模型都可以：换掉加载器即可，补丁会识别它。"
    ),
    "PSNR of 30 dB is hard to see; under 20 dB it is another video: turn `quality` to `near_dense`.": (
        "PSNR 达到 30 dB 时差别很难看出；低于 20 dB 就是另一个视频了：这时 `quality` 请选 `near_dense`。"
    ),
    "The dense half is kept while you turn `quality`: only the PSA half runs again.": (
        "更改 `quality` 时稠密的那一半会保留，只有 PSA 那一半重新运行。"
    ),
    "Its autoencoder packs 16 x 16 pixels: clips have a quarter of Wan 2.1's tokens.": (
        "它的自编码器按 16 x 16 像素打包：片段的 token 数是 Wan 2.1 的四分之一。"
    ),
    "Steps are counted over both samplers: the warm-up ends where it says, whichever expert is at work.": (
        "步数跨两个采样器计数：不论由哪个专家工作，预热都在指定的步结束。"
    ),
    "Of four steps the first stays dense: it decides what the video shows.": (
        "四步中的第一步保持稠密：它决定视频的内容。"
    ),
    "CogVideoX Loader takes diffusers' files (also in parts: choose the first) and those in ComfyUI's own key names.": (
        "“CogVideoX 加载器”接受 diffusers 的文件（分卷时选第一个），也接受使用 ComfyUI 键名的文件。"
    ),
    "The image is scaled to the video's size: InstructPixToPixConditioning hands it on as the first frame.": (
        "图像会缩放到视频的尺寸：InstructPixToPixConditioning 把它作为第一帧传下去。"
    ),
    "CogVideoX LoRA Loader says on itself how many of the file's keys it found in the model.": (
        "“CogVideoX LoRA 加载器”会在节点上显示文件中有多少键在模型里找到了。"
    ),
    "Any other CogVideoX LoRA in diffusers' names loads the same way.": (
        "其他使用 diffusers 键名的 CogVideoX LoRA 也这样加载。"
    ),
    "Lengths: 8 times a number, plus 5, such as 85, make an even number of latent frames. LatentCut drops the first, as in "
    "training; set its `amount` to one less than there are.": (
        "长度：8 的倍数加 5（例如 85）对应偶数个潜空间帧。LatentCut 去掉第一个，与训练时一致；请把它的 `amount` 设为总数减一。"
    ),
}
