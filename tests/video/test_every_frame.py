"""Every frame of every kind of file is the one that FFmpeg shows, in whatever order frames are asked for.

The reference is PyAV's plain loop from the first packet to the last. The numbers in the pictures say which should come.
"""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from videos import insert_not_coded, join_streams, numbers_of, replace_edit_list, start_in_the_middle, write_video

from timesformer_zoo import Video, VideoReadError

FRAMES = 40

# Containers by codecs by structures. A key frame every 12.
X264 = {"bf": "0"}
B_FRAMES = {"x264-params": "bframes=3:b-pyramid=normal"}
OPEN_GOP = {"x264-params": "open-gop=1:bframes=3"}
REFRESH = {"x264-params": "intra-refresh=1:keyint=12:bframes=0"}
FIELDS = {"flags": "+ildct+ilme"}
X265 = {"codec": "libx265", "x265-params": "log-level=none:keyint=12:bframes=3"}
X265_CLOSED = {"codec": "libx265", "x265-params": "log-level=none:keyint=12:open-gop=0"}
AV1 = {"codec": "libsvtav1", "preset": "12", "svtav1-params": "keyint=12"}
VP8 = {"codec": "libvpx", "auto-alt-ref": "1", "lag-in-frames": "8", "b": "500k"}
VP9 = {"codec": "libvpx-vp9", "auto-alt-ref": "1", "lag-in-frames": "8", "cpu-used": "5"}
MPEG4, MPEG4_B = {"codec": "mpeg4", "q": "2"}, {"codec": "mpeg4", "bf": "2"}
MPEG2 = {"codec": "mpeg2video", "bf": "2"}
MATRIX: dict[str, dict[str, Any]] = {
    "p_frames.mp4": X264,
    "b_frames.mp4": B_FRAMES,
    "open_gop.mp4": OPEN_GOP,
    "intra_refresh.mp4": REFRESH,
    "fields.mp4": FIELDS,
    "index_first.mp4": {"container": {"movflags": "faststart"}},
    "fragmented.mp4": {"container": {"movflags": "frag_keyframe+empty_moov"}, **B_FRAMES},
    "negative_offsets.mp4": {"container": {"movflags": "negative_cts_offsets"}, **B_FRAMES},
    "no_edit_list.mp4": {"container": {"use_editlist": "0"}, **B_FRAMES},
    "early_key.mp4": {"keys": [2], "forced-idr": "1"},
    "fragmented_early_key.mp4": {
        "container": {"movflags": "frag_keyframe+empty_moov"},
        "keys": [2],
        "forced-idr": "1",
    },
    "no_edit_list_early_key.mp4": {"container": {"use_editlist": "0"}, "keys": [2], "forced-idr": "1"},
    "rotated.mp4": {"rotation": 90, **B_FRAMES},
    "ten_bits.mp4": {"pix_fmt": "yuv420p10le"},
    "full_range.mp4": {"pix_fmt": "yuvj420p"},
    "422.mp4": {"pix_fmt": "yuv422p"},
    "variable.mp4": {"times": lambda i: 5 * i if i < 20 else 100 + 20 * (i - 20), **B_FRAMES},
    "x265.mp4": X265,
    "x265_closed.mp4": X265_CLOSED,
    "av1.mp4": AV1,
    "vp9.mp4": VP9,
    "mpeg4.mp4": MPEG4,
    "b_frames_mpeg4.mp4": MPEG4_B,
    "open_gop.mov": OPEN_GOP,
    "intra_refresh.mov": REFRESH,
    "alpha.mov": {"codec": "png", "pix_fmt": "rgba"},
    "prores.mov": {"codec": "prores_ks", "pix_fmt": "yuv422p10le"},
    "mjpeg.mov": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "b_frames.mkv": B_FRAMES,
    "open_gop.mkv": OPEN_GOP,
    "intra_refresh.mkv": REFRESH,
    "fields.mkv": FIELDS,
    "variable.mkv": {"times": lambda i: 5 * i if i < 20 else 100 + 20 * (i - 20), **B_FRAMES},
    "early_key.mkv": {"keys": [2], "forced-idr": "1"},
    "x265.mkv": X265,
    "av1.mkv": AV1,
    "ffv1.mkv": {"codec": "ffv1"},
    "vp8.webm": VP8,
    "vp9.webm": VP9,
    "alpha.webm": {"codec": "libvpx-vp9", "pix_fmt": "yuva420p", "cpu-used": "5"},
    "recorded.webm": {"codec": "libvpx", "deadline": "realtime", "container": {"live": "1"}},
    "mpeg4.avi": MPEG4,
    "b_frames_mpeg4.avi": MPEG4_B,
    "p_frames.avi": X264,
    "b_frames.avi": B_FRAMES,
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "p_frames.ts": X264,
    "b_frames.ts": B_FRAMES,
    "fields.ts": FIELDS,
    "x265.ts": X265,
    "mpeg2.ts": MPEG2,
    "camera.mts": {"container": {"mpegts_m2ts_mode": "1"}, **B_FRAMES},
    "camera.m2ts": {"container": {"mpegts_m2ts_mode": "1"}, **B_FRAMES},
    "mpeg2.mpg": MPEG2,
    "fields_mpeg2.mpg": {**MPEG2, **FIELDS},
    "b_frames.flv": B_FRAMES,
    "early_key.flv": {"keys": [2], "forced-idr": "1"},
    "wmv.wmv": {"codec": "wmv2"},
    "animation.gif": {"codec": "gif", "pix_fmt": "rgb8"},
    "raw.h264": B_FRAMES,
    "raw.hevc": X265,
    "b_frames.nut": MPEG4_B,
}
BY_DECORD = {f"{name}.mp4" for name in ("p_frames", "b_frames", "index_first", "negative_offsets", "no_edit_list")}
BY_DECORD |= {"rotated.mp4", "variable.mp4", "b_frames.mkv", "variable.mkv"}


def shown(path: Path) -> torch.Tensor:
    """All frames by PyAV, in the order shown, turned upright."""
    with av.open(str(path.absolute())) as container:
        frames = list(container.decode(video=0))
    pixels = torch.stack([torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in frames])
    return torch.rot90(pixels, frames[0].rotation // 90, (1, 2))


def check_all_orders(path: Path, *all_threads: int, **options: Any) -> Video:
    """Each frame alone, forwards, backwards, at random and in groups; returns a new reader."""
    expected = shown(path)
    count = len(expected)
    assert Video(path, **options).num_frames == count
    for threads in all_threads:
        shuffled = random.Random(threads).sample(range(count), count)
        for order in (range(count), range(count - 1, -1, -3), shuffled[: count // 3]):
            video = Video(path, num_threads=threads, **options)
            for index in order:
                assert torch.equal(video.frames([index])[0], expected[index]), f"frame {index}, {threads} threads"
        video = Video(path, num_threads=threads, **options)
        for indices in ([5, 9, 17], [0, count - 1], [11, 12, 13], [count // 2, 2]):
            assert torch.equal(video.frames(indices), expected[indices])
    for index in (count - 1, count // 2, 2):
        assert torch.equal(Video(path, **options).frames([index])[0], expected[index])
    return Video(path, **options)


@pytest.mark.parametrize("name", MATRIX)
def test_every_frame(name: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / name, FRAMES, **MATRIX[name])
    video = check_all_orders(path, 0, 1)  # workers of a DataLoader have one thread
    assert video.num_frames == FRAMES
    if not name.startswith(("rotated", "animation", "wmv")):  # the bars lie otherwise, or are blurred
        assert numbers_of(video.frames(range(FRAMES))) == list(range(FRAMES))
    check_all_orders(path, 1, count=True)


@pytest.mark.parametrize("name", MATRIX)
def test_decord_reads_ordinary_files(name: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / name, FRAMES, **MATRIX[name])
    if name in BY_DECORD:
        check_all_orders(path, 0, 1, decoder="decord")
    else:
        with pytest.raises(
            VideoReadError, match='decord would not give exactly the frames asked for; take decoder="auto"'
        ):
            Video(path, decoder="decord")


# --- files that public reports name, and what they show


def _without_sync_table(path: Path) -> Path:
    path.write_bytes(path.read_bytes().replace(b"stss", b"free", 1))
    return path


CASES: dict[str, tuple[Callable[[Path], Path], list[int]]] = {
    "no_sync_table.mp4": (lambda p: _without_sync_table(write_video(p, FRAMES, **X264)), list(range(40))),
    "no_sync_table_hevc.mp4": (
        lambda p: _without_sync_table(write_video(p, FRAMES, **X265_CLOSED)),
        list(range(40)),
    ),
    "edit_ends_early.mp4": (lambda p: replace_edit_list(write_video(p, FRAMES, **X264), [(800, 0)]), list(range(20))),
    "edit_trims_both_ends.mp4": (
        lambda p: replace_edit_list(write_video(p, FRAMES, **X264), [(800, 13 * 512)]),
        list(range(13, 33)),
    ),
    "two_edits.mp4": (
        lambda p: replace_edit_list(write_video(p, FRAMES, **X264), [(400, 0), (400, 24 * 512)]),
        [*range(10), *range(24, 34)],
    ),
    "edit_with_b_frames.mp4": (
        lambda p: replace_edit_list(write_video(p, FRAMES, **B_FRAMES), [(800, 13 * 512 + 1024)]),
        list(range(13, 33)),
    ),
    "cut.mkv": (lambda p: start_in_the_middle(write_video(p.with_name("whole.mp4"), **X264), p), list(range(12, 40))),
    "cut.mp4": (lambda p: start_in_the_middle(write_video(p.with_name("whole.mp4"), **X264), p), list(range(12, 40))),
    "cut_b_frames.mp4": (
        lambda p: start_in_the_middle(write_video(p.with_name("whole.mp4"), **B_FRAMES), p),
        list(range(12, 40)),
    ),
    "not_coded.avi": (
        lambda p: insert_not_coded(write_video(p.with_name("whole.avi"), **MPEG4), p, [10, 25, 30]),
        list(range(40)),
    ),
    "joined.ts": (lambda p: join_streams(write_video(p.with_name("whole.ts"), **B_FRAMES), p, 24), list(range(40))),
    "a:colon.mp4": (lambda p: write_video(p, FRAMES), list(range(40))),
}


@pytest.mark.parametrize("name", CASES)
def test_public_reports(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, numbers = CASES[name]
    make(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    video = check_all_orders(Path(name), 0, 1)  # relative: FFmpeg takes a: for a protocol
    assert numbers_of(video.frames(range(video.num_frames))) == numbers


def test_times_follow_a_variable_rate(tmp_path: Path) -> None:
    times = [5 * i if i < 20 else 100 + 20 * (i - 20) for i in range(FRAMES)]
    for name in ("variable.mp4", "variable.mkv"):
        video = Video(write_video(tmp_path / name, FRAMES, **MATRIX[name]))
        assert video.times == pytest.approx([time / 100 for time in times], abs=0.002)
        assert video.duration == pytest.approx(times[-1] / 100, rel=0.05)


def test_an_unknown_decoder_is_named(video: Path) -> None:
    with pytest.raises(ValueError, match="decoder is 'ffmpeg', expected one of auto, decord, pyav"):
        Video(video, decoder="ffmpeg")  # type: ignore[arg-type]


def test_a_playlist_is_no_video(video: Path, tmp_path: Path) -> None:
    """It could name any file of whoever opens it."""
    (tmp_path / "list.mp4").write_text(f"ffconcat version 1.0\nfile '{video}'\n")
    (tmp_path / "list.m3u8").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{video}\n#EXT-X-ENDLIST\n")
    for name in ("list.mp4", "list.m3u8"):
        with pytest.raises(VideoReadError, match="no video in it that FFmpeg can read"):
            Video(tmp_path / name)
