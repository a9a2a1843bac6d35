"""A model of one channel is given the grey of a video's frames, wherever it is used; one of four is refused."""

from pathlib import Path

import pytest
import torch
from footage import films_by_class
from small_models import tiny
from torchvision.transforms.v2.functional import rgb_to_grayscale

from timesformer_zoo import (
    Recipe,
    TimeSformer,
    checkpoint_filter_fn,
    clip_spec,
    evaluate,
    finetune,
    load_model,
    load_views,
    predict,
    predict_windows,
    read_videos,
    save_pretrained,
)

CLIP = {"stride": 4, "crops": 1, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]}


def test_views_predictions_and_a_saved_model(video: Path, tmp_path: Path) -> None:
    model = tiny(in_chans=1, clip=CLIP)
    spec = clip_spec(model)
    views = load_views(video, model)
    colours = load_views(video, tiny(clip={**CLIP, "mean": [0] * 3, "std": [1] * 3}))
    grey = rgb_to_grayscale(colours.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(views, (grey - spec.mean[0]) / 0.2)
    prediction = predict(model, video)
    with torch.no_grad():
        assert prediction.top[0].probability == pytest.approx(model(views).softmax(1).max().item(), abs=1e-5)
    assert len(list(predict_windows(model, video))) > 1

    again = load_model(save_pretrained(model, tmp_path / "grey"))
    assert clip_spec(again) == spec
    assert predict(again, video) == prediction
    assert "Pixels: grey from 0 to 1" in (tmp_path / "grey" / "README.md").read_text(encoding="utf-8")


def test_weights_of_colours_that_were_made_to_take_grey(video: Path) -> None:
    """timm sums the kernels over the channels: the grey model is that of colours, which sees grey frames."""
    colours, grey = tiny(clip={"stride": 4}), tiny(clip={"stride": 4}, in_chans=1)
    grey.load_state_dict(checkpoint_filter_fn(colours.state_dict(), grey))
    views = load_views(video, grey)
    assert views.shape[1] == 1
    with torch.no_grad():
        torch.testing.assert_close(grey(views), colours(views.expand(-1, 3, -1, -1, -1)), atol=1e-4, rtol=1e-4)


def test_finetuning(tmp_path: Path) -> None:
    videos = read_videos("folder", films_by_class(tmp_path / "films", 2))
    sizes = dict(img_size=32, num_frames=4, num_classes=len(videos.classes), embed_dim=32, depth=1, num_heads=2)
    model = TimeSformer(in_chans=1, clip=dict(stride=2, fps=None, crops=1), **sizes)
    done = finetune(model, videos, Recipe(epochs=1, batch_size=4), tmp_path / "run", progress=False)
    assert done.model.in_chans == 1
    assert len(done.history) == 1
    assert 0 <= evaluate(done.model, videos).top1 <= 1


def test_other_channels_are_refused(video: Path) -> None:
    model = tiny(in_chans=4)
    for use in (load_views, lambda video, model: predict(model, video)):
        with pytest.raises(ValueError, match=r"takes 4 channels, expected 3 \(RGB\) or 1 \(grey\).*\(B, 4, T, H, W\)"):
            use(video, model)
