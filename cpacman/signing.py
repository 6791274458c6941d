"""The plan key of the master, and the check of reports that hosts sign.

Invariants: the private half never leaves its file, which is made once, whole, and readable by
its owner only; what is signed is the exact text that travels; a report that does not verify is
an error, never an empty report. A key is followed by another only with a message that it signed:
hosts that know the old one learn the new one by that, and by nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cpacman.errors import HostError, Problem, SafetyError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY_FILE = Path("keys") / "plan.key"
ROTATIONS_FILE = Path("keys") / "rotations.json"


class PlanKey:
    """The Ed25519 key that signs manifests. Make it with `load_plan_key`."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @property
    def public_key_b64(self) -> str:
        """The raw 32 bytes of the public half in base64: what a host pins."""
        return base64.b64encode(self._key.public_key().public_bytes_raw()).decode()

    @property
    def fingerprint(self) -> str:
        """`sha256:` and the hash of the public half: what `cpacman.pin` on a host answers."""
        return fingerprint(self.public_key_b64)

    def sign_manifest(self, text: str) -> str:
        """Return the signature over a manifest's exact text, in base64."""
        return base64.b64encode(self._key.sign(text.encode())).decode()


def fingerprint(public_key_b64: str) -> str:
    """Return how a public key is shown and compared by people."""
    return "sha256:" + hashlib.sha256(base64.b64decode(public_key_b64)).hexdigest()


def load_plan_key(state_dir: Path) -> PlanKey:
    """Return the plan key kept below `state_dir`, making it on first use.

    Raises:
        SafetyError: the file is readable by others, or is no Ed25519 key.
    """
    path = state_dir / KEY_FILE
    if not path.exists():
        _make_key(path)
    _finish_rotation(path)
    return PlanKey(_read_key(path))


class Rotation(NamedTuple):
    """A message that one plan key signed: from now on the other one counts."""

    text: str
    signature: str

    @property
    def body(self) -> dict[str, Any]:
        """What it says: `from` and `to`, public keys in base64, and `created`."""
        found: dict[str, Any] = json.loads(self.text)
        return found


def load_rotations(state_dir: Path) -> list[Rotation]:
    """Return how the plan key came to be what it is: the messages, oldest first.

    Raises:
        SafetyError: the file that keeps them is damaged.
    """
    path = state_dir / ROTATIONS_FILE
    if not path.exists():
        return []
    try:
        return [Rotation(*pair) for pair in json.loads(path.read_text(encoding="utf-8"))]
    except (TypeError, ValueError) as problem:
        raise SafetyError(Problem(str(path), f"is damaged: {problem}")) from problem


def rotate_plan_key(state_dir: Path, *, now: float) -> Rotation:
    """Make a new plan key, and the message of the old one that hosts learn it by.

    The message is on disk before the key takes its place, so a death in between loses nothing:
    the next reader finishes it.
    """
    path = state_dir / KEY_FILE
    old = load_plan_key(state_dir)
    following = path.with_suffix(".next")
    following.unlink(missing_ok=True)
    _make_key(following)
    new = PlanKey(_read_key(following))
    body = {"kind": "rotation", "from": old.public_key_b64, "to": new.public_key_b64,
            "created": int(now)}  # fmt: skip
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    rotation = Rotation(text, old.sign_manifest(text))
    _write_rotations(state_dir, [*load_rotations(state_dir), rotation])
    _finish_rotation(path)
    return rotation


def _finish_rotation(path: Path) -> None:
    """Let the next key take its place, if a message says that it is the one that follows."""
    following = path.with_suffix(".next")
    if not following.exists():
        return
    rotations = load_rotations(path.parent.parent)
    if rotations and rotations[-1].body["to"] == PlanKey(_read_key(following)).public_key_b64:
        following.replace(path)
        _sync_folder(path.parent)


def _write_rotations(state_dir: Path, rotations: Sequence[Rotation]) -> None:
    path = state_dir / ROTATIONS_FILE
    handle, name = tempfile.mkstemp(prefix=".rotations-", dir=path.parent)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        json.dump([list(one) for one in rotations], stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())
    Path(name).replace(path)
    _sync_folder(path.parent)


def _read_key(path: Path) -> Ed25519PrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise SafetyError(Problem(str(path), "others can read the plan key", f"chmod 600 {path}"))
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (TypeError, ValueError, UnsupportedAlgorithm) as problem:
        raise SafetyError(Problem(str(path), f"not a private key: {problem}")) from problem
    if not isinstance(key, Ed25519PrivateKey):
        raise SafetyError(Problem(str(path), "not an Ed25519 key"))
    return key


def _make_key(path: Path) -> None:
    """Write a new key under a temporary name and link it: of two makers at once, one wins."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    text = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".plan-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        _link_once(Path(name), path)
    finally:
        Path(name).unlink()


def _link_once(source: Path, path: Path) -> None:
    """Give a file its name unless the name is taken, and make the name last."""
    try:
        os.link(source, path)
    except FileExistsError:
        return
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder last."""
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def verify_report(text: str, signature: str, public_key_pem: str | bytes) -> dict[str, Any]:
    """Return a host's report, once its signature by the host's own Salt key holds.

    Args:
        text: the report as it came, to the byte.
        signature: PKCS1v15 with SHA-256, in base64.
        public_key_pem: the key that the master accepted for that host.

    Raises:
        HostError: the signature does not hold, or the report is no JSON object.
    """
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    pem = public_key_pem.encode() if isinstance(public_key_pem, str) else public_key_pem
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as problem:
        raise HostError(f"the accepted key of the host is unusable: {problem}") from problem
    if not isinstance(key, RSAPublicKey):
        raise HostError("the accepted key of the host is not an RSA key")
    try:
        raw = base64.b64decode(signature, validate=True)
        key.verify(raw, text.encode(), padding.PKCS1v15(), hashes.SHA256())
    except (InvalidSignature, TypeError, ValueError) as problem:
        raise HostError("the report is not signed by the host's accepted key") from problem
    return parse_report(text)


def parse_report(text: str) -> dict[str, Any]:
    """Return a report that is vouched for already, by its signature or by the channel it came on.

    Raises:
        HostError: it is no JSON object.
    """
    try:
        report = json.loads(text)
    except ValueError as problem:
        raise HostError(f"the report is not JSON: {problem}") from problem
    if not isinstance(report, dict):
        raise HostError("the report is not an object")
    return report
