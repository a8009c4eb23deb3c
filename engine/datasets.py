"""Patch datasets: the folder that `extractpatches` writes and training reads.

``dataset.json`` describes it, ``source1.tif`` holds the patches stacked top to bottom (raw values, pixel-interleaved,
uncompressed: opens in QGIS and is mapped into memory here), ``source2.tif`` ... those of further sources at the same
places. ``labels.tif`` holds the class values: one per patch (1 x n), or, with dense targets, one per pixel of the first
source's patches, stacked as these (p x n p); its no-data value means ignored. ``patches.gpkg`` holds the footprints of
all candidates (fields in `FOOTPRINT_FIELDS`).
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

import numpy as np
import numpy.typing as npt
import rasterio

from ..tasks.classtable import ClassEntry
from ..tasks.errors import BadInput
from ..tasks.serial import from_plain, to_plain
from .wording import across_by_down

DATASET_FORMAT = 1
DESCRIPTION = "dataset.json"
LABELS = "labels.tif"
PATCHES = "patches.gpkg"
# Fields of patches.gpkg and of FOOTPRINTS: `patch` is the index in the stacks (-1 when rejected), `row`/`col` the pixel
# at p // 2 of the patch in the scene's grid (the one that holds a point), `originfid` the polygon that the sample came
# from, -1 when unknown. With dense targets `class_id` is the class of most labelled pixels, -1 where there is none.
# Further sources add row2, col2, row3 ...: the pixel at p // 2 of their patch in their own grid.
FOOTPRINT_FIELDS = ("patch", "class_id", "class_name", "split", "accepted", "reason", "row", "col", "originfid")


@dataclass(frozen=True)
class DatasetBand:
    """One band: name, no-data number, the scale and offset that were applied, and the scene's mean and deviation.

    ``explicit`` is True when the user gave scale or offset in place of the file's own. ``scene_mean`` and ``scene_std``
    are in physical units over the scene's valid pixels (a regular sample of large scenes). ``expression`` is what a
    computed band was computed by, empty for a band of the scene.
    """

    name: str
    nodata: Optional[float]
    scale: float
    offset: float
    explicit: bool
    scene_mean: float
    scene_std: float
    expression: str = ""


@dataclass(frozen=True)
class DatasetScene:
    """The scene that the patches were cut from. ``transform`` = a, b, c, d, e, f of the affine."""

    label: str
    path: str
    crs: str
    transform: Tuple[float, ...]
    width: int
    height: int
    res_m: Optional[float]


@dataclass(frozen=True)
class DatasetSource:
    """One stack of patches. ``scene`` is what a further source was cut from; None for the first: the description's."""

    file: str
    patch_size: int
    dtype: str
    bands: Tuple[DatasetBand, ...]
    nodata_rule: str = "any"
    scene: Optional[DatasetScene] = None


@dataclass(frozen=True)
class DatasetDescription:
    """The content of ``dataset.json``.

    ``targets`` is patch (one class per patch) or dense (one per pixel); ``counts`` are patches, or labelled pixels, by
    class value (as text); ``label_nodata`` is the value of ignored pixels in dense labels.
    """

    sources: Tuple[DatasetSource, ...]
    classes: Tuple[ClassEntry, ...]
    scene: DatasetScene
    patch_count: int
    counts: Dict[str, int]
    edge: str = "reject"
    versions: Dict[str, str] = None  # type: ignore[assignment]
    targets: str = "patch"
    label_nodata: Optional[int] = None
    format: int = DATASET_FORMAT

    def __post_init__(self) -> None:
        if self.versions is None:
            object.__setattr__(self, "versions", {})


class PatchDataset:
    """A patch dataset opened for reading.

    Attributes:
        folder: the folder.
        description: content of ``dataset.json``.
        labels: class value of each patch, int64 ``(N,)``; with dense targets that of most labelled pixels, ties to the
            lower value, -1 where no pixel is labelled.
        splits: "train", "validation", "test" or "" of each patch, ``(N,)``.
        rows: row, in the scene, of the pixel at p // 2 of the patch (that of a sample point), int64 ``(N,)``.
        cols: column likewise.
        groups: polygon that the sample came from, int64 ``(N,)``, -1 when unknown.
    """

    def __init__(self, folder: str) -> None:
        """Open a dataset.

        Raises:
            BadInput: the folder is no patch dataset, or it is incomplete.
        """
        self.folder = Path(folder)
        if self.folder.name == DESCRIPTION:
            self.folder = self.folder.parent
        try:
            text = (self.folder / DESCRIPTION).read_text(encoding="utf-8")
            self.description = from_plain(DatasetDescription, json.loads(text), DESCRIPTION)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise BadInput(
                f"'{folder}' is not a patch dataset: it has no {DESCRIPTION}.",
                "Give a folder made by 'Extract patches'.",
            ) from error
        except ValueError as error:
            raise BadInput(f"'{self.folder / DESCRIPTION}' is damaged.", "Extract the patches again.") from error
        if self.description.format > DATASET_FORMAT:
            raise BadInput(f"'{folder}' was written by a newer Deepscape.", "Update the plugin.")
        self._read_index()

    def __len__(self) -> int:
        return self.description.patch_count

    @property
    def dense(self) -> bool:
        """Tell whether every pixel has a class of its own (`dense_labels`)."""
        return self.description.targets == "dense"

    def scene_of(self, source: int) -> DatasetScene:
        """Return what a source was cut from."""
        return self.description.sources[source].scene or self.description.scene

    def places(self, source: int = 0) -> Tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return row and column of the pixels at p // 2 of the patches in a source's own grid, int64 ``(N,)``."""
        return self._places[source]

    def _read_index(self) -> None:
        import pyogrio

        try:
            with rasterio.open(self.folder / LABELS) as labels:
                if not self.dense:
                    self.labels = labels.read(1).reshape(-1).astype(np.int64)
            meta, _, _, data = pyogrio.raw.read(self.folder / PATCHES, read_geometry=False)
        except (rasterio.errors.RasterioIOError, pyogrio.errors.DataSourceError) as error:
            raise BadInput(
                f"The patch dataset '{self.folder}' is incomplete: {str(error).split(';')[0].rstrip('.')}.",
                "Extract the patches again.",
            ) from error
        table: Dict[str, npt.NDArray[Any]] = dict(zip(meta["fields"], data))
        order = np.argsort(table["patch"], kind="stable")
        order = order[table["patch"][order] >= 0]
        if self.dense:
            self.labels = table["class_id"][order].astype(np.int64)
        if len(order) != len(self) or len(self.labels) != len(self):
            raise BadInput(
                f"The patch dataset '{self.folder}' is incomplete: {len(self)} patches are described, "
                f"{len(order)} are listed.",
                "Extract the patches again.",
            )
        self.splits = np.array([s or "" for s in table["split"][order]], dtype=object)
        self.rows = table["row"][order].astype(np.int64)
        self.cols = table["col"][order].astype(np.int64)
        self.groups = table["originfid"][order].astype(np.int64)
        self._places = [(self.rows, self.cols)]
        for number in range(2, len(self.description.sources) + 1):
            rows, cols = (table[f"{axis}{number}"][order].astype(np.int64) for axis in ("row", "col"))
            self._places.append((rows, cols))

    def patches(self, source: int = 0) -> npt.NDArray[Any]:
        """Return the raw patches ``(N, C, p, p)`` of a source, mapped into memory read-only (not loaded)."""
        part = self.description.sources[source]
        return self._stack(part.file, part.patch_size, len(part.bands))

    def dense_labels(self) -> npt.NDArray[Any]:
        """Return the class of every pixel ``(N, p, p)``, mapped into memory read-only.

        Pixels with the description's ``label_nodata`` are ignored: not labelled, or no-data in the image.

        Raises:
            BadInput: the dataset has one class per patch.
        """
        if not self.dense:
            raise BadInput(
                f"The patch dataset '{self.folder}' has one class per patch, not one per pixel.",
                "Extract the patches again with LABELS or LABEL_FEATURES.",
            )
        return self._stack(LABELS, self.description.sources[0].patch_size, 1)[:, 0]

    def _stack(self, file: str, size: int, bands: int) -> npt.NDArray[Any]:
        """Return a stack ``(N, C, p, p)``, after a check that all of it is there."""
        path, count = self.folder / file, len(self)
        with rasterio.open(path) as dataset:
            expected = (bands, count * size, size)
            if (dataset.count, dataset.height, dataset.width) != expected:
                raise BadInput(
                    f"'{path}' holds {dataset.count} bands of {across_by_down(*dataset.shape)} pixels instead of "
                    f"{bands} of {across_by_down(*expected[1:])}.",
                    "Extract the patches again.",
                )
            offset = int(dataset.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1))
            dtype = np.dtype(dataset.dtypes[0])
        wanted = offset + count * size * size * bands * dtype.itemsize
        if path.stat().st_size < wanted:
            raise BadInput(
                f"'{path}' is cut short: {path.stat().st_size:,} bytes instead of {wanted:,}.",
                "Extract the patches again.",
            )
        stack = np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=(count, size, size, bands))
        return stack.transpose(0, 3, 1, 2)

    def physical(self, raw: npt.NDArray[Any], source: int = 0) -> npt.NDArray[np.float32]:
        """Return raw patches ``(N, C, p, p)`` in physical units as float32 (NaN where no-data)."""
        part = self.description.sources[source]
        scale = np.array([band.scale for band in part.bands])[:, None, None]
        offset = np.array([band.offset for band in part.bands])[:, None, None]
        values: npt.NDArray[np.float32] = (raw * scale + offset).astype(np.float32)
        numbers = np.array([np.nan if band.nodata is None else band.nodata for band in part.bands])[:, None, None]
        missing = raw == numbers
        if part.nodata_rule == "all":
            # A computed band has no number: where it is missing, it holds NaN.
            own = [index for index, band in enumerate(part.bands) if not band.expression]
            missing = missing[:, own].all(axis=1, keepdims=True) & np.ones_like(missing)
        values[missing] = np.nan
        return values

    def content_hash(self) -> str:
        """Return "sha256:..." over the description, labels and patches: what a model was trained on."""
        digest = hashlib.sha256()
        names = [DESCRIPTION, LABELS, *(source.file for source in self.description.sources)]
        for name in names:
            with open(self.folder / name, "rb") as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
        return "sha256:" + digest.hexdigest()


def library_versions() -> Dict[str, str]:
    """Return the versions of the libraries that cut patches."""
    return {"gdal": rasterio.__gdal_version__, "numpy": np.__version__, "rasterio": rasterio.__version__}


def write_description(folder: str, description: DatasetDescription) -> None:
    """Write ``dataset.json``; the last file of a dataset to be written, so that its presence means completeness."""
    text = json.dumps(to_plain(description), ensure_ascii=False, indent=1)
    part = os.path.join(folder, DESCRIPTION + ".part")
    with open(part, "w", encoding="utf-8") as file:
        file.write(text + "\n")
    os.replace(part, os.path.join(folder, DESCRIPTION))
