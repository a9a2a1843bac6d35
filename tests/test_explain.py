"""`explain`, and the pictures that an explanation is saved as."""

import base64
import re
from dataclasses import replace
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from small_models import tiny
from videos import write_video

from timesformer_zoo import (
    EXPLANATIONS,
    Explanation,
    TimeSformer,
    VideoReadError,
    clip_transform,
    explain,
    gradients,
    integrated_gradients,
    overlay,
    predict,
    read_clip,
    relevance,
    rollout,
    set_labels,
)
from timesformer_zoo.explanation.picture import paint

LABELS = ["run", "jump", "sit down", "stand", "fall"]


def model_of(**clip: object) -> TimeSformer:
    model = tiny(clip={"stride": 4, "crops": 1, **clip})
    with torch.no_grad():
        model.head.weight.mul_(5)  # sure of something
    set_labels(model, LABELS)
    return model


# ---- the call ----


def test_it_is_of_the_clip_that_predict_sees(video: Path) -> None:
    model = model_of()
    found = explain(model, video, "Stand")
    clip = clip_transform(model)(read_clip(video, model)).unsqueeze(0)
    torch.testing.assert_close(found.map, relevance(model, clip, 3)[0])
    assert (found.label, found.class_index, found.method, found.path) == ("stand", 3, "relevance", str(video))
    assert found.prediction == predict(model, video)
    scores = {score.label: score.probability for score in found.prediction.top}
    assert found.probability == pytest.approx(scores["stand"])
    assert torch.equal(found.frames, read_clip(video, model))
    assert found.times == (0, 4 / 25, 8 / 25, 12 / 25)  # every fourth at 30 a second, of 25 a second
    # Of 64 × 96 pixels a crop of 32 × 32 is the middle 64 × 64.
    assert tuple(found.box) == (0, 16, 64, 64)
    weights = found.time_weights
    assert weights.sum().item() == pytest.approx(1)
    assert weights[1].item() == pytest.approx((found.map[1].sum() / found.map.sum()).item())


def test_without_a_label_it_is_of_the_likeliest(video: Path) -> None:
    model = model_of()
    found = explain(model, video)
    assert found.label == predict(model, video).top[0].label
    assert found.probability == predict(model, video).top[0].probability


def test_every_method_is_the_function_of_its_name(video: Path) -> None:
    model = model_of()
    clip = clip_transform(model)(read_clip(video, model)).unsqueeze(0)
    found = {name: explain(model, video, "sit down", name).map for name in EXPLANATIONS if "integrated" not in name}
    torch.testing.assert_close(found["relevance"], relevance(model, clip, 2)[0])
    torch.testing.assert_close(found["rollout"], rollout(model, clip)[0])
    torch.testing.assert_close(found["gradients"], gradients(model, clip, 2)[0])
    torch.testing.assert_close(found["rollout"], explain(model, video, "run", "rollout").map)


def test_integrated_gradients_are_explained_where_captum_is(video: Path) -> None:
    pytest.importorskip("captum")
    model = model_of()
    clip = clip_transform(model)(read_clip(video, model)).unsqueeze(0)
    found = explain(model, video, "sit down", "integrated_gradients")
    torch.testing.assert_close(found.map, integrated_gradients(model, clip, 2)[0])
    against = replace(found, map=-found.map)
    assert torch.equal(against.time_weights, torch.zeros(4))


def test_a_model_is_as_it_was_and_may_be_in_training(video: Path) -> None:
    model = model_of().train()
    model.blocks[0].eval()
    found = explain(model, video)
    assert model.training
    assert not model.blocks[0].training
    assert model.blocks[1].training
    assert torch.equal(found.map, explain(model.eval(), video).map)
    assert not any(parameter.grad is not None for parameter in model.parameters())


def test_a_part_of_a_video_is_explained(video: Path) -> None:
    model = model_of()
    later = explain(model, video, start=1.0)
    assert later.times == (25 / 25, 29 / 25, 33 / 25, 37 / 25)
    evenly = explain(model, video, start=1.0, end=2.0)  # frames 25 to 49, one of each quarter
    assert evenly.times is not None
    assert [round(time * 25) for time in evenly.times] == [28, 34, 40, 46]
    assert (evenly.prediction.start, evenly.prediction.end) == (28 / 25, 47 / 25)


def test_what_makes_no_sense_is_said(video: Path) -> None:
    model = model_of()
    with pytest.raises(ValueError, match="label is 'sit', which is none of the model's 5; near it are 'sit down'"):
        explain(model, video, "sit")
    with pytest.raises(ValueError, match="none of the model's 5; they are 'run', 'jump', 'sit down', 'stand', 'fall'"):
        explain(model, video, "xyzzy")
    with pytest.raises(ValueError, match="method is 'magic', expected one of relevance, rollout"):
        explain(model, video, method="magic")
    with pytest.raises(ValueError, match="start is 2 and end 1, expected seconds"):
        explain(model, video, start=2, end=1)
    with pytest.raises(VideoReadError, match=r"it ends at 2.40 s, before the part from 3 s on"):
        explain(model, video, start=3)


def test_several_labels_and_values_are_explained(video: Path) -> None:
    model = model_of(task="multilabel")
    clip = clip_transform(model)(read_clip(video, model)).unsqueeze(0)
    found = explain(model, video, "fall")
    assert found.probability == pytest.approx(model(clip).sigmoid()[0, 4].item(), rel=1e-5)
    model = model_of(task="regression")
    with pytest.raises(ValueError, match="none of which is the likeliest: give a label, one of run, jump"):
        explain(model, video)
    found = explain(model, video, "fall")
    assert found.probability is None
    torch.testing.assert_close(found.map, relevance(model, clip, 4)[0])


def test_of_large_frames_smaller_pictures_are_kept(tmp_path: Path) -> None:
    path = write_video(tmp_path / "large.mp4", frames=16, height=720, width=960)
    found = explain(model_of(), path)
    assert found.frames.shape == (4, 480, 640, 3)
    assert tuple(found.box) == pytest.approx((0, 80, 480, 480), abs=8)  # to a pixel of the 32 that the model sees


def test_a_folder_of_frames_has_no_times(tmp_path: Path) -> None:
    for i in range(8):
        Image.fromarray(np.full((40, 40, 3), 30 * i, np.uint8)).save(tmp_path / f"{i}.png")
    found = explain(model_of(fps=None), tmp_path)
    assert found.times is None
    with pytest.raises(ValueError, match="no frame rate"):
        explain(model_of(fps=None), tmp_path, start=1)
    found.save(tmp_path / "out" / "all.png")


# ---- pictures ----


@pytest.fixture(scope="module")
def explanation(video: Path) -> Explanation:
    return explain(model_of(), video)


def test_the_map_is_painted_where_the_crop_was() -> None:
    frames, heat = torch.full((1, 40, 80, 3), 100, dtype=torch.uint8), torch.zeros(1, 2, 2)
    heat[0, 0, 1] = 1  # the upper right quarter of the crop
    plain, painted = paint(frames, heat, (0, 20, 40, 40), (80, 160))
    assert plain.shape == painted.shape == (1, 80, 160, 3)
    brightness = painted[0].float().mean(-1)
    quarters = brightness[:, 40:120].unflatten(0, (2, 40)).unflatten(2, (2, 40)).mean((1, 3))
    assert quarters.argmax() == 1
    outside = torch.cat([brightness[:, :38], brightness[:, 122:]], 1)
    assert outside.unique().numel() == 1


def test_colours_rise_in_lightness() -> None:
    """So that a print in grey keeps the order, whatever frame is below."""
    ramp = torch.linspace(0, 1, 64).view(1, 1, 64)
    for shade in (0, 128, 255):
        frames = torch.full((1, 8, 512, 3), shade, dtype=torch.uint8)
        _, painted = paint(frames, ramp, (0, 0, 8, 512), (8, 512))
        line = np.asarray(Image.fromarray(painted[0].numpy()).convert("L")).astype(int)[4]
        line = np.delete(line, slice(250, 262))  # the contour is white
        assert (np.diff(line) >= -1).all()
        assert line[-1] > line[0] + 60


def test_png_has_all_frames(explanation: Explanation, tmp_path: Path) -> None:
    with Image.open(explanation.save(tmp_path / "a.PNG")) as image:
        assert image.format == "PNG"
        small = image.size
    many = replace(
        explanation,
        map=explanation.map.repeat(24, 1, 1),
        frames=explanation.frames.repeat(24, 1, 1, 1),
        times=tuple(i / 25 for i in range(96)),
    )
    with Image.open(many.save(tmp_path / "b.png")) as image:
        assert image.size[1] > 3 * small[1]  # 96 frames are a grid
        assert image.size[0] < 2000


def test_gif_and_mp4_show_frame_after_frame(explanation: Explanation, tmp_path: Path) -> None:
    with Image.open(explanation.save(tmp_path / "a.gif")) as image:
        assert (image.format, image.n_frames) == ("GIF", 4)
        size = image.size
        shown = []
        for i in range(4):
            image.seek(i)
            shown.append(np.asarray(image.convert("RGB").resize((64, 32))).astype(int))
    assert all(abs(a - b).max() > 20 for a, b in pairwise(shown))
    with av.open(str(explanation.save(tmp_path / "a.mp4"))) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
        frames = [frame.to_image() for frame in container.decode(video=0)]
    assert [frame.size for frame in frames] == 4 * [size]
    assert not any(side % 2 for side in size)


def test_html_needs_nothing_else(explanation: Explanation, tmp_path: Path) -> None:
    evil = replace(explanation, label="<script>", path="a$b_{x}.mp4")
    text = evil.save(tmp_path / "a.html").read_text("utf-8")
    assert "&lt;script&gt;" in text
    assert not re.search(r'(src|href)="(?!data:)', text)
    pictures = re.findall(r'data:image/(\w+);base64,([^"]+)"', text)
    assert [kind for kind, _ in pictures] == ["jpeg", "png", *4 * ["jpeg"]]
    for _, content in pictures:
        with Image.open(BytesIO(base64.b64decode(content))) as image:
            image.load()


def test_another_suffix_is_refused_and_a_failure_leaves_nothing(
    explanation: Explanation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"its suffix is '.jpg', expected one of .gif, .mp4, .png, .html"):
        explanation.save(tmp_path / "a.jpg")
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        explanation.save(tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_overlay_of_a_part_of_the_frame_needs_a_box(explanation: Explanation) -> None:
    with pytest.raises(ValueError, match="say where in them the map lies, by box"):
        overlay(explanation.frames, explanation.map)
    figure = overlay(explanation.frames, explanation.map, box=explanation.box)
    assert figure.axes[0].images[1].get_extent() == [16, 80, 64, 0]
