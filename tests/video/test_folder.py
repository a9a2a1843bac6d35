"""Folders of pictures as videos: which pictures, in which order, and what is in them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from videos import corners_of, number_of, numbers_of, picture

from timesformer_zoo import FrameFolder, Video, VideoReadError, open_video


def write(folder: Path, *names: str, size: tuple[int, int] = (64, 96)) -> Path:
    """Numbered pictures in the order of the names."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        Image.fromarray(picture(number, *size)).save(folder / name)
    return folder


def test_frames_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    video = open_video(write(tmp_path, *(f"frame {number}.png" for number in range(12))))  # 10 comes after 9
    assert isinstance(video, FrameFolder)
    assert (video.num_frames, video.fps) == (12, None)
    assert numbers_of(video.frames([11, 2, 2, 10])) == [11, 2, 2, 10]
    assert [number_of(frame) for frame in video.stream([5, 1, 5])] == [1, 5]


def test_what_is_no_frame_does_not_count(tmp_path: Path) -> None:
    write(tmp_path, "1.JPG", "2.jpeg", "3.jpg")
    for name in ("._1.JPG", ".4.png", "Thumbs.db", "notes.txt"):
        (tmp_path / name).write_bytes(b"no picture")
    (tmp_path / "4.jpg").mkdir()
    assert FrameFolder(tmp_path).num_frames == 3


def test_a_link_that_leads_nowhere_is_a_missing_frame(tmp_path: Path) -> None:
    write(tmp_path, "1.png")
    (tmp_path / "2.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(VideoReadError, match=r"2\.png: cannot be decoded \(No such file"):
        FrameFolder(tmp_path).frames([1])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("img_1.jpg", "img_2.jpg", "flow_x_1.jpg", "flow_x_2.jpg"), r"got flow_x_1.jpg \(2 like it\) and img_1.jpg"),
        (("img_1.jpg", "img_2.jpg", "cover.jpg"), r"got img_1.jpg \(2 like it\) and cover.jpg"),
        (("1.jpg", "2.jpg", "2.png"), "2.jpg and 2.png are the same frame|2.png and 2.jpg are the same frame"),
        (("1.jpg", "01.jpg"), "1.jpg are the same frame; keep one|01.jpg are the same frame; keep one"),
    ],
)
def test_several_series_in_one_folder_are_refused(names: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(VideoReadError, match=message):
        FrameFolder(write(tmp_path, *names))


def test_names_without_numbers_are_in_their_order(tmp_path: Path) -> None:
    assert numbers_of(FrameFolder(write(tmp_path, "a.png", "b.png", "c.png")).frames([0, 1, 2])) == [0, 1, 2]


@pytest.mark.parametrize("indices", [[60], [-1], []])
def test_an_index_out_of_range_is_the_error_that_video_gives(indices: list[int], video: Path, tmp_path: Path) -> None:
    messages = []
    for frames in (Video(video), FrameFolder(write(tmp_path, *(f"{i}.png" for i in range(60)), size=(8, 8)))):
        with pytest.raises(IndexError) as error:
            frames.frames(indices)
        messages.append(str(error.value).removeprefix(frames.path))
    assert messages[0] == messages[1]


# --- what is in the pictures

GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)
COLOUR = np.stack([GREY, GREY.T, 255 - GREY], axis=-1)


def pixels(path: Path) -> np.ndarray:
    return FrameFolder(path.parent).frames([0])[0].numpy()


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
@pytest.mark.parametrize("low", [0, 255])
def test_16_bit_grey_is_not_white(suffix: str, low: int, tmp_path: Path) -> None:
    path, wide = tmp_path / f"1.{suffix}", GREY.astype(np.uint16) * 256 + low
    if suffix == "pgm":
        path.write_bytes(b"P5 16 16 65535\n" + wide.astype(">u2").tobytes())
    else:
        Image.fromarray(wide).save(path)
    assert (pixels(path) == GREY[..., None]).all()
    assert pixels(path).shape == (16, 16, 3)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA", "1"])
def test_modes(mode: str, tmp_path: Path) -> None:
    colour = mode in ("RGB", "RGBA")
    expected = COLOUR if colour else np.repeat(GREY[..., None], 3, -1)
    expected = expected // 128 * 255 if mode == "1" else expected
    image = Image.fromarray(expected if colour else expected[..., 0])
    if mode == "1":
        image = image.convert("1")
    elif mode == "P":
        image = image.convert("P", palette=Image.Palette.ADAPTIVE, colors=256)
    elif mode.endswith("A"):  # what is below transparency is the picture, as in FFmpeg
        image.putalpha(Image.fromarray(GREY.T))
    image.save(tmp_path / "1.png", **({"transparency": bytes(range(256))} if mode == "P" else {}))
    with Image.open(tmp_path / "1.png") as saved:
        assert saved.mode == mode
    assert (pixels(tmp_path / "1.png") == expected).all()


def test_cmyk(tmp_path: Path) -> None:
    """As printers' JPEG files are, whose numbers Adobe's programs store inverted."""
    Image.fromarray(picture(3, 64, 96)).convert("CMYK").save(tmp_path / "1.jpg", quality=95)
    with Image.open(tmp_path / "1.jpg") as saved:
        assert saved.mode == "CMYK"
    frame = torch.from_numpy(pixels(tmp_path / "1.jpg"))
    assert corners_of(frame) == ["red", "green", "blue", "white"]
    assert number_of(frame) == 3


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize(
    ("orientation", "corners"),  # EXIF 2.3, 4.6.4: where the stored picture's first row and column belong
    [
        (1, ["red", "green", "blue", "white"]),
        (2, ["green", "red", "white", "blue"]),
        (3, ["white", "blue", "green", "red"]),
        (6, ["blue", "red", "white", "green"]),
        (8, ["green", "white", "red", "blue"]),
    ],
)
def test_frames_are_upright(orientation: int, corners: list[str], suffix: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture(3, 64, 96)).save(tmp_path / f"1.{suffix}", exif=exif, quality=95)
    frame = FrameFolder(tmp_path).frames([0])[0]
    assert corners_of(frame) == corners
    assert frame.shape[:2] == ((96, 64) if orientation > 4 else (64, 96))


def test_frames_of_another_size_are_named(tmp_path: Path) -> None:
    write(tmp_path, "1.png", "2.png")
    Image.fromarray(picture(2, 32, 48)).save(tmp_path / "3.png")
    video = FrameFolder(tmp_path)
    assert numbers_of(video.frames([0, 1])) == [0, 1]
    with pytest.raises(VideoReadError, match=r"got 1.png of 96 × 64 and 3.png of 48 × 32 pixels; extract"):
        video.frames([0, 2])


# --- damage


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tif", "ppm"])
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.8])
def test_a_truncated_picture(suffix: str, kept: float, tmp_path: Path) -> None:
    path = write(tmp_path, f"1.{suffix}") / f"1.{suffix}"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(VideoReadError, match=r"1\.\w+: cannot be decoded \(.*\); extract the frames again"):
        FrameFolder(tmp_path).frames([0])


def test_a_decompression_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(VideoReadError, match=r"1.png: cannot be decoded .*6144 pixels.*bomb"):
        FrameFolder(write(tmp_path, "1.png")).frames([0])


def test_pixels_of_no_stated_range(tmp_path: Path) -> None:
    Image.fromarray(np.ones((8, 8), np.float32)).save(tmp_path / "1.tif")
    with pytest.raises(VideoReadError, match="32 bits a pixel"):
        FrameFolder(tmp_path).frames([0])


def test_no_pictures_or_no_folder(tmp_path: Path) -> None:
    with pytest.raises(VideoReadError, match=r"no pictures in this folder; expected \.bmp, \.jpeg"):
        FrameFolder(tmp_path)
    with pytest.raises(VideoReadError, match="cannot be listed"):
        FrameFolder(tmp_path / "gone")


def test_a_path_with_a_colon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "file:clip 1", "a:1.png", "a:2.png")
    assert numbers_of(open_video("file:clip 1").frames([1, 0])) == [1, 0]
