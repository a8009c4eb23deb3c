"""Cutting a patch around every sample point into a patch dataset (OTBTF PatchesExtraction, done by window).

A patch of p pixels around pixel i covers ``[i - p // 2, i - p // 2 + p - 1]`` on each axis, for odd and even p. The
patches are read block by block of the scene, so that every part of it is read about once, and written in sample order.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import geopandas
import numpy as np
import numpy.typing as npt
import pandas
import rasterio
import shapely

from ..tasks.classtable import ClassEntry
from ..tasks.context import Context
from ..tasks.errors import BadInput
from ..tasks.jobs import ExtractPatches, PatchesResult, RasterSource
from .bandstatistics import scene_statistics
from .classes import FeatureClasses, feature_classes
from .crosswalks import read_crosswalk
from .datasets import (
    DESCRIPTION,
    FOOTPRINT_FIELDS,
    LABELS,
    PATCHES,
    DatasetBand,
    DatasetDescription,
    DatasetScene,
    DatasetSource,
    write_description,
)
from .rasters import Array, Grid, RasterReader, part_name, writing_error
from .vectors import Layer, on_grid, read_layer, vector_path, write_layer

OUTSIDE = "outside the raster"
OVER_THE_EDGE = "over the edge"
NO_DATA = "no-data"
SPLITS = ("train", "validation", "test")

# Values held at once while reading: about 40 MB of 4-byte bands with their masks, and as much again as patches.
_BLOCK_VALUES = 8_000_000


@dataclass(frozen=True)
class Candidates:
    """The samples of a run, in their order; arrays ``(N,)``."""

    rows: npt.NDArray[np.int64]
    cols: npt.NDArray[np.int64]
    class_ids: npt.NDArray[np.int64]
    splits: npt.NDArray[Any]
    groups: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)


def footprint_starts(pixels: npt.NDArray[np.int64], patch_size: int) -> npt.NDArray[np.int64]:
    """Return the first row (or column) of the patches around these rows (or columns)."""
    return pixels - patch_size // 2


def extract_patches(job: ExtractPatches, context: Context) -> PatchesResult:
    """Cut a patch around every sample and write them as a patch dataset.

    Raises:
        BadInput: the samples are no points, no patch is accepted (the reasons are counted), the output folder holds
            something else, or an input cannot be read.
        DiskFull: no room left.
    """
    output = _checked_target(job.output)
    footprints = vector_path(job.footprints) if job.footprints else ""
    with RasterReader(job.source) as reader:
        _check_size(job, reader, context)
        samples = on_grid(_points(read_layer(job.samples, context), context), reader.grid, reader.name, context)
        crosswalk = read_crosswalk(job.crosswalk)
        classes = feature_classes(samples, job.field, context, job.legend, job.classes, crosswalk)
        candidates = _candidates(samples, classes, reader.grid, context)
        scales, offsets = _scaling(job, reader)
        part = Path(part_name(str(output)))
        try:
            part.mkdir()
            reasons = _place(candidates, reader.grid, job)
            if np.all(reasons != ""):
                raise _nothing_accepted(reasons, job, reader)
            raw_path = part / "candidates.raw"
            numbers, dtype = _read_patches(job, reader, candidates, reasons, raw_path, context)
            accepted = np.flatnonzero(reasons == "")
            if len(accepted) == 0:
                raise _nothing_accepted(reasons, job, reader)
            _write_stack(part / "source1.tif", raw_path, accepted, job.patch_size, len(reader.bands), dtype, numbers)
            os.remove(raw_path)
            _write_labels(part / LABELS, candidates.class_ids[accepted])
            table = _table_of(classes, candidates.class_ids[accepted])
            frame = _footprint_frame(candidates, reasons, classes, reader.grid, job.patch_size)
            write_layer(frame, str(part / PATCHES), "Polygon", reader.grid.crs, context)
            bands = _bands(job, reader, scales, offsets, numbers, context)
            counts = _counts(candidates.class_ids[accepted])
            description = _description(job, reader, bands, str(dtype), table, counts)
            write_description(str(part), description)
            if footprints:
                write_layer(frame, footprints, "Polygon", reader.grid.crs, context)
            _put_in_place(part, output)
        except OSError as error:
            raise writing_error(str(output), error) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
    rejected = len(candidates) - len(accepted)
    _report(reasons, len(accepted), context)
    return PatchesResult(
        str(output), footprints, len(accepted), rejected, counts, table, warnings=tuple(context.warnings)
    )


# --- what is asked for -----------------------------------------------------------------------------------------------


def _checked_target(path: str) -> Path:
    """Return the output folder, after a check that writing it will not remove anything but a patch dataset."""
    output = Path(path)
    if not output.parent.is_dir():
        raise BadInput(f"The folder '{output.parent}' does not exist.", "Create it or choose another.")
    if output.is_dir():
        names = {entry.name for entry in output.iterdir()}
        own = {name for name in names if _belongs_to_dataset(name)}
        if names and (DESCRIPTION not in names or names != own):
            other = sorted(names - own) or sorted(names)
            raise BadInput(
                f"The output folder '{output}' already holds other files ('{other[0]}').",
                "Choose a new or an empty folder, or a patch dataset to be replaced.",
            )
    elif output.exists():
        raise BadInput(f"'{output}' is a file, not a folder.", "Choose a folder for the patch dataset.")
    return output


def _belongs_to_dataset(name: str) -> bool:
    own = (DESCRIPTION, LABELS, PATCHES)
    return any(name == known or name.startswith(f"{known}.") or name.startswith(f"{known}-") for known in own) or (
        name.startswith("source") and ".tif" in name
    )


def _check_size(job: ExtractPatches, reader: RasterReader, context: Context) -> None:
    grid, size = reader.grid, job.patch_size
    if size <= grid.width and size <= grid.height:
        return
    message = f"A patch of {size} x {size} pixels is larger than '{reader.name}' ({grid.width} x {grid.height})."
    if job.edge == "reject":
        raise BadInput(message, "Choose a smaller PATCH_SIZE, or EDGE reflect.")
    context.warn(f"{message} What lies beyond is the same pixels mirrored: a smaller PATCH_SIZE tells as much.")


def _scaling(job: ExtractPatches, reader: RasterReader) -> Tuple[Array, Array]:
    """Return scale and offset of every band ``(C,)``: the user's, else the file's own."""
    scales = np.array([band.scale if job.scale is None else job.scale for band in reader.bands], dtype=np.float64)
    offsets = np.array([band.offset if job.offset is None else job.offset for band in reader.bands], dtype=np.float64)
    return scales, offsets


def _points(layer: Layer, context: Context) -> Layer:
    """Return the layer with single points (a multipoint gives one sample for each of its points)."""
    kinds = set(layer.frame.geom_type)
    if not kinds <= {"Point", "MultiPoint"}:
        raise BadInput(
            f"The samples '{layer.name}' are {sorted(kinds - {'Point', 'MultiPoint'})[0]} features, not points.",
            "Run 'Select samples from vector' (selectvectorsamples) on them first and give its points.",
        )
    return replace(layer, frame=layer.frame.explode(index_parts=False)) if "MultiPoint" in kinds else layer


def _candidates(layer: Layer, classes: FeatureClasses, grid: Grid, context: Context) -> Candidates:
    frame = layer.frame[classes.known]
    points = np.asarray(frame.geometry.values, dtype=object)
    rows, cols = grid.pixels_of(shapely.get_x(points), shapely.get_y(points))
    groups = np.full(len(frame), -1, dtype=np.int64)
    names = {name.lower(): name for name in layer.fields}
    if "originfid" in names and pandas.api.types.is_numeric_dtype(frame[names["originfid"]]):
        groups = frame[names["originfid"]].fillna(-1).to_numpy(dtype=np.int64)
    splits = np.full(len(frame), "", dtype=object)
    if "split" in names:
        texts = frame[names["split"]].astype(object)
        splits = texts.where(texts.notna(), "").astype(str).to_numpy(dtype=object)
        foreign = sorted(set(splits) - {*SPLITS, ""})
        if foreign:
            context.warn(
                f"The field '{names['split']}' of '{layer.name}' holds '{foreign[0]}', which is none of "
                f"{', '.join(SPLITS)}; such samples belong to no part."
            )
            splits[~np.isin(splits, SPLITS)] = ""
    return Candidates(rows, cols, classes.ids[classes.known], splits, groups)


def _place(candidates: Candidates, grid: Grid, job: ExtractPatches) -> npt.NDArray[Any]:
    """Return the reason to reject each candidate by its place, or "", ``(N,)``."""
    reasons = np.full(len(candidates), "", dtype=object)
    if job.edge == "reject":
        for pixels, length in ((candidates.rows, grid.height), (candidates.cols, grid.width)):
            start = footprint_starts(pixels, job.patch_size)
            reasons[(start < 0) | (start + job.patch_size > length)] = OVER_THE_EDGE
    outside = (candidates.rows < 0) | (candidates.rows >= grid.height)
    outside |= (candidates.cols < 0) | (candidates.cols >= grid.width)
    reasons[outside] = OUTSIDE
    return reasons


def _nothing_accepted(reasons: npt.NDArray[Any], job: ExtractPatches, reader: RasterReader) -> BadInput:
    counted = Counter(reasons)
    text = ", ".join(f"{count} {reason}" for reason, count in counted.most_common())
    remedies = {
        OUTSIDE: f"Check that the samples and '{reader.name}' cover the same place and that the CRS of both is right.",
        OVER_THE_EDGE: "Choose a smaller PATCH_SIZE, or EDGE reflect.",
        NO_DATA: "Check NODATA and NODATA_RULE, or allow a share of no-data with MAX_NODATA.",
    }
    return BadInput(f"No patch is accepted: {text}.", remedies[counted.most_common(1)[0][0]])


def _report(reasons: npt.NDArray[Any], accepted: int, context: Context) -> None:
    counted = Counter(reason for reason in reasons if reason)
    context.log(f"{accepted} patches accepted, {sum(counted.values())} rejected.")
    if counted:
        text = ", ".join(f"{count} {reason}" for reason, count in counted.most_common())
        context.warn(f"{sum(counted.values())} of {len(reasons)} samples were rejected: {text}.")


# --- reading ---------------------------------------------------------------------------------------------------------


def _read_patches(
    job: ExtractPatches, reader: RasterReader, candidates: Candidates, reasons: npt.NDArray[Any], path: Path,
    context: Context,
) -> Tuple[List[Optional[float]], np.dtype[Any]]:  # fmt: skip
    """Read the patches of all candidates without a reason yet into a raw file, candidate i at place i.

    Patches are ``(p, p, C)`` there. Those with too much no-data get their reason.

    Returns:
        The no-data number of every band that marks all that is missing in the stack, and the stack's data type.
    """
    size, bands = job.patch_size, len(reader.bands)
    dtype = np.dtype(reader.dtype)
    numbers = _missing_numbers(job, reader)
    patch_bytes = size * size * bands * dtype.itemsize
    done, total = 0, int(np.count_nonzero(reasons == ""))
    with open(path, "wb") as file:
        for members, raw, valid in _blocks(job, reader, candidates, np.flatnonzero(reasons == "")):
            context.check()
            # Patches of one block, (n, p, p, C) and whether all bands are valid, (n, p, p).
            whole: Array = np.asarray(valid.all(axis=3))
            share: Array = 1.0 - np.asarray(whole.mean(axis=(1, 2)))
            centre_valid = whole[:, size // 2, size // 2]
            # Rounding of the share must not refuse a patch that has just MAX_NODATA.
            refused = (share > job.max_nodata + 1e-9) | ~centre_valid
            reasons[members[refused]] = NO_DATA
            for index in np.flatnonzero(~refused):
                patch = raw[index]
                if share[index] > 0:
                    patch = _marked(patch, valid[index], numbers, job.nodata_rule)
                file.seek(int(members[index]) * patch_bytes)
                file.write(np.ascontiguousarray(patch).tobytes())
            done += len(members)
            context.progress(done, total, "Extracting patches", "patches")
    return numbers, dtype


def _missing_numbers(job: ExtractPatches, reader: RasterReader) -> List[Optional[float]]:
    """Return the no-data number of every band.

    Where patches may hold some no-data (MAX_NODATA) and a whole-number band knows it by a mask only, the stack needs a
    number for it: the lowest of the type for signed ones, the highest for unsigned ones (0 is a common dark value).
    """
    numbers: List[Optional[float]] = []
    for band in reader.bands:
        number = band.nodata
        if number is None and job.max_nodata > 0 and (reader.masked or np.dtype(reader.dtype).kind == "f"):
            kind = np.dtype(reader.dtype).kind
            limits = None if kind == "f" else np.iinfo(reader.dtype)
            number = float("nan") if limits is None else float(limits.max if kind == "u" else limits.min)
        numbers.append(number)
    return numbers


def _marked(patch: Array, valid: Array, numbers: Sequence[Optional[float]], rule: str) -> Array:
    """Return a patch ``(p, p, C)`` whose missing values all hold their band's no-data number."""
    missing = ~valid
    if rule == "all":
        missing = np.broadcast_to(missing.any(axis=2, keepdims=True), missing.shape)
    if patch.dtype.kind == "f":
        # NaN is understood whatever the number is; it stays as it was read.
        missing = missing & ~np.isnan(patch)
    fill = np.array([0 if number is None else number for number in numbers]).astype(patch.dtype)
    return np.where(missing, fill, patch)


def _blocks(
    job: ExtractPatches, reader: RasterReader, candidates: Candidates, members: npt.NDArray[np.int64]
) -> Iterator[Tuple[npt.NDArray[np.int64], Array, Array]]:
    """Yield patches block by block of the scene: members, values ``(n, p, p, C)``, validity of the same shape."""
    size, grid, bands = job.patch_size, reader.grid, len(reader.bands)
    rows = footprint_starts(candidates.rows, size)
    cols = footprint_starts(candidates.cols, size)
    side = max(size, int((_BLOCK_VALUES / bands) ** 0.5) - size)
    # Rows of a striped file are stored whole: reading it in columns would decode each of them several times.
    across = grid.width + 2 * size if reader.striped and grid.width + size <= _BLOCK_VALUES // (bands * size) else side
    down = max(size, _BLOCK_VALUES // (bands * (min(across, grid.width) + size)) - size)
    tile_of = (rows + size) // down * (grid.width // across + 3) + (cols + size) // across
    order = members[np.lexsort((cols[members], rows[members], tile_of[members]))]
    borders = np.flatnonzero(np.diff(tile_of[order])) + 1
    most = max(1, _BLOCK_VALUES // (bands * size * size))
    for tile in np.split(order, borders):
        top, left = int(rows[tile].min()), int(cols[tile].min())
        height, width = int(rows[tile].max()) + size - top, int(cols[tile].max()) + size - left
        # Few samples in a large block: reading each for itself touches less of the file.
        dense = len(tile) * size * size * 64 >= height * width
        if dense:
            raw, valid = reader.read(top, left, height, width, job.nodata_rule)
        step = most if dense else min(most, 32)
        for start in range(0, len(tile), step):
            some = tile[start : start + step]
            if dense:
                values, valids = _cut(raw, valid, rows[some] - top, cols[some] - left, size)
            else:
                windows = [(int(row), int(col), size, size) for row, col in zip(rows[some], cols[some])]
                read = [reader.read(*window, job.nodata_rule) for window in windows]
                values = np.stack([pair[0] for pair in read]).transpose(0, 2, 3, 1)
                valids = np.stack([pair[1] for pair in read]).transpose(0, 2, 3, 1)
            yield some, values, valids


def _cut(raw: Array, valid: Array, rows: Array, cols: Array, size: int) -> Tuple[Array, Array]:
    """Return the patches at these places of a block ``(C, H, W)`` as ``(n, p, p, C)``, with their validity."""
    views = (np.lib.stride_tricks.sliding_window_view(part, (size, size), axis=(1, 2)) for part in (raw, valid))
    values, valids = (view[:, rows, cols].transpose(1, 2, 3, 0) for view in views)
    return np.asarray(values), np.asarray(valids)


# --- writing ---------------------------------------------------------------------------------------------------------


def _write_stack(
    path: Path, raw_path: Path, accepted: npt.NDArray[np.int64], size: int, bands: int, dtype: np.dtype[Any],
    numbers: Sequence[Optional[float]],
) -> None:  # fmt: skip
    """Write the accepted patches top to bottom into one uncompressed, pixel-interleaved GeoTIFF.

    GDAL lays the empty file out in one run of strips, which are then filled in place: through its block cache the
    strips could land in any order, and the dataset could not be mapped into memory as one array.
    """
    count = len(accepted)
    # GDAL refuses a number that the type cannot hold (-9999 for bytes); no pixel can have it either.
    common = numbers[0] if len({repr(n) for n in numbers}) == 1 else None
    number = common if common is not None and rasterio.dtypes.in_dtype_range(common, str(dtype)) else None
    with rasterio.open(
        path, "w", driver="GTiff", width=size, height=count * size, count=bands, dtype=dtype, nodata=number,
        interleave="pixel", compress=None, tiled=False, blockysize=size, BIGTIFF="IF_SAFER", photometric="minisblack",
    ):  # fmt: skip
        pass
    patch_bytes = size * size * bands * dtype.itemsize
    with rasterio.open(path) as dataset:
        begin = int(dataset.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1))
        last = int(dataset.get_tag_item(f"BLOCK_OFFSET_0_{count - 1}", "TIFF", bidx=1))
    if last - begin != (count - 1) * patch_bytes:
        raise RuntimeError(f"GDAL laid {path} out in pieces: {begin}, {last}, {count} strips of {patch_bytes} bytes")
    with open(raw_path, "rb") as source, open(path, "r+b") as target:
        target.seek(begin)
        for index in accepted:
            source.seek(int(index) * patch_bytes)
            target.write(source.read(patch_bytes))


def _write_labels(path: Path, class_ids: npt.NDArray[np.int64]) -> None:
    # 64-bit integers in GeoTIFF are not read by the GDAL of older QGIS versions.
    fits = (t for t in ("uint8", "int16", "int32") if np.array_equal(class_ids.astype(t), class_ids))
    dtype = next(fits, "int64")
    with rasterio.open(
        path, "w", driver="GTiff", width=1, height=len(class_ids), count=1, dtype=dtype, compress="deflate"
    ) as dataset:
        dataset.write(class_ids.astype(dtype).reshape(1, -1, 1))


def _footprint_frame(
    candidates: Candidates, reasons: npt.NDArray[Any], classes: FeatureClasses, grid: Grid, size: int
) -> geopandas.GeoDataFrame:
    top, left = footprint_starts(candidates.rows, size), footprint_starts(candidates.cols, size)
    corners = [(0, 0), (0, size), (size, size), (size, 0), (0, 0)]
    rings = np.stack(
        [np.stack(grid.corners_of(top + down, left + right), axis=1) for down, right in corners], axis=1
    )  # (N, 5, 2)
    accepted = reasons == ""
    names = classes.name_of()
    values: Dict[str, Any] = {
        "patch": np.where(accepted, np.cumsum(accepted) - 1, -1),
        "class_id": candidates.class_ids,
        "class_name": np.array([names[int(value)] for value in candidates.class_ids], dtype=object),
        "split": candidates.splits,
        "accepted": accepted,
        "reason": reasons,
        "row": candidates.rows,
        "col": candidates.cols,
        "originfid": candidates.groups,
    }
    return geopandas.GeoDataFrame({name: values[name] for name in FOOTPRINT_FIELDS}, geometry=shapely.polygons(rings))


def _bands(
    job: ExtractPatches, reader: RasterReader, scales: Array, offsets: Array, numbers: Sequence[Optional[float]],
    context: Context,
) -> Tuple[DatasetBand, ...]:  # fmt: skip
    scene = scene_statistics(reader, list(scales), list(offsets), job.nodata_rule, context.check)
    explicit = job.scale is not None or job.offset is not None
    return tuple(
        DatasetBand(
            name=band.name,
            nodata=numbers[index],
            scale=float(scales[index]),
            offset=float(offsets[index]),
            explicit=explicit,
            scene_mean=float(scene.mean[index]),
            scene_std=float(scene.std[index]),
        )
        for index, band in enumerate(reader.bands)
    )


def _description(
    job: ExtractPatches, reader: RasterReader, bands: Tuple[DatasetBand, ...], dtype: str,
    table: Tuple[ClassEntry, ...], counts: Dict[str, int],
) -> DatasetDescription:  # fmt: skip
    grid = reader.grid
    scene = DatasetScene(
        label=reader.name,
        path=_absolute(job.source),
        crs="" if grid.crs is None else grid.crs.to_wkt(),
        transform=tuple(float(value) for value in grid.transform[:6]),
        width=grid.width,
        height=grid.height,
        res_m=grid.pixel_metres(),
    )
    source = DatasetSource("source1.tif", job.patch_size, dtype, bands, job.nodata_rule)
    versions = {"gdal": rasterio.__gdal_version__, "numpy": np.__version__, "rasterio": rasterio.__version__}
    return DatasetDescription((source,), table, scene, sum(counts.values()), counts, job.edge, versions)


def _absolute(source: RasterSource) -> str:
    # A GDAL data source name ("NETCDF:file:band") is no path.
    return os.path.abspath(source.path) if Path(source.path).exists() else source.path


def _table_of(classes: FeatureClasses, accepted: npt.NDArray[np.int64]) -> Tuple[ClassEntry, ...]:
    present = set(np.unique(accepted).tolist())
    return tuple(entry for entry in classes.classes if entry.value in present)


def _counts(class_ids: npt.NDArray[np.int64]) -> Dict[str, int]:
    values, counts = np.unique(class_ids, return_counts=True)
    return {str(value): int(count) for value, count in zip(values, counts)}


def _put_in_place(part: Path, output: Path) -> None:
    """Give the complete folder its name; the dataset that had it goes, once the new one stands."""
    old = Path(part_name(str(output)))
    if output.exists():
        os.replace(output, old)
    try:
        os.replace(part, output)
    except OSError:
        if old.exists():
            with contextlib.suppress(OSError):
                os.replace(old, output)
        raise
    shutil.rmtree(old, ignore_errors=True)
