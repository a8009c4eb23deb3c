"""Rasters as they come: however the same pixels are stored, their map is that of a plain GeoTIFF."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from deepscape.engine.inference import classify
from deepscape.engine.modelfiles import module_tensors, save_model
from deepscape.engine.nodearrays import Forest
from deepscape.models.build import build_network
from deepscape.models.cards import Card, CardBand, CardSource
from deepscape.tasks.classtable import ClassEntry, palette_colour
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput
from deepscape.tasks.jobs import Classify, RasterSource
from rasterio import Affine
from rasterio.enums import ColorInterp, MaskFlags

NAN = float("nan")
TRANSFORM = Affine(10, 0, 5e5, 0, -10, 9e6)
HEIGHT, WIDTH = 61, 83


def pixels(dtype="uint16", height=HEIGHT, width=WIDTH):
    """Values of 3 bands that every type can hold, with a gap of 0."""
    rng = np.random.default_rng(7)
    values = rng.integers(1, 120, (3, height, width)).astype(dtype)
    values[:, height // 3 : height // 2, : width // 3] = 0
    return values


def write(path, values, nodata=0, transform=TRANSFORM, crs="EPSG:32721", driver="GTiff", **options):
    with rasterio.open(
        path, "w", driver=driver, count=len(values), height=values.shape[1], width=values.shape[2],
        dtype=values.dtype, nodata=nodata, crs=crs, transform=transform, **options,
    ) as dataset:  # fmt: skip
        dataset.write(values)
    return str(path)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A network and a forest; their cards say nothing of the scene's distribution, so that none is refused."""
    folder = tmp_path_factory.mktemp("models")
    table = tuple(ClassEntry(v, f"name {v}", palette_colour(v)) for v in (3, 8, 11))
    bands = tuple(CardBand("", 60.0, 35.0, 60.0, 35.0) for _ in range(3))
    torch.manual_seed(0)
    module = build_network("compact_cnn", 3, 3, 6)
    card = Card("network", "compact_cnn", (CardSource(6, bands),), table)
    save_model(str(folder / "network.safetensors"), card, module_tensors(module))
    forest = Forest(
        np.array([0, 5]), np.array([0, 1, -1, -1, -1], np.int32), np.array([40.0, 70.0, 0, 0, 0]),
        np.array([[1, 2], [3, 4], [0, 0], [1, 0], [2, 0]], np.int32),
        np.array([[0, 0, 1.0], [1.0, 0, 0], [0, 1.0, 0]]),
    )  # fmt: skip
    card = Card("forest", "random_forest", (CardSource(1, bands),), table, arguments={"features": "pixel"})
    save_model(str(folder / "forest.safetensors"), card, forest.tensors())
    return folder


@pytest.fixture
def mapped(models, tmp_path):
    """Returns a function that maps a file with a model and gives the classes, and the map's grid."""
    number = iter(range(100))

    def start(path, model, **source):
        output = str(tmp_path / f"map {next(number)}.tif")
        job = Classify(
            RasterSource(str(path), **source), str(models / f"{model}.safetensors"), output, device_choice="cpu",
            continue_anyway=True,
        )  # fmt: skip
        classify(job, Context())
        with rasterio.open(output) as dataset:
            return dataset.read(1), (dataset.transform, dataset.crs)

    return start


# --- one line for each way to store the pixels -----------------------------------------------------------------------


def plain(**options):
    return lambda folder, values: write(folder / "scene.tif", values, **options)


def jpeg2000(folder, values):
    return write(folder / "scene.jp2", values, driver="JP2OpenJPEG", QUALITY=100, REVERSIBLE="YES", YCBCR420="NO")


def named(name):
    def make(folder, values):
        (folder / name).parent.mkdir(exist_ok=True)
        return write(folder / name, values)

    return make


def mosaic(folder, values):
    """A VRT of two files; what neither holds is no-data: here the gap, and nothing else."""
    top, bottom = HEIGHT // 3, HEIGHT // 2
    left = WIDTH // 3
    places = {
        "a": (0, 0, top, WIDTH),
        "b": (top, left, bottom - top, WIDTH - left),
        "c": (bottom, 0, HEIGHT - bottom, WIDTH),
    }
    bands = []
    for band in (1, 2, 3):
        sources = []
        for name, (row, col, height, width) in places.items():
            if band == 1:
                write(folder / f"{name}.tif", values[:, row : row + height, col : col + width], nodata=None)
            sources.append(
                f'<SimpleSource><SourceFilename relativeToVRT="1">{name}.tif</SourceFilename>'
                f"<SourceBand>{band}</SourceBand>"
                f'<SrcRect xOff="0" yOff="0" xSize="{width}" ySize="{height}"/>'
                f'<DstRect xOff="{col}" yOff="{row}" xSize="{width}" ySize="{height}"/></SimpleSource>'
            )
        bands.append(
            f'<VRTRasterBand dataType="UInt16" band="{band}"><NoDataValue>0</NoDataValue>{"".join(sources)}'
            "</VRTRasterBand>"
        )
    path = folder / "mosaic.vrt"
    numbers = ", ".join(str(number) for number in TRANSFORM.to_gdal())
    path.write_text(
        f'<VRTDataset rasterXSize="{WIDTH}" rasterYSize="{HEIGHT}"><SRS>EPSG:32721</SRS>'
        f"<GeoTransform>{numbers}</GeoTransform>{''.join(bands)}</VRTDataset>"
    )
    return str(path)


def mask_band(folder, values):
    path = write(folder / "scene.tif", values + 1, nodata=None)
    with rasterio.open(path, "r+") as dataset:
        dataset.write(values - 0)
        dataset.write_mask(values[0] != 0)
        assert MaskFlags.per_dataset in dataset.mask_flag_enums[0]
    return path


def alpha(folder, values):
    opaque = np.where(values[:1] != 0, np.iinfo(values.dtype).max, 0).astype(values.dtype)
    path = str(folder / "scene.tif")
    with rasterio.open(
        path, "w", driver="GTiff", count=4, height=HEIGHT, width=WIDTH, dtype=values.dtype, crs="EPSG:32721",
        transform=TRANSFORM,
    ) as dataset:  # fmt: skip
        dataset.colorinterp = [ColorInterp.gray, ColorInterp.undefined, ColorInterp.undefined, ColorInterp.alpha]
        dataset.write(np.concatenate([values, opaque]))
    return path


def scaled(folder, values):
    """Half the numbers' step: (2 v + 6) * 0.5 - 3 = v."""
    path = write(folder / "scene.tif", np.where(values == 0, 0, values * 2 + 6).astype(values.dtype))
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets = (0.5,) * 3, (-3.0,) * 3
    return path


def not_a_number(dtype):
    def make(folder, values):
        return write(folder / "scene.tif", np.where(values == 0, NAN, values).astype(dtype), nodata=None)

    return make


def typed(dtype):
    return lambda folder, values: write(folder / "scene.tif", values.astype(dtype))


WAYS = {
    "rows of one line": plain(blockysize=1),
    "one strip": plain(blockysize=HEIGHT),
    "tiles": plain(tiled=True, blockxsize=16, blockysize=32, compress="deflate"),
    "interleaved pixels": plain(interleave="pixel", compress="lzw", predictor=2),
    "sparse": plain(SPARSE_OK=True, tiled=True, blockxsize=16, blockysize=16),
    "JPEG 2000": jpeg2000,
    "mosaic": mosaic,
    "mask band": mask_band,
    "alpha": alpha,
    "scale and offset": scaled,
    "rotated": plain(transform=TRANSFORM * Affine.rotation(30)),
    "south up": plain(transform=Affine(10, 0, 5e5, 0, 10, 9e6)),
    "antimeridian": plain(crs="EPSG:4326", transform=Affine(0.01, 0, 179.6, 0, -0.01, -16)),
    "no CRS": plain(crs=None),
    "spaces and other letters": named("dossier é 日本/scène  n° 1.tif"),
    **{dtype: typed(dtype) for dtype in ("int8", "uint8", "int16", "uint32", "int32", "float32", "float64")},
    "float32 with NaN": not_a_number("float32"),
    "float64 with NaN": not_a_number("float64"),
}


@pytest.mark.parametrize("model", ["network", "forest"])
@pytest.mark.parametrize("way", WAYS)
def test_the_map_is_that_of_a_plain_geotiff(tmp_path, mapped, way, model):
    values = pixels()
    (tmp_path / "odd").mkdir()
    expected, _ = mapped(write(tmp_path / "plain.tif", values), model)
    path = WAYS[way](tmp_path / "odd", values)
    found, grid = mapped(path, model)
    assert (found == expected).all()
    assert len(np.unique(expected)) >= 3
    with rasterio.open(path) as dataset:
        assert grid == (dataset.transform, dataset.crs)


@pytest.mark.parametrize("model", ["network", "forest"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (40, 1), (2, 3)])
def test_single_rows_columns_and_pixels_are_mapped(tmp_path, mapped, height, width, model):
    values = pixels(height=height, width=width)
    values[values == 0] = 50
    found, _ = mapped(write(tmp_path / "scene.tif", values), model)
    assert found.shape == (height, width) and set(np.unique(found)) <= {3, 8, 11}
    # A pixel of its own has its own class, wherever it lies.
    if model == "forest":
        expected = np.where(values[0] > 40, 11, np.where(values[1] > 70, 8, 3))
        assert (found == expected).all()


@pytest.mark.parametrize("part", [0.5, 0.9])
def test_a_file_that_is_cut_short_is_refused_and_leaves_no_map(tmp_path, mapped, part):
    path = write(tmp_path / "scene.tif", pixels(), compress="deflate", blockysize=4)
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: int(len(content) * part)])
    with pytest.raises(BadInput, match=r"scene\.tif' (is damaged|cannot be read)"):
        mapped(path, "forest")
    assert not list(tmp_path.glob("map*.tif"))
