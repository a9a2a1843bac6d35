"""The checkpoints of other projects that publish a TimeSformer, or its near relatives: encoders, most without a head.

Their own means and deviations are kept, also where they are a slip that the weights were trained with. Sources: each
project's README or model zoo, for addresses and the numbers in `task`, which are the publisher's and not ours.
"""

from __future__ import annotations

from typing import Any

from timesformer_zoo.weights.checkpoint import Checkpoint

__all__ = ["FAMILIES"]

IMAGENET: dict[str, Any] = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
CLIP: dict[str, Any] = dict(mean=(0.48145466, 0.4578275, 0.40821073), std=CLIP_STD)
# LaViLa's and AVION's code has 108.327 for the mean of red, a slip for CLIP's 122.77, which their weights know.
CLIP_SLIP: dict[str, Any] = dict(mean=(108.3272985 / 255, 0.4578275, 0.40821073), std=CLIP_STD)
HALF: dict[str, Any] = dict(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))

# A frame of each segment of the whole video, and one crop; narrations and actions know left from right.
UNIFORM: dict[str, Any] = {"sampling": "uniform", "crops": 1, "flip": False}
DENSE: dict[str, Any] = {"stride": 32}
NO_HEAD: dict[str, Any] = dict(classes=0)
B16: dict[str, Any] = dict(img_size=224)

AUTHORS_PAGE = "https://github.com/facebookresearch/TimeSformer"
DROPBOX = "https://www.dropbox.com/s"
OPENMMLAB = "https://download.openmmlab.com/mmaction/recognition/timesformer"
PADDLE = "https://videotag.bj.bcebos.com/PaddleVideo-release2.2"
BOX = "https://utexas.box.com/shared/static"
LAVILA_FILES = "https://dl.fbaipublicfiles.com/lavila/checkpoints/dual_encoders"
FROZEN_FILES = "https://www.robots.ox.ac.uk/~maxbain/frozen-in-time/models"
HIERVL_FILES = "https://dl.fbaipublicfiles.com/hiervl"
EGOVLPV2_FILES = "http://www.cis.jhu.edu/~shraman/EgoVLPv2/ckpts"
DRIVE = "https://drive.google.com/file/d"
ALPRO_FILES = "https://storage.googleapis.com/sfr-vision-language-research/LAVIS/models/ALPRO"

HOWTO100M: dict[str, Any] = dict(
    license="cc-by-nc-4.0",
    description="The authors' model for tasks in the long videos of HowTo100M; their names are not published.",
    origin=AUTHORS_PAGE, classes=1059, clip=DENSE, **B16,
)  # fmt: skip
MMACTION2: dict[str, Any] = dict(
    license="apache-2.0", description="mmaction2's training on Kinetics-400, of its versions before 1.0.",
    origin="https://github.com/open-mmlab/mmaction2/tree/0.x/configs/recognition/timesformer",
    labels="kinetics400", num_frames=8, clip=DENSE, **B16, **HALF,
)  # fmt: skip
PADDLE_VIDEO: dict[str, Any] = dict(
    license="apache-2.0", description="PaddleVideo's own training on Kinetics-400.",
    origin="https://github.com/PaddlePaddle/PaddleVideo/blob/develop/docs/en/model_zoo/recognition/pp-timesformer.md",
    labels="kinetics400", **B16,
)  # fmt: skip
# Inputs are divided by 255 and nothing else; frames are spread over the whole video.
PP: dict[str, Any] = dict(
    PADDLE_VIDEO, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), model={"qkv_bias": False},
    clip={"sampling": "uniform", "fuse": "softmax"},
)  # fmt: skip
AVION: dict[str, Any] = dict(
    license="mit", description="AVION's encoder of first-person video, trained with the text of narrations.",
    origin="https://github.com/zhaoyue-zephyrus/AVION/blob/main/docs/MODEL_ZOO.md", paper="arXiv:2309.16669",
    clip=UNIFORM, img_size=224, model={"pre_norm": True, "patch_bias": False}, **CLIP_SLIP,
)  # fmt: skip
EPIC_HEAD: dict[str, Any] = dict(num_frames=16, classes=3806)
LAVILA: dict[str, Any] = dict(
    license="mit", origin="https://github.com/facebookresearch/LaViLa/blob/main/docs/MODEL_ZOO.md",
    description="LaViLa's encoder of first-person video, trained with the text of narrations.",
    paper="arXiv:2212.04501", clip=UNIFORM, **CLIP_SLIP,
    model={"pre_norm": True, "pre_norm_eps": 1e-5, "act_layer": "quick_gelu", "patch_bias": False,
           "time_interpolation": "first"},
)  # fmt: skip
FROZEN: dict[str, Any] = dict(clip=UNIFORM, model={"time_interpolation": "first"}, **B16, **IMAGENET)
ALIGNED: dict[str, Any] = dict(FROZEN, model={"time_interpolation": "first_aligned"}, **NO_HEAD)
EGOVLP: dict[str, Any] = dict(
    ALIGNED, license="mit", description="EgoVLP's encoder of first-person video, trained with the text of narrations.",
    origin="https://github.com/showlab/EgoVLP", paper="arXiv:2206.01670",
)  # fmt: skip
HIERVL: dict[str, Any] = dict(
    ALIGNED, license="cc-by-nc-4.0", description="HierVL's encoder of first-person video, trained with text.",
    origin="https://github.com/facebookresearch/HierVL", paper="arXiv:2301.02311",
)  # fmt: skip
EGOVLPV2: dict[str, Any] = dict(
    license="mit", description="EgoVLPv2's encoder of first-person video, without what it does given a text.",
    origin="https://github.com/facebookresearch/EgoVLPv2", paper="arXiv:2307.05463",
    clip=UNIFORM, model={"norm_eps": 1e-5, "time_interpolation": "first_aligned"}, **NO_HEAD, **B16, **IMAGENET,
)  # fmt: skip
VICLIP: dict[str, Any] = dict(
    license="mit", description="ViCLIP's video encoder, trained with the text of InternVid-10M-FLT.",
    paper="arXiv:2307.06942", clip=UNIFORM, num_frames=8, img_size=224,
    task="video and text, as a metric or reward; zero-shot",
    model={"pre_norm": True, "act_layer": "quick_gelu", "norm_eps": 1e-5, "patch_bias": False}, **NO_HEAD, **IMAGENET,
)  # fmt: skip
ALPRO: dict[str, Any] = dict(
    license="bsd-3-clause", description="ALPRO's video encoder, trained with text on WebVid-2M and CC3M.",
    origin="https://github.com/salesforce/ALPRO", paper="arXiv:2112.09583", clip=UNIFORM,
    model={"time_interpolation": "nearest"}, **NO_HEAD, **B16, **CLIP,
)  # fmt: skip
SELF_SUPERVISED: dict[str, Any] = dict(
    license="mit", num_frames=8, clip=DENSE, model={"time_interpolation": "nearest"}, **NO_HEAD, **B16,
)  # fmt: skip

# fmt: off
FAMILIES: dict[str, Checkpoint] = {
    "timesformer_base_frozen.webvid": Checkpoint(
        **FROZEN, **NO_HEAD, source={"url": f"{FROZEN_FILES}/cc-webvid2m-4f_stformer_b_16_224.pth.tar"}, license="mit",
        description="Frozen in Time's video encoder, trained with text on CC3M and WebVid-2M.",
        paper="arXiv:2104.00650", origin="https://github.com/m-bain/frozen-in-time", num_frames=4,
        task="video and text, retrieval", num_params=114_168_576,
    ),
    "timesformer_base_frozen.lavila_ego4d": Checkpoint(
        **LAVILA, source={"url": f"{LAVILA_FILES}/ego4d/clip_openai_timesformer_base."
                  "narrator_rephraser.ep_0005.md5sum_d73a9c.pth"},
        num_frames=4, img_size=224, **NO_HEAD,
        task="first-person video and text; EgoMCQ 59.9 within a video", num_params=114_169_344,
    ),
    "timesformer_base_frozen.lavila_epoch1": Checkpoint(
        **LAVILA, source={"url": f"{LAVILA_FILES}/ego4d/clip_openai_timesformer_base."
                  "narrator_rephraser.ep_0001.md5sum_02dbb9.pth"},
        num_frames=4, img_size=224, **NO_HEAD,
        task="first-person video and text; Charades-Ego zero-shot 26.8", num_params=114_169_344,
    ),
    "timesformer_base_frozen.lavila_baseline": Checkpoint(
        **LAVILA, source={"url": f"{LAVILA_FILES}/ego4d/clip_openai_timesformer_base."
                  "baseline.ep_0003.pth"},
        num_frames=4, img_size=224, **NO_HEAD,
        task="first-person video and text, people's narrations alone", num_params=114_169_344,
    ),
    "timesformer_base_frozen.lavila_ek100": Checkpoint(
        **LAVILA, source={"url": f"{LAVILA_FILES}/ek100_cls/clip_openai_timesformer_base."
                  "ft_ek100_cls.ep_0100.md5sum_4e3575.pth"},
        num_frames=16, img_size=224, classes=3806,
        task="kitchen actions, EPIC-Kitchens-100 46.9", num_params=117_105_374,
    ),
    "timesformer_base_frozen.lavila_ek100_single": Checkpoint(
        **LAVILA, source={"url": f"{LAVILA_FILES}/ek100_cls/clip_openai_timesformer_base."
                  "ft_ek100_cls.single_head.ep_0100.md5sum_e8aa0c.pth"},
        num_frames=16, img_size=224, classes=3806,
        task="kitchen actions, EPIC-Kitchens-100 46.2", num_params=117_105_374,
    ),
    "timesformer_base_frozen.lavila_ek100_mir": Checkpoint(
        **LAVILA, source={"url": f"{LAVILA_FILES}/ek100_mir/clip_openai_timesformer_base."
                  "ft_ek100_mir.ep_0085.md5sum_c67d95.pth"},
        num_frames=16, img_size=224, **NO_HEAD,
        task="retrieval of kitchen actions, mAP 50.5", num_params=114_178_560,
    ),
    "timesformer_base_frozen.lavila_charades": Checkpoint(
        **LAVILA, source={"url": f"{LAVILA_FILES}/charades_ego/clip_openai_timesformer_base."
                  "ft_charades_ego.ep_0005.md5sum_39bf4b.pth"},
        num_frames=16, img_size=224, **NO_HEAD,
        task="first-person actions, Charades-Ego mAP 33.7", num_params=114_178_560,
    ),
    "timesformer_base_frozen.lavila_egtea": Checkpoint(
        **LAVILA, source={"url": f"{LAVILA_FILES}/egtea/clip_openai_timesformer_base."
                  "ft_egtea.ep_0090.md5sum_3b1faf.pth"},
        num_frames=16, img_size=224, classes=106,
        task="cooking actions, EGTEA 70.12", num_params=114_260_074,
    ),
    "timesformer_vitl14_frozen.lavila_ego4d": Checkpoint(
        **LAVILA, source={"url": f"{LAVILA_FILES}/ego4d/clip_openai_timesformer_large."
                  "narrator_rephraser.ep_0003.md5sum_c89337.pth"},
        num_frames=4, img_size=224, **NO_HEAD,
        task="first-person video and text; EgoMCQ 63.1 within a video", num_params=403_994_624,
    ),
    "timesformer_vitl14_frozen.lavila_epoch1": Checkpoint(
        **LAVILA, source={"url": f"{LAVILA_FILES}/ego4d/clip_openai_timesformer_large."
                  "narrator_rephraser.ep_0001.md5sum_9a25de.pth"},
        num_frames=4, img_size=224, **NO_HEAD,
        task="first-person video and text; Charades-Ego zero-shot 28.9", num_params=403_994_624,
    ),
    "timesformer_vitl14_frozen.lavila_336": Checkpoint(
        **LAVILA, source={"url": f"{LAVILA_FILES}/ego4d/clip_openai_timesformer_large_336px_distilbert_base."
                  "baseline.ep_0003.pth"},
        num_frames=4, img_size=336, **NO_HEAD,
        task="first-person video and text, people's narrations alone", num_params=404_322_304,
    ),
    "timesformer_vitl14_frozen.lavila_ek100": Checkpoint(
        **LAVILA, source={"url": f"{LAVILA_FILES}/ek100_cls/clip_openai_timesformer_large."
                  "ft_ek100_cls.ep_0090.md5sum_4a2509.pth"},
        num_frames=16, img_size=224, classes=3806,
        task="kitchen actions, EPIC-Kitchens-100 51.0", num_params=407_908_062,
    ),
    "timesformer_vitl14_frozen.lavila_ek100_mir": Checkpoint(
        **LAVILA, source={"url": f"{LAVILA_FILES}/ek100_mir/clip_openai_timesformer_large."
                  "ft_ek100_mir.ep_0095.md5sum_bd508b.pth"},
        num_frames=16, img_size=224, **NO_HEAD,
        task="retrieval of kitchen actions, mAP 50.9", num_params=404_006_912,
    ),
    "timesformer_vitl14_frozen.lavila_charades": Checkpoint(
        **LAVILA, source={"url": f"{LAVILA_FILES}/charades_ego/clip_openai_timesformer_large."
                  "ft_charades_ego.ep_0003.md5sum_9448b2.pth"},
        num_frames=16, img_size=224, **NO_HEAD,
        task="first-person actions, Charades-Ego mAP 36.1", num_params=404_006_912,
    ),
    "timesformer_vitl14_frozen.lavila_egtea": Checkpoint(
        **LAVILA, source={"url": f"{LAVILA_FILES}/egtea/clip_openai_timesformer_large."
                  "ft_egtea.ep_0095.md5sum_a5ba17.pth"},
        num_frames=16, img_size=224, classes=106,
        task="cooking actions, EGTEA 76.00", num_params=404_115_562,
    ),
    "timesformer_base_frozen.egovlp": Checkpoint(
        **EGOVLP, source={"url": f"{LAVILA_FILES}/ego4d/egovlp_converted_f16.md5sum_c33363.pth"},
        num_frames=4, task="first-person video and text; EgoMCQ 57.2 within a video", num_params=114_168_576,
    ),
    "timesformer_base_frozen.egovlp_epoch1": Checkpoint(
        **EGOVLP, source={"url": f"{LAVILA_FILES}/ego4d/egovlp_epo1_converted_f16.md5sum_7a3d3b.pth"},
        num_frames=4, task="first-person video and text, an earlier epoch", num_params=114_168_576,
    ),
    "timesformer_base_frozen.egovlp_ek100_mir": Checkpoint(
        **EGOVLP, source={"url": f"{DRIVE}/1-SOQeXc-xSn544sJzgFLhC95hkQsm0BR"},
        num_frames=16, task="retrieval of kitchen actions, mAP 47.4", num_params=114_177_792,
    ),
    "timesformer_base_frozen.egovlp_charades": Checkpoint(
        **EGOVLP, source={"url": f"{DRIVE}/1-xWVDH7XO4pi6Hj5QRpKVz6y-QkqcFlQ"},
        num_frames=16, task="first-person actions, Charades-Ego mAP 32.1", num_params=114_177_792,
    ),
    "timesformer_base_frozen.hiervl": Checkpoint(
        **HIERVL, source={"url": f"{HIERVL_FILES}/hievl_sa.pth"},
        num_frames=4, task="first-person video and text, with summaries", num_params=114_168_576,
    ),
    "timesformer_base_frozen.hiervl_charades": Checkpoint(
        **HIERVL, source={"url": f"{HIERVL_FILES}/charades_hievl_sa.pth"},
        num_frames=16, task="first-person actions, Charades-Ego", num_params=114_177_792,
    ),
    "timesformer_base_frozen.hiervl_ek100_mir": Checkpoint(
        **HIERVL, source={"url": f"{HIERVL_FILES}/epic_hievl_sa.pth"},
        num_frames=16, task="retrieval of kitchen actions", num_params=114_177_792,
    ),
    "timesformer_base_frozen.egovlpv2": Checkpoint(
        **EGOVLPV2, source={"url": f"{EGOVLPV2_FILES}/Pre-trained/EgoVLPv2.pth"},
        num_frames=4, task="first-person video and text; EgoMCQ 60.9 within a video", num_params=114_168_576,
    ),
    "timesformer_base_frozen.egovlpv2_ek100_mir": Checkpoint(
        **EGOVLPV2, source={"url": f"{EGOVLPV2_FILES}/EK-100_Finetuned/EK-100_finetune.pth"},
        num_frames=16, task="retrieval of kitchen actions, mAP 47.3", num_params=114_177_792,
    ),
    "timesformer_base_frozen.egovlpv2_charades": Checkpoint(
        **EGOVLPV2, source={"url": f"{EGOVLPV2_FILES}/Charades-Ego_Finetuned/Charades-Ego_finetune.pth"},
        num_frames=32, task="first-person actions, Charades-Ego mAP 34.1", num_params=114_190_080,
    ),
    "timesformer_base_divided.svt_k400": Checkpoint(
        **SELF_SUPERVISED, source={"url": "https://github.com/kahnchana/svt/releases/download/v1.0/kinetics400_vitb_ssl.pth"},
        description="SVT: trained on the videos of Kinetics-400 without labels.", paper="arXiv:2112.01514",
        origin="https://github.com/kahnchana/svt", task="a start without labels; UCF-101 linear 90.8",
        num_params=121_258_752,
    ),
    "timesformer_base_divided.endo_fm": Checkpoint(
        **SELF_SUPERVISED, source={"url": f"{DRIVE}/1KouXXV3nh9hc2j3cV2GTI9lDe8FxOzNB"},
        description="Endo-FM: SVT's training on 33,000 clips of endoscopies, without labels.", paper="arXiv:2306.16741",
        origin="https://github.com/med-air/Endo-FM", task="a start for endoscopy; PolypDiag F1 90.7",
        num_params=121_258_752,
    ),
    "timesformer_base_divided.howto100m": Checkpoint(
        **HOWTO100M, source={"url": f"{DROPBOX}/9v8hcm88b9tc6ff/TimeSformer_divST_8x32_224_HowTo100M.pyth?dl=1"},
        num_frames=8, task="tasks in long videos, 56.8", num_params=122_073_123,
    ),
    "timesformer_base_divided.howto100m_32": Checkpoint(
        **HOWTO100M, source={"url": f"{DROPBOX}/4roflx4q1gscu85/TimeSformer_divST_32x32_224_HowTo100M.pyth?dl=1"},
        num_frames=32, task="tasks in long videos, 61.2", num_params=122_091_555,
    ),
    "timesformer_base_divided.howto100m_64": Checkpoint(
        **HOWTO100M, source={"url": f"{DROPBOX}/15bvqltl1j5vyp3/TimeSformer_divST_64x32_224_HowTo100M.pyth?dl=1"},
        num_frames=64, task="tasks in long videos, 62.2", num_params=122_116_131,
    ),
    "timesformer_base_divided.howto100m_96": Checkpoint(
        **HOWTO100M, source={"url": f"{DROPBOX}/t2mzgahnfhgakma/TimeSformer_divST_96x32_224_HowTo100M.pyth?dl=1"},
        num_frames=96, task="tasks in long videos, 62.6", num_params=122_140_707,
    ),
    "timesformer_base_divided.mmaction2_0x": Checkpoint(
        **MMACTION2,
        source={"url": f"{OPENMMLAB}/timesformer_divST_8x32x1_15e_kinetics400_rgb/"
                "timesformer_divST_8x32x1_15e_kinetics400_rgb-3f8e5d03.pth"},
        num_params=121_566_352, top1=77.92, top5=93.29,
    ),
    "timesformer_base_joint.mmaction2_0x": Checkpoint(
        **MMACTION2,
        source={"url": f"{OPENMMLAB}/timesformer_jointST_8x32x1_15e_kinetics400_rgb/"
                "timesformer_jointST_8x32x1_15e_kinetics400_rgb-0d6e3984.pth"},
        num_params=86_112_400, top1=77.01, top5=93.08,
    ),
    "timesformer_base_space_only.mmaction2_0x": Checkpoint(
        **MMACTION2,
        source={"url": f"{OPENMMLAB}/timesformer_spaceOnly_8x32x1_15e_kinetics400_rgb/"
                "timesformer_spaceOnly_8x32x1_15e_kinetics400_rgb-0cf829cd.pth"},
        num_params=86_106_256, top1=76.93, top5=92.90,
    ),
    "timesformer_base_divided.spacetimegpt": Checkpoint(
        source={"hf_hub_id": "Neleac/SpaceTimeGPT"}, license="cc-by-nc-4.0",
        description="The encoder of SpaceTimeGPT, which writes captions; from the authors' K600 weights.",
        num_frames=8, clip=UNIFORM, task="captions, VATEX CIDEr 67.3", num_params=121_258_752,
        **NO_HEAD, **B16, **IMAGENET,
    ),
    "timesformer_base_divided.alpro": Checkpoint(
        **ALPRO, source={"url": f"{ALPRO_FILES}/alpro_pretrain.pt"}, num_frames=4,
        task="video and text; MSR-VTT R@1 33.9 fine-tuned", num_params=121_255_680,
    ),
    "timesformer_base_divided.alpro_msrvtt": Checkpoint(
        **ALPRO, source={"url": f"{ALPRO_FILES}/alpro_msrvtt_retrieval.pt"}, num_frames=8,
        task="video and text; MSR-VTT R@1 33.9", num_params=121_258_752,
    ),
    "timesformer_base_divided.paddle_k400": Checkpoint(
        **PADDLE_VIDEO, source={"url": f"{PADDLE}/TimeSformer_k400.pdparams"}, num_frames=8, clip=DENSE,
        num_params=121_566_352, top1=77.29,
    ),
    "timesformer_base_divided.pp_k400": Checkpoint(
        **PP, source={"url": f"{PADDLE}/ppTimeSformer_k400_8f.pdparams"}, num_frames=8,
        num_params=121_511_056, top1=78.61,
    ),
    "timesformer_base_divided.pp_distill_k400": Checkpoint(
        **PP, source={"url": f"{PADDLE}/ppTimeSformer_k400_8f_distill.pdparams"}, num_frames=8,
        num_params=121_511_056, top1=78.87,
    ),
    "timesformer_base_divided.pp_distill_16_k400": Checkpoint(
        **PP, source={"url": f"{PADDLE}/ppTimeSformer_k400_16f_distill.pdparams"}, num_frames=16,
        num_params=121_517_200, top1=79.44,
    ),
    "timesformer_base_joint.avion_ego4d": Checkpoint(
        **AVION, source={"url": f"{BOX}/yp1krj3dsmr8wj0sz01t10bwa9fgq3zy.pt"}, num_frames=4, **NO_HEAD,
        task="first-person video and text", num_params=85_802_496,
    ),
    "timesformer_base_joint.avion_lavila": Checkpoint(
        **AVION, source={"url": f"{BOX}/e681nrxivc9makufvrumrfuaopk57h4n.pt"}, num_frames=4, **NO_HEAD,
        task="first-person video and text, LaViLa's narrations", num_params=85_802_496,
    ),
    "timesformer_base_joint.avion_ek100": Checkpoint(
        **AVION, **EPIC_HEAD, source={"url": f"{BOX}/8iokob6ahb94gp1bqbmauhpeunqwx79j.pt"},
        task="kitchen actions, EPIC-Kitchens-100 49.5", num_params=88_738_526,
    ),
    "timesformer_base_joint.avion_ek100_ego4d": Checkpoint(
        **AVION, **EPIC_HEAD, source={"url": f"{BOX}/2fkvtc67m0f82wmm5cnqfo7wg951lobv.pt"},
        task="kitchen actions, EPIC-Kitchens-100 47.3", num_params=88_738_526,
    ),
    "timesformer_base_joint.avion_ek100_mir": Checkpoint(
        **AVION, source={"url": f"{BOX}/ke5kwfixttb4t7uxdbs9gmiiuu1582dg.pt"}, num_frames=16, **NO_HEAD,
        task="retrieval of kitchen actions, mAP 52.0", num_params=85_811_712,
    ),
    "timesformer_vitl14_joint.avion_lavila": Checkpoint(
        **AVION, source={"url": f"{BOX}/1iatmrs7ufdeooce09a61t1n6wsouf4l.pt"}, num_frames=4, **NO_HEAD,
        task="first-person video and text, LaViLa's narrations", num_params=303_183_872,
    ),
    "timesformer_vitl14_joint.avion_ek100": Checkpoint(
        **AVION, **EPIC_HEAD, source={"url": f"{BOX}/crnqo9bu0owtfz4yc1yqf8hz6g0ze39b.pt"},
        task="kitchen actions, EPIC-Kitchens-100 54.4", num_params=307_097_310,
    ),
    "timesformer_vitl14_joint.avion_ek100_mir": Checkpoint(
        **AVION, source={"url": f"{BOX}/m7f65hg9eonz34g0l2x5r0t92ouh0u4w.pt"}, num_frames=16, **NO_HEAD,
        task="retrieval of kitchen actions, mAP 54.5", num_params=303_196_160,
    ),
    "timesformer_vitl14_joint.viclip": Checkpoint(
        **VICLIP, source={"hf_hub_id": "OpenGVLab/ViCLIP-L-14-hf"}, num_params=303_187_968,
    ),
    "timesformer_base_joint.viclip": Checkpoint(
        **VICLIP, source={"hf_hub_id": "OpenGVLab/ViCLIP-B-16-hf"}, num_params=85_805_568,
    ),
}
# fmt: on
