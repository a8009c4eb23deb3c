"""How child processes are started and ended: a clean environment, low priority, a process group of their own.

Standard library only. QGIS sets variables for its own libraries (PROJ, GDAL, Qt, Python) that break another Python's
copies of them; both the engine's worker and the installer's uv start without them.
"""

from __future__ import annotations

import os
import signal
import subprocess  # nosec B404 - the engine is a child process
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Union

NICENESS = 10

# DYLD_* is macOS's LD_LIBRARY_PATH; __PYVENV_LAUNCHER__ makes a macOS framework Python take another one's prefix;
# GEOTIFF_CSV and GISBASE point into OSGeo4W; a QGIS started from an activated venv or conda carries the last ones.
_DROPPED_PREFIXES = ("PYTHON", "PROJ_", "GDAL_", "QGIS_", "QT_", "DYLD_", "OSGEO4W", "CONDA_")
_DROPPED_NAMES = frozenset(
    {"LD_LIBRARY_PATH", "LD_PRELOAD", "__PYVENV_LAUNCHER__", "GEOTIFF_CSV", "GISBASE", "VIRTUAL_ENV", "OGR_DRIVER_PATH"}
)


def clean_environment(environ: Optional[Mapping[str, str]] = None, windows: bool = os.name == "nt") -> Dict[str, str]:
    """Return the environment for a child process: QGIS's and Python's variables dropped, all others kept.

    Proxy, certificate, CUDA and SLURM variables stay as they are.

    Args:
        environ: the environment to clean; None = this process's own.
        windows: apply the Windows rule too: QGIS's folders leave PATH, or its DLLs would be loaded before our own.
    """
    source = os.environ if environ is None else environ
    kept = {
        name: value
        for name, value in source.items()
        if not name.upper().startswith(_DROPPED_PREFIXES) and name.upper() not in _DROPPED_NAMES
    }
    if windows:
        roots = [source[name] for name in ("OSGEO4W_ROOT", "QGIS_PREFIX_PATH") if source.get(name)]
        for name in [name for name in kept if name.upper() == "PATH"]:
            kept[name] = ";".join(entry for entry in kept[name].split(";") if entry and not _is_of_qgis(entry, roots))
    return kept


def _is_of_qgis(folder: str, roots: Sequence[str]) -> bool:
    """Tell whether a Windows folder belongs to a QGIS installation (a part is named osgeo4w... or qgis...)."""
    plain = folder.replace("/", "\\").lower().rstrip("\\")
    if any(part.startswith(("osgeo4w", "qgis")) for part in plain.split("\\")):
        return True
    prefixes = [root.replace("/", "\\").lower().rstrip("\\") for root in roots]
    return any(plain == prefix or plain.startswith(prefix + "\\") for prefix in prefixes)


def popen_flags() -> Dict[str, Any]:
    """Return the keyword arguments of Popen that give the child its own process group and, on Windows, no window.

    On Windows they lower the priority too; elsewhere `start_process` does so after the start, for a ``preexec_fn`` may
    deadlock in a program with threads such as QGIS.
    """
    if os.name == "nt":
        flags = (
            int(getattr(subprocess, "CREATE_NO_WINDOW", 0))
            | int(getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0))
            | int(getattr(subprocess, "BELOW_NORMAL_PRIORITY_CLASS", 0))
        )
        return {"creationflags": flags}
    return {"start_new_session": True}


def start_process(arguments: Sequence[Union[str, Path]], **options: Any) -> subprocess.Popen[Any]:
    """Start a child with `popen_flags` and low priority; ``options`` are Popen's."""
    command: List[str] = [str(argument) for argument in arguments]
    process = subprocess.Popen(command, **{**popen_flags(), **options})  # nosec B603 - fixed argument lists, no shell
    lower_priority(process)
    return process


def lower_priority(process: subprocess.Popen[Any]) -> None:
    """Lower the priority of a child's process group, so that QGIS stays fluid (nice 10)."""
    if os.name != "nt":
        try:
            os.setpriority(os.PRIO_PGRP, process.pid, NICENESS)
        except (ProcessLookupError, PermissionError):
            # It ended already, or this process itself runs at a niceness above ours: nothing is left to lower.
            return


def kill_tree(process: subprocess.Popen[Any], grace_s: float = 0.0) -> None:
    """End a child that was started with `popen_flags`, and every process of its group; return when it is gone.

    Args:
        process: the child; nothing happens when it and its group ended before.
        grace_s: seconds between the request to end (SIGTERM) and the kill; 0 = kill at once.
    """
    if grace_s > 0 and process.poll() is None:
        _signal_group(process, force=False)
        try:
            process.wait(timeout=grace_s)
        except subprocess.TimeoutExpired:
            pass  # it is killed just below
    _signal_group(process, force=True)
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        # A process in an uninterruptible system call (a dead network drive) dies when the call returns.
        return


def _signal_group(process: subprocess.Popen[Any], force: bool) -> None:
    if os.name == "nt":
        if process.poll() is None:
            command = ["taskkill", "/T", "/PID", str(process.pid)] + (["/F"] if force else [])
            subprocess.run(  # nosec B603 - fixed arguments
                command, stdin=subprocess.DEVNULL, capture_output=True, check=False, creationflags=0x08000000
            )
        return
    try:
        os.killpg(process.pid, signal.SIGKILL if force else signal.SIGTERM)
    except (ProcessLookupError, PermissionError):
        # The group is empty (macOS answers PermissionError for a group of zombies).
        return
