"""Rasters that QGIS can open and the engine cannot: copied to a GeoTIFF with QGIS's own GDAL."""

from __future__ import annotations

from typing import Any, Sequence

from osgeo import gdal

from ..tasks.errors import BadInput, JobCancelled
from .translate import tr

# Drivers that builds of QGIS have and the engine's rasterio lacks. What is not listed is passed on as it is: the engine
# says in one sentence what it cannot open.
FOREIGN_DRIVERS = frozenset(
    "ARG CAD DB2 ECW EXR FITS GEORASTER HDF4 HDF4Image HEIF JP2ECW JP2KAK JP2Lura JP2MrSID JPEGXL JPIPKAK KEA MG4Lidar "
    "MrSID NGW OGCAPI PLSCENES PostGISRaster RDB TileDB".split()
)


def is_foreign(path: str) -> bool:
    """Tell whether the engine has no driver for a raster; looks at its first bytes alone."""
    driver = gdal.IdentifyDriver(path)
    return driver is not None and driver.ShortName in FOREIGN_DRIVERS


def opens(path: str) -> bool:
    """Tell whether GDAL opens what is no file by its name, such as a part of a file."""
    return _opened(path) is not None


def parts_of(path: str) -> list[str]:
    """Return the names of the rasters that a file holds besides, or in place of, one of its own."""
    dataset = _opened(path)
    return [] if dataset is None else [name for name, _ in dataset.GetSubDatasets()]


def _opened(path: str) -> Any:
    """Return the raster, None where GDAL cannot open it, without a word on stderr."""
    gdal.PushErrorHandler("CPLQuietErrorHandler")
    try:
        return gdal.OpenEx(path, gdal.OF_RASTER)
    except RuntimeError:  # where another plugin asked GDAL for exceptions
        return None
    finally:
        gdal.PopErrorHandler()


def export(path: str, options: Sequence[str], target: str, label: str, feedback: Any) -> str:
    """Copy a raster to a GeoTIFF: values, types, names of bands, no-data, scale and offset, masks and georeference.

    Args:
        path: what GDAL opens.
        options: with which it was opened, as in NAME=value.
        target: the GeoTIFF.
        label: what the user calls it.
        feedback: polled for cancel, and told the progress.

    Returns:
        ``target``.

    Raises:
        BadInput: it cannot be opened or copied.
        JobCancelled: the user cancelled.
    """
    feedback.setProgressText(tr("Copying '{}' for the engine").format(label))

    def go_on(share: float, _text: str, _data: Any) -> int:
        feedback.setProgress(100 * share)
        return 0 if feedback.isCanceled() else 1

    # What is wrong is told by the result, in versions of GDAL that raise no exceptions unless asked to.
    gdal.ErrorReset()
    try:
        source = gdal.OpenEx(path, gdal.OF_RASTER, open_options=list(options))
        creation = ["TILED=YES", "COMPRESS=DEFLATE", "ZLEVEL=1", "BIGTIFF=IF_SAFER", "NUM_THREADS=ALL_CPUS"]
        copy = source and gdal.Translate(target, source, format="GTiff", creationOptions=creation, callback=go_on)
        message = "" if copy else gdal.GetLastErrorMsg()
    except RuntimeError as error:
        copy, message = None, str(error)
    if feedback.isCanceled():
        raise JobCancelled()
    if not copy:
        raise BadInput(
            f"'{label}' cannot be copied for the engine: {message.strip().rstrip('.') or 'GDAL does not say why'}.",
            "Save it as GeoTIFF (Export > Save As...) and use that.",
        )
    del copy  # closes the file
    return target
