"""A small model in a folder, which the verbs' tests use."""

from pathlib import Path

import pytest
import torch
from small_models import tiny

from timesformer_zoo import save_pretrained, set_labels


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = tiny(clip={"stride": 4, "crops": 1})
    with torch.no_grad():
        model.head.weight.mul_(20)  # so that it is sure of something
    set_labels(model, ["run", "jump", "sit", "stand", "fall"])
    return save_pretrained(model, tmp_path_factory.mktemp("models") / "mine")
