"""Patch images of the Orfeo ToolBox's TensorFlow remote module: what they hold becomes a patch dataset, and back.

A patch image is a multiband raster as wide as a patch, in which n patches lie top to bottom; its labels are an image of
1 x n pixels (one class per patch), or one of the patches' own size (one class per pixel). Neither has a georeference:
where imported patches lie is not known, so their scene has no path and their rows and columns are -1.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import geopandas
import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.windows import Window

from ..tasks.classtable import ClassEntry, resolve
from ..tasks.context import Context
from ..tasks.errors import BadInput
from ..tasks.jobs import ExportPatches, ExportPatchesResult, ImportPatches, PatchesResult, RasterSource
from .bandnames import band_names
from .datasets import (
    FOOTPRINT_FIELDS,
    LABELS,
    PATCHES,
    DatasetBand,
    DatasetDescription,
    DatasetScene,
    DatasetSource,
    PatchDataset,
    library_versions,
    write_description,
)
from .folders import filled_folder
from .legends import read_map_legend
from .outputfiles import part_name, writing_error
from .patchwriting import StackWriter, checked_target, put_in_place, write_labels
from .rasters import Array, BandInfo, RasterReader, reading
from .textfiles import csv_text, write_text
from .vectors import write_layer

Numbers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

NO_PLACE = -1  # row and column of a patch whose place is not known
CLASS_LIST = "labels.csv"
_CHUNK_VALUES = 8_000_000
_NOT_LABELLED = "not labelled"


# --- import ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Labels:
    """The labels of an import.

    Attributes:
        dense: one class per pixel.
        class_ids: class of every patch, of most of its labelled pixels where they are dense, ``(N,)``; -1 without.
        labelled: whether the patch has a class at all, bool ``(N,)``.
        counts: class value -> patches, or labelled pixels.
        nodata: value of the pixels to ignore in dense labels.
    """

    dense: bool
    class_ids: Numbers
    labelled: Mask
    counts: Dict[int, int]
    nodata: Optional[int]


def import_patches(job: ImportPatches, context: Context) -> PatchesResult:
    """Turn patch images and their labels into a patch dataset; patches without a label are left out.

    Raises:
        BadInput: an image does not hold whole square patches, the labels or further images hold another number of them,
            the output folder holds something else, or an input cannot be read.
        DiskFull: no room left.
    """
    output = checked_target(job.output)
    part = Path(part_name(str(output)))
    try:
        part.mkdir()
        with reading(replace(job.labels, bands=job.labels.bands[:1] or (1,))) as reader:
            size, count = _measured(job, context)
            labels = _read_labels(reader, size, count, context)
            accepted = np.flatnonzero(labels.labelled)
            if len(accepted) == 0:
                raise BadInput(f"LABELS '{reader.name}' labels no patch.", "Check its no-data value.")
            if labels.dense:
                _write_dense_labels(part, reader, labels, size, context)
            else:
                write_labels(part / LABELS, labels.class_ids[accepted])
        own = job.legend.layer_classes + read_map_legend(job.labels.path)
        table = resolve(labels.counts, replace(job.legend, layer_classes=own))
        sources = tuple(
            _copy_source(part, job, number, labels.labelled, context) for number in range(1, len(_sources(job)) + 1)
        )
        frame = _frame(labels, table, job.split, len(sources))
        write_layer(frame, str(part / PATCHES), "Polygon", None, context)
        counts = {str(value): number for value, number in sorted(labels.counts.items())}
        write_description(str(part), _description(job, sources, table, len(accepted), counts, labels))
        put_in_place(part, output)
    except OSError as error:
        raise writing_error(str(output), error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    rejected = count - len(accepted)
    if rejected:
        context.warn(f"{rejected} of {count} patches have no label and are left out.")
    context.log(f"{len(accepted)} patches of {size} x {size} pixels imported; where they lie is not known.")
    return PatchesResult(
        output=str(output), footprints="", accepted=len(accepted), rejected=rejected, counts=counts, classes=table,
        warnings=tuple(context.warnings),
    )  # fmt: skip


def _measured(job: ImportPatches, context: Context) -> Tuple[int, int]:
    """Return the size of the first image's patches and their number, after a check of all images."""
    found: List[Tuple[int, int]] = []
    for number, source in enumerate(_sources(job), start=1):
        context.check()
        name = "INPUT" if number == 1 else f"INPUT{number}"
        with reading(source) as reader:
            width, height, label = reader.grid.width, reader.grid.height, reader.name
        if number == 1 and job.patch_size not in (None, width):
            raise BadInput(
                f"PATCH_SIZE is {job.patch_size}, but INPUT '{label}' is {width} pixels wide.",
                "Leave PATCH_SIZE unset: a patch image is as wide as its patches.",
            )
        if height % width:
            raise BadInput(
                f"{name} '{label}' ({width} x {height} pixels) does not hold whole square patches: {height} is no "
                f"multiple of {width}.",
                "Choose an image in which square patches, as wide as it, lie top to bottom.",
            )
        found.append((width, height // width))
        if found[-1][1] != found[0][1]:
            raise BadInput(
                f"{name} '{label}' holds {found[-1][1]} patches, INPUT holds {found[0][1]}.",
                "All images of a dataset hold the same places in the same order.",
            )
    return found[0]


def _read_labels(reader: RasterReader, size: int, count: int, context: Context) -> _Labels:
    shape = reader.grid.width, reader.grid.height
    if shape == (1, count):
        values, valid = reader.read(0, 0, count, 1)
        class_ids, labelled = _whole(values[0, :, 0], valid[0, :, 0], reader.name), np.asarray(valid[0, :, 0])
        ids, numbers = np.unique(class_ids[labelled], return_counts=True)
        return _Labels(False, class_ids, labelled, dict(zip(ids.tolist(), numbers.tolist())), None)
    if shape != (size, size * count):
        raise BadInput(
            f"LABELS '{reader.name}' is {shape[0]} x {shape[1]} pixels large, which fits neither one class per patch "
            f"(1 x {count}) nor one per pixel ({size} x {size * count}).",
            "Choose the labels that were written with INPUT.",
        )
    class_ids = np.full(count, -1, dtype=np.int64)
    counts: Dict[int, int] = {}
    for start, values, valid in _stacked(reader, size, count, context, "Reading labels"):
        ids = _whole(values, valid, reader.name)
        for place in range(len(ids)):
            found, numbers = np.unique(ids[place][valid[place]], return_counts=True)
            if len(found):
                class_ids[start + place] = found[np.argmax(numbers)]
            for value, number in zip(found.tolist(), numbers.tolist()):
                counts[value] = counts.get(value, 0) + number
    nodata = reader.bands[0].nodata
    known = nodata is not None and np.isfinite(nodata) and int(nodata) == nodata
    number = int(nodata) if known and nodata is not None else None
    labelled = np.ones(count, bool) if counts else np.zeros(count, bool)
    return _Labels(True, class_ids, labelled, counts, number)


def _whole(values: Array, valid: Array, name: str) -> Numbers:
    """Return labels as whole numbers; what is not valid counts for nothing."""
    ids: Numbers = np.where(valid, values, 0).astype(np.int64)
    if values.dtype.kind == "f" and np.any(ids[valid] != values[valid]):
        value = values[valid][ids[valid] != values[valid]].flat[0]
        raise BadInput(
            f"LABELS '{name}' holds {value:g}.", "Classes are whole numbers; choose the image of the labels."
        )
    return ids


def _stacked(
    reader: RasterReader, size: int, count: int, context: Context, stage: str
) -> Iterator[Tuple[int, Array, Array]]:
    """Yield the number of a first patch, and of it and some that follow values and validity, ``(n, p, p, C)``."""
    bands = len(reader.bands)
    step = max(1, _CHUNK_VALUES // (bands * size * size))
    for start in range(0, count, step):
        context.check()
        number = min(step, count - start)
        raw, valid = reader.read(start * size, 0, number * size, size)
        shape = number, size, size, bands
        yield start, raw.transpose(1, 2, 0).reshape(shape), valid.transpose(1, 2, 0).reshape(shape)
        context.progress(start + number, count, stage, "patches")


def _write_dense_labels(part: Path, reader: RasterReader, labels: _Labels, size: int, context: Context) -> None:
    kind = np.dtype(reader.dtype)
    dtype = kind if kind.kind in "iu" else np.dtype(np.int32)
    fill = 0 if labels.nodata is None else labels.nodata
    with StackWriter(part / LABELS, len(labels.class_ids), size, 1, dtype, [labels.nodata]) as stack:
        for start, values, valid in _stacked(reader, size, len(labels.class_ids), context, "Copying labels"):
            stack.write(np.arange(start, start + len(values)), np.where(valid, values, fill).astype(dtype))


def _copy_source(part: Path, job: ImportPatches, number: int, labelled: Mask, context: Context) -> DatasetSource:
    """Copy a patch image into the layout that datasets are mapped from, and describe it."""
    file = f"source{number}.tif"
    slots = np.cumsum(labelled) - 1
    with reading(_sources(job)[number - 1], scale=job.scale, offset=job.offset) as reader:
        size, dtype = reader.grid.width, np.dtype(reader.dtype)
        numbers = [_missing_number(band, dtype, reader.masked) for band in reader.bands]
        fill = np.array([0 if value is None else value for value in numbers])
        with StackWriter(part / file, int(labelled.sum()), size, len(numbers), dtype, numbers) as stack:
            for start, values, valid in _stacked(reader, size, len(labelled), context, f"Copying image {number}"):
                if reader.masked:
                    values = np.where(valid, values, fill)
                kept = np.flatnonzero(labelled[start : start + len(values)])
                stack.write(slots[start + kept], values[kept].astype(dtype))
        bands = tuple(
            DatasetBand(
                name=name,
                nodata=value,
                scale=float(band.scale),
                offset=float(band.offset),
                explicit=job.scale is not None or job.offset is not None,
                # Patches are chosen by class: their mean says nothing of the scene's.
                scene_mean=float("nan"),
                scene_std=float("nan"),
            )
            for band, name, value in zip(reader.bands, band_names(reader.bands), numbers)
        )
        scene = _nowhere(reader.name)
    return DatasetSource(file, size, str(dtype), bands, scene=scene if number > 1 else None)


def _sources(job: ImportPatches) -> Tuple[RasterSource, ...]:
    return (job.source, *job.more_sources)


def _missing_number(band: BandInfo, dtype: np.dtype[Any], masked: bool) -> Optional[float]:
    """Return the number that marks no-data in a band's stack; one is found where only a mask tells it."""
    if not masked or (band.nodata is not None and rasterio.dtypes.in_dtype_range(band.nodata, str(dtype))):
        return band.nodata
    if dtype.kind == "f":
        return float("nan")
    limits = np.iinfo(dtype)
    return float(limits.max if dtype.kind == "u" else limits.min)


def _nowhere(name: str) -> DatasetScene:
    """Return the scene of patches whose place is not known: it has no path."""
    return DatasetScene(name, "", "", (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), 0, 0, None)


def _frame(labels: _Labels, table: Sequence[ClassEntry], split: str, sources: int) -> geopandas.GeoDataFrame:
    """Return the list of patches; without geometry, as nobody knows where they lie."""
    count, kept = len(labels.class_ids), labels.labelled
    names = {entry.value: entry.name for entry in table}
    values: Dict[str, Any] = {
        "patch": np.where(kept, np.cumsum(kept) - 1, -1),
        "class_id": np.where(kept, labels.class_ids, -1),
        "class_name": np.array([names.get(int(value), "") for value in labels.class_ids], dtype=object),
        "split": np.full(count, "" if split == "none" else split, dtype=object),
        "accepted": kept,
        "reason": np.where(kept, "", _NOT_LABELLED).astype(object),
        "row": np.full(count, NO_PLACE),
        "col": np.full(count, NO_PLACE),
        "originfid": np.full(count, -1),
    }
    columns = {name: values[name] for name in FOOTPRINT_FIELDS}
    for number in range(2, sources + 1):
        columns.update({f"{axis}{number}": np.full(count, NO_PLACE) for axis in ("row", "col")})
    return geopandas.GeoDataFrame(columns, geometry=[None] * count)


def _description(
    job: ImportPatches, sources: Tuple[DatasetSource, ...], table: Tuple[ClassEntry, ...], count: int,
    counts: Dict[str, int], labels: _Labels,
) -> DatasetDescription:  # fmt: skip
    return DatasetDescription(
        sources=sources,
        classes=table,
        scene=_nowhere(job.source.label or Path(job.source.path).name),
        patch_count=count,
        counts=counts,
        versions=library_versions(),
        targets="dense" if labels.dense else "patch",
        label_nodata=labels.nodata,
    )


# --- export ----------------------------------------------------------------------------------------------------------


def export_patches(job: ExportPatches, context: Context) -> ExportPatchesResult:
    """Write patches and labels as images: patches_source1.tif, ..., labels.tif, and the classes as labels.csv.

    Raises:
        BadInput: the dataset cannot be read or has no patch of the split, or the folder is a patch dataset itself,
            holds images of further sources, or cannot be written.
        DiskFull: no room left.
    """
    dataset = PatchDataset(job.dataset)
    if (Path(job.output_folder) / "dataset.json").exists():
        raise BadInput(
            f"'{job.output_folder}' is a patch dataset, whose {LABELS} would be overwritten.", "Choose another folder."
        )
    description = dataset.description
    _refuse_further_images(job.output_folder, len(description.sources))
    chosen = np.flatnonzero(dataset.splits == job.split) if job.split != "all" else np.arange(len(dataset))
    if len(chosen) == 0:
        raise BadInput(
            f"No patch of '{dataset.folder}' has the 'split' value {job.split}.", "Choose another SPLIT, or all."
        )
    classes = description.classes
    if job.renumber:
        classes = tuple(ClassEntry(number, entry.name, entry.colour) for number, entry in enumerate(classes))
    with filled_folder(job.output_folder) as folder:
        for number, source in enumerate(description.sources):
            _write_image(Path(folder) / _image_name(number), dataset, number, source, chosen, context)
        _write_label_image(Path(folder) / LABELS, dataset, classes, chosen, context)
        _write_class_list(Path(folder) / CLASS_LIST, classes, description.classes)
    # Of all classes, also where the split lacks some: the parts of a dataset must be numbered alike.
    numbers = {entry.value: new.value for entry, new in zip(description.classes, classes)}
    values, counts = np.unique(dataset.labels[chosen], return_counts=True)
    named = {str(numbers[int(v)]): int(n) for v, n in zip(values, counts) if int(v) in numbers}
    context.log(f"{len(chosen)} patches exported.")
    return ExportPatchesResult(job.output_folder, len(chosen), named, classes, tuple(context.warnings))


def _image_name(number: int) -> str:
    return f"patches_source{number + 1}.tif"


def _refuse_further_images(folder: str, sources: int) -> None:
    """Refuse a folder in which images of an earlier export would stay beside labels that are not theirs."""
    if (Path(folder) / _image_name(sources)).exists():
        raise BadInput(
            f"'{folder}' holds '{_image_name(sources)}' of an earlier export, and the dataset has {sources} "
            f"source{'s' if sources > 1 else ''} only: it would not belong to the new labels.",
            "Remove that export or choose another folder.",
        )


def _write_image(
    path: Path, dataset: PatchDataset, number: int, source: DatasetSource, chosen: Numbers, context: Context
) -> None:
    stack = dataset.patches(number)
    known = [band.nodata for band in source.bands]
    nodata = known[0] if len({repr(value) for value in known}) == 1 else None
    if nodata is None and any(value is not None for value in known):
        context.warn(f"The bands of '{source.file}' have different no-data values, of which a TIFF cannot tell.")
    if nodata is not None and not rasterio.dtypes.in_dtype_range(nodata, source.dtype):
        nodata = None
    size, count = source.patch_size, len(chosen)
    with rasterio.open(path, "w", **_layout(size, count, len(source.bands), source.dtype, nodata)) as image:
        # Only what the file says is what an import reads as the file's own.
        image.scales = tuple(band.scale for band in source.bands)
        image.offsets = tuple(band.offset for band in source.bands)
        for place, band in enumerate(source.bands, start=1):
            image.set_band_description(place, band.name)
        step = max(1, _CHUNK_VALUES // (len(source.bands) * size * size))
        for start in range(0, count, step):
            context.check()
            some = stack[chosen[start : start + step]]
            block = some.transpose(1, 0, 2, 3).reshape(len(source.bands), -1, size)
            image.write(block, window=Window(0, start * size, size, block.shape[1]))
            context.progress(start + len(some), count, f"Writing image {number + 1}", "patches")


def _write_label_image(
    path: Path, dataset: PatchDataset, classes: Sequence[ClassEntry], chosen: Numbers, context: Context
) -> None:
    old = np.array([entry.value for entry in dataset.description.classes], dtype=np.int64)
    new = np.array([entry.value for entry in classes], dtype=np.int64)
    ignored = dataset.description.label_nodata
    nodata = ignored if ignored is None or ignored not in new else _free_number(new)
    everything = np.array([*new, *([] if nodata is None else [nodata])])
    # OTB reads no 64-bit integers, nor does the GDAL of older QGIS versions.
    dtype = next((t for t in ("uint8", "int16", "int32") if np.array_equal(everything.astype(t), everything)), "int64")
    labels = dataset.dense_labels() if dataset.dense else dataset.labels[:, None, None]
    size = labels.shape[-1]
    with rasterio.open(path, "w", **_layout(size, len(chosen), 1, dtype, nodata)) as image:
        step = max(1, _CHUNK_VALUES // (size * size))
        for start in range(0, len(chosen), step):
            context.check()
            block = np.asarray(labels[chosen[start : start + step]]).astype(np.int64).reshape(1, -1, size)
            place = np.minimum(np.searchsorted(old, block), len(old) - 1)
            block = np.where(old[place] == block, new[place], block if nodata is None else nodata).astype(dtype)
            image.write(block, window=Window(0, start * size, size, block.shape[1]))


def _free_number(values: Numbers) -> int:
    return 255 if values.max() < 255 else int(values.max()) + 1


def _layout(size: int, count: int, bands: int, dtype: str, nodata: Optional[float]) -> Dict[str, Any]:
    return {
        "driver": "GTiff", "width": size, "height": size * count, "count": bands, "dtype": dtype, "nodata": nodata,
        "interleave": "pixel", "tiled": False, "blockysize": size, "BIGTIFF": "IF_SAFER", "photometric": "minisblack",
    }  # fmt: skip


def _write_class_list(path: Path, classes: Sequence[ClassEntry], own: Sequence[ClassEntry]) -> None:
    """Write value, name and colour of each class, as a legend file has them, and the dataset's value as class_id."""
    rows = [
        {"value": new.value, "name": new.name, "colour": new.colour, "class_id": entry.value}
        for new, entry in zip(classes, own)
    ]
    write_text(str(path), ".csv", csv_text(["value", "name", "colour", "class_id"], rows))
