"""What kind of file a name tells, by its suffix.

Standard library only: both sides of the seam use it.
"""

from __future__ import annotations

import os

# Suffixes of rasters and vectors with other signs than letters, of GDAL's drivers (a test compares them with these).
# The ".000" of nautical charts is left out: "tile.000" is more often the first of numbered names.
_WITH_OTHER_SIGNS = frozenset(
    ".ace2 .ct1 .dt0 .dt1 .dt2 .e00 .grb2 .grib2 .h4 .h5 .hdf4 .hdf5 .hf2 .j2k .jp2 .jpg2 .n1 .sg-grd-z".split()
)


def kind_suffix(path: str) -> str:
    """Return the suffix that tells the kind of a file (".tif"), in lower case; empty where a name ends in none.

    A suffix of letters alone is one, and those of GDAL's formats are; the end of "map.v2" is none.
    """
    suffix = os.path.splitext(path)[1].lower()
    return suffix if suffix[1:].isalpha() or suffix in _WITH_OTHER_SIGNS else ""
