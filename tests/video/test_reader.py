"""Reading video files: exactly the frames that are asked for, upright, of any container and codec."""

import sys
from pathlib import Path

import decord
import pytest
import torch
from videos import corners_of, number_of, numbers_of, trim_without_encoding, write_video

from timesformer_zoo import ClipSpec, Video, VideoReadError, frame_indices, load_views, read_clip
from timesformer_zoo.video import index

FORMATS = {
    "plain.mp4": {},
    "index_first.mp4": {"container": {"movflags": "faststart"}},
    "fragmented.mp4": {"container": {"movflags": "frag_keyframe+empty_moov"}},
    "open_gop.mp4": {"x264-params": "open-gop=1:bframes=3:keyint=12"},
    "open_gop.mkv": {"x264-params": "open-gop=1:bframes=3:keyint=12"},
    "x265.mp4": {"codec": "libx265", "x265-params": "log-level=none:keyint=12"},
    "b_frames.avi": {"codec": "mpeg4", "bf": "2"},
    "b_frames.mp4": {"codec": "mpeg4", "bf": "2"},
    "vp9.webm": {"codec": "libvpx-vp9", "auto-alt-ref": "1"},
    "vp8.webm": {"codec": "libvpx"},
    "b_frames_264.avi": {"x264-params": "bframes=3"},
    "mpeg2.mpg": {"codec": "mpeg2video", "bf": "2"},
}


@pytest.mark.parametrize("name", FORMATS)
def test_frames_are_the_ones_asked_for(name: str, tmp_path: Path) -> None:
    video = Video(write_video(tmp_path / name, **FORMATS[name]))
    assert video.num_frames == 40
    assert (video.height, video.width) == (64, 96)
    assert video.fps == pytest.approx(25)
    # Several calls on one reader, forwards and back, across key frames and to the end.
    for indices in ([5, 14, 23, 24, 37], [0, 39], [11, 12, 13], [30], [7], list(range(40))):
        assert numbers_of(video.frames(indices)) == indices
    assert numbers_of(Video(video.path).frames([26])) == [26]
    for _ in range(3):  # with one thread, as in a DataLoader's workers, decord has other habits than with several
        assert numbers_of(Video(video.path, num_threads=1).frames([5, 24, 37, 39])) == [5, 24, 37, 39]


@pytest.mark.parametrize("name", ["plain.mp4", "open_gop.mp4"])
def test_two_streams_of_one_video_do_not_disturb_each_other(name: str, tmp_path: Path) -> None:
    video = Video(write_video(tmp_path / name, **FORMATS[name]))
    pairs = list(zip(video.stream([3, 15, 33]), video.stream([1, 20, 30]), strict=True))
    assert [(number_of(a), number_of(b)) for a, b in pairs] == [(3, 1), (15, 20), (33, 30)]


EARLY_KEY = {"keys": [2], "forced-idr": "1"}


@pytest.mark.parametrize("name", ["plain.mp4", "plain.mkv", "plain.avi"])
def test_an_early_second_key_frame(name: str, tmp_path: Path) -> None:
    assert numbers_of(Video(write_video(tmp_path / name, **EARLY_KEY)).frames([0, 20, 39])) == [0, 20, 39]


@pytest.mark.parametrize("name", ["fragmented.mp4", "no_edit_list.mp4", "plain.flv"])
def test_a_file_that_decord_starts_late_is_refused(name: str, tmp_path: Path) -> None:
    """decord would silently give frame 2 for frame 0."""
    path = write_video(tmp_path / name, **FORMATS.get(name, {}), **EARLY_KEY)
    if name == "no_edit_list.mp4":
        path.write_bytes(path.read_bytes().replace(b"edts", b"free"))
    assert number_of(torch.from_numpy(decord.VideoReader(str(path))[0].asnumpy())) == 2, "decord got better?"
    with pytest.raises(VideoReadError, match="not all 40 frames can be decoded; rewrap it"):
        Video(path)


@pytest.mark.parametrize("name", ["plain.mp4", "b_frames_264.avi"])
def test_a_closed_video_opens_again(name: str, tmp_path: Path) -> None:
    video = Video(write_video(tmp_path / name, 30, **FORMATS[name]))
    assert numbers_of(video.frames([3, 20])) == [3, 20]
    video.close()
    video.close()
    assert numbers_of(video.frames([25, 2])) == [25, 2]


def test_frames_keep_order_and_repeats(video: Path) -> None:
    frames = Video(video).frames([9, 2, 9, 30])
    assert frames.dtype == torch.uint8
    assert frames.shape == (4, 64, 96, 3)
    assert numbers_of(frames) == [9, 2, 9, 30]


@pytest.mark.parametrize("indices", [[60], [-1], []])
def test_frames_that_do_not_exist(indices: list[int], video: Path) -> None:
    with pytest.raises(IndexError, match="expected 0 to 59"):
        Video(video).frames(indices)


# --- videos out of the ordinary


@pytest.mark.parametrize(
    ("height", "width"),
    [(65, 51), (67, 97), (96, 64), (64, 48), (48, 48), (64, 176), (720, 18)],
    ids=["odd", "odd wide", "portrait", "padded rows", "padded square", "qcif wide", "sliver"],
)
def test_sizes(height: int, width: int, tmp_path: Path) -> None:
    video = Video(write_video(tmp_path / "a.mp4", 20, height, width))
    frames = video.frames([3, 17])
    assert (video.height, video.width) == frames.shape[1:3] == (height, width)
    assert corners_of(frames[0]) == ["red", "green", "blue", "white"]
    if width >= 48:
        assert numbers_of(frames) == [3, 17]
    assert load_views(video.path, ClipSpec(size=32)).shape == (3, 3, 8, 32, 32)


@pytest.mark.parametrize("extension", ["mp4", "mov"])
@pytest.mark.parametrize(
    ("rotation", "corners", "size"),
    [
        (90, ["green", "white", "red", "blue"], (96, 64)),
        (180, ["white", "blue", "green", "red"], (64, 96)),
        (270, ["blue", "red", "white", "green"], (96, 64)),
    ],
)
def test_frames_are_upright(
    rotation: int, corners: list[str], size: tuple[int, int], extension: str, tmp_path: Path
) -> None:
    video = Video(write_video(tmp_path / f"a.{extension}", 20, rotation=rotation))
    frames = video.frames([0, 15])
    assert (video.height, video.width) == frames.shape[1:3] == size
    assert [corners_of(frame) for frame in frames] == [corners, corners]


def test_rotation_of_a_narrow_video(tmp_path: Path) -> None:
    """Rotated to 48 pixels wide, its rows are padded, too."""
    video = Video(write_video(tmp_path / "a.mp4", 20, 48, 64, rotation=90))
    assert corners_of(video.frames([7])[0]) == ["green", "white", "red", "blue"]


def test_variable_frame_rate_samples_by_frame_number(tmp_path: Path) -> None:
    """20 frames at 20 a second, then 20 at 5: about 8 a second, and indices count frames at that rate."""
    path = write_video(tmp_path / "a.mp4", times=lambda i: 5 * i if i < 20 else 100 + 20 * (i - 20))
    video = Video(path)
    assert video.num_frames == 40
    assert video.fps is not None
    assert 7.5 < video.fps < 9.5
    spec = ClipSpec(num_frames=4, stride=30, size=32)  # one frame a second, were it evenly spaced
    indices = frame_indices(spec, 40, video.fps)
    assert 7 <= indices[1] <= 12
    assert numbers_of(read_clip(path, spec)) == indices


@pytest.mark.parametrize("unknown", [0.0, float("nan"), float("inf")])
def test_unknown_frame_rate_is_taken_as_the_specs(unknown: float, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decord.VideoReader, "get_avg_fps", lambda reader: unknown)
    assert Video(video).fps is None
    assert numbers_of(read_clip(video, ClipSpec(num_frames=4, stride=4, fps=30, size=32))) == [0, 5, 10, 15]


def test_frames_hidden_by_an_edit_list_do_not_count(tmp_path: Path) -> None:
    path = trim_without_encoding(write_video(tmp_path / "whole.mp4"), tmp_path / "trimmed.mp4", 5)
    video = Video(path)
    assert video.num_frames == 35
    assert numbers_of(video.frames([0, 9, 22, 34])) == [5, 14, 27, 39]


def test_a_frame_that_decord_would_repeat_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trimmed file whose edit list is not looked at: it states more frames than there are to show."""
    path = trim_without_encoding(write_video(tmp_path / "whole.mp4"), tmp_path / "trimmed.mp4", 5)
    monkeypatch.setattr(index, "_mp4_timeline", lambda *_: index.Container())
    with pytest.raises(VideoReadError, match="not all 40 frames can be decoded"):
        Video(path)


def test_the_reader_goes_on_after_an_error(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Video(video)
    with monkeypatch.context() as patch:

        def fail(reader: decord.VideoReader, index: int) -> None:
            raise decord.DECORDError("[12:00:00] /src/a.cc:7: [12:00:00] /src/b.cc:8: it broke\n\nStack trace:\n0x1")

        patch.setattr(decord.VideoReader, "__getitem__", fail)
        with pytest.raises(VideoReadError, match=r"frame 20 of 60 can't be decoded \(it broke\); the file is damaged"):
            reader.frames([20, 25])
    assert numbers_of(reader.frames([25, 5])) == [25, 5]


def test_without_decord_the_error_says_what_to_install(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "decord", None)
    with pytest.raises(ImportError, match="pip install decord"):
        Video(video)


def test_a_users_decord_bridge_is_left_alone(video: Path) -> None:
    Video(video).frames([3])
    assert not isinstance(decord.VideoReader(str(video))[3], torch.Tensor)
    with decord.bridge.use_torch():
        assert numbers_of(Video(video).frames([3])) == [3]
        assert isinstance(decord.VideoReader(str(video))[3], torch.Tensor)
