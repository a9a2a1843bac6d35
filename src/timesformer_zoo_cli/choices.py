"""What options may be: literal here, since help must not wait for torch; the tests hold it to the library's tables."""

__all__ = [
    "DATASETS",
    "DEVICE",
    "DTYPES",
    "ENGINES",
    "EXPLANATIONS",
    "FILES",
    "FORMATS",
    "INDEXES",
    "JSON",
    "LABELS",
    "LICENCES",
    "MODEL",
    "MODES",
    "PACKAGES",
    "PER",
    "PRECISIONS",
    "PROTOCOLS",
    "TASKS",
]

MODES = ("space_only", "joint", "divided", "local_global", "axial", "frozen")
LABELS = ("kinetics400", "kinetics600", "something_something_v2", "camera_motion", "none")
PACKAGES = {  # what some verbs need, and what to install for it
    **dict.fromkeys(["accelerate", "tensorboard"], "'timesformer-zoo[train]'"),
    **dict.fromkeys(["ray", "pyarrow", "pandas"], "'timesformer-zoo[cluster]'"),
    "datasets": "'timesformer-zoo[datasets]'",
    **dict.fromkeys(["faiss", "usearch"], "'timesformer-zoo[search]'"),
    "matplotlib": "'timesformer-zoo[plots]'",
    "captum": "'timesformer-zoo[captum]'",
    "aiohttp": "'timesformer-zoo[remote]'",
    "gradio": "'timesformer-zoo[demo]'",
    **{name: name for name in ("aim", "clearml", "dvclive", "mlflow", "swanlab", "trackio", "wandb")},
    "comet_ml": "comet-ml",
}
LICENCES = ("apache-2.0", "bsd-3-clause", "cc-by-nc-4.0", "mit")
ENGINES = ("local", "ray")
EXPLANATIONS = ("relevance", "rollout", "gradients", "integrated_gradients")
FORMATS = ("gif", "mp4", "png", "html")
INDEXES = ("exact", "faiss", "usearch")
PER = ("window", "clip", "video")
DTYPES = ("float16", "float32")
PRECISIONS = ("float32", "bfloat16", "float16")
TASKS = ("classes", "multilabel", "regression")
PROTOCOLS = {
    "model": "as the model's ClipSpec says, and as predict does",
    "official": "the authors' code: clips from frame 0, sum of the logits",
    "paper": "the paper's text: clip in the middle, mean of the softmax",
}
DATASETS = {
    "folder": "a folder per class, in train/ and val/ or not",
    "list": "a line per video: path label, or path,label[,start,end,split] with a header; several labels as 0,2 or "
    "run;sit; or a column of numbers for each label (0 and 1) or value",
    "json": "objects with path, label and, for parts of a video, start and end",
    "videofolder": "Hugging Face's: metadata.csv or .jsonl with file_name and label, in train/ or not",
    "shards": "WebDataset's tar files: a video and .cls, .json or .txt of each sample",
    "datasets": "a column of videos that load_dataset of Hugging Face's datasets finds: OWNER/NAME, or a folder",
    "kinetics400": "Kinetics-400: label,youtube_id,time_start,time_end,split",
    "kinetics600": "Kinetics-600: label,youtube_id,time_start,time_end,split",
    "ssv2": "Something-Something V2: videos, or folders of frames, called by their id",
    "ucf101": "UCF101 and its ucfTrainTestlist",
    "hmdb51": "HMDB51 and its testTrainMulti_7030_splits",
    "diving48": "Diving-48, the cleaned labels V2",
    "ntu60": "NTU RGB+D",
    "ntu120": "NTU RGB+D 120; classes are called A001 to A120 unless named",
    "howto100m": "long videos: video_id and task_id (or label) of each, or of each of their parts, with start and end",
}

MODEL = "a name that `list` shows, hf-hub:OWNER/NAME, or a folder"
DEVICE = "cpu, cuda, cuda:1, mps … (default: the fastest there is)"
JSON = "print JSON, one object in a line"
# What shtab has as shtab.FILE: which completions a shell is to offer.
FILES = {"bash": "_shtab_compgen_files", "zsh": "_files", "tcsh": "f"}
