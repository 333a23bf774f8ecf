"""Tasks against independent oracles: brute force, scikit-learn, torch on the labelled pixels alone, differences."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score
from torch import nn
from torch.nn import functional as F

from edgeecc.config import IGNORE_LABEL, TrainConfig
from edgeecc.data import splits
from edgeecc.data.splits import TensorSplit
from edgeecc.errors import ConfigError, DataError
from edgeecc.training.classification import CLASSIFICATION, Classification
from edgeecc.training.dense import train_dense_
from edgeecc.training.distill import distillation_loss
from edgeecc.training.evaluate import evaluate, top1
from edgeecc.training.loop import TorchTrainer
from edgeecc.training.output import first_tensor
from edgeecc.training.scores import SCORES, Confusion, TopK, enlarged, make_scores
from edgeecc.training.segmentation import Segmentation, class_shares, class_weights
from edgeecc.training.tasks import TASKS, make_task

CAMVID = Path(__file__).parents[3] / "../shared/data/camvid"
SEGMENTATION = Segmentation()
#: Of the decoder in ERFNet's training script, for Cityscapes' classes in order.
ERFNET_WEIGHTS = (
    2.8149201869965, 6.9850029945374, 3.7890393733978, 9.9428062438965, 9.7702074050903, 9.5110931396484,
    10.311357498169, 10.026463508606, 4.6323022842407, 9.5608062744141, 7.8698215484619, 9.5168733596802,
    10.373730659485, 6.6616044044495, 10.260489463806, 10.287888526917, 10.289801597595, 10.405355453491,
    10.138095855713,
)  # fmt: skip


def maps(generator: np.random.Generator, shape: tuple, classes: int, void: float) -> np.ndarray:
    labels = generator.integers(0, classes, shape)
    labels[generator.random(shape) < void] = IGNORE_LABEL
    return labels


def one_hot(predicted: np.ndarray, classes: int) -> np.ndarray:
    return np.moveaxis(np.eye(classes, dtype=np.float32)[predicted], -1, 1)


@given(st.integers(2, 12), st.integers(1, 9), st.integers(0, 2**16), st.integers(1, 6))
def test_top_k_is_a_place_in_the_sorted_list(
    classes: int, images: int, seed: int, levels: int
) -> None:
    generator = np.random.default_rng(seed)
    logits = generator.integers(0, levels, (images, classes)).astype(np.float32)  # with ties
    labels = generator.integers(0, classes, images)
    scores = TopK()
    for start in range(0, images, 2):
        scores.add(logits[start : start + 2], labels[start : start + 2])
    order = [sorted(range(classes), key=lambda c, row=row: (-row[c], c)) for row in logits]
    wanted = {"top-1": 1, "top-5": 5} if classes > 5 else {"top-1": 1}
    assert scores.result() == {
        name: sum(label in first[:k] for label, first in zip(labels, order)) / images
        for name, k in wanted.items()
    }
    assert scores.result()["top-1"] == np.mean(logits.argmax(1) == labels)


def test_what_is_not_a_number_is_never_right() -> None:
    logits = np.full((2, 7), np.nan, dtype=np.float32)
    logits[1, 3] = 1.0
    scores = TopK()
    scores.add(logits, np.array([0, 3]))
    assert scores.result() == {"top-1": 0.0, "top-5": 0.0}


@given(st.integers(2, 6), st.integers(1, 5), st.floats(0.0, 0.9), st.integers(0, 2**16))
def test_confusion_is_scikit_learns(classes: int, images: int, void: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = maps(generator, (images, 5, 4), classes, void)
    logits = generator.standard_normal((images, classes, 5, 4)).astype(np.float32)
    scores = Confusion()
    for start in range(0, images, 2):
        scores.add(logits[start : start + 2], labels[start : start + 2].astype(np.uint8))
    valid = labels != IGNORE_LABEL
    if not valid.any():
        with pytest.raises(DataError, match="no pixel of the validation images has a label"):
            scores.result()
        return
    true, told = labels[valid], logits.argmax(1)[valid]
    assert scores._counts.tolist() == confusion_matrix(true, told, labels=range(classes)).tolist()
    present = sorted({*true.tolist(), *told.tolist()})
    found = scores.result()
    assert list(found) == ["mean IoU", "pixel accuracy"]
    assert found["mean IoU"] == pytest.approx(
        jaccard_score(true, told, labels=present, average="macro")
    )
    assert found["pixel accuracy"] == pytest.approx(accuracy_score(true, told))


def test_a_class_beyond_the_data_sets_is_a_miss_and_no_class_of_the_mean() -> None:
    """A network for Cityscapes tells a twentieth class, void; the mean stays over nineteen."""
    labels = np.array([[[0, 0, 1, 1]]])
    logits = one_hot(np.array([[[0, 2, 1, 1]]]), 3)
    wide, whole = Confusion(2), Confusion()
    wide.add(logits, labels)
    whole.add(logits, labels)
    assert wide.result() == {"mean IoU": (1 / 2 + 1) / 2, "pixel accuracy": 3 / 4}
    assert whole.result()["mean IoU"] == pytest.approx((1 / 2 + 1 + 0) / 3)


@pytest.mark.skipif(not CAMVID.is_dir(), reason="CamVid is not beside the repository")
def test_confusion_of_real_label_maps() -> None:
    scores, true, told = Confusion(11), [], []
    for path in sorted((CAMVID / "valannot").glob("*.png"))[:3]:
        labels = np.asarray(Image.open(path)).astype(np.int64)
        labels[labels == 11] = IGNORE_LABEL
        moved = np.roll(np.where(labels == IGNORE_LABEL, 0, labels), 6, axis=1)
        scores.add(one_hot(moved[None], 11), labels[None])
        true.append(labels[labels != IGNORE_LABEL])
        told.append(moved[labels != IGNORE_LABEL])
    flat = np.concatenate(true), np.concatenate(told)
    wanted = jaccard_score(*flat, labels=np.unique(flat), average="macro")
    assert scores.result()["mean IoU"] == pytest.approx(wanted)
    assert 0.5 < wanted < 1.0


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 8), st.integers(0, 99))
def test_logits_are_enlarged_as_torch_does(height: int, width: int, times: int, seed: int) -> None:
    logits = torch.randn(
        (2, 3, height, width), generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    size = (height * times, width * times)
    wanted = F.interpolate(logits, size, mode="bilinear", align_corners=False)
    np.testing.assert_allclose(enlarged(logits.numpy(), size), wanted.numpy(), atol=1e-12)


def batch(void: float, classes: int = 4, times: int = 1, seed: int = 0) -> tuple:
    generator = np.random.default_rng(seed)
    labels = torch.from_numpy(maps(generator, (3, 4 * times, 6 * times), classes, void))
    logits = torch.from_numpy(generator.standard_normal((3, classes, 4, 6)))
    return logits, labels


@pytest.mark.parametrize("shares", [None, (0.5, 0.1, 0.2)])
@pytest.mark.parametrize("times", [1, 2])
def test_the_loss_is_that_of_the_labelled_pixels(shares: tuple, times: int) -> None:
    logits, labels = batch(0.4, times=times)
    large = F.interpolate(logits, labels.shape[1:], mode="bilinear") if times > 1 else logits
    valid = labels != IGNORE_LABEL
    rows = large.permute(0, 2, 3, 1)[valid]
    weights = class_weights(shares, 4).double()
    wanted = F.cross_entropy(rows, labels[valid], weights)
    found = Segmentation(4, shares).loss(logits, labels)
    assert float(found) == pytest.approx(float(wanted), rel=1e-12)


def test_the_gradient_of_the_loss_is_its_difference() -> None:
    logits, labels = batch(0.5)
    task = Segmentation(4, (0.7, 0.1, 0.1, 0.05))
    logits.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: task.loss(x, labels), (logits,), eps=1e-6)
    (slope,) = torch.autograd.grad(task.loss(logits, labels), logits)
    void = (labels == IGNORE_LABEL)[:, None].expand_as(slope)
    assert not slope[void].any()
    assert slope[~void].all()


def test_a_batch_of_void_alone_costs_nothing_and_moves_nothing() -> None:
    logits, labels = batch(0.0)
    logits.requires_grad_(True)
    loss = SEGMENTATION.loss(logits, torch.full_like(labels, IGNORE_LABEL))
    (slope,) = torch.autograd.grad(loss, logits)
    assert float(loss.detach()) == 0.0
    assert not slope.any()


def test_distillation_is_the_mean_square_over_all_logits_of_the_grid() -> None:
    logits, labels = batch(0.4, times=2)
    teacher = torch.zeros_like(logits)
    square = float((logits**2).sum() / logits.numel())
    task = float(SEGMENTATION.loss(logits, labels))
    for share in (0.0, 0.25, 1.0):
        found = float(distillation_loss(SEGMENTATION, logits, teacher, labels, share))
        assert found == pytest.approx(share * square + (1 - share) * task)


def test_class_weights_are_those_that_erfnet_published() -> None:
    """Undone, its weights are shares of all pixels: of road 0.33, together what Cityscapes has labelled, 0.885."""
    shares = tuple(math.exp(1.0 / weight) - 1.10 for weight in ERFNET_WEIGHTS)
    assert shares[0] == pytest.approx(0.3265, abs=1e-4)
    assert sum(shares) == pytest.approx(0.885, abs=1e-3)
    weights = class_weights(shares, 20)
    assert weights[:19].tolist() == pytest.approx(ERFNET_WEIGHTS)
    assert float(weights[19]) == pytest.approx(1.0 / math.log(1.10))
    assert class_weights(None, 3).tolist() == [1.0, 1.0, 1.0]


def test_shares_count_void_pixels_in_the_whole() -> None:
    labels = torch.tensor([[[0, 0, 2, 255]], [[0, 255, 255, 255]]])
    task = SEGMENTATION.fitted(TensorSplit(torch.zeros(2, 1, 1, 4), labels))
    assert task.shares == (3 / 8, 0.0, 1 / 8)
    assert CLASSIFICATION.fitted(TensorSplit(torch.zeros(1, 1), torch.zeros(1))) is CLASSIFICATION
    with pytest.raises(DataError, match="no pixel of 2 training images has a label"):
        class_shares(TensorSplit(torch.zeros(2, 1), torch.full((2, 1, 4), 255)))


def test_a_large_split_is_sampled_from_end_to_end() -> None:
    labels = torch.zeros((1000, 1, 1), dtype=torch.int64)
    labels[-1] = 1
    assert class_shares(TensorSplit(torch.zeros(1000, 1), labels)) == (199 / 200, 1 / 200)


@pytest.mark.parametrize(
    ("task", "shape", "labels", "words"),
    [
        (CLASSIFICATION, (2, 3, 4, 4), [0, 1], r"logits \(N, classes\).*returns \(2, 3, 4, 4\)"),
        (CLASSIFICATION, (2, 3), [[[0]], [[1]]], r"segmentation one a pixel"),
        (CLASSIFICATION, (3, 3), [0, 1], r"for labels \(2,\)"),
        (CLASSIFICATION, (2, 3), [0, 3], r"label 3, the network tells 0..2"),
        (CLASSIFICATION, (2, 3), [0, 255], r"label 255, the network tells 0..2"),
        (Classification(10), (2, 3), [0, 1], r"has 10 classes, the network 3"),
        (SEGMENTATION, (1, 3), [[[0]]], r"logits \(N, classes, H, W\).*returns \(1, 3\)"),
        (SEGMENTATION, (1, 3, 2, 2), [0], r"classification one an image"),
        (SEGMENTATION, (1, 3, 2, 2), [[[0, 1, 2]] * 3], r"returns 2x2 logits for labels of 3x3"),
        (SEGMENTATION, (1, 3, 1, 2), [[[0, 1]] * 2], r"returns 1x2 logits for labels of 2x2"),
        (SEGMENTATION, (1, 3, 2, 2), [[[0]]], r"returns 2x2 logits for labels of 1x1"),
        (SEGMENTATION, (1, 3, 0, 0), [[[0]]], r"returns 0x0 logits for labels of 1x1"),
        (
            SEGMENTATION,
            (1, 256, 1, 1),
            [[[0]]],
            r"tells 256 classes, segmentation takes at most 255",
        ),
        (SEGMENTATION, (1, 3, 1, 2), [[[255, 3]]], r"label 3, the network tells 0..2"),
        (SEGMENTATION, (1, 3, 1, 2), [[[-1, 0]]], r"label -1, the network tells 0..2"),
        (Segmentation(19), (1, 3, 1, 1), [[[0]]], r"has 19 classes, the network 3"),
    ],
)
def test_what_does_not_belong_together_is_told(task, shape, labels, words) -> None:
    with pytest.raises(DataError, match=words) as caught:
        task.check(torch.zeros(shape), torch.tensor(labels))
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=words):
        task.scores().add(np.zeros(shape), np.array(labels))


def test_labels_as_a_task_takes_them_pass() -> None:
    CLASSIFICATION.check(torch.zeros(2, 3), torch.tensor([0, 2]))
    SEGMENTATION.check(torch.zeros(1, 3, 1, 2), torch.tensor([[[0, 0, 1, 1], [2, 2, 255, 255]]]))
    with pytest.raises(DataError, match="no image was scored"):
        TopK().result()


def test_the_first_tensor_of_a_result_counts() -> None:
    one, other = torch.zeros(1), torch.ones(1)
    for returned in (one, (one, other), [one], {"out": one, "aux": other}, {"logits": (one,)}):
        assert CLASSIFICATION.output_of(returned) is one
        assert SEGMENTATION.output_of(returned) is one
    for wrong, name in ((None, "NoneType"), ((), "tuple"), ([3.0, one], "float"), ({}, "dict")):
        with pytest.raises(DataError, match=f"does not return logits but {name}; return a tensor"):
            first_tensor(wrong)


def test_the_tables_hold_the_same_tasks() -> None:
    assert sorted(TASKS) == sorted(SCORES)
    for name in TASKS:
        task = make_task(name, 7)
        assert (task.name, task.classes) == (name, 7)
        assert type(task.scores()) is type(make_scores(name, 7))
    for make in (make_task, make_scores):
        with pytest.raises(
            ConfigError, match="unknown task 'detection'; known are classification, seg"
        ):
            make("detection", None)


class Pixels(nn.Module):
    """Tells whether a pixel is bright, at half the resolution, in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 2, stride=2)

    def forward(self, image: torch.Tensor) -> dict:
        return {"out": self.conv(image)}


def bright(images: int) -> TensorSplit:
    generator = torch.Generator().manual_seed(3)
    coarse = torch.randn((images, 1, 3, 3), generator=generator)
    fine = coarse.repeat_interleave(4, 2).repeat_interleave(4, 3)
    labels = (fine[:, 0] > 0).long()
    labels[:, ::5] = IGNORE_LABEL
    return TensorSplit(fine, labels)


def test_segmentation_is_trained_and_scored() -> None:
    model, split = Pixels(), bright(40)
    train_dense_(model, split, steps=150, batch_size=8, lr=3e-2, seed=0, task=SEGMENTATION)
    trainer = TorchTrainer(
        model, split, split, config=TrainConfig(batch_size=8, lr=1e-3), task=SEGMENTATION
    )
    scores = trainer.scores()
    assert trainer.evaluate() == scores["mean IoU"] > 0.8
    assert scores["pixel accuracy"] > scores["mean IoU"]
    assert trainer.dense_scores() == scores
    with torch.no_grad():
        model.conv.bias += torch.tensor([100.0, 0.0])
    assert trainer.evaluate() < 0.5
    assert trainer.dense_scores() == scores


def test_scores_do_not_depend_on_how_many_images_run_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, split = Pixels(), bright(11)
    whole = evaluate(model, split, SEGMENTATION)
    monkeypatch.setattr(splits, "PIXELS_TOGETHER", 3 * 12 * 12)
    assert splits.images_together((1, 12, 12), 256) == 3
    assert evaluate(model, split, SEGMENTATION) == whole
    assert splits.images_together((3, 10**6, 10**6), 256) == 1
    assert splits.images_together((3, 8, 8), 2) == 2


def test_top1_is_the_first_score_of_classification() -> None:
    split = TensorSplit(torch.eye(7)[:5], torch.arange(5))
    assert top1(nn.Identity(), split) == 1.0
    assert evaluate(nn.Identity(), split, CLASSIFICATION) == {"top-1": 1.0, "top-5": 1.0}
