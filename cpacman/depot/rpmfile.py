"""Whether a file is one whole RPM package, told from its bytes alone.

Invariants: nothing but the given file is read, once, from start to end; a file that is shorter,
longer or other than its own headers say is `Damaged`. This is no check of signatures: it tells
accidents (truncated, torn, overwritten) from packages, nothing more. Header readers accept
truncated packages, hence this.

Source: the RPM package format, versions 3 to 6 (lead, signature header, header, payload).
"""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

LEAD_MAGIC = b"\xed\xab\xee\xdb"
HEADER_MAGIC = b"\x8e\xad\xe8"
LEAD_SIZE = 96
MAX_ENTRIES = 1 << 16
MAX_STORE = 1 << 28
BLOCK = 1 << 20

SIG_LONGSIZE, SIG_SIZE, SIG_MD5 = 270, 1000, 1004
TAG_PAYLOAD_DIGEST, TAG_PAYLOAD_ALGORITHM = 5092, 5093
INT32, INT64, STRING, BINARY, STRING_ARRAY = 4, 5, 6, 7, 8
ALGORITHMS = {1: "md5", 2: "sha1", 8: "sha256", 9: "sha384", 10: "sha512"}


class Damaged(Exception):
    """The file is no whole package; the text says how."""


class FileDigest(NamedTuple):
    """The size in bytes and the sha256, as hex digits, of a whole package file."""

    size: int
    sha256: str


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


class _Reader:
    """Reads a file once, feeding every byte to the digests that are in force."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.position = 0
        self.digests: list[_Hash] = []

    def exactly(self, count: int, what: str) -> bytes:
        data = self.stream.read(count)
        self.feed(data)
        if len(data) != count:
            raise Damaged(f"ends inside its {what}, at byte {self.position}")
        return data

    def rest(self) -> None:
        while data := self.stream.read(BLOCK):
            self.feed(data)

    def feed(self, data: bytes) -> None:
        self.position += len(data)
        for digest in self.digests:
            digest.update(data)


def read_rpm(path: Path) -> FileDigest:
    """Read a package file whole and return its digest.

    Raises:
        Damaged: it is no whole package.
        OSError: it can't be read.
    """
    if not path.is_file():
        raise Damaged("is no regular file")  # opening a pipe would wait for ever
    whole = hashlib.sha256()
    with path.open("rb") as stream:
        reader = _Reader(stream)
        reader.digests.append(whole)
        if reader.exactly(LEAD_SIZE, "lead")[:4] != LEAD_MAGIC:
            raise Damaged("is no RPM package")
        signature = _read_header(reader, "signature")
        reader.exactly(-reader.position % 8, "signature")
        start = reader.position
        body = hashlib.md5(usedforsecurity=False)
        if SIG_MD5 in signature:
            reader.digests.append(body)
        header = _read_header(reader, "header")
        payload = _payload_digest(header)
        if payload:
            reader.digests.append(payload[0])
        reader.rest()
    _check_size(signature, reader.position - start)
    if payload and payload[0].hexdigest() != payload[1]:
        raise Damaged("its payload is not the one its header was made for")
    if SIG_MD5 in signature and body.hexdigest() != signature[SIG_MD5].hex():
        raise Damaged("its header or payload is not the one it was built with")
    return FileDigest(reader.position, whole.hexdigest())


def _read_header(reader: _Reader, what: str) -> dict[int, bytes]:
    magic, count, store = struct.unpack(">4s4xII", reader.exactly(16, what))
    if magic[:3] != HEADER_MAGIC or count > MAX_ENTRIES or store > MAX_STORE:
        raise Damaged(f"has no {what} where one must be, at byte {reader.position - 16}")
    index = reader.exactly(16 * count, what)
    data = reader.exactly(store, what)
    return {
        tag: _cut(data, kind, offset, number)
        for tag, kind, offset, number in struct.iter_unpack(">IIII", index)
        if tag in _WANTED and offset <= store
    }


_WANTED = {SIG_LONGSIZE, SIG_SIZE, SIG_MD5, TAG_PAYLOAD_DIGEST, TAG_PAYLOAD_ALGORITHM}


def _cut(data: bytes, kind: int, offset: int, count: int) -> bytes:
    """Return an entry's bytes: of texts the first one, of numbers the first one."""
    if kind in (STRING, STRING_ARRAY):
        return data[offset : data.find(b"\0", offset)]
    width = {INT32: 4, INT64: 8, BINARY: count}.get(kind, 0)
    return data[offset : offset + width]


def _check_size(signature: dict[int, bytes], found: int) -> None:
    entry = signature.get(SIG_LONGSIZE) or signature.get(SIG_SIZE)
    if not entry:
        return
    size = int.from_bytes(entry, "big")
    if found < size:
        raise Damaged(f"is truncated: {size - found} of {size} bytes are missing")
    if found > size:
        raise Damaged(f"has {found - size} bytes more than its header says")


def _payload_digest(header: dict[int, bytes]) -> tuple[_Hash, str] | None:
    """Return the hash to feed the payload to, and what it must come to (RPM 4.14 and later)."""
    digest, algorithm = header.get(TAG_PAYLOAD_DIGEST), header.get(TAG_PAYLOAD_ALGORITHM)
    if digest is None or algorithm is None:
        return None
    name = ALGORITHMS.get(int.from_bytes(algorithm, "big"))
    return (
        (hashlib.new(name, usedforsecurity=False), digest.decode("ascii", "replace"))
        if name
        else None
    )
