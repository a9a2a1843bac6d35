"""Model cards: what they say, and that what they show runs."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hub_server import HubServer
from huggingface_hub import ModelCard
from small_models import tiny

from timesformer_zoo import load_views, predict, push_to_hf_hub, save_pretrained
from timesformer_zoo_cli import main

# The client itself passes the bytes of an upload to its HTTP library in a deprecated way.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
LABELS = ["run", "jump", "sit", "stand", "fall"]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    with HubServer() as server:
        server.connect(monkeypatch, tmp_path / "home", token="hf_me")
        yield server


def test_the_card_says_what_is_known(tmp_path: Path, video: Path) -> None:
    model = tiny("joint", clip={"stride": 4})
    save_pretrained(
        model,
        tmp_path,
        labels=LABELS,
        metrics={"accuracy": 0.93, "top_5_accuracy": 1.0},
        training_data="Our 200 videos",
        eval_data="Our 50 videos",
        license="mit",
        example=video,
        repo_id="me/mine",
    )
    card = ModelCard.load(tmp_path / "README.md")
    data = card.data.to_dict()
    assert data["pipeline_tag"] == "video-classification"
    assert (data["library_name"], data["license"]) == ("timm", "mit")
    assert {"timm", "timesformer", "video-classification"} <= set(data["tags"])
    assert data["widget"][0]["src"].endswith("/me/mine/resolve/main/example.mp4")
    assert (tmp_path / "example.mp4").read_bytes() == video.read_bytes()
    (result,) = data["model-index"][0]["results"]
    assert result["dataset"]["name"] == "Our 50 videos"
    assert {metric["type"]: metric["value"] for metric in result["metrics"]} == {
        "accuracy": 0.93,
        "top_5_accuracy": 1.0,
    }
    for text in ("# mine", "joint attention", "run, jump", "Our 200 videos", "| accuracy | 0.93 |", "hf-hub:me/mine"):
        assert text in card.text


def test_a_card_without_facts_claims_nothing(tmp_path: Path) -> None:
    save_pretrained(tiny(), tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.license is None
    assert not {"model-index", "base_model", "widget"} & set(card.data.to_dict())
    assert "## Results" not in card.text
    assert "## Licence" not in card.text


def test_licence_and_origin_are_those_of_the_weights_it_started_from(tmp_path: Path) -> None:
    small = dict(img_size=32, embed_dim=32, depth=1, num_heads=2)
    source = timm.create_model("timesformer_base_divided", **small)
    from_scratch = ModelCard.load(save_pretrained(source, tmp_path / "scratch") / "README.md")
    assert from_scratch.data.license is None  # it has nothing of the published weights

    model = timm.create_model(
        "timesformer_base_divided.k400",
        pretrained=True,
        pretrained_cfg_overlay=dict(state_dict=source.state_dict()),
        num_classes=3,
        **small,
    )
    save_pretrained(model, tmp_path / "tuned")
    # Also after another round.
    again = timm.create_model(f"local-dir:{tmp_path / 'tuned'}", pretrained=True)
    for saved in (tmp_path / "tuned", save_pretrained(again, tmp_path / "again")):
        card = ModelCard.load(saved / "README.md")
        assert card.data.license == "cc-by-nc-4.0"
        assert card.data.base_model == "facebook/timesformer-base-finetuned-k400"
        assert "cc-by-nc-4.0, that of the weights it started from" in card.text
    other = ModelCard.load(save_pretrained(again, tmp_path, license="mit") / "README.md")
    assert other.data.license == "mit"
    assert "mit.\n" in other.text  # and not "that of the weights it started from"


def test_the_cards_code_runs(
    hub: HubServer, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny(clip={"stride": 4})
    push_to_hf_hub(model, "me/mine", labels=LABELS, also_transformers=True)
    card = hub.repos["me/mine"].read("README.md").decode()
    blocks = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    assert len(blocks) == 2
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "video.mp4").symlink_to(video)
    monkeypatch.chdir(tmp_path / "work")
    capsys.readouterr()
    for block in blocks:
        exec(block, {})
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in printed] == [score.label for score in predict(model, video, labels=LABELS).top]
    (command,) = re.findall(r"^timesformer-zoo (classify .*)$", card, flags=re.MULTILINE)
    assert main(command.split()) == 0
    assert capsys.readouterr().out.startswith("video.mp4: ")


@pytest.mark.parametrize("kept", [{"num_classes": 0}, {"global_pool": "frame"}], ids=["no head", "frames"])
def test_the_card_of_a_model_that_predict_does_not_take_shows_what_it_gives(
    kept: dict[str, Any], video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny(**kept).eval()
    card = ModelCard.load(save_pretrained(model, tmp_path / "mine") / "README.md").text
    assert "timesformer-zoo classify" not in card
    (tmp_path / "video.mp4").symlink_to(video)
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)
    with torch.no_grad():
        assert torch.equal(names["output"], model(load_views(video, model, crops=1)))


@pytest.mark.parametrize(
    ("clip", "said"),
    [
        ({"stride": 32}, "every 32nd frame, counted at 30 frames a second\n"),
        ({"stride": 1, "fps": None}, "every frame\n"),
        ({"sampling": "uniform", "fuse": "softmax"}, "over the whole video\n"),
        ({"sampling": "uniform", "fuse": "softmax"}, "fused by the mean of the softmax\n"),
        ({"bgr": True}, "Pixels: BGR from 0 to 1"),
    ],
)
def test_the_card_says_how_clips_are_made(clip: dict[str, Any], said: str, tmp_path: Path) -> None:
    card = ModelCard.load(save_pretrained(tiny(clip=clip), tmp_path) / "README.md")
    assert said in card.text


def test_a_card_written_by_hand_is_kept_and_ours_is_renewed(hub: HubServer) -> None:
    push_to_hf_hub(tiny(), "me/mine", metrics={"accuracy": 0.5})
    push_to_hf_hub(tiny(), "me/mine", metrics={"accuracy": 0.75})
    repo = hub.repos["me/mine"]
    assert b"0.75" in repo.read("README.md")
    by_hand = b"---\nlicense: mit\n---\n# By hand\n"
    repo.commit({"README.md": by_hand})
    push_to_hf_hub(tiny("joint"), "me/mine", metrics={"accuracy": 0.9})
    assert repo.read("README.md") == by_hand
    assert b'"joint"' in repo.read("config.json")
