"""Numbers that the reference gives on published data, where that lies beside the checkout."""

from pathlib import Path

import pytest
from deepscape.engine.gridding import select_patches
from deepscape.tasks.context import Context
from deepscape.tasks.jobs import RasterSource, SelectPatches

LABELS = Path(__file__).parents[3] / "shared" / "data" / "amsterdam_labels" / "amsterdam_labelimage.tif"


@pytest.mark.parametrize(
    ("fields", "counts"),
    [
        ({}, {"": 9270}),
        ({"split": "chessboard"}, {"train": 4635, "validation": 4635}),
        (
            {"split": "proportions", "train_share": 0.5, "validation_share": 0.25},
            {"train": 4635, "validation": 2318, "test": 2317},
        ),
        (
            {"split": "proportions", "train_share": 0.8, "validation_share": 0.1},
            {"train": 7416, "validation": 927, "test": 927},
        ),
    ],
)
def test_patches_of_the_amsterdam_label_image(tmp_path, fields, counts):
    if not LABELS.exists():
        pytest.skip("shared/data/amsterdam_labels is not beside the checkout")
    # The file declares 0, "no building", as no-data: the reference's numbers are those of the whole image.
    source = RasterSource(str(LABELS), nodata=255)
    result = select_patches(
        SelectPatches(source, str(tmp_path / "p.gpkg"), patch_size=64, step=64, **fields), Context()
    )
    assert (result.patch_count, result.counts) == (9270, counts)
