"""The files that a VRT reads, through VRTs within it: as GDAL names them, each once, and never an error."""

import os
import tracemalloc

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from deepscape.tasks import virtualrasters
from deepscape.tasks.virtualrasters import files_read_by
from rasterio.vrt import WarpedVRT

BAND = '<VRTRasterBand dataType="Byte" band="1">{}</VRTRasterBand>'
MOSAIC = f'<VRTDataset rasterXSize="3" rasterYSize="2">{BAND}</VRTDataset>'
SOURCE = '<SimpleSource><SourceFilename relativeToVRT="{}">{}</SourceFilename></SimpleSource>'


def mosaic(path, *sources, relative=1):
    path.write_text(MOSAIC.format("".join(SOURCE.format(relative, name) for name in sources)), encoding="utf-8")
    return str(path)


@pytest.fixture
def tif(tmp_path):
    """Returns a function that writes a raster and gives its path."""

    def write(name, crs=None):
        with rasterio.open(
            tmp_path / name, "w", driver="GTiff", width=3, height=2, count=1, dtype="uint8", crs=crs,
            transform=rasterio.Affine(10, 0, 5e5, 0, -10, 9e6),
        ) as dataset:  # fmt: skip
            dataset.write(np.ones((1, 2, 3), "uint8"))
        return str(tmp_path / name)

    return write


def test_sources_are_named_as_gdal_names_them(tif, tmp_path):
    tif("a & ü.tif")
    other = tif("b.tif")
    path = mosaic(tmp_path / "m.vrt", "a &amp; ü.tif", other, f"../{tmp_path.name}/b.tif", "b.tif", "a &amp; ü.tif")
    with rasterio.open(path) as dataset:
        assert [path, *files_read_by(path)] == dataset.files
    assert len(list(files_read_by(path))) == 3


def test_the_source_of_a_warped_raster(tif, tmp_path):
    source, path = tif("a.tif", "EPSG:32721"), str(tmp_path / "w.vrt")
    with rasterio.open(source) as dataset, WarpedVRT(dataset, crs="EPSG:4326") as warped:
        rasterio.shutil.copy(warped, path, driver="VRT")
    assert "<SourceDataset" in (tmp_path / "w.vrt").read_text()
    assert [os.path.realpath(name) for name in files_read_by(path)] == [os.path.realpath(source)]


def test_the_source_of_a_vector_layer(tmp_path):
    (tmp_path / "a.gpkg").write_bytes(b"")
    (tmp_path / "v.vrt").write_text(
        '<OGRVRTDataSource><OGRVRTLayer name="a"><SrcDataSource relativeToVRT="1">a.gpkg</SrcDataSource>'
        "</OGRVRTLayer></OGRVRTDataSource>"
    )
    assert list(files_read_by(str(tmp_path / "v.vrt"))) == [str(tmp_path / "a.gpkg")]


def test_rasters_within_rasters_by_their_content_too(tif, tmp_path):
    (tmp_path / "deep").mkdir()
    tif("deep/a.tif")
    mosaic(tmp_path / "deep" / "inner.tif", "a.tif")  # told by its content, as GDAL does
    mosaic(tmp_path / "middle.vrt", "deep/inner.tif")
    path = mosaic(tmp_path / "outer.vrt", str(tmp_path / "middle.vrt"), relative=0)
    assert list(files_read_by(path)) == [
        str(tmp_path / "middle.vrt"), str(tmp_path / "deep" / "inner.tif"), str(tmp_path / "deep" / "a.tif"),
    ]  # fmt: skip


def test_a_raster_that_reads_itself_ends(tif, tmp_path):
    tif("a.tif")
    (tmp_path / "sub").mkdir()
    mosaic(tmp_path / "one.vrt", "sub/../two.vrt")
    mosaic(tmp_path / "two.vrt", "one.vrt", "sub/../one.vrt", "a.tif")
    found = {os.path.realpath(name) for name in files_read_by(str(tmp_path / "one.vrt"))}
    assert found >= {str(tmp_path / "two.vrt"), str(tmp_path / "a.tif")}
    assert found <= {str(tmp_path / "two.vrt"), str(tmp_path / "a.tif"), str(tmp_path / "one.vrt")}


def test_names_follow_the_folder_of_the_file_that_a_link_points_to(tif, tmp_path):
    source = tif("a.tif")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "m.vrt").symlink_to(mosaic(tmp_path / "m.vrt", "a.tif"))
    with rasterio.open(tmp_path / "links" / "m.vrt") as dataset:
        assert dataset.read(1).all()
    assert [os.path.realpath(name) for name in files_read_by(str(tmp_path / "links" / "m.vrt"))] == [source]


def test_what_is_no_plain_file_is_left_out(tif, tmp_path):
    names = [
        "/vsizip/a.zip/a.tif", "/vsicurl/https://example.org/a.tif", "https://example.org/a.tif", "NETCDF:a.nc:red",
        'GPKG:"a.gpkg":red', "PG:dbname='a'", "missing.tif", "", "deep", "&lt;VRTDataset/&gt;", "x" * 5000,
    ]  # fmt: skip
    (tmp_path / "deep").mkdir()
    tif("a.tif")
    for relative in (0, 1):
        path = mosaic(tmp_path / "m.vrt", *names, str(tmp_path / "a.tif"), relative=relative)
        assert list(files_read_by(path)) == [str(tmp_path / "a.tif")]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no XML",
        b"<VRTDataset>\xff\xfe\x00",
        (MOSAIC.format(SOURCE.format(1, "a.tif")))[:-20].replace("</SourceFilename>", "").encode(),
        MOSAIC.format(SOURCE.format(1, "a.tif<!-- a comment -->").replace('"1"', "1")).encode(),
        b'<!DOCTYPE x [<!ENTITY a "a.tif">]>' + MOSAIC.format(SOURCE.format(1, "&a;")).encode(),
    ],
)
def test_a_damaged_file_gives_nothing(tif, tmp_path, content):
    tif("a.tif")
    (tmp_path / "m.vrt").write_bytes(content)
    assert list(files_read_by(str(tmp_path / "m.vrt"))) == []


@pytest.mark.parametrize(
    ("declaration", "description"),
    [
        (b"", b"R&D"),
        (b"", "höhe".encode("latin-1")),
        (b"", b"&" + b" " * virtualrasters._BLOCK_BYTES),
        (b'<?xml version="1.0" encoding="none"?>', b""),
        (b'<?xml version="1.0" encoding="latin-1"?>', b""),
        (b'<!DOCTYPE x [<!ENTITY a "b">]>', b""),
    ],
)
@pytest.mark.parametrize(
    "element",
    [
        '<SourceFilename relativeToVRT="1">{}</SourceFilename>',
        '<SourceFilename\n shared=">" relativeToVRT = "1" >\n {}</SourceFilename >',
        "<SOURCEFILENAME RELATIVETOVRT='1'>{}</SOURCEFILENAME>",
        "<SourceFilename relativeToVRT=1>{}</SourceFilename>",
    ],
)
def test_what_gdal_reads_though_it_is_no_xml(tif, tmp_path, declaration, description, element):
    found = [tif("a & ü.tif"), tif("b.tif"), tif("c.tif")]
    names = element.format("a &amp; &#252;.tif"), element.format("<![CDATA[b.tif]]>")
    elements = [*names, f"<SourceFilename>{found[2]}</SourceFilename>"]
    sources = "".join(f"<SimpleSource>{text}</SimpleSource>" for text in elements)
    before, band, after = MOSAIC.format(sources).encode().partition(b"<VRTRasterBand")
    path = tmp_path / "m.vrt"
    path.write_bytes(declaration + before + b"<Description>" + description + b"</Description>" + band + after)
    with rasterio.open(path) as dataset:
        assert dataset.files == [str(path), *found] and dataset.read(1).all()
    assert list(files_read_by(str(path))) == found


def test_a_name_of_latin_1(tif, tmp_path):
    source = tif("höhe.tif")
    (tmp_path / "m.vrt").write_bytes(MOSAIC.format(SOURCE.format(1, "höhe.tif")).encode("latin-1"))
    assert list(files_read_by(str(tmp_path / "m.vrt"))) == [source]


def test_other_inputs_give_nothing(tif, tmp_path):
    text = MOSAIC.format(SOURCE.format(0, tif("a.tif")))
    for path in (tif("b.tif"), str(tmp_path), str(tmp_path / "missing.vrt"), "", text, "NETCDF:a.nc:red", "a\0.vrt"):
        assert list(files_read_by(path)) == []


@pytest.mark.parametrize("first", ["", "R&D"])
def test_a_mosaic_of_100_000_files_takes_no_memory(tif, tmp_path, first):
    tif("a.tif")
    path = mosaic(tmp_path / "m.vrt", first, *(f"missing {number}.tif" for number in range(100_000)), "a.tif")
    tracemalloc.start()
    found = list(files_read_by(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == [str(tmp_path / "a.tif")] and peak < 2 << 20
