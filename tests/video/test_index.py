"""Files that are no complete video: each is one clear error; and counts that are kept."""

import pickle
from pathlib import Path

import pytest
import torch
from videos import numbers_of, write_audio, write_video

from timesformer_zoo import ClipSpec, TimesformerZooError, Video, VideoReadError, load_views
from timesformer_zoo.video import container, index


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
    "half_fragmented.mp4": (
        lambda p: cut(write_video(p, container={"movflags": "frag_keyframe+empty_moov"}), 0.95),
        "truncated",
    ),
    "half.mov": (lambda path: cut(write_video(path), 0.5), "truncated"),
    "half.avi": (lambda path: cut(write_video(path, codec="mpeg4"), 0.5), "truncated"),
    "most.avi": (lambda path: cut(write_video(path, codec="mpeg4"), 0.97), "truncated"),
    "half.mkv": (lambda path: cut(write_video(path), 0.5), "truncated"),
    "half.webm": (lambda path: cut(write_video(path, codec="libvpx"), 0.5), "truncated"),
    "first_bytes.mp4": (lambda path: cut(write_video(path), 0.005), "no video in it"),
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

    monkeypatch.setattr(container, "open_file", refuse)
    with pytest.raises(VideoReadError, match=reason) as caught:
        Video(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_long_count_is_kept_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIMESFORMER_ZOO_CACHE", str(tmp_path / "cache"))
    path = write_video(tmp_path / "a.mkv", frames=20, codec="mpeg4")  # its frames are counted by decoding
    counted: list[str] = []

    def count(media: container.Media) -> index.FrameIndex:
        counted.append(media.path)
        return by_decoding(media)

    by_decoding = index._by_decoding
    monkeypatch.setattr(index, "_by_decoding", count)
    short = Video(path)
    assert not (tmp_path / "cache").exists()  # it takes no time
    monkeypatch.setattr(index, "_LONG", 0.0)
    first, again = Video(path), Video(path)
    assert len(counted) == 2
    for video in (first, again):
        assert (video.num_frames, video.fps) == (20, 25)
        assert video.times.tolist() == short.times.tolist()
        assert numbers_of(video.frames([3, 19])) == [3, 19]
    (kept,) = (tmp_path / "cache" / "frames").iterdir()
    kept.write_bytes(kept.read_bytes()[:100])  # a damaged one is none
    assert Video(path).num_frames == 20
    assert len(counted) == 3
    write_video(path, frames=10, codec="mpeg4")
    assert Video(path).num_frames == 10
    assert len(counted) == 4
