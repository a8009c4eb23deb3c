"""Which torch to install, and from where: the one step outside the lock, for its builds differ by machine."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import List, Mapping, Sequence, Tuple

from .release import LOCK, TORCH, index_build

_WHEEL = re.compile(
    rf"^torch-{re.escape(TORCH)}(?:\+(?P<local>[\w.]+))?(?:-\d\w*)?-(?P<python>\w+)-\w+-(?P<platform>[\w.]+)\.whl$"
)


@dataclass(frozen=True)
class Attempt:
    """One way to install torch: how it is told to the user, and the arguments of ``uv pip install``."""

    source: str
    arguments: Tuple[str, ...]
    build: str


def has_nvidia(environ: Mapping[str, str]) -> bool:
    """Tell whether this machine has an NVIDIA driver (a look at files; the probe says later whether it works)."""
    if sys.platform == "win32":
        return (Path(environ.get("SystemRoot", r"C:\Windows")) / "System32" / "nvcuda.dll").is_file()
    if sys.platform == "darwin":
        return False
    return Path("/proc/driver/nvidia/version").is_file() or bool(shutil.which("nvidia-smi", path=environ.get("PATH")))


def matching_wheels(folders: Sequence[Path], python: Tuple[int, int]) -> List[Tuple[Path, str]]:
    """Return the wheels of the pinned torch for this Python and machine in the folders, each with its build."""
    found = []
    for folder in folders:
        for path in sorted(folder.glob(f"torch-{TORCH}*.whl")):
            match = _WHEEL.match(path.name)
            if match and match["python"] == f"cp{python[0]}{python[1]}" and _is_ours(match["platform"]):
                found.append((path, _build_of(match["local"] or "")))
    return found


def _is_ours(tag: str) -> bool:
    machine = platform.machine().lower()
    if sys.platform == "win32":
        return tag == ("win_arm64" if machine == "arm64" else "win_amd64")
    system = "macosx" if sys.platform == "darwin" else "linux"
    return system in tag and tag.endswith(machine)


def _build_of(local: str) -> str:
    if not local:
        return index_build()
    return "cuda" if local.startswith("cu") else "cpu" if local == "cpu" else local


def attempts(requested: str, wanted: str, wheels: Sequence[Tuple[Path, str]]) -> List[Attempt]:
    """Return the ways to install torch, in the order in which to try them.

    A wheel is named by its path: with ``--torch-backend`` uv looks at no folder, and ``torch==...`` from a folder and
    an index together may take the index's build, gigabytes of CUDA where the CPU's was wanted.

    Args:
        requested: BUILD: auto, cpu or cuda.
        wanted: what that means on this machine: cpu or cuda.
        wheels: the wheels at hand.
    """
    ways = [_from_wheel(path, build) for path, build in wheels if build == wanted]
    if not ways:
        ways = _from_network(requested, wanted)
        if requested == "auto" and wanted == "cuda":
            # Better a slow engine than none, e.g. behind a wall with a folder of CPU wheels; the log says so.
            ways += [_from_wheel(path, build) for path, build in wheels if build == "cpu"] or _from_network(
                "cpu", "cpu"
            )
    return ways


def _from_wheel(path: Path, build: str) -> Attempt:
    return Attempt(f"'{path}'", (*_dependencies(build), str(path)), build)


def _from_network(requested: str, wanted: str) -> List[Attempt]:
    # For a machine without a driver (the login node of a cluster) uv cannot choose the CUDA version.
    backend = "cpu" if wanted == "cpu" else "auto" if requested == "auto" or has_nvidia(os.environ) else "cu130"
    package = f"torch=={TORCH}"
    own = Attempt("PyTorch's index", (*_dependencies(wanted), f"--torch-backend={backend}", package), wanted)
    plain = Attempt("the package index", (*_dependencies(wanted), package), wanted)
    if sys.platform == "darwin":
        return [plain]
    return [own, plain] if index_build() == wanted else [own]


def _dependencies(build: str) -> Tuple[str, ...]:
    # The lock holds what torch needs, but for NVIDIA's libraries: a CUDA build brings them, at the versions it names.
    return ("--constraint", str(LOCK)) if build == "cuda" and sys.platform != "win32" else ("--no-deps",)
