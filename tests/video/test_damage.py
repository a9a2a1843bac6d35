"""Damaged files give right frames, what FFmpeg makes of the damage, or one clear error."""

from pathlib import Path

import pytest
from damaged import FAULTS, KINDS, Judge, damaged_files, write_sources
from videos import write_video

from timesformer_zoo import Video, VideoReadError

CASES = Path(__file__).parents[3] / "shared" / "cases" / "videos"  # other people's; not a part of the repository
FILES = 12  # of each kind


def test_damaged_files(tmp_path: Path) -> None:
    sources = write_sources(tmp_path)
    seen = {}
    with Judge() as judge:
        for whole, path in damaged_files(sources, tmp_path, FILES * len(KINDS), seed=1):
            seen[path.name] = judge(whole, path)
    names = [verdict.name for verdict in seen.values()]
    faults = {name: verdict for name, verdict in seen.items() if verdict.name in FAULTS}
    # FFV1 fills what is missing with any picture that it had in memory, and does not tell.
    assert not {name for name, fault in faults.items() if fault.name != "wrong frame" or "ffv1" not in name}, faults
    assert names.count("right") > len(names) / 4
    assert names.count("error") > len(names) / 10


def test_a_fragment_that_states_billions_of_samples(tmp_path: Path) -> None:
    """FFmpeg would make room for them, gigabytes."""
    path = write_video(tmp_path / "a.mp4", 20, container={"movflags": "frag_keyframe+empty_moov"})
    data = bytearray(path.read_bytes())
    at = data.find(b"trun") + 8
    data[at : at + 4] = b"\x07\xff\xff\xff"
    path.write_bytes(data)
    with pytest.raises(VideoReadError, match=r"a.mp4: a fragment states 134217727 samples in a file of \d+ bytes"):
        Video(path)


@pytest.mark.skipif(not CASES.is_dir(), reason="the files of public reports are not here")
def test_files_of_public_reports() -> None:
    with Judge() as judge:
        for path in sorted(CASES.iterdir()):
            verdict = judge(path, path)
            assert verdict.name in ("right", "concealed", "error"), (path.name, verdict)
