"""Reading video files: exactly the frames that are asked for, upright, of any container and codec."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import decord
import pytest
import torch
from videos import corners_of, number_of, numbers_of, trim_without_encoding, write_video

from timesformer_zoo import ClipSpec, Video, VideoReadError, frame_indices, load_views, read_clip
from timesformer_zoo.video import container, decoders, index, source

FORMATS = {
    "plain.mp4": {},
    "open_gop.mp4": {"x264-params": "open-gop=1:bframes=3:keyint=12"},
    "b_frames_264.avi": {"x264-params": "bframes=3"},
}


@pytest.mark.parametrize("name", ["plain.mp4", "open_gop.mp4"])
def test_two_streams_of_one_video_do_not_disturb_each_other(name: str, tmp_path: Path) -> None:
    video = Video(write_video(tmp_path / name, **FORMATS[name]))
    pairs = list(zip(video.stream([3, 15, 33]), video.stream([1, 20, 30]), strict=True))
    assert [(number_of(a), number_of(b)) for a, b in pairs] == [(3, 1), (15, 20), (33, 30)]


def test_frame_by_frame_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures that no other leans on are left out before a frame, not behind it: they may be wanted next."""
    video = Video(write_video(tmp_path / "a.mp4", **{"x264-params": "bframes=3:keyint=250"}))
    starts = []
    start = decoders.PyAVDecoder._frames_from
    monkeypatch.setattr(
        decoders.PyAVDecoder, "_frames_from", lambda self, entry: starts.append(entry.place) or start(self, entry)
    )
    assert [number_of(video.frames([i])[0]) for i in range(40)] == list(range(40))
    assert len(starts) == 1
    assert numbers_of(video.frames([3, 30])) == [3, 30]
    assert numbers_of(video.frames([31, 33])) == [31, 33]
    assert len(starts) == 2


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
@pytest.mark.parametrize("large", [1, 1 << 20])
def test_a_late_frame_is_sought_not_read_up_to(
    name: str, large: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a large MP4, of which the index leaves no open file, and of one that was closed."""
    monkeypatch.setattr(container, "LARGE", large)
    video = Video(write_video(tmp_path / name, 200))
    demuxed = []
    packets_of = decoders.packets_of
    monkeypatch.setattr(
        decoders, "packets_of", lambda media: (demuxed.append(1) or packet for packet in packets_of(media))
    )
    for place in (170, 190):
        assert number_of(video.frames([place])[0]) == place
        video.close()
    assert len(demuxed) < 100


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


def test_unknown_frame_rate_is_taken_as_the_specs(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = index.build_index

    def without_rate(*args: Any, **options: Any) -> Any:
        found, media = real(*args, **options)
        return replace(found, fps=None), media

    monkeypatch.setattr(source, "build_index", without_rate)
    assert Video(video).fps is None
    assert numbers_of(read_clip(video, ClipSpec(num_frames=4, stride=4, fps=30, size=32))) == [0, 5, 10, 15]


def test_frames_hidden_by_an_edit_list_do_not_count(tmp_path: Path) -> None:
    path = trim_without_encoding(write_video(tmp_path / "whole.mp4"), tmp_path / "trimmed.mp4", 5)
    video = Video(path)
    assert video.num_frames == 35
    assert numbers_of(video.frames([0, 9, 22, 34])) == [5, 14, 27, 39]


def test_the_reader_goes_on_after_an_error(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Video(video, decoder="decord")
    with monkeypatch.context() as patch:

        def fail(reader: decord.VideoReader, index: int) -> None:
            raise decord.DECORDError("[12:00:00] /src/a.cc:7: [12:00:00] /src/b.cc:8: it broke\n\nStack trace:\n0x1")

        patch.setattr(decord.VideoReader, "__getitem__", fail)
        with pytest.raises(VideoReadError, match=r"frame 20 of 60 can't be decoded \(it broke\); the file is damaged"):
            reader.frames([20, 25])
    assert numbers_of(reader.frames([25, 5])) == [25, 5]


def test_without_decord_pyav_decodes(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are machines for which decord2 has no wheel."""
    monkeypatch.setitem(sys.modules, "decord", None)
    decoders._decord.cache_clear()
    assert numbers_of(Video(video).frames([3, 17])) == [3, 17]
    with pytest.raises(ImportError, match="pip install decord2"):
        Video(video, decoder="decord").frames([3])


def test_the_old_decord_is_refused(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It overwrites decord2's files, or is overwritten."""
    monkeypatch.setattr(decord, "__version__", "0.6.0")
    decoders._decord.cache_clear()
    with pytest.raises(ImportError, match=r"found decord 0\.6\.0 in the place of decord2"):
        Video(video, decoder="decord").frames([3])
    decoders._decord.cache_clear()


def test_a_users_decord_bridge_is_left_alone(video: Path) -> None:
    Video(video, decoder="decord").frames([3])
    assert not isinstance(decord.VideoReader(str(video))[3], torch.Tensor)
    with decord.bridge.use_torch():
        assert numbers_of(Video(video, decoder="decord").frames([3])) == [3]
        assert isinstance(decord.VideoReader(str(video))[3], torch.Tensor)
