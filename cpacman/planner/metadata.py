"""rpm-md text brought into one order before the solver reads it.

Invariants: a repository's packages reach the solver sorted by name, arch, version and checksum,
whatever order createrepo wrote them in, so that a plan depends on content alone; what the solver
never looks at (descriptions, URLs) is left out, which halves the cache. Text that does not have
the expected shape is passed on untouched: the solver's own parser is the judge of it.
"""

from __future__ import annotations

import bz2
import functools
import gzip
import hashlib
import lzma
import re
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

_KEY = re.compile(
    rb"<name>([^<]*)</name>\s*<arch>([^<]*)</arch>\s*<version ([^>]*)/>"
    rb"\s*<checksum[^>]*>([^<]*)<"
)
_UNUSED = tuple(
    re.compile(rb"<" + tag + rb"(?:>[^<]*</" + tag + rb">|/>)\s*")
    for tag in (b"summary", b"description", b"packager", b"url", b"rpm:license", b"rpm:buildhost")
)
_OPEN, _CLOSE = b"<package ", b"</package>"


def sort_primary(text: bytes) -> bytes:
    """Return primary metadata with its packages in canonical order and without descriptions.

    Args:
        text: the uncompressed XML of a primary file.
    """
    head, *chunks = text.split(_OPEN)
    if not chunks or b"<![CDATA[" in text or b"<!--" in text:
        return text
    last, closed, tail = chunks[-1].rpartition(_CLOSE)
    chunks[-1] = last + closed + b"\n"
    keyed = [(match.groups(), chunk) for chunk in chunks if (match := _KEY.search(chunk))]
    if len(keyed) != len(chunks) or not closed:
        return text
    body = b"".join(_OPEN + _strip(chunk) for _, chunk in sorted(keyed))
    return head + body + tail


def _strip(chunk: bytes) -> bytes:
    """Return one package's element without the fields no solver reads."""
    for pattern in _UNUSED:
        chunk = pattern.sub(b"", chunk, count=1)
    return chunk


def file_checksum(path: Path) -> str:
    """Return the sha256 of a file as hex digits.

    Raises:
        OSError: the file can't be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def is_in_primary(path: str) -> bool:
    """Return whether primary metadata lists every file of this path, so filelists add nothing.

    Source: createrepo's rule for the files it copies into primary.
    """
    return path.startswith("/etc/") or "bin/" in path or path == "/usr/lib/sendmail"


def read_text(path: Path) -> bytes:
    """Return a metadata file's uncompressed bytes, whichever compression its name tells.

    Raises:
        OSError: the file can't be read.
        ValueError: it is damaged, or ends too early.
    """
    if path.suffix in (".zst", ".zck"):
        return _decompress(path)
    expand = _EXPAND.get(path.suffix)
    data = path.read_bytes()
    return expand(data) if expand else data


def _decompress(path: Path) -> bytes:
    """Read what Python's own library can't, with createrepo_c."""
    import createrepo_c

    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "metadata"
        kind = createrepo_c.AUTO_DETECT_COMPRESSION
        try:
            createrepo_c.decompress_file(str(path), str(target), kind)
        except createrepo_c.CreaterepoCError as error:
            raise ValueError(f"damaged: {error}") from error
        return target.read_bytes()


def _expand(decompress: Callable[[bytes], bytes], data: bytes) -> bytes:
    try:
        return decompress(data)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise ValueError(f"damaged: {error}") from error


_EXPAND: dict[str, Callable[[bytes], bytes]] = {
    ".gz": functools.partial(_expand, gzip.decompress),
    ".bz2": functools.partial(_expand, bz2.decompress),
    ".xz": functools.partial(_expand, lzma.decompress),
}
