"""A few of each of the faults of `benchmarks/faults.py`."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import faults
from killed import damage

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no fork, and no SIGKILL")


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> faults.Campaign:
    return faults.Campaign(tmp_path_factory.mktemp("campaign"), seed=1)


@pytest.mark.parametrize("verb", ["convert", "push"])
def test_killed_it_leaves_nothing_truncated_and_then_completes(verb: str, campaign: faults.Campaign) -> None:
    result = campaign.killed(faults.VERBS[verb], 4)
    assert result.faults == []
    assert result.runs >= 4


@pytest.mark.slow
@pytest.mark.parametrize("verb", [verb for verb in faults.VERBS if verb not in ("convert", "push")])
def test_so_of_the_slower_ones(verb: str, campaign: faults.Campaign) -> None:
    result = campaign.killed(faults.VERBS[verb], 4)
    assert result.faults == []


@pytest.mark.slow
@pytest.mark.skipif(not faults.may_mount(), reason="only root may mount a disk")
@pytest.mark.parametrize("kind", ["full disk", "read-only"])
@pytest.mark.parametrize("verb", faults.VERBS)
def test_a_bad_disk_is_said_in_one_line(verb: str, kind: str, campaign: faults.Campaign) -> None:
    result = campaign.on_bad_disks(faults.VERBS[verb], 2, kind)
    assert result.faults == []


def test_the_judge_sees_a_truncated_file(campaign: faults.Campaign, tmp_path: Path) -> None:
    source = campaign.places["mine"]
    for name in ("model.safetensors", "config.json", "README.md"):
        (tmp_path / name).write_bytes((source / name).read_bytes()[:-20])
        (path,) = damage(tmp_path)
        assert name in path
        (tmp_path / name).rename(tmp_path / f".partial-{name}")
        assert damage(tmp_path) == []
