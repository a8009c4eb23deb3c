"""The files that a virtual raster or layer reads (GDAL's VRT): its pixels change with them, and no output replaces one.

GDAL tells the sources of a VRT, but not theirs where they are VRTs too, and tells them to the engine alone.
"""

from __future__ import annotations

import html
import os
import re
from typing import BinaryIO, Dict, Iterator, List, Tuple
from xml.parsers import expat  # nosec B407 - entity declarations are refused, see _Sources

_SUFFIX = ".vrt"
_ROOTS = (b"<vrtdataset", b"<ogrvrtdatasource")
# Of rasters: simple and complex sources, raw bands, overviews; of warped ones; of vector layers. GDAL takes any case.
_ELEMENTS = ("sourcefilename", "sourcedataset", "srcdatasource")
_HEAD_BYTES = 1024  # in which GDAL looks for the root
_BLOCK_BYTES = 1 << 16
# Such an element with its attributes, and its text, plain or as it stands in CDATA. A "<" ends them all: else damaged
# text would be searched to its end from each beginning of an element.
_ELEMENT = re.compile(
    rb"""<(sourcefilename|sourcedataset|srcdatasource)\b((?:[^<>"']|"[^"<]*"|'[^'<]*')*)>"""
    rb"""(?:([^<]*)|\s*<!\[cdata\[([^<]*?)\]\]>\s*)</\1""",
    re.IGNORECASE,
)
_RELATIVE = re.compile(rb"""\brelativetovrt\s*=\s*["']?(?!0\b)[^"'\s]""", re.IGNORECASE)


def files_read_by(path: str) -> Iterator[str]:
    """Yield each file that a VRT reads, also through VRTs within it; nothing for a file that is none.

    What is no plain file is left out: a name within an archive or on a server (/vsi...), of a part of a file
    (NETCDF:...), of a database. Names are spelt as GDAL spells them: of those that are relative to the VRT, its folder
    as it was given comes first.
    """
    found = {path}
    waiting = [path] if _is_virtual(path) else []
    read = set()  # a VRT may read itself, and under ever longer names
    while waiting:
        virtual = waiting.pop()
        real = os.path.realpath(virtual)
        if real in read:
            continue
        read.add(real)
        for name in _sources(virtual):
            if name in found or not os.path.isfile(name):
                continue
            found.add(name)
            if _is_virtual(name):
                waiting.append(name)
            yield name


def _is_virtual(path: str) -> bool:
    """Tell whether a file is a VRT by its name or, as GDAL does, by its beginning."""
    if not os.path.isfile(path):
        return False
    if path.lower().endswith(_SUFFIX):
        return True
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES).lower()
    except OSError:
        return False
    return any(root in head for root in _ROOTS)


def _sources(path: str) -> Iterator[str]:
    """Yield the names that a VRT gives its sources, as often as it gives them."""
    # GDAL, too, takes a VRT that is a link for the file that it points to.
    folder = os.path.dirname(os.path.realpath(path) if os.path.islink(path) else path)
    try:
        with open(path, "rb") as file:
            for name, relative in _names(file):
                yield os.path.join(folder, name) if relative else name
    except OSError:
        return  # GDAL cannot read it either; whoever opens it for the job says so


def _names(file: BinaryIO) -> Iterator[Tuple[str, bool]]:
    """Yield the names of sources in the text of a VRT, and whether they are relative to it."""
    sources = _Sources()
    try:
        for block in iter(lambda: file.read(_BLOCK_BYTES), b""):
            yield from sources.feed(block)
    except expat.ExpatError:
        # GDAL opens much that is no XML: a description "R&D", text of another encoding, attributes without quotes. To
        # say that nothing is read would let an output replace an image; a name too many does no harm.
        file.seek(0)
        yield from _names_by_search(file)


def _names_by_search(file: BinaryIO) -> Iterator[Tuple[str, bool]]:
    """Yield what looks like the names of sources, and whether they are relative to the VRT."""
    text = b""
    for block in iter(lambda: file.read(_BLOCK_BYTES), b""):
        text += block
        end = 0
        for match in _ELEMENT.finditer(text):
            end = match.end()
            plain, literal = match.group(3), match.group(4)
            name = (html.unescape(_decoded(plain)) if literal is None else _decoded(literal)).lstrip()
            if name:
                yield name, bool(_RELATIVE.search(match.group(2)))
        # An element that has only begun ends in the next block; one that is longer than a block names no file.
        text = text[max(end, len(text) - _BLOCK_BYTES) :]


def _decoded(name: bytes) -> str:
    """Return a name as text: GDAL's are in UTF-8, and it takes what is not for Latin-1 on Windows.

    On other systems such bytes name files that no job can name: what follows of the name there is without effect.
    """
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode("latin-1")


class _Sources:
    """Finds the names of sources in the text of a VRT, of which nothing else is held: a mosaic may have 100,000."""

    def __init__(self) -> None:
        self._found: List[Tuple[str, bool]] = []
        self._text: List[str] = []
        self._inside = self._relative = False
        self._parser = expat.ParserCreate("utf-8")  # whatever the file declares: GDAL takes no notice of that
        self._parser.StartElementHandler = self._start
        self._parser.CharacterDataHandler = self._characters
        self._parser.EndElementHandler = self._end
        self._parser.EntityDeclHandler = self._refuse

    def feed(self, block: bytes) -> List[Tuple[str, bool]]:
        """Return the names that end in the next block of the text, and whether they are relative to the VRT.

        Raises:
            ExpatError: it is no XML in UTF-8, or declares entities.
        """
        self._found = []
        self._parser.Parse(block)
        return self._found

    def _start(self, element: str, attributes: Dict[str, str]) -> None:
        self._inside = element.lower() in _ELEMENTS
        if self._inside:
            self._text = []
            given = {name.lower(): value for name, value in attributes.items()}
            self._relative = given.get("relativetovrt", "0") != "0"

    def _characters(self, text: str) -> None:
        if self._inside:
            self._text.append(text)

    def _end(self, element: str) -> None:
        name = "".join(self._text).lstrip()  # as GDAL; blanks at its end belong to the name
        if self._inside and name:
            self._found.append((name, self._relative))
        self._inside = False

    def _refuse(self, *declaration: object) -> None:
        raise expat.ExpatError("entities are declared")
