"""Scenes and masks: kept together by augmentation, labels of the published tables, damage told."""

from __future__ import annotations

from pathlib import Path
from typing import Tuple

import numpy as np
import pytest
import torch
from PIL import Image

from edgeecc.config import IGNORE_LABEL
from edgeecc.data.cityscapes import LABEL_IDS
from edgeecc.data.sources import load
from edgeecc.data.splits import Batch
from edgeecc.errors import DataError
from edgeecc.normalisation import Normalisation

SHARED = Path(__file__).parents[4] / "shared" / "data" / "camvid"
#: Of Cityscapes' 34 label ids those that are not evaluated: its list of ids with `ignoreInEval`.
NOT_EVALUATED = {0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30}
PLAIN = Normalisation((0.0,) * 3, (1 / 255,) * 3)
GREY = 20


def scene(values: np.ndarray, block: int = 16) -> Tuple[Image.Image, Image.Image]:
    """Return an image of flat blocks and its mask: the grey of a pixel is GREY times its value."""
    mask = np.kron(values, np.ones((block, block))).astype(np.uint8)
    grey = np.minimum(mask.astype(int) * GREY, 255).astype(np.uint8)
    return Image.fromarray(np.stack([grey] * 3, axis=2)), Image.fromarray(mask)


def camvid(root: Path, highest: int = 11) -> Path:
    generator = np.random.default_rng(6)
    for part in ("train", "val", "test"):
        for folder in (part, f"{part}annot"):
            (root / folder).mkdir(parents=True)
        for index in range(2):
            image, mask = scene(generator.integers(0, highest + 1, (3, 4)))
            image.save(root / part / f"{part}{index}.png")
            mask.save(root / f"{part}annot" / f"{part}{index}.png")
    return root


def agree(batch: Batch) -> float:
    """Return the share of pixels, of those well inside a block, whose grey is not that of their label."""
    images, labels = batch
    grey = images[:, 0]
    values = torch.where(labels == IGNORE_LABEL, 11, labels).float()
    near = torch.nn.functional.max_pool2d(values[:, None], 5, 1, 2)
    far = -torch.nn.functional.max_pool2d(-values[:, None], 5, 1, 2)
    inside = (near == far)[:, 0]
    inside[:, [0, 1, -2, -1]] = False  # blocks beyond the crop shine in here
    inside[:, :, [0, 1, -2, -1]] = False
    assert inside.float().mean() > 0.1
    return float(((grey - GREY * values).abs()[inside] > 1.5).float().mean())


def test_camvid_is_whole_and_void_is_ignored(tmp_path: Path) -> None:
    data = load(f"camvid:{camvid(tmp_path)}", input_shape=(3, 48, 64), normalisation=PLAIN)
    assert (len(data.train), len(data.val), data.classes, data.task) == (2, 2, 11, "segmentation")
    images, labels = data.val.take([0, 1])
    for index in range(2):
        mask = np.asarray(Image.open(tmp_path / "valannot" / f"val{index}.png"))
        pixels = np.asarray(Image.open(tmp_path / "val" / f"val{index}.png"))
        np.testing.assert_array_equal(labels[index], np.where(mask == 11, IGNORE_LABEL, mask))
        np.testing.assert_allclose(images[index], pixels.transpose(2, 0, 1), atol=1e-3)
    assert (labels.dtype, images.dtype) == (torch.int64, torch.float32)
    other = load(f"camvid-test:{tmp_path}", input_shape=(3, 48, 64), normalisation=PLAIN)
    assert not torch.equal(other.val.take([0])[0], data.val.take([0])[0])


@pytest.mark.parametrize("size", [(48, 64), (96, 96), (24, 32)])
def test_images_and_masks_stay_together(tmp_path: Path, size: Tuple[int, int]) -> None:
    data = load(f"camvid:{camvid(tmp_path)}", input_shape=(3, *size), seed=1, normalisation=PLAIN)
    assert agree(data.val.take([0, 1])) == 0.0
    for turn in range(8):
        batch = data.train.take([0, 1], turn)
        assert agree(batch) == 0.0
        again = data.train.take([1], turn)
        assert torch.equal(batch[0][1], again[0][0])
        assert torch.equal(batch[1][1], again[1][0])
    seen = {data.train.take([0], turn)[1].numpy().tobytes() for turn in range(8)}
    assert len(seen) == 8
    other = load(f"camvid:{tmp_path}", input_shape=(3, *size), seed=2, normalisation=PLAIN)
    assert not torch.equal(other.train.take([0])[0], data.train.take([0])[0])


def test_half_of_the_training_scenes_are_mirrored(tmp_path: Path) -> None:
    camvid(tmp_path)
    ramp = np.tile(np.arange(64, dtype=np.uint8), (48, 1))
    for index in range(2):
        Image.fromarray(np.stack([ramp] * 3, axis=2)).save(tmp_path / "train" / f"train{index}.png")
    data = load(f"camvid:{tmp_path}", input_shape=(3, 24, 32), normalisation=PLAIN)
    rows = [data.train.take([0], turn)[0][0, 0, 0] for turn in range(60)]
    assert 15 <= sum(bool(row[0] > row[-1]) for row in rows) <= 45


def test_masks_that_do_not_fit_are_named(tmp_path: Path) -> None:
    data = load(f"camvid:{camvid(tmp_path)}", input_shape=(3, 24, 32))
    path = tmp_path / "valannot" / "val0.png"
    for wrong, message in (
        (Image.new("L", (64, 48), 12), "holds 12, labels here are 0..11"),
        (Image.new("L", (64, 47)), r"is L \(64, 47\), its image \(64, 48\)"),
        (Image.new("RGB", (64, 48)), "is RGB"),
    ):
        wrong.save(path)
        with pytest.raises(DataError, match=f"cannot decode .*val0.png.*{message}.*take it out"):
            data.val.take([0])
    palette = Image.new("P", (64, 48), 3)
    palette.putpalette([255, 0, 0] * 4)
    palette.save(path)
    assert data.val.take([0])[1].unique().tolist() == [3]


def test_scenes_without_masks_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no scenes in train/ and trainannot/; check"):
        load(f"camvid:{tmp_path}", input_shape=(3, 24, 32))
    camvid(tmp_path)
    (tmp_path / "valannot" / "val1.png").unlink()
    with pytest.raises(DataError, match=r"val1.png has no mask .*valannot/val1.png"):
        load(f"camvid:{tmp_path}", input_shape=(3, 24, 32))
    with pytest.raises(DataError, match="scenes needs a 3-channel network, this one takes"):
        load(f"camvid-test:{tmp_path}", input_shape=(1, 24, 32))


def cityscapes(root: Path, values: np.ndarray, kind: str) -> Path:
    for part in ("train", "val"):
        for index, city in enumerate(("aachen", "ulm")):
            name = f"{city}_{index:06}_000019"
            images = root / "leftImg8bit" / part / city
            masks = root / "gtFine" / part / city
            images.mkdir(parents=True, exist_ok=True)
            masks.mkdir(parents=True, exist_ok=True)
            image, mask = scene(values, 4)
            image.save(images / f"{name}_leftImg8bit.png")
            mask.save(masks / f"{name}_gtFine_{kind}.png")
    return root


def test_cityscapes_ids_become_train_ids(tmp_path: Path) -> None:
    ids = np.array([[*range(34), 255, 200]])
    data = load(f"cityscapes:{cityscapes(tmp_path, ids, 'labelIds')}", input_shape=(3, 4, 36 * 4))
    assert (len(data.train), len(data.val), data.classes, data.task) == (2, 2, 19, "segmentation")
    labels = data.val.take([0])[1][0, 0, ::4]
    assert {int(n) for n in ids[0, :34] if labels[n] == IGNORE_LABEL} == NOT_EVALUATED
    assert labels[labels != IGNORE_LABEL].tolist() == list(range(19))
    assert labels[-2:].tolist() == [IGNORE_LABEL] * 2
    assert len(LABEL_IDS) == 19


def test_cityscapes_train_ids_are_taken_where_all_are_there(tmp_path: Path) -> None:
    cityscapes(tmp_path, np.array([[7, 0]]), "labelIds")
    cityscapes(tmp_path, np.array([[18, 255]]), "labelTrainIds")
    data = load(f"cityscapes:{tmp_path}", input_shape=(3, 4, 8))
    assert data.val.take([0])[1].unique().tolist() == [18, 255]
    next(tmp_path.glob("gtFine/val/ulm/*labelTrainIds.png")).unlink()
    data = load(f"cityscapes:{tmp_path}", input_shape=(3, 4, 8))
    assert data.val.take([0])[1].unique().tolist() == [0, 255]
    next(tmp_path.glob("gtFine/val/ulm/*labelIds.png")).unlink()
    with pytest.raises(DataError, match=r"ulm.*has no mask .*labelIds.png; unpack gtFine"):
        load(f"cityscapes:{tmp_path}", input_shape=(3, 4, 8))
    with pytest.raises(DataError, match=r"no scenes .*leftImg8bit/train/CITY"):
        load(f"cityscapes:{tmp_path / 'gtFine'}", input_shape=(3, 4, 8))


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data/camvid beside the repository")
def test_the_real_camvid() -> None:
    data = load(f"camvid:{SHARED}", input_shape=(3, 180, 240))
    test = load(f"camvid-test:{SHARED}", input_shape=(3, 180, 240))
    assert (len(data.train), len(data.val), len(test.val)) == (367, 101, 233)
    images, labels = data.val.take(range(0, 101, 5))
    assert set(labels.unique().tolist()) <= {*range(11), IGNORE_LABEL}
    assert images.abs().max() < 3
    above, below = labels[:, :60], labels[:, 150:]
    assert (above == 0).float().mean() > 10 * (below == 0).float().mean()  # sky
    assert (below == 3).float().mean() > 10 * (above == 3).float().mean()  # road
