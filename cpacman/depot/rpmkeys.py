"""Whether RPM packages are signed by certain keys, told by rpm itself, in processes of its own.

Invariants: only the given keys count, kept in a key ring of their own that is named by their bytes;
a package is good when rpm verified digest and signature over all of it, at `_pkgverify_level all`,
and each key that signed it was valid at that time and is not revoked (rpm 4.18 looks at neither);
what can't be verified is bad, never good. Reading headers is no verification and takes no part.

This is the half of provenance that knows RPM; what is done with a verdict is in `signatures`.
"""

from __future__ import annotations

import base64
import calendar
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from cpacman.errors import CpacmanError, Problem

Status = Literal["good", "unsigned", "bad"]

_LEVEL = (
    "--define", "_pkgverify_level all",
    "--define", "_pkgverify_flags 0",
    "--define", "_vsflags_verify 0",
)  # fmt: skip
_TAGS = ("RSAHEADER", "DSAHEADER", "SIGPGP", "SIGGPG")
_FORMAT = "".join(f"%{{{tag}:pgpsig}};" for tag in _TAGS) + r"\n"
_SIGNED_BY = re.compile(r"[^,]*, (?P<at>[^,]+), Key ID (?P<key>[0-9a-f]{16})")
_TIMEOUT = 1800


class Verdict(msgspec.Struct, frozen=True, array_like=True):
    """What is known of one package; `detail` says why it is not good, `keys` who signed it."""

    status: Status
    detail: str = ""
    keys: tuple[str, ...] = ()


class Key(NamedTuple):
    """A key or subkey: valid from `created` to `expires` (0: for ever), seconds since the epoch."""

    created: int
    expires: int
    revoked: bool


class Keyring(NamedTuple):
    """Keys, ready for rpm and for gpgv.

    `id` is the sha256 over the key files; `keys` are by the last 16 hex digits, small; `unusable`
    names the files that rpm can't import.
    """

    id: str
    folder: Path
    keys: Mapping[str, Key]
    unusable: tuple[str, ...] = ()


def key_files(places: Sequence[Path]) -> list[Path]:
    """Return the key files that places mean: files, and folders of them.

    Raises:
        CpacmanError: one is missing or can't be read, or there are none.
    """
    files: list[Path] = []
    problems: list[Problem] = []
    for place in places:
        found = sorted(p for p in place.iterdir() if p.is_file()) if place.is_dir() else [place]
        files += found
        bad = [one for one in found if not os.access(one, os.R_OK)] or ([] if found else [place])
        problems += [Problem(f"keys {one}", "is missing or can't be read") for one in bad]
    if problems or not files:
        raise CpacmanError(problems or [Problem("keys", "are none")])
    return files


def keyring_id(places: Sequence[Path]) -> str:
    """Return what names a key ring: the sha256 over its files' digests, sorted.

    Raises:
        CpacmanError: a file is missing.
    """
    digests = sorted(hashlib.sha256(one.read_bytes()).hexdigest() for one in key_files(places))
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def open_keyring(places: Sequence[Path], cache: Path) -> Keyring:
    """Return the key ring of some files; made in the cache when it is not there.

    Raises:
        CpacmanError: files are missing, a program is, or rpm can use none of the keys.
    """
    name = keyring_id(places)
    folder = cache / "keyrings" / name
    if not folder.is_dir():
        _make_keyring(key_files(places), folder)
    keys = _read_keys(folder)
    unusable = (folder / "unusable").read_text(encoding="utf-8").splitlines()
    return Keyring(name, folder, keys, tuple(unusable))


def _make_keyring(files: Sequence[Path], folder: Path) -> None:
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".tmp-"))
    try:
        (temporary / "db").mkdir()
        unusable = []
        for file in files:
            done = _run(
                temporary, "rpmkeys", "--dbpath", str(temporary / "db"), "--import", str(file)
            )
            unusable += [str(file)] if done.returncode else []
        if len(unusable) == len(files):
            words = "hold no key that this machine's rpm can use"
            raise CpacmanError(Problem(", ".join(unusable), words))
        (temporary / "unusable").write_text("\n".join(unusable), encoding="utf-8")
        _make_ring(temporary, files)
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster, with the same
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _make_ring(folder: Path, files: Sequence[Path]) -> None:
    """Write the keys as gpg lists them and as gpgv reads them."""
    listings, ring = "", b""
    for file in files:
        listings += _gpg(folder, "--show-keys", "--with-colons", str(file)).decode(errors="replace")
        ring += _dearmored(file)
    (folder / "keys").write_text(listings, encoding="utf-8")
    (folder / "ring.gpg").write_bytes(ring)


_ARMOR = re.compile(
    rb"-----BEGIN PGP PUBLIC KEY BLOCK-----\r?\n(.*?)\r?\n-----END PGP PUBLIC KEY BLOCK-----",
    re.DOTALL,
)


def _dearmored(file: Path) -> bytes:
    """Return the binary keys of a file, which may hold several blocks of text."""
    data = file.read_bytes()
    blocks = _ARMOR.findall(data)
    try:
        return b"".join(_decoded(one) for one in blocks) if blocks else data
    except ValueError as error:
        raise CpacmanError(Problem(str(file), f"is no key: {error}")) from None


def _decoded(block: bytes) -> bytes:
    """Return a block's bytes: after the headers and an empty line, before the checksum."""
    lines = block.replace(b"\r", b"").split(b"\n")
    body = lines[lines.index(b"") + 1 :] if b"" in lines else lines
    return base64.b64decode(b"".join(one for one in body if not one.startswith(b"=")))


def _gpg(folder: Path, *arguments: str) -> bytes:
    done = _run(folder, "gpg", "--batch", "--no-options", "--homedir", str(folder), *arguments)
    if done.returncode:
        words = f"gpg can't read it: {_last_line(done.stderr)}"
        raise CpacmanError(Problem(arguments[-1], words))
    return done.stdout


def _read_keys(folder: Path) -> dict[str, Key]:
    """Return the keys of gpg's colon listing; see its doc/DETAILS."""
    keys: dict[str, Key] = {}
    for line in (folder / "keys").read_text(encoding="utf-8").splitlines():
        parts = line.split(":")
        if parts[0] in ("pub", "sub") and len(parts) > 6:
            expires = int(parts[6]) if parts[6].isdigit() else 0
            created = int(parts[5]) if parts[5].isdigit() else 0
            keys[parts[4].lower()] = Key(created, expires, parts[1] == "r")
    return keys


def _run(
    folder: Path, *command: str, data: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a program with nothing of the caller's environment or home.

    Raises:
        CpacmanError: it is missing, or does not come back.
    """
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "HOME": str(folder),
        "LC_ALL": "C",
        "TZ": "UTC",
    }
    try:
        return subprocess.run(
            command,
            env=environment,
            input=data if data is not None else b"",
            capture_output=True,
            check=False,
            timeout=_TIMEOUT,
        )
    except FileNotFoundError:
        words = "is missing, so signatures can't be checked"
        raise CpacmanError(Problem(command[0], words, "install rpm and gnupg here")) from None
    except subprocess.TimeoutExpired:
        raise CpacmanError(Problem(command[0], f"did not end in {_TIMEOUT} s")) from None


def _last_line(text: bytes) -> str:
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no reason given"


# ---------------------------------------------------------------------------------------- packages


def verify_packages(keyring: Keyring, files: Sequence[Path]) -> dict[Path, Verdict]:
    """Return rpm's verdict on package files, in a few processes for all of them.

    Raises:
        CpacmanError: rpm can't be run.
    """
    signers = _signers(keyring, files)
    code, blocks = _check(keyring, files)
    found = {one: _judged(blocks.get(str(one)), signers[one], keyring) for one in files}
    good = [file for file, verdict in found.items() if verdict.status == "good"]
    if not code or not good:
        return found
    # rpm refused the lot, so its lines alone make nothing good: what is left must pass as a lot.
    if len(good) < len(files):
        return found | verify_packages(keyring, good)
    if len(files) > 1:
        return {one: verify_packages(keyring, [one])[one] for one in files}
    return {files[0]: Verdict("bad", "rpm refuses it and does not say why")}


def _check(keyring: Keyring, files: Sequence[Path]) -> tuple[int, dict[str, list[str]]]:
    """Return rpmkeys' exit code, and for each file the lines it printed."""
    database = str(keyring.folder / "db")
    names = [str(one) for one in files]
    done = _run(keyring.folder, "rpmkeys", "--dbpath", database, *_LEVEL, "-K", "-v", *names)
    blocks: dict[str, list[str]] = {}
    current: list[str] = []
    for line in done.stdout.decode(errors="replace").splitlines():
        if line.endswith(":") and line[:-1] in names:
            current = blocks.setdefault(line[:-1], [])
        else:
            current.append(line.strip())
    return done.returncode, blocks


def _judged(lines: list[str] | None, signers: Sequence[str] | None, keyring: Keyring) -> Verdict:
    if not lines or signers is None:
        return Verdict("bad", "rpm can't read it as a package")
    told = [line.rpartition(": ") for line in lines]
    wrong = [
        f"{what}: {result}" for what, _, result in told if not result.startswith(("OK", "NOTFOUND"))
    ]
    signed = [what for what, _, result in told if "signature" in what.lower() and result == "OK"]
    if wrong:
        return Verdict("bad", _explained(wrong, signers, keyring), _ids(signers))
    if not signed and not any(signers):
        return Verdict("unsigned", "it is not signed")
    faults = [fault for signer in signers if (fault := _signer_fault(signer, keyring))]
    if faults or not signed or not signers:
        return Verdict("bad", "; ".join(faults) or "no signature was verified", _ids(signers))
    return Verdict("good", keys=_ids(signers))


def _explained(wrong: Sequence[str], signers: Sequence[str], keyring: Keyring) -> str:
    if all(one.endswith("NOKEY") for one in wrong):
        ids = _ids(signers)
        why = "whose key rpm can't use" if set(ids) & set(keyring.keys) else "which is none of keys"
        return f"it is signed by {' '.join(ids) or 'another key'}, {why}"
    return "; ".join(one for one in wrong if not one.endswith("NOKEY"))[:300]


def _ids(signers: Sequence[str]) -> tuple[str, ...]:
    found = (_SIGNED_BY.fullmatch(one) for one in signers)
    return tuple(sorted({one["key"] for one in found if one}))


def _signer_fault(signer: str, keyring: Keyring) -> str:
    """Return why a signature that rpm verified does not count, or an empty text."""
    match = _SIGNED_BY.fullmatch(signer)
    if not match:
        return f"its signature can't be read: {signer}"
    try:
        return _key_fault(match["key"], _seconds(match["at"]), keyring)
    except ValueError:
        return f"the time of its signature can't be read: {match['at']}"


def _key_fault(name: str, at: int, keyring: Keyring) -> str:
    """Return why a signature by a key, made at a time, does not count."""
    key = keyring.keys.get(name)
    if key is None:
        return f"it is signed by {name}, which is none of keys"
    if key.revoked:
        return f"it is signed by {name}, which is revoked"
    if at < key.created or (key.expires and at > key.expires):
        day = time.strftime("%Y-%m-%d", time.gmtime(at))
        return f"it was signed on {day}, when {name} was not valid"
    return ""


def _seconds(text: str) -> int:
    return calendar.timegm(time.strptime(text, "%a %b %d %H:%M:%S %Y"))


def _signers(keyring: Keyring, files: Sequence[Path]) -> dict[Path, Sequence[str] | None]:
    """Return the signatures that packages carry, as rpm prints them; None: it can't be read."""
    database = str(keyring.folder / "db")
    query = ["rpm", "--dbpath", database, "-qp", "--nosignature", "--nodigest", "--nomanifest"]
    names = [str(one) for one in files]
    done = _run(keyring.folder, *query, "--queryformat", _FORMAT, *names)
    lines = done.stdout.decode(errors="replace").splitlines()
    if len(lines) != len(files):
        if len(files) == 1:
            return {files[0]: None}
        return {file: one for f in files for file, one in _signers(keyring, [f]).items()}
    return {file: _present(line) for file, line in zip(files, lines, strict=True)}


def _present(line: str) -> list[str]:
    return [one for one in line.split(";") if one and one != "(none)"]


# ---------------------------------------------------------------------------------------- metadata


def verify_detached(keyring: Keyring, data: bytes, signature: Path) -> Verdict:
    """Return gpgv's verdict on a detached signature, such as `repomd.xml.asc`.

    Raises:
        CpacmanError: gpgv can't be run.
    """
    ring = str(keyring.folder / "ring.gpg")
    status = ["gpgv", "--homedir", str(keyring.folder), "--status-fd", "1", "--keyring", ring]
    done = _run(keyring.folder, *status, "--", str(signature), "-", data=data)
    told = list(_status_lines(done.stdout))
    valid = [words for words in told if words[0] == "VALIDSIG"]
    faults = [fault for words in valid if (fault := _detached_fault(words, keyring))]
    bad = [words for words in told if words[0] in _BAD_STATUS]
    if done.returncode or bad or faults or not valid:
        return Verdict("bad", "; ".join(faults) or f"gpgv: {_last_line(done.stderr)}")
    return Verdict("good", keys=tuple(words[1][-16:].lower() for words in valid))


_BAD_STATUS = frozenset({"BADSIG", "ERRSIG", "EXPSIG", "REVKEYSIG", "NO_PUBKEY"})


def _detached_fault(words: Sequence[str], keyring: Keyring) -> str:
    """Judge a VALIDSIG line: fingerprint, date, seconds since the epoch, and more."""
    return _key_fault(words[1][-16:].lower(), int(words[3]) if words[3].isdigit() else -1, keyring)


def _status_lines(text: bytes) -> Iterator[list[str]]:
    for line in text.decode(errors="replace").splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "[GNUPG:]":
            yield words[1:] if len(words) > 2 else [words[1]]
