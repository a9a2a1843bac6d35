"""The picture of docs/explain.md: a photograph under a camera that tilts, and what in it says so.

    python examples/draw_explanation.py docs/figures/explain.png

The photograph is a sample that comes with matplotlib, of Grace Hopper; as a work of the United States Navy it is in the
public domain.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
from matplotlib.cbook import get_sample_data
from PIL import Image

from timesformer_zoo import explain

MODEL = "timesformer_tiny_divided.camera_motion"


def write_clip(path: Path, frames: int = 32, height: int = 240, width: int = 400, down: int = 120) -> None:
    """A window of the photograph that moves down, 30 frames a second."""
    with get_sample_data("grace_hopper.jpg") as file, Image.open(file) as image:
        picture = np.asarray(image.convert("RGB"))
    left = (picture.shape[1] - width) // 2
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "16"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(frames):
            top = 60 + round(down * i / (frames - 1))
            window = np.ascontiguousarray(picture[top : top + height, left : left + width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(window, format="rgb24")))
        container.mux(stream.encode())


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        write_clip(clip)
        for out in map(Path, sys.argv[1:]):
            found = explain(MODEL, clip)
            print(f"{found.label} {found.probability:.1%} -> {found.save(out)}")
