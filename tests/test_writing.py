"""Writing that is cut short: killed at each of its steps, on a full disk, in a read-only folder."""

import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
from safetensors import SafetensorError
from small_models import equal, tiny

from timesformer_zoo import (
    CardFacts,
    TimesformerZooError,
    WriteError,
    card_facts,
    convert,
    load_model,
    save_pretrained,
)
from timesformer_zoo.writing import expect_writable, whole_file, write_json, writing
from timesformer_zoo_cli import main

# Saves over what is there, once for each event of the file system that it makes in the folder, and is killed at it.
# Forks, so that torch is imported once.
KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from small_models import tiny
from timesformer_zoo import CardFacts, save_pretrained
start, folder = Path(sys.argv[1]), sys.argv[2]
new = tiny("joint", num_frames=6)
EVENTS = ("open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree", "os.listdir")
for number in range(1000):
    copy = Path(f"{folder}/{number}")
    shutil.copytree(start, copy)
    child = os.fork()
    if child == 0:
        seen = 0
        def hook(event, arguments):
            global seen
            if event in EVENTS and any(str(copy) in str(argument) for argument in arguments):
                if seen == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                seen += 1
        sys.addaudithook(hook)
        save_pretrained(new, copy, facts=CardFacts(training_data="new"))
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folders with a model, over which another was being saved when the process was killed, by when it was."""
    folder = tmp_path_factory.mktemp("killed")
    start = save_pretrained(tiny(), folder / "start", facts=CardFacts(training_data="old"))
    (start / "notes.txt").write_text("mine")
    (start / "more").mkdir()
    (start / "more" / "notes.txt").write_text("mine, too")
    (folder / "copies").mkdir()
    arguments = [sys.executable, "-c", KILLED, str(start), str(folder / "copies")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(arguments, check=True, env=env, timeout=300)
    copies = sorted((folder / "copies").iterdir(), key=lambda path: int(path.name))
    return copies[:-1]  # the last was not killed


def test_a_save_that_is_killed_leaves_the_old_model_or_the_new_one(killed: list[Path]) -> None:
    old, new = tiny(), tiny("joint", num_frames=6)
    found = []
    for folder in killed:
        model = load_model(folder)
        whole = old if model.attention == old.attention else new
        assert model.model_args == whole.model_args, folder
        assert equal(model.state_dict(), whole.state_dict()), folder
        assert card_facts(folder).training_data == ("old" if whole is old else "new"), folder
        found.append(whole is new)
        # timm knows nothing of it: it finds one model or the other, or, while files are put in place, none.
        try:
            theirs = timm.create_model(f"local-dir:{folder}", pretrained=True)
        except FileNotFoundError as error:
            assert "config.json" in str(error)  # noqa: PT017
            assert whole is new
        else:
            assert theirs.model_args in (old.model_args, new.model_args)
            assert equal(theirs.state_dict(), (old if theirs.attention == old.attention else new).state_dict())
    assert len(found) > 20
    assert found == sorted(found)  # first the old ones, then the new
    assert True in found
    assert False in found


def test_the_next_save_clears_up_and_leaves_the_users_files(killed: list[Path]) -> None:
    for folder in killed:
        save_pretrained(tiny("axial"), folder)
        names = {"README.md", "card.json", "config.json", "model.safetensors", "notes.txt", "more"}
        assert {path.name for path in folder.iterdir()} == names
        assert (folder / "more" / "notes.txt").read_text() == "mine, too"
        assert load_model(folder).attention == "axial"
        assert card_facts(folder) == CardFacts()


def test_a_file_is_replaced_at_the_end_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.json"
    with whole_file(path) as partial:
        partial.write_text("old")
        assert not path.exists()

    def fail_in_the_middle() -> None:
        with whole_file(path) as partial:
            partial.write_text("n")
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fail_in_the_middle()
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


# ---- full disks, by a limit of the process that any user may set ----


@pytest.fixture
def full_disk() -> Any:
    """A process whose files can't grow beyond 20 kB: fuller disks look the same to it, but for the error's number."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_pretrained(tiny(), tmp_path / "mine")


WRITERS: dict[str, Callable[[Path], object]] = {
    "save": lambda folder: save_pretrained(tiny("joint"), folder),
    "convert": lambda folder: convert(folder, folder, "transformers", force=True),
    "convert to a file": lambda folder: convert(folder, folder / "model.safetensors", "native", force=True),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())
def test_a_full_disk_is_one_line_and_the_old_model_is_there(
    write: Callable[[Path], object], saved: Path, full_disk: None
) -> None:
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    message = (
        r"mine\S* could not be written: File too large .*are free there, it needs 0\.\d MB\); free some, or choose"
    )
    with pytest.raises(WriteError, match=message) as caught:
        write(saved)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, TimesformerZooError)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert equal(load_model(saved).state_dict(), tiny().state_dict())


def test_the_command_on_a_full_disk(saved: Path, full_disk: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(saved), str(saved.parent / "other"), "--to", "native"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"timesformer-zoo convert: {saved.parent / 'other'} could not be written: File too large")


def test_output_that_cannot_be_written_is_said(video: Path, tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    with full.open("w") as out:
        command = [sys.executable, "-m", "timesformer_zoo_cli", "list", "--json"]
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr == "timesformer-zoo list: the output could not be written: No space left on device\n"


# ---- read-only folders ----


# As it is for all but root, whom permissions do not keep from writing, where a file is in the folder's place.
def test_what_is_no_folder_is_said_before_the_work(saved: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(WriteError, match=r"taken could not be written: File exists; choose a folder that can be"):
        save_pretrained(tiny(), tmp_path / "taken")
    films = tmp_path / "no films at all"
    assert main(["finetune", str(films), "--out", str(tmp_path / "taken" / "run"), "--model", str(saved)]) == 1
    assert "taken/run could not be written: Not a directory" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_one_line_and_unchanged(saved: Path) -> None:
    saved.chmod(0o500)
    try:
        with pytest.raises(WriteError, match=r"mine could not be written: Permission denied; choose a folder"):
            save_pretrained(tiny("joint"), saved)
        with pytest.raises(WriteError, match="Permission denied"):
            expect_writable(saved)
        assert equal(load_model(saved).state_dict(), tiny().state_dict())
    finally:
        saved.chmod(0o700)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "No space left on device (% are free there, it needs 3.0 MB)",
        ),
        (OSError(errno.EROFS, "Read-only file system"), "Read-only file system; choose"),
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), "No space left"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"), "inline_container"),
    ],
    ids=["system", "read-only", "safetensors", "torch.save"],
)
def test_what_others_say_of_a_full_disk_is_said_alike(error: Exception, said: str, tmp_path: Path) -> None:
    with pytest.raises(WriteError) as caught, writing(tmp_path / "x.json", 3_000_000):
        raise error
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'x.json'} could not be written: ")
    assert all(part in message for part in said.split("%"))
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(2, "No such file", "/elsewhere/video.mp4"),
        FileNotFoundError(2, "No such file", "{folder}/beside/video.mp4"),
        RuntimeError("ours"),
    ],
)
def test_errors_of_other_things_stay_as_they_are(error: Exception, tmp_path: Path) -> None:
    if isinstance(error, OSError):
        error.filename = error.filename.format(folder=tmp_path)
    with pytest.raises(type(error)) as caught, writing(tmp_path / "written"):
        raise error
    assert caught.value is error


def test_json_keeps_what_is_not_ascii(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"Ä": 1})
    assert json.loads((tmp_path / "x.json").read_text("utf-8")) == {"Ä": 1}
    assert "Ä" in (tmp_path / "x.json").read_text("utf-8")
