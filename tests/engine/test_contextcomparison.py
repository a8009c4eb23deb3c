"""Does context help? The same points in patches of several sizes, errors at borders, maps and the report."""

import geopandas
import numpy as np
import pytest
import rasterio
from deepscape.engine.contextcomparison import does_context_help, methods_of
from deepscape.engine.contextreport import MethodRuns, best_of, verdict
from deepscape.engine.edges import EdgeErrors, edge_errors
from deepscape.models.cards import read_card
from deepscape.tasks import jobs
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput, JobCancelled
from deepscape.tests.engine import patchsets
from rasterio.transform import from_origin


class Told(Context):
    def __init__(self):
        super().__init__()
        self.lines, self.done = [], []

    def log(self, text):
        self.lines.append(text)

    def progress(self, done, total, stage="", unit=""):
        self.done.append(done / total)


def texture(data):
    """Make the second class the first one's mean, in stripes: a pixel alone cannot tell them."""
    rng = np.random.default_rng(1)
    values = data - 10 * np.repeat(np.arange(3), patchsets.SIDE // 3)[None, None, :]
    stripes = np.where(np.arange(patchsets.SIDE) % 2, 8.0, -8.0)[None, :, None]
    noise = rng.choice([-8.0, 8.0], (1, patchsets.SIDE, patchsets.SIDE))
    kinds = np.repeat(np.arange(3), patchsets.SIDE // 3)[None, None, :]
    return values + np.where(kinds == 1, stripes, np.where(kinds == 0, noise, 30.0))


def job(folder, **options):
    image = patchsets.scene(folder / "scene.tif", values=texture)
    points = patchsets.grid_points(folder / "points.gpkg", (0, 96), 4, **options.pop("points", {}))
    settings = {"sizes": (1, 5, 9), "epochs": 6, "seeds": 2, "legend": jobs.Legend(layer_classes=patchsets.LEGEND)}
    return jobs.DoesContextHelp(
        jobs.RasterSource(image, label="scene"), jobs.VectorSource(points), "class_id", str(folder / "out"),
        **{"report": str(folder / "report"), **settings, **options},
    )  # fmt: skip


def test_context_helps_where_only_texture_tells(tmp_path):
    context = Told()
    result = does_context_help(job(tmp_path), context)
    names = ["pixel_network_1", "compact_cnn_5", "compact_cnn_9", "random_forest_5"]
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files >= {f"{name}{suffix}" for name in names for suffix in (".safetensors", ".tif", ".qml")}, files
    assert not any("part" in name or name.endswith(".log") for name in files)
    assert [path.rsplit("/", 1)[1] for path in result.maps] == [f"{name}.tif" for name in names]
    cards = [read_card(str(tmp_path / "out" / f"{name}.safetensors")) for name in names]
    # The same points, the same split: equal counts in every size.
    counts = [card.training["counts"] for card in cards]
    assert all(each == counts[0] for each in counts) and sum(counts[0]["test"].values()) > 50
    assert cards[1].metrics["kappa"] > cards[0].metrics["kappa"] + 0.2
    assert [card.sources[0].patch_size for card in cards] == [1, 5, 9, 5]
    assert all(card.training["shared_pixels"] == 0 for card in cards)
    with rasterio.open(result.maps[1]) as raster:
        assert (raster.width, raster.height) == (96, 96) and set(np.unique(raster.read(1))) <= {3, 7, 300}
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 5 and "Random Forest" in page and "At borders" in page
    assert "<td>0 to 1, of the training; the maps are of seed 0</td>" in page
    assert context.done == sorted(context.done) and context.done[-1] == pytest.approx(1)
    assert any(line.startswith("Whether context helps is not known: with") for line in context.lines)
    assert any("points are left out of all sizes" in text for text in context.warnings)
    assert result.classes == patchsets.LEGEND


def test_the_split_of_the_points_is_used_and_the_extent_is_mapped(tmp_path):
    x, y = patchsets.TRANSFORM.c, patchsets.TRANSFORM.f
    extent = jobs.Extent(x + 300, y - 600, x + 700, y - 100)
    splits = {"splits": lambda r, c: ("train", "validation", "test", "")[r // 24]}
    task = job(tmp_path, points=splits, sizes=(1, 5), epochs=2, seeds=1, extent=extent, report="")
    context = Told()
    result = does_context_help(task, context)
    card = read_card(str(tmp_path / "out" / "compact_cnn_5.safetensors"))
    frame = geopandas.read_file(tmp_path / "points.gpkg")
    rows = ((patchsets.TRANSFORM.f - frame.geometry.y) / 10).astype(int)
    expected = [int(np.sum((frame.split == part) & (rows >= 2))) for part in ("train", "test")]
    assert [sum(card.training["counts"][role].values()) for role in ("training", "test")] == expected
    assert "validation" not in card.training["counts"] and result.report == ""
    with rasterio.open(result.maps[0]) as raster:
        assert (raster.width, raster.height) == (40, 50)
    assert any("own split is used" in line for line in context.lines)


def write_map(path, values, origin=(0, 0)):
    transform = from_origin(500_000 + 10 * origin[1], 4_000_000 - 10 * origin[0], 10, 10)
    with rasterio.open(
        path, "w", driver="GTiff", width=values.shape[1], height=values.shape[0], count=1, dtype="uint8", nodata=0,
        crs="EPSG:32631", transform=transform,
    ) as raster:  # fmt: skip
        raster.write(values.astype(np.uint8), 1)
    return str(path)


def test_errors_at_borders_of_what_most_maps_say(tmp_path):
    clean = np.repeat([[1] * 10 + [2] * 10], 600, axis=0)
    noisy = clean.copy()
    noisy[300, 2] = 2
    noisy[10, 9] = 2
    hole = clean.copy()
    hole[500, 15] = 0
    maps = [write_map(tmp_path / f"{n}.tif", each, (5, 7)) for n, each in enumerate((clean, noisy, hole))]
    # In the maps' own pixels: at the border, elsewhere, in a lone pixel of one map, in no-data, outside.
    places = np.array([(10, 9), (11, 12), (300, 2), (500, 15), (511, 8), (-1, 3), (20, 25)])
    labels = np.array([1, 2, 1, 2, 2, 1, 1])
    transform = tuple(patchsets.TRANSFORM)[:6]
    found = edge_errors(maps, transform, places[:, 0] + 5, places[:, 1] + 7, labels, Context())
    assert found[0] == EdgeErrors(1 / 2, 0.0, 2, 3)
    assert found[1] == EdgeErrors(1.0, 1 / 3, 2, 3)
    assert found[2] == EdgeErrors(1 / 2, 0.0, 2, 2)
    assert edge_errors(maps[:1], transform, places[:1, 0] + 900, places[:1, 1], labels[:1], Context()) == [
        EdgeErrors(None, None, 0, 0)
    ]


def scored(title, kappas, forest=False):
    results = tuple(jobs.TrainResult("", "", "test", None, kappa, None, None, {}, 0, 0, 0) for kappa in kappas)
    return MethodRuns(title, forest, results, EdgeErrors(None, None, 0, 0))


def test_the_sentence_says_what_the_best_size_adds():
    pixel, small = scored("1", [0.5, 0.52, 0.51]), scored("5", [0.8, 0.82, 0.84])
    large, forest = scored("9", [0.7, 0.9, 0.8]), scored("forest", [0.95, 0.95, 0.95], True)
    assert best_of([pixel, small, large, forest]).title == "5"
    text = verdict([pixel, small, large, forest]).replace("\u00a0", " ")
    assert text.startswith("Context helps: with 5, the best size here, kappa differs by +0.310 ± 0.010 from 1")
    assert "a t-test at 5 % would ask for 4.3 standard errors. It is the best of 2 sizes by these same test" in text
    assert text.endswith("The Random Forest's kappa is 0.950 ± 0.000.")
    assert "best of" not in verdict([pixel, small, forest])
    assert verdict([small, pixel]).startswith("Context harms here: even with 1")
    unsure = verdict([scored("1", [0.79, 0.83, 0.81]), small])
    assert unsure.startswith("No improvement: with 5") and "lenient" not in unsure


@pytest.mark.parametrize(
    ("kappas", "reason"),
    [
        ([0.8], "one seed cannot tell how much of it is chance: give SEEDS 3 or more."),
        ([0.529, 0.549], "two seeds cannot tell how much of it is chance: give SEEDS 3 or more."),
        ([0.529, 0.549, 0.539], "all seeds have the same difference, which tells nothing of chance."),
    ],
)
def test_what_chance_does_must_be_known_before_context_helps(kappas, reason):
    text = verdict([scored("1", [0.5, 0.52, 0.51][: len(kappas)]), scored("5", kappas)])
    assert text.startswith("Whether context helps is not known: with 5") and text.endswith(reason)


def test_methods_and_wrong_sizes():
    assert [method.name for method in methods_of((1, 9))] == ["pixel_network_1", "compact_cnn_9", "random_forest_9"]
    source = (jobs.RasterSource("i"), jobs.VectorSource("s"), "f", "o")
    with pytest.raises(BadInput, match="SIZES holds 3, which no network takes"):
        jobs.DoesContextHelp(*source, sizes=(1, 3))
    with pytest.raises(BadInput, match="SIZES names less than two patch sizes"):
        jobs.DoesContextHelp(*source, sizes=(5, 5))


def test_a_cancel_leaves_no_folder(tmp_path):
    context = Context()
    context.cancelled.set()
    with pytest.raises(JobCancelled):
        does_context_help(job(tmp_path), context)
    assert not (tmp_path / "out").exists()
