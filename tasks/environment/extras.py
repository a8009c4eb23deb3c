"""Extras: packages beside the engine's own, added to an environment and found there (standard library only).

An extra lies in a folder of its own within the environment, and one small file switches it on: a ``.pth`` beside the
engine's packages, which Python reads when it starts. So nothing of the engine is replaced when an extra comes: an
installation that is interrupted leaves the engine as it was, and a worker that runs does not notice. The environment's
key knows nothing of extras.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Dict, Mapping, Optional

from ..errors import EngineSetupFailed
from .files import read_json, write_json
from .release import EXTRAS, extra_key

FOLDER = "extras"
_FACTS = "extra.json"


def extra_folder(environment: Path, name: str) -> Path:
    """Return where this release's packages of an extra lie in an environment."""
    return environment / FOLDER / extra_key(name)


def is_complete(folder: Path) -> bool:
    """Tell whether an extra's folder holds all of it, verified."""
    return bool(read_json(folder / _FACTS))


def complete(folder: Path, facts: Mapping[str, Any]) -> None:
    """Mark an extra's folder as complete; the facts are those of its verification."""
    write_json(folder / _FACTS, facts)


def switch_on(environment: Path, name: str) -> None:
    """Let the environment's Python find an extra, from its next start on.

    Packages of an earlier release stay until the environment goes: a worker may still run with them.
    """
    packages = _site_packages(environment)
    if packages is None:
        raise EngineSetupFailed(
            f"The environment '{environment}' has no folder for packages.", "Run the set-up with ACTION repair."
        )
    switch = _switch(packages, name)
    # Relative, and so plain ASCII whatever the user's folder is called: Python reads the file in the system's encoding.
    path = os.path.relpath(extra_folder(environment, name), packages)
    temporary = switch.with_name(f"{switch.name}.{os.getpid()}.tmp")
    temporary.write_text(path + "\n", encoding="ascii")
    temporary.replace(switch)


def switch_off(environment: Path, name: str, folder: Path) -> None:
    """Let the environment's Python no longer look into a folder for an extra."""
    packages = _site_packages(environment)
    if packages is not None and _switched_on(environment, name) == _plain(folder):
        _switch(packages, name).unlink()


def is_current(environment: Path, name: str) -> bool:
    """Tell whether an environment has this release's packages of an extra, switched on."""
    folder = extra_folder(environment, name)
    return _switched_on(environment, name) == _plain(folder) and is_complete(folder)


def installed_extras(environment: Path) -> Dict[str, str]:
    """Return value of EXTRAS -> version, of those that an environment has; a look at files alone."""
    found = {}
    for name in EXTRAS:
        folder = _switched_on(environment, name)
        facts = read_json(folder / _FACTS) if folder is not None else {}
        if facts:
            found[name] = str(facts.get("version", ""))
    return found


def extras_of(python: str) -> Dict[str, str]:
    """Return what `installed_extras` does for an interpreter; nothing for one that has no environment of ours."""
    return installed_extras(Path(python).parent.parent)


def in_words(extras: Mapping[str, str]) -> str:
    """Return extras as in "OpenVINO 2026.4.1"; "none" where there are none."""
    return ", ".join(f"{EXTRAS[name].title} {version}".strip() for name, version in extras.items()) or "none"


def _switched_on(environment: Path, name: str) -> Optional[Path]:
    """Return the folder that the environment's Python looks into for an extra; None when it does not."""
    packages = _site_packages(environment)
    if packages is None:
        return None
    try:
        path = _switch(packages, name).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    return _plain(packages / path) if path else None


def _plain(path: Path) -> Path:
    """Return the path without "..", as Python itself reads it."""
    return Path(os.path.normpath(path))


def _switch(packages: Path, name: str) -> Path:
    return packages / f"deepscape-{name}.pth"


def _site_packages(environment: Path) -> Optional[Path]:
    if os.name == "nt":
        found = environment / "Lib" / "site-packages"
        return found if found.is_dir() else None
    return next(environment.glob("lib/python3*/site-packages"), None)
