"""Weight files of every kind, the malicious and damaged ones included."""

import argparse
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file
from small_models import equal, tiny

from timesformer_zoo import CheckpointError, read_checkpoint


def test_reads_every_container(tmp_path):
    weights = dict(tiny().state_dict())
    save_file(weights, tmp_path / "a.bin")  # the content counts, not the suffix
    torch.save({"model": weights, "epoch": 3}, tmp_path / "b.safetensors")
    torch.save(weights, tmp_path / "c.pt", _use_new_zipfile_serialization=False)
    for name in ("a.bin", "b.safetensors", "c.pt"):
        assert equal(read_checkpoint(tmp_path / name), weights)


def test_reads_a_folder_safetensors_first(tmp_path):
    weights = dict(tiny().state_dict())
    with pytest.raises(CheckpointError, match=r"model.safetensors"):
        read_checkpoint(tmp_path)
    torch.save({key: value + 1 for key, value in weights.items()}, tmp_path / "pytorch_model.bin")
    assert not equal(read_checkpoint(tmp_path), weights)
    save_file(weights, tmp_path / "model.safetensors")
    assert equal(read_checkpoint(tmp_path), weights)


class Payload:
    """Unpickling it makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def zipped(path, content):
    torch.save(content, path)


def legacy(path, content):
    torch.save(content, path, _use_new_zipfile_serialization=False)


def bare(path, content):
    path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("write", [zipped, legacy, bare])
def test_malicious_pickle_is_refused_and_does_not_run(tmp_path, write):
    content = {"model": {**tiny().state_dict(), "x": Payload(tmp_path / "run")}}
    write(tmp_path / "evil.pth", content)
    with pytest.raises(CheckpointError, match=r"evil.pth.*sandbox.*safetensors") as caught:
        read_checkpoint(tmp_path / "evil.pth")
    assert not (tmp_path / "run").exists()
    assert "likely succeed" not in str(caught.value)  # torch's own advice, to switch safety off
    # The payload is a real one: an unsafe reader would have run it.
    torch.load(tmp_path / "evil.pth", weights_only=False) if write is not bare else pickle.loads(
        (tmp_path / "evil.pth").read_bytes()
    )
    assert (tmp_path / "run").exists()


def test_pickle_of_objects_names_them(tmp_path):
    torch.save({"model": tiny().state_dict(), "args": Payload(tmp_path)}, tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match=r"mkdir.*sandbox"):
        read_checkpoint(tmp_path / "c.pth")


def test_arguments_of_timms_training_script_are_plain(tmp_path):
    weights = dict(tiny().state_dict())
    torch.save({"state_dict": weights, "args": argparse.Namespace(lr=1)}, tmp_path / "c.pth")
    assert equal(read_checkpoint(tmp_path / "c.pth"), weights)


def damaged(tmp_path):
    weights = dict(tiny().state_dict())
    torch.save(weights, tmp_path / "z.pt")
    torch.save(weights, tmp_path / "l.pt", _use_new_zipfile_serialization=False)
    save_file(weights, tmp_path / "s.safetensors")
    zip_, legacy_, safe = ((tmp_path / name).read_bytes() for name in ("z.pt", "l.pt", "s.safetensors"))
    return {
        "empty": b"",
        "zip cut": zip_[: len(zip_) // 2],
        "zip tail cut": zip_[:-20],
        "legacy cut": legacy_[: len(legacy_) // 2],
        "safetensors cut": safe[: len(safe) // 2],
        "safetensors header cut": safe[:40],
        "text": b"hello, this is no weight file",
        "web page": b"<!DOCTYPE html><html>404</html>",
        "lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
    }


def test_damaged_files_say_so_with_their_path(tmp_path):
    for kind, content in damaged(tmp_path).items():
        path = tmp_path / "model.bin"
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"model.bin: ") as caught:
            read_checkpoint(path)
        assert any(word in str(caught.value) for word in ("download", "git lfs")), kind


def test_missing_file_says_so(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere.pth: no such file"):
        read_checkpoint(tmp_path / "nowhere.pth")


def test_file_without_weights_says_so(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"x.pth: .*tensors only"):
        read_checkpoint(tmp_path / "x.pth")
