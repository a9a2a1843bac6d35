"""Pixels that are picked of large frames, against PyTorch's own scaling of the whole ones."""

from pathlib import Path

import pytest
import torch
from videos import write_video

from timesformer_zoo import ClipSpec, FrameFolder, Video, VideoReadError, crop_views
from timesformer_zoo.video.transform import view_pixels

SIZES = [(270, 480, 32), (480, 271, 40), (333, 999, (30, 50)), (1080, 1920, 224)]


@pytest.mark.parametrize(("height", "width", "size"), SIZES)
def test_scaled_they_are_what_the_whole_frame_is(height: int, width: int, size: int | tuple[int, int]) -> None:
    spec = ClipSpec(num_frames=2, size=size, mean=(0.0,), std=(1 / 255,), crops=3)  # type: ignore[arg-type]
    frames = torch.randint(0, 256, (2, height, width, 3), dtype=torch.uint8)
    pixels = view_pixels(height, width, spec)
    assert pixels is not None
    picked = [torch.from_numpy(pixels.pick(frame.numpy())) for frame in frames]
    assert sum(part.numel() for part in picked) < frames.numel() * 0.55
    views = crop_views(picked, spec, pixels)
    assert torch.equal(views, crop_views(frames, spec))  # which picks by itself
    h, w = len(pixels.rows) // 2, len(pixels.columns) // 2
    images = torch.nn.functional.interpolate(frames.permute(0, 3, 1, 2).float(), size=(h, w), mode="bilinear")
    tops, lefts = ([-(-slack * i // 2) for i in range(3)] for slack in (h - views.shape[-2], w - views.shape[-1]))
    for view, top, left in zip(views, tops, lefts, strict=True):
        whole = images[..., top : top + views.shape[-2], left : left + views.shape[-1]].transpose(0, 1)
        torch.testing.assert_close(view, whole, atol=1e-3, rtol=0)  # grey levels


def test_of_frames_that_are_hardly_larger_all_counts() -> None:
    assert view_pixels(64, 113, ClipSpec(size=64)) is None
    assert view_pixels(128, 226, ClipSpec(size=64)) is None
    assert view_pixels(64, 4000, ClipSpec(size=64)) is None  # of each row


@pytest.mark.parametrize("isolated", [False, True])
def test_a_video_gives_them_alone(isolated: bool, tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mp4", frames=12, height=240, width=320)
    pixels = view_pixels(240, 320, ClipSpec(size=32))
    assert pixels is not None
    video = Video(path, isolated=isolated)
    picked = list(video.stream([3, 7], pixels))
    assert [tuple(frame.shape) for frame in picked] == [(64, 84, 3)] * 2
    for frame, whole in zip(picked, video.stream([3, 7]), strict=True):
        assert torch.equal(frame, torch.from_numpy(pixels.pick(whole.numpy())))
    other = view_pixels(200, 320, ClipSpec(size=32))
    with pytest.raises(VideoReadError, match=r"its frames are of 320 × 200 and of 320 × 240 pixels; re-encode"):
        next(video.stream([3], other))


def test_a_folder_gives_them_alone(tmp_path: Path) -> None:
    from PIL import Image

    whole = torch.randint(0, 256, (240, 320, 3), dtype=torch.uint8)
    Image.fromarray(whole.numpy()).save(tmp_path / "1.png")
    pixels = view_pixels(240, 320, ClipSpec(size=32))
    assert pixels is not None
    (picked,) = FrameFolder(tmp_path).stream([0], pixels)
    assert torch.equal(picked, torch.from_numpy(pixels.pick(whole.numpy())))
