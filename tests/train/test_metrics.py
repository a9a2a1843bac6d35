"""The metrics are torchmetrics', whatever the predictions; what torchmetrics warns of is None."""

import math

import pytest
import torch
from torchmetrics import functional as reference

from timesformer_zoo import OBJECTIVES
from timesformer_zoo.train.metrics import (
    METRICS,
    average_precision,
    class_scores,
    confusion,
    label_scores,
    of_classes,
    of_labels,
    of_values,
    value_scores,
)


def drawn(seed, samples=60, size=7):
    """Probabilities that are often equal, as those of small models and rounded ones are."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(samples, size, generator=generator).mul(8).round().div(8), generator


@pytest.mark.parametrize("seed", range(5))
def test_average_precision(seed):
    scores, generator = drawn(seed)
    there = torch.rand(60, generator=generator) < 0.3
    expected = reference.average_precision(scores[:, 0], there.long(), task="binary")
    assert average_precision(scores[:, 0], there) == pytest.approx(float(expected), abs=1e-6)


def test_average_precision_by_hand():
    scores, there = torch.tensor([0.9, 0.8, 0.8, 0.1]), torch.tensor([True, False, True, False])
    assert average_precision(scores, there) == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)  # the two 0.8 come at once
    assert average_precision(scores, ~there & there) is None


@pytest.mark.parametrize("seed", range(3))
def test_classes(seed):
    scores, generator = drawn(seed)
    scores = (scores + torch.rand(60, 7, generator=generator) * 1e-3).softmax(1)  # no two the likeliest
    targets = torch.randint(0, 7, (60,), generator=generator)
    options = dict(task="multiclass", num_classes=7)
    ours = of_classes(scores, targets)
    assert ours["top1"] == pytest.approx(float(reference.accuracy(scores, targets, average="micro", **options)))
    top5 = reference.accuracy(scores, targets, average="micro", top_k=5, **options)
    assert ours["top5"] == pytest.approx(float(top5))
    assert torch.equal(confusion(scores, targets), reference.confusion_matrix(scores, targets, **options))
    rows = class_scores(scores, targets)
    for name, of in {"precision": reference.precision, "recall": reference.recall, "f1": reference.f1_score}.items():
        each = of(scores, targets, average="none", **options)
        torch.testing.assert_close(torch.tensor([row[name] for row in rows]), each)
        mean = ours["mean_class_accuracy" if name == "recall" else f"macro_{name}"]
        assert mean == pytest.approx(float(each.mean()))
    each = reference.average_precision(scores, targets, average="none", **options)
    torch.testing.assert_close(torch.tensor([row["ap"] for row in rows]), each, rtol=0, atol=1e-6)
    assert [row["support"] for row in rows] == targets.bincount(minlength=7).tolist()


def test_classes_without_samples_are_in_no_mean():
    probabilities = torch.eye(3)[[0, 1, 2, 0]] * 0.7 + 0.1
    targets = torch.tensor([0, 0, 1, 1])
    first, second, third = class_scores(probabilities, targets)
    assert (first["precision"], first["recall"], first["f1"]) == (0.5, 0.5, 0.5)
    assert (second["precision"], second["recall"], second["f1"]) == (0, 0, 0)
    assert (third["precision"], third["recall"], third["ap"], third["support"]) == (0, None, None, 0)
    assert of_classes(probabilities, targets)["mean_class_accuracy"] == 0.25
    assert of_classes(probabilities, targets)["top5"] is None


@pytest.mark.parametrize("seed", range(3))
def test_labels(seed):
    scores, generator = drawn(seed)
    targets = (torch.rand(60, 7, generator=generator) < 0.3).long()
    options = dict(task="multilabel", num_labels=7)
    said = (scores >= 0.5).long()  # torchmetrics takes what is above 0.5
    ours, rows = of_labels(scores, targets.float()), label_scores(scores, targets.float())
    for name, of in {"precision": reference.precision, "recall": reference.recall, "f1": reference.f1_score}.items():
        each = of(said, targets, average="none", **options)
        torch.testing.assert_close(torch.tensor([row[name] for row in rows]), each)
        assert ours[f"macro_{name}"] == pytest.approx(float(each.mean()))
        assert ours[f"micro_{name}"] == pytest.approx(float(of(said, targets, average="micro", **options)))
    each = reference.average_precision(scores, targets, average="none", **options)
    torch.testing.assert_close(torch.tensor([row["ap"] for row in rows]), each, rtol=0, atol=1e-6)
    assert ours["mAP"] == pytest.approx(float(each.mean()), abs=1e-6)
    assert ours["exact"] == pytest.approx(float(reference.exact_match(said, targets, **options)))


def test_labels_that_nobody_has():
    probabilities, targets = torch.tensor([[0.9, 0.2], [0.1, 0.3]]), torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    first, second = label_scores(probabilities, targets)
    assert (first["f1"], first["ap"]) == (1, 1)
    assert second == {"precision": None, "recall": None, "f1": None, "ap": None, "support": 0}
    assert of_labels(probabilities, targets)["mAP"] == 1
    assert of_labels(probabilities, torch.zeros(2, 2))["mAP"] is None


def test_every_metric_says_what_is_better():
    for task, targets in {"classes": [0, 1], "multilabel": [[0.0] * 6] * 2, "regression": [[0.0] * 6] * 2}.items():
        assert OBJECTIVES[task].metrics(torch.rand(2, 6), torch.tensor(targets)).keys() == METRICS[task].keys()
        assert {OBJECTIVES[task].best, *OBJECTIVES[task].words, *OBJECTIVES[task].card.values()} <= METRICS[task].keys()


@pytest.mark.parametrize("seed", range(3))
def test_values(seed):
    predicted, generator = drawn(seed, size=2)
    targets = predicted + torch.rand(60, 2, generator=generator).mul(4).round() / 8  # with equal ones
    rows = value_scores(predicted, targets)
    for i, row in enumerate(rows):
        pair = predicted[:, i], targets[:, i]
        assert row["mae"] == pytest.approx(float(reference.mean_absolute_error(*pair)), rel=1e-5)
        assert row["rmse"] == pytest.approx(float(reference.mean_squared_error(*pair, squared=False)), rel=1e-5)
        assert row["r2"] == pytest.approx(float(reference.r2_score(*pair)), abs=1e-5)
        assert row["pearson"] == pytest.approx(float(reference.pearson_corrcoef(*pair)), abs=1e-5)
        assert row["spearman"] == pytest.approx(float(reference.spearman_corrcoef(*pair)), abs=1e-5)
    assert of_values(predicted, targets)["mae"] == pytest.approx((rows[0]["mae"] + rows[1]["mae"]) / 2)


def test_values_that_are_all_the_same():
    (row,) = value_scores(torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [3.0]]))
    assert row == {"mae": 1.5, "rmse": pytest.approx(math.sqrt(2.5)), "r2": None, "pearson": None, "spearman": None}
