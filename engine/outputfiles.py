"""What all outputs share: the temporary name that they are written under, and the sentence for a write that fails."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from pathlib import Path

from rasterio.errors import RasterioError

from ..tasks.errors import BadInput, DiskFull

# Less free bytes than a block needs: a write that failed then failed for want of room.
_SMALLEST_ROOM = 1 << 20


def part_name(path: str) -> str:
    """Return a temporary name in the same folder and with the same suffix, hidden where a leading dot hides."""
    target = Path(path)
    return str(target.with_name(f".{target.stem}.{uuid.uuid4().hex[:8]}.part{target.suffix}"))


def writing_error(path: str, error: BaseException) -> Exception:
    """Return the sentence for a failed write: no room, no permission, no folder; otherwise the error itself."""
    folder = Path(path).parent
    text = f"{error} {error.__cause__ or ''}"
    full = ("no space left", "disk full", "disk is full")
    # libtiff tells stderr, not its caller, that the disk is full; the file that filled it is still there.
    no_room = isinstance(error, RasterioError) and folder.is_dir() and shutil.disk_usage(folder).free < _SMALLEST_ROOM
    if no_room or getattr(error, "errno", None) == errno.ENOSPC or any(words in text.lower() for words in full):
        return DiskFull(
            f"No room is left in '{folder}' to write '{Path(path).name}'.", "Free space or choose another folder."
        )
    if not folder.is_dir():
        return BadInput(f"The folder '{folder}' does not exist.", "Create it or choose another.")
    if not os.access(folder, os.W_OK) or getattr(error, "errno", None) in (errno.EACCES, errno.EROFS, errno.EPERM):
        return BadInput(
            f"'{path}' cannot be written.", "Choose a folder that you may write to, or close the file elsewhere."
        )
    return error if isinstance(error, Exception) else RuntimeError(str(error))
