"""Whether an interpreter can run the engine: its version, and what it imports and computes in a child process."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from ..errors import EngineSetupFailed
from .commands import Argument, CommandFailed, Runner, explain
from .files import is_program
from .places import home
from .release import EXTRAS, PYTHON_NEWEST, PYTHON_OLDEST

PROBE = Path(__file__).with_name("probe.py")
_PROBE_TIMEOUT_S = 600  # the first import on a slow disk with a virus scanner takes minutes


def verify(python: str, runner: Runner) -> Dict[str, Any]:
    """Import all that the engine needs in a child process and return what it found.

    Returns:
        ``versions`` (name -> version), ``device`` (cuda or cpu), ``device_name``, ``build``, ``seconds`` per import.

    Raises:
        EngineSetupFailed: the interpreter does not run, is too old, or a package is missing; names it.
    """
    version = python_version(Path(python), runner)
    if version is None:
        raise EngineSetupFailed(f"'{python}' does not run as a Python interpreter.", "Name another, or repair it.")
    if version < PYTHON_OLDEST:
        raise EngineSetupFailed(
            f"'{python}' is Python {version[0]}.{version[1]}; the engine needs {PYTHON_OLDEST[0]}.{PYTHON_OLDEST[1]}.",
            "Name a newer interpreter, or let the set-up make the environment.",
        )
    return _probe(
        python,
        runner,
        (),
        expected="versions",
        lacks=lambda missing, message: f"The engine's Python '{python}' lacks {missing} ({message}).",
        failed=f"The engine's Python '{python}' failed its verification",
        remedy="Run the set-up with ACTION repair, or install what is missing into your interpreter.",
    )


def verify_extra(python: str, name: str, runner: Runner, folder: Optional[Path] = None) -> Dict[str, Any]:
    """Use an extra in a child process and return its ``version``.

    Args:
        python: the engine's interpreter, verified.
        name: one of EXTRAS.
        runner: runs the child.
        folder: where the extra lies; None = among the interpreter's own packages.

    Raises:
        EngineSetupFailed: it is missing, or does not work; names it.
    """
    title, without = EXTRAS[name].title, f"leave {name} out of EXTRAS."
    if folder is None:
        return _probe(
            python,
            runner,
            [name],
            expected="version",
            lacks=lambda _, message: f"'{python}' has no {title} that works ({message}).",
            failed=f"'{python}' has no {title} that works",
            remedy=f"Install the package {EXTRAS[name].package} into it, or {without}",
        )
    return _probe(
        python,
        runner,
        [name, folder],
        expected="version",
        lacks=lambda _, message: f"The engine works as before, but {title} does not work on this machine ({message}).",
        failed=f"The engine works as before, but {title} does not work on this machine",
        remedy=f"Leave {name} out of EXTRAS to do without it.",
    )


def _probe(
    python: str,
    runner: Runner,
    arguments: Sequence[Argument],
    *,
    expected: str,
    lacks: Callable[[str, str], str],
    failed: str,
    remedy: str,
) -> Dict[str, Any]:
    """Run the probe and return its findings, which hold what is expected.

    Else raise what is given: a sentence from the name of what is missing and its message, or the beginning of one where
    the probe came to no findings.
    """
    try:
        output = runner.run([python, "-I", "-X", "utf8", PROBE, *arguments], timeout_s=_PROBE_TIMEOUT_S)
    except CommandFailed as error:
        findings = _last_json(error.output)
        if "missing" in findings:
            sentence = lacks(str(findings["missing"]), str(findings["message"]))
            raise EngineSetupFailed(sentence, remedy, error.output) from error
        raise explain(failed, error.output, home(), remedy) from error
    findings = _last_json(output)
    if expected not in findings:
        raise EngineSetupFailed(f"'{python}' gave no answer when verified.", "Run the set-up again.", output)
    return findings


def _last_json(output: str) -> Dict[str, Any]:
    for line in reversed(output.splitlines()):
        if line.lstrip().startswith("{"):
            try:
                found = json.loads(line)
            except ValueError:
                continue
            return found if isinstance(found, dict) else {}
    return {}


def base_pythons(runner: Runner) -> List[Tuple[Path, Tuple[int, int]]]:
    """Return the real interpreters of QGIS's Python that the engine can use, with their versions.

    ``sys.executable`` is QGIS itself on Windows and macOS; the interpreter lies beside the standard library there.
    """
    prefix = Path(sys.base_exec_prefix)
    candidates = [Path(sys.executable)] if Path(sys.executable or "").name.lower().startswith("python") else []
    if os.name == "nt":
        candidates += [prefix / "python.exe", prefix / "python3.exe"]
    else:
        candidates += [prefix / "bin" / "python3", Path("/usr/bin/python3")]
    found: List[Tuple[Path, Tuple[int, int]]] = []
    for candidate in dict.fromkeys(candidates):
        version = python_version(candidate, runner) if is_program(candidate) else None
        if version is not None and PYTHON_OLDEST <= version <= PYTHON_NEWEST:
            found.append((candidate, version))
    return found


def python_version(python: Path, runner: Runner) -> Optional[Tuple[int, int]]:
    """Return an interpreter's version (major, minor); None when it does not run as one."""
    script = "import ctypes, ssl, sys, zlib; print('version %d.%d' % sys.version_info[:2])"
    try:
        words = runner.run([python, "-I", "-c", script], timeout_s=60).split()
    except (CommandFailed, OSError):
        return None
    return version_of(words[-1]) if len(words) >= 2 and words[-2] == "version" else None


def version_of(text: str) -> Tuple[int, int]:
    """Return the version in a text such as "3.12"."""
    major, minor = text.split(".")[:2]
    return int(major), int(minor)
