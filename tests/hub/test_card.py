"""Model cards: what they say, and that what they show runs."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from footage import FILMS, films_by_class
from hub_server import HubServer
from huggingface_hub import ModelCard
from small_models import tiny

from timesformer_zoo import (
    CardFacts,
    CheckpointError,
    Result,
    card_facts,
    load_model,
    load_views,
    predict,
    push_to_hf_hub,
    save_pretrained,
)
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
    # Where library or tags say timm, the Hub shows a snippet that lacks our import, and so fails.
    assert (data["library_name"], data["license"]) == ("timesformer-zoo", "mit")
    assert set(data["tags"]) == {"timesformer-zoo", "timesformer", "video-classification"}
    assert data["widget"][0]["src"].endswith("/me/mine/resolve/main/example.mp4")
    assert (tmp_path / "example.mp4").read_bytes() == video.read_bytes()
    (result,) = data["model-index"][0]["results"]
    assert result["dataset"]["name"] == "Our 50 videos"
    assert {metric["type"]: metric["value"] for metric in result["metrics"]} == {
        "accuracy": 0.93,
        "top_5_accuracy": 1.0,
    }
    for text in (
        "# mine",
        "joint attention",
        "run, jump",
        "Our 200 videos",
        "| Top-1 accuracy | 0.93 |",
        "hf-hub:me/mine",
    ):
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
        assert card.data.base_model_relation == "finetune"
        assert "cc-by-nc-4.0, that of the weights it started from. Non-commercial use only." in card.text
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


def test_from_a_folder_of_videos_to_a_published_model_by_three_commands(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, video: Path
) -> None:
    films_by_class(tmp_path / "films", 4)
    monkeypatch.chdir(tmp_path)
    sizes = "--model timesformer_tiny_divided.camera_motion --img-size 32 --num-frames 4 --workers 0 --crops 1"
    assert main(f"finetune films --out run {sizes} --epochs 2 --batch-size 4 --warmup 0".split()) == 0
    assert main(["evaluate", "run/model", "films", "--split", "train", "--card", "--workers", "0"]) == 0
    assert main(["push", "run/model", "me/films"]) == 0

    card = ModelCard(hub.repos["me/films"].read("README.md").decode())
    data = card.data.to_dict()
    assert data["license"] == "apache-2.0"
    assert "Started from: timesformer_tiny_divided.camera_motion" in card.text
    (index,) = data["model-index"]
    assert index["name"] == "films"
    got = {result["dataset"]["split"]: result for result in index["results"]}
    assert set(got) == {"val", "train"}
    for result in got.values():
        assert result["task"]["type"] == "video-classification"
        assert result["dataset"]["name"] == "films (folder)"
        assert [metric["type"] for metric in result["metrics"]] == ["accuracy", "mean_class_accuracy"]
        assert all(0 <= metric["value"] <= 1 for metric in result["metrics"])
    assert "films (folder): 9 videos in 3 classes." in card.text
    assert "| batch_size | 4 |" in card.text
    assert "<summary>2 epochs</summary>" in card.text
    assert "| epoch | loss | lr | top1 | mean_class_accuracy |" in card.text
    assert str(tmp_path) not in card.content  # no path of the machine
    assert "local-dir" not in card.content
    # Published, it is whole: labels, and the facts for who goes on from there.
    again = load_model("hf-hub:me/films")
    assert {score.label for score in predict(again, video).top} == set(FILMS)
    assert card_facts("hf-hub:me/films") == card_facts("run/model")
    (block,) = re.findall(r"```python\n(.*?)```", card.text, flags=re.DOTALL)
    (tmp_path / "video.mp4").symlink_to(video)
    done = fresh([sys.executable, "-c", block], hub, tmp_path)
    assert len(done.splitlines()) == 3
    # Who goes on from it names it, not what it started from in turn.
    goes_on = "finetune films --out more --model hf-hub:me/films --workers 0 --crops 1 --val none --epochs 1"
    assert main(goes_on.split()) == 0
    assert ModelCard.load("more/model/README.md").data.base_model == "me/films"


@pytest.mark.slow
@pytest.mark.parametrize("also_transformers", [False, True])
def test_every_block_of_a_card_runs_in_a_fresh_process(
    also_transformers: bool, hub: HubServer, video: Path, tmp_path: Path
) -> None:
    push_to_hf_hub(tiny(clip={"stride": 4}), "me/mine", labels=LABELS, also_transformers=also_transformers)
    save_pretrained(tiny(clip={"stride": 4}), tmp_path / "my model", labels=LABELS, also_transformers=also_transformers)
    (tmp_path / "video.mp4").symlink_to(video)
    cards = hub.repos["me/mine"].read("README.md").decode(), (tmp_path / "my model" / "README.md").read_text()
    for card in cards:
        blocks = re.findall(r"```(\w+)\n(.*?)```", card, flags=re.DOTALL)
        assert [kind for kind, _ in blocks] == ["bash", "python", *["python"] * also_transformers, "bibtex"]
        for kind, block in blocks:
            if kind == "python":
                fresh([sys.executable, "-c", block], hub, tmp_path)
            if kind == "bash":
                install, command = block.splitlines()
                assert install == "pip install timesformer-zoo"
                fresh([sys.executable, "-m", "timesformer_zoo_cli", *shlex.split(command)[1:]], hub, tmp_path)


def fresh(command: list[str], hub: HubServer, folder: Path) -> str:
    """What a process prints that knows nothing of this one but the Hub."""
    env = hub.env(folder / "fresh home")
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_card_says_that_transformers_takes_other_frames(hub: HubServer, tmp_path: Path) -> None:
    model = tiny(clip={"stride": 4, "crops": 3})
    text = ModelCard.load(save_pretrained(model, tmp_path, also_transformers=True) / "README.md").text
    assert (
        "takes frames spread\nevenly over the whole video, at one view; this model was made for 4 frames, every 4th"
        in text
    )
    # Published, it is still one for transformers.
    assert main(["push", str(tmp_path), "me/mine"]) == 0
    repo = hub.repos["me/mine"]
    assert "preprocessor_config.json" in repo.commits[repo.refs["main"]]
    assert ModelCard(repo.read("README.md").decode()).data.library_name == "transformers"


def test_facts_are_kept_beside_the_model_and_can_be_added_to(hub: HubServer, tmp_path: Path, video: Path) -> None:
    facts = CardFacts(
        training_data="Our 200 videos",
        datasets=["me/videos"],
        recipe={"lr": 1e-4, "milestones": [11, 14], "ema": None},
        history=[{"epoch": i + 1, "loss": 1 / (i + 1), "top1": None} for i in range(40)],
        results=[Result({"accuracy": 0.5}, "ours", "val", "1 × 3 views")],
        license="mit",
    )
    save_pretrained(tiny(), tmp_path, labels=LABELS, facts=facts, example=video)
    assert card_facts(tmp_path).to_dict() == {**facts.to_dict(), "example": "example.mp4"}
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.datasets == ["me/videos"]
    assert "| lr | 0.0001 |\n| milestones | 11, 14 |\n| ema | none |" in card.text
    assert "\n| epoch | loss |\n" in card.text  # top1 was never measured
    epochs = [int(n) for n in re.findall(r"^\| (\d+) \|", card.text, flags=re.MULTILINE)]
    assert (epochs[0], epochs[-1], len(epochs)) == (1, 40, 12)
    assert "Measured on ours, split val, 1 × 3 views." in card.text
    # A result of the same data takes the place of the earlier one; what the command is given counts.
    assert (
        card_facts(tmp_path).with_result(Result({"accuracy": 0.6}, "ours", "val")).results[0].metrics["accuracy"] == 0.6
    )
    options = ["--metric", "accuracy=0.75", "--eval-data", "theirs", "--license", "apache-2.0"]
    assert main(["push", str(tmp_path), "me/mine", *options]) == 0
    published = ModelCard(hub.repos["me/mine"].read("README.md").decode())
    assert [(r.dataset_name, r.metric_value) for r in published.data.eval_results] == [("ours", 0.5), ("theirs", 0.75)]
    assert published.data.license == "apache-2.0"
    assert hub.repos["me/mine"].read("example.mp4") == video.read_bytes()
    # Another model in the same folder has not the first one's facts.
    save_pretrained(tiny("joint"), tmp_path)
    assert card_facts(tmp_path) == CardFacts()
    assert "model-index" not in ModelCard.load(tmp_path / "README.md").data.to_dict()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "Expecting property name"),
        ('{"metrics": {}}', "an unknown 'metrics', expected an object with training_data"),
    ],
)
def test_damaged_facts_are_refused(text: str, said: str, tmp_path: Path) -> None:
    save_pretrained(tiny(), tmp_path)
    (tmp_path / "card.json").write_text(text)
    with pytest.raises(CheckpointError, match=rf"card\.json: .*{said}.*; correct it, or remove it"):
        card_facts(tmp_path)


def test_many_classes_are_folded_and_all_there(tmp_path: Path) -> None:
    names = [f"class of number {i}" for i in range(30)]
    card = ModelCard.load(save_pretrained(tiny(num_classes=30), tmp_path, labels=names) / "README.md").text
    assert "<details><summary>30 classes</summary>" in card
    assert all(name in card for name in names)


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


def test_a_card_edited_in_its_folder_is_kept_and_published(hub: HubServer, tmp_path: Path) -> None:
    readme = save_pretrained(tiny(), tmp_path) / "README.md"
    mine = "\n".join(line for line in readme.read_text().splitlines() if "Remove this line" not in line) + "\nMine.\n"
    readme.write_text(mine)
    save_pretrained(tiny("joint"), tmp_path)
    assert readme.read_text() == mine
    assert main(["push", str(tmp_path), "me/mine"]) == 0
    assert hub.repos["me/mine"].read("README.md").decode() == mine
