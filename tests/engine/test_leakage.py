"""Counting the pixels that two sets of patches share, against a count pixel by pixel."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from deepscape.engine import leakage
from deepscape.engine.datasets import DatasetDescription, DatasetScene, DatasetSource, PatchDataset
from deepscape.engine.leakage import SharedPixels, shared_pixels
from deepscape.engine.patches import extract_patches
from deepscape.engine.vectorsampling import select_vector_samples
from deepscape.tasks.context import Context
from deepscape.tasks.jobs import ExtractPatches, RasterSource, SelectVectorSamples, VectorSource
from hypothesis import given
from hypothesis import strategies as st

DEMO = Path(__file__).parents[2] / "demo" / "data"
UTM = Affine(10, 0, 500000, 0, -10, 4000000)


class Patches:
    """What `shared_pixels` reads of a patch dataset."""

    def __init__(self, rows, cols, size, transform=UTM, crs="", width=50, height=40):
        scene = DatasetScene("s", "", crs, tuple(transform[:6]), width, height, None)
        self.description = DatasetDescription((DatasetSource("", size, "uint8", ()),), (), scene, len(rows), {})
        self.rows, self.cols = np.array(rows, np.int64), np.array(cols, np.int64)

    def covered(self, mask):
        size, scene = self.description.sources[0].patch_size, self.description.scene
        return [
            {
                (r, c)
                for r in range(row - size // 2, row - size // 2 + size)
                for c in range(col - size // 2, col - size // 2 + size)
                if 0 <= r < scene.height and 0 <= c < scene.width
            }
            for row, col in zip(self.rows[mask], self.cols[mask])
        ]


def everything(patches):
    return np.ones(len(patches.rows), dtype=bool)


@given(st.data())
def test_counts_equal_those_pixel_by_pixel_whatever_the_strips(data):
    sets = []
    for _ in range(2):
        places = data.draw(st.lists(st.tuples(st.integers(0, 39), st.integers(0, 49)), max_size=12))
        sets.append(Patches([p[0] for p in places], [p[1] for p in places], data.draw(st.integers(1, 9))))
    masks = [
        np.array(data.draw(st.lists(st.booleans(), min_size=len(s.rows), max_size=len(s.rows))), bool) for s in sets
    ]
    a, b = (patches.covered(mask) for patches, mask in zip(sets, masks))
    shared = set().union(*a) & set().union(*b)
    expected = SharedPixels(len(shared), sum(bool(p & shared) for p in a), sum(bool(p & shared) for p in b))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leakage, "_STRIP_PIXELS", data.draw(st.sampled_from([1, 100, 4_000_000])))
        assert shared_pixels(sets[0], masks[0], sets[1], masks[1]) == expected


def test_patches_that_touch_share_nothing_and_reflected_borders_count_inside_only():
    a, b = Patches([10], [10], 9), Patches([10], [19], 9)
    assert shared_pixels(a, everything(a), b, everything(b)) == SharedPixels(0, 0, 0)
    b = Patches([10], [18], 9)
    assert shared_pixels(a, everything(a), b, everything(b)) == SharedPixels(9, 1, 1)
    corner = Patches([0], [0], 9)
    assert shared_pixels(corner, everything(corner), corner, everything(corner)).pixels == 25


def test_another_grid_of_the_same_crs_is_compared_by_map_coordinates():
    a = Patches([10], [10], 3)
    # The same scene from its row 5 and column 8 on.
    b = Patches([5], [2], 3, transform=UTM * Affine.translation(8, 5))
    shared = shared_pixels(a, everything(a), b, everything(b))
    assert (shared.pixels, shared.patches_a, shared.patches_b) == (9, 1, 1)
    assert "different grids" in shared.note
    # Pixels of half the size: a 4 x 4 patch of them over pixels 10-11.
    fine = Patches([22], [22], 4, transform=UTM * Affine.scale(0.5), width=100, height=80)
    shared = shared_pixels(a, everything(a), fine, everything(fine))
    assert shared.pixels == 4


def test_scenes_of_different_crs_are_not_compared():
    import pyproj

    crs = [pyproj.CRS(code).to_wkt() for code in (32654, 32655)]
    a, b = Patches([1], [1], 3, crs=crs[0]), Patches([1], [1], 3, crs=crs[1])
    shared = shared_pixels(a, everything(a), b, everything(b))
    assert shared.pixels == 0 and "different CRS" in shared.note


def test_thousands_of_patches_are_counted_at_once():
    generator, count = np.random.default_rng(0), 20_000
    rows, cols = generator.integers(0, 3000, count), generator.integers(0, 3000, count)
    both = Patches(rows, cols, 9, width=3000, height=3000)
    half = np.arange(count) < count // 2
    shared = shared_pixels(both, half, both, ~half)
    assert 0 < shared.patches_a < count // 2 and shared.pixels > 0


@pytest.mark.parametrize(("size", "edge", "none"), [(7, "reflect", True), (8, "reflect", True), (16, "reject", False)])
def test_demo_polygons_share_no_pixel_at_seven_and_many_at_sixteen(tmp_path, size, edge, none):
    scene, sets = RasterSource(str(DEMO / "sen2.tif")), []
    with rasterio.open(scene.path) as dataset:
        image = dataset.read()
    for name in ("train", "validation"):
        polygons = VectorSource(str(DEMO / f"{name}_polygons.gpkg"))
        points = str(tmp_path / f"{name}.gpkg")
        select_vector_samples(SelectVectorSamples(polygons, "class_id", scene, points, strategy="all"), Context())
        job = ExtractPatches(scene, VectorSource(points), "class_id", str(tmp_path / name), patch_size=size, edge=edge)
        sets.append(PatchDataset(extract_patches(job, Context()).output))
        # Every patch is the image's window byte for byte, mirrored at the edges.
        padded = np.pad(image, ((0, 0), (size, size), (size, size)), mode="reflect")
        for patch, row, col in zip(sets[-1].patches(), sets[-1].rows, sets[-1].cols):
            top, left = row + size - size // 2, col + size - size // 2
            assert patch.tobytes() == padded[:, top : top + size, left : left + size].tobytes()
    shared = shared_pixels(sets[0], everything(sets[0]), sets[1], everything(sets[1]))
    assert (shared.pixels == 0) == none
    assert none or 0.2 < shared.patches_b / len(sets[1]) < 0.3
