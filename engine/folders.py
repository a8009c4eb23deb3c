"""Writing several files into a folder of the user's, so that all of them appear or none."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import Iterator

from rasterio.errors import RasterioError

from .outputfiles import part_name, writing_error


@contextlib.contextmanager
def filled_folder(path: str) -> Iterator[str]:
    """Yield a temporary folder beside ``path``, and move its files there when the block ends well.

    Files of the same names are replaced, what else the folder holds stays.

    Raises:
        DiskFull: no room left.
        BadInput: the folder cannot be written.
    """
    part = part_name(path.rstrip("/\\"))
    try:
        os.makedirs(part)
        yield part
        names = sorted(os.listdir(part))
        os.makedirs(path, exist_ok=True)
        for name in names:
            os.replace(os.path.join(part, name), os.path.join(path, name))
            # Statistics that GDAL noted of an older file of this name describe other pixels.
            with contextlib.suppress(FileNotFoundError):
                os.remove(os.path.join(path, name + ".aux.xml"))
    except (OSError, RasterioError) as error:
        raise writing_error(path, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
