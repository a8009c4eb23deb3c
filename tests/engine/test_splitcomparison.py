"""Is my accuracy real? The splits, the datasets that carry them, and the trainings."""

import numpy as np
import pytest
from deepscape.engine.datasets import PatchDataset
from deepscape.engine.resplitting import (
    Candidates,
    Resplitter,
    block_side,
    blocks_of,
    split_at_random,
    split_by_blocks,
    split_by_polygons,
)
from deepscape.engine.splitcomparison import is_my_accuracy_real
from deepscape.engine.splitreport import SplitRuns, verdict
from deepscape.tasks import jobs
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput, JobCancelled
from deepscape.tests.engine import patchsets


class Told(Context):
    def __init__(self):
        super().__init__()
        self.lines, self.done = [], []

    def log(self, text):
        self.lines.append(text)

    def progress(self, done, total, stage="", unit=""):
        self.done.append(done / total)


def polygons(folder, name="p", step=2, size=5, **options):
    """Points every ``step`` pixels in polygons of 12 x 8 pixels."""
    return patchsets.dataset(
        folder, name, rows=(4, 92), step=step, size=size, groups=lambda r, c: r // 12 * 100 + c // 8, **options
    )


def shared(patches, splits):
    """Return how many training patches lie less than a patch from a test patch."""
    places = np.stack([patches.rows, patches.cols], axis=1)
    train, test = places[splits == "train"], places[splits == "test"]
    return int((np.abs(train[:, None] - test[None]).max(axis=2).min(axis=1) < patches.size).sum())


def test_the_three_splits(tmp_path):
    patches = Candidates.of(PatchDataset(polygons(tmp_path)))
    count = len(patches.labels)
    for seed in range(3):
        random = split_at_random(patches, 0.3, seed)
        assert abs(np.sum(random == "test") - 0.3 * count) <= 3 and shared(patches, random) > 0.5 * count
        polygon = split_by_polygons(patches, 0.3, seed, Context())
        block = split_by_blocks(patches, 0.3, seed, Context())
        assert shared(patches, block) == 0 and 0 < np.sum(block == "") < 0.6 * count
        assert not set(patches.groups[polygon == "test"]) & set(patches.groups[polygon == "train"])
        blocks = blocks_of(patches, block_side(patches))
        assert not set(blocks[block == "test"]) & set(blocks[block != "test"])
        for splits in (random, polygon, block):
            for value in (3, 7, 300):
                own = splits[patches.labels == value]
                assert np.any(own == "train") and np.any(own == "test")
        for splits in (polygon, block):
            assert 0.2 < np.mean(splits == "test") < 0.4
        assert np.array_equal(block, split_by_blocks(patches, 0.3, seed, Context()))
    assert not np.array_equal(random, split_at_random(patches, 0.3, 0))


def test_a_dataset_split_otherwise_has_the_same_patches(tmp_path):
    dataset = PatchDataset(polygons(tmp_path))
    splits = split_at_random(Candidates.of(dataset), 0.3, 0)
    splits[:4] = ""
    other = PatchDataset(Resplitter(dataset).write(str(tmp_path / "again"), splits, Context()))
    assert other.splits.tolist() == splits.tolist()
    for name in ("labels", "rows", "cols", "groups"):
        assert np.array_equal(getattr(other, name), getattr(dataset, name))
    assert np.array_equal(other.patches(), dataset.patches())
    assert not list((tmp_path / "again").glob("source*"))


def test_candidates_are_positions_among_all_samples(tmp_path):
    image = patchsets.scene(tmp_path / "i.tif")
    points = patchsets.grid_points(tmp_path / "s.gpkg", (0, 30))
    small, large = (PatchDataset(patchsets.extract(tmp_path / str(n), image, points, n)) for n in (5, 17))
    assert len(large) < len(small)
    everywhere = dict(zip(Resplitter(small).candidates, zip(small.rows, small.cols)))
    own = zip(Resplitter(large).candidates, zip(large.rows, large.cols))
    assert all(everywhere[number] == place for number, place in own)


@pytest.mark.parametrize(("network", "seeds", "listed"), [("random_forest", 1, "0"), ("compact_cnn", 2, "0 to 1")])
def test_the_job_reports_all_splits(tmp_path, network, seeds, listed):
    folder = polygons(tmp_path, step=4)
    report = tmp_path / "report"
    context = Told()
    job = jobs.IsMyAccuracyReal(folder, str(report), network=network, epochs=4, seeds=seeds)
    result = is_my_accuracy_real(job, context)
    assert min(result.random_kappa, result.polygon_kappa, result.block_kappa) > 0.9
    assert result.report == str(report) + ".html"
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    seeds_row = f"<td>{listed}: of the split"
    for text in ("Kappa at random", "by polygon", "by block, with guard", "Shared pixels", "forest", seeds_row):
        assert text in page
    assert any(line.startswith("Split by block, with guard: kappa") and ", 0 pixels" in line for line in context.lines)
    assert context.done == sorted(context.done) and context.done[-1] == 1
    assert any("3 SEEDS or more" in text for text in context.warnings)


def scored(way, kappas):
    results = tuple(jobs.TrainResult("", "", "test", None, kappa, None, None, {}, 0, 0, 0) for kappa in kappas)
    return SplitRuns(way, results, ((7, 3),) * len(kappas))


def test_the_sentence_says_how_optimistic_a_random_split_is():
    block = scored("block", [0.7, 0.72, 0.68])
    text = verdict([scored("random", [0.99, 0.98, 0.97]), block]).replace("\u00a0", " ")
    assert "kappa is 0.980 ± 0.010; by block, with guard 0.700 ± 0.020." in text
    assert "the split by block, with guard, the most careful one here, the random split is optimistic by" in text
    assert "0.280 ± 0.010 (standard error), more than two standard errors" in text
    lower = scored("polygon", [0.5, 0.52, 0.48])
    assert text.endswith("With 3 seeds this rule is lenient: a t-test at 5 % would ask for 4.3 standard errors.")
    text = verdict([scored("random", [0.99, 0.98, 0.97]), lower, block])
    assert "Beside the split by polygon, the most" in text and "It was chosen among 2 for its lowest kappa" in text
    assert "it is not optimistic" in verdict([scored("random", [0.6, 0.61, 0.59]), block])
    assert "within two standard errors" in verdict([scored("random", [0.8, 0.62, 0.69]), block])
    assert "one seed cannot tell" in verdict([scored("random", [0.8]), scored("block", [0.7])])
    text = verdict([scored("random", [0.8, 0.9]), scored("block", [0.7, 0.8])])
    assert text.endswith("two seeds cannot tell how much of it is chance: give SEEDS 3 or more.")
    assert "not defined" in verdict([scored("random", [None]), scored("block", [0.7])])


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(BadInput, match="do not know their polygons"):
        is_my_accuracy_real(jobs.IsMyAccuracyReal(patchsets.dataset(tmp_path)), Context())
    with pytest.raises(BadInput, match="TEST_SHARE is 1, which leaves one part empty"):
        jobs.IsMyAccuracyReal("p", test_share=1)
    context = Context()
    context.cancelled.set()
    with pytest.raises(JobCancelled):
        is_my_accuracy_real(jobs.IsMyAccuracyReal(polygons(tmp_path, "q")), context)
