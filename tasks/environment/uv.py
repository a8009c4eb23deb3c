"""Find uv, or get it; and tell uv what pip's configuration and QGIS's network settings say.

No index is named here: uv and pip know their own, and the user's configuration comes first.
"""

from __future__ import annotations

import configparser
import hashlib
import html
import io
import os
import re
import shutil
import sys
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path
from typing import Callable, Dict, List, Mapping, Optional, Sequence

from ..errors import EngineSetupFailed
from .commands import Argument, CommandFailed, Runner, explain
from .files import is_program
from .places import home, made
from .release import UV, UV_OLDEST, UvWheel, uv_wheel

Fetch = Callable[[str], bytes]

GET_UV = "Install uv (your system's package, or 'pipx install uv'), or set DEEPSCAPE_UV to its path."

# Set by a user for projects of her own, these would change what is installed here, or where.
_NOT_FOR_US = (
    "UV_PYTHON", "UV_SYSTEM_PYTHON", "UV_BREAK_SYSTEM_PACKAGES", "UV_TORCH_BACKEND", "UV_REQUIRE_HASHES",
    "UV_NO_VERIFY_HASHES", "UV_CONSTRAINT", "UV_BUILD_CONSTRAINT", "UV_OVERRIDE", "UV_EXCLUDE", "UV_RESOLUTION",
    "UV_PRERELEASE", "UV_EXCLUDE_NEWER", "UV_PROJECT", "UV_PROJECT_ENVIRONMENT", "UV_WORKING_DIR", "UV_NO_BINARY",
    "UV_NO_BINARY_PACKAGE", "UV_VENV_SEED", "UV_VENV_CLEAR",
)  # fmt: skip


def download(url: str) -> bytes:
    """Fetch a URL with the standard library: the way outside QGIS (inside, its network manager is passed instead)."""
    if urllib.parse.urlsplit(url).scheme not in ("https", "http", "file"):
        raise EngineSetupFailed(f"'{url}' is no address of a package index.", "Give an https or file address.")
    with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 # nosec B310 - the scheme is checked above
        return bytes(answer.read())


def pip_settings(environ: Mapping[str, str]) -> Dict[str, str]:
    """Return what pip is configured with (``index-url``, ``extra-index-url``, ``find-links``, ``cert``).

    Its files in order of precedence, then its variables over them. Files that cannot be read count as absent.
    """
    settings: Dict[str, str] = {}
    for path in _pip_files(environ):
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):
            continue
        for section in ("global", "install"):
            if parser.has_section(section):
                settings.update({key.replace("_", "-"): value for key, value in parser.items(section)})
    for name, value in environ.items():
        if name.startswith("PIP_") and value:
            settings[name[4:].lower().replace("_", "-")] = value
    return settings


def _pip_files(environ: Mapping[str, str]) -> List[Path]:
    if environ.get("PIP_CONFIG_FILE"):
        return [Path(environ["PIP_CONFIG_FILE"])]
    user = Path.home()
    if sys.platform == "win32":
        roots = (environ.get("ProgramData", ""), environ.get("APPDATA", ""))
        return [Path(root) / "pip" / "pip.ini" for root in roots if root] + [user / "pip" / "pip.ini"]
    system = [Path("/Library/Application Support/pip/pip.conf")] if sys.platform == "darwin" else []
    mac = [user / "Library/Application Support/pip/pip.conf"] if sys.platform == "darwin" else []
    config = Path(environ.get("XDG_CONFIG_HOME") or user / ".config")
    return [Path("/etc/pip.conf"), *system, user / ".pip" / "pip.conf", config / "pip" / "pip.conf", *mac]


def uv_environment(environ: Mapping[str, str], cache: Path) -> Dict[str, str]:
    """Return the variables for uv: what is meant for pip is said in uv's words, where uv's own are not set.

    Args:
        environ: a cleaned environment.
        cache: uv's cache, unless UV_CACHE_DIR names one: beside the environments, so that files are hard links.
    """
    result = {name: value for name, value in environ.items() if name not in _NOT_FOR_US}
    pip = pip_settings(environ)
    words = {"UV_DEFAULT_INDEX": "index-url", "UV_INDEX": "extra-index-url", "UV_INSECURE_HOST": "trusted-host"}
    older = {"UV_DEFAULT_INDEX": "UV_INDEX_URL", "UV_INDEX": "UV_EXTRA_INDEX_URL"}
    for variable, key in words.items():
        if pip.get(key) and variable not in result and older.get(variable, "") not in result:
            # As with folders below: pip goes on without a mirror in a folder that is gone.
            there = [entry for entry in pip[key].split() if not entry.startswith("file:") or _as_path(entry).is_dir()]
            if there:
                result[variable] = " ".join(there)
    if pip.get("find-links") and "UV_FIND_LINKS" not in result:
        # pip separates by blanks, uv by commas; a folder that is gone stops uv but not pip.
        links = [link for link in pip["find-links"].split() if "://" in link or Path(link).is_dir()]
        if links:
            result["UV_FIND_LINKS"] = ",".join(links)
    if pip.get("cert") and "SSL_CERT_FILE" not in result:
        result["SSL_CERT_FILE"] = pip["cert"]
    # As pip does it, and safe here: every package's hash is pinned, wherever it comes from.
    result.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    result.setdefault("UV_CACHE_DIR", str(cache))
    result.setdefault("UV_PYTHON_INSTALL_DIR", str(home() / "python"))
    if sys.platform in ("win32", "darwin"):
        # Networks that inspect traffic put their certificate into the system's store.
        result.setdefault("UV_SYSTEM_CERTS", "1")
    result["UV_NO_PROGRESS"] = "1"
    return result


def local_folders(environ: Mapping[str, str], wheels: str = "") -> List[Path]:
    """Return the folders of wheels on this machine: WHEELS, then UV_FIND_LINKS, then pip's find-links."""
    links = [wheels] if wheels else []
    links += [link.strip() for link in environ.get("UV_FIND_LINKS", "").split(",")]
    links += pip_settings(environ).get("find-links", "").split()
    folders: List[Path] = []
    for link in links:
        path = _as_path(link)
        if link and path.is_dir() and path not in folders:
            folders.append(path)
    return folders


def _as_path(link: str) -> Path:
    """Return the folder of a file address or a path."""
    return Path(urllib.request.url2pathname(urllib.parse.urlsplit(link).path) if link.startswith("file:") else link)


def find_uv(setting: str, runner: Runner, pythons: Sequence[Path], fetch: Optional[Fetch] = None) -> Path:
    """Return uv: the setting, DEEPSCAPE_UV, beside the environments, PATH, the configured package index, pip.

    Args:
        setting: QGIS's setting ``deepscape/uv``; empty = not set.
        runner: runs ``uv --version`` and pip.
        pythons: interpreters whose pip may download uv where no index is configured.
        fetch: gets a URL's content; None = the standard library.

    Raises:
        EngineSetupFailed: there is none and none can be had.
    """
    environ = runner.environ
    for value, name in ((setting, "The setting deepscape/uv"), (environ.get("DEEPSCAPE_UV", ""), "DEEPSCAPE_UV")):
        if value:
            if not is_program(Path(value)):
                raise EngineSetupFailed(f"{name} names '{value}', which is no program.", "Correct it, or clear it.")
            if not _is_usable(Path(value), runner):
                raise EngineSetupFailed(
                    f"{name} names '{value}', which is no uv of version {_dotted(UV_OLDEST)} or later.",
                    "Name another, or clear it.",
                )
            return Path(value)
    own = home() / "uv" / UV / ("uv.exe" if os.name == "nt" else "uv")
    on_path = shutil.which("uv", path=environ.get("PATH", ""))
    for candidate in (own, Path(on_path) if on_path else None):
        if candidate is not None and is_program(candidate) and _is_usable(candidate, runner):
            return candidate
    return _get_uv(own, runner, pythons, fetch or download)


def _is_usable(uv: Path, runner: Runner) -> bool:
    """Tell whether the program runs and is a uv that is new enough."""
    try:
        said = runner.run([uv, "--version"], timeout_s=30)
    except (CommandFailed, OSError):
        return False
    match = re.search(r"\buv (\d+)\.(\d+)", said)
    return match is not None and (int(match[1]), int(match[2])) >= UV_OLDEST


def _get_uv(target: Path, runner: Runner, pythons: Sequence[Path], fetch: Fetch) -> Path:
    wheel = uv_wheel()
    if wheel is None:
        raise EngineSetupFailed("uv was not found, and there is no pinned build of it for this machine.", GET_UV)
    indexes = _indexes(runner.environ)
    content = None
    for index in indexes:
        content = content or _from_index(index, wheel, runner, fetch)
    content = content or _from_pip(wheel, runner, pythons)
    if content is None:
        tried = "the configured package index does not offer it" if indexes else "no package index is configured"
        raise EngineSetupFailed(f"uv, which sets up the engine, was not found, and {tried}.", GET_UV)
    found = "sha256:" + hashlib.sha256(content).hexdigest()
    if found != wheel.digest:
        raise EngineSetupFailed(
            f"The downloaded '{wheel.file}' is not the file that was tested (its hash is {found}).",
            f"A proxy or mirror may change files. {GET_UV}",
        )
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        program = archive.read(f"uv-{UV}.data/scripts/{target.name}")
    made(target.parent)
    temporary = target.with_suffix(f".{os.getpid()}")
    temporary.write_bytes(program)
    temporary.chmod(0o755)
    temporary.replace(target)
    return target


def _indexes(environ: Mapping[str, str]) -> List[str]:
    names = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL")
    # UV_INDEX may name an index: name=address.
    return [re.sub(r"^[\w-]+=", "", entry) for name in names for entry in environ.get(name, "").split()]


def _from_index(index: str, wheel: UvWheel, runner: Runner, fetch: Fetch) -> Optional[bytes]:
    """Return the wheel from an index's page of uv; None when it is not there."""
    page = index.rstrip("/") + "/uv/"
    try:
        if page.startswith("file:"):
            # A mirror in a folder: the page is its index.html.
            page += "index.html"
        text = fetch(page).decode("utf-8", "replace")
        for link in re.findall(r"""href\s*=\s*["']([^"']+)["']""", text):
            address = urllib.parse.urljoin(page, html.unescape(link))
            if urllib.parse.unquote(urllib.parse.urlsplit(address).path).endswith("/" + wheel.file):
                return fetch(urllib.parse.urldefrag(address).url)
    except OSError as error:  # urllib's URLError is one, and a fetch of QGIS's is to raise one
        runner.log(f"{page}: {error}")
    return None


def _from_pip(wheel: UvWheel, runner: Runner, pythons: Sequence[Path]) -> Optional[bytes]:
    """Return the wheel by the pip of an interpreter (Windows and macOS QGIS have one; Debian's may not)."""
    folder = made(home() / "uv" / f"download.{os.getpid()}")
    try:
        for python in pythons:
            # -s and the cleaned environment, yet not -I: pip's own variables count.
            command: List[Argument] = [
                python,
                "-s",
                "-m",
                "pip",
                "download",
                "--no-deps",
                "--only-binary=:all:",
                "--dest",
                folder,
            ]
            try:
                runner.run([*command, f"uv=={UV}"], timeout_s=600)
            except CommandFailed as error:
                if "No module named pip" not in error.output:
                    raise explain("uv, which sets up the engine, cannot be downloaded", error.output, home()) from error
                continue
            except OSError:
                continue
            file = folder / wheel.file
            found = file if file.is_file() else next(iter(folder.glob("uv-*.whl")), None)
            return found.read_bytes() if found else None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return None


def _dotted(version: Sequence[int]) -> str:
    return ".".join(str(part) for part in version)
