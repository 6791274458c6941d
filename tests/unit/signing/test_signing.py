"""The plan key and the reports of hosts."""

from __future__ import annotations

import base64
import json
import multiprocessing
import stat
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from cpacman import signing
from cpacman.errors import HostError, SafetyError
from cpacman.signing import (
    KEY_FILE,
    fingerprint,
    load_plan_key,
    load_rotations,
    rotate_plan_key,
    verify_report,
)


def test_the_key_is_made_once_and_is_private(tmp_path):
    """First use makes a key of mode 0600 in a private directory; the second finds the same."""
    key = load_plan_key(tmp_path / "state")
    path = tmp_path / "state" / KEY_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [p.name for p in path.parent.iterdir()] == ["plan.key"]
    assert load_plan_key(tmp_path / "state").public_key_b64 == key.public_key_b64
    assert len(base64.b64decode(key.public_key_b64)) == 32
    assert key.fingerprint == fingerprint(key.public_key_b64)


def _public(state_dir, queue):
    queue.put(load_plan_key(state_dir).public_key_b64)


def test_makers_at_once_get_one_key(tmp_path):
    """Processes that make the key at the same time end with the same key."""
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=_public, args=(tmp_path, queue)) for _ in range(6)]
    for worker in workers:
        worker.start()
    keys = {queue.get(timeout=300) for _ in workers}
    for worker in workers:
        worker.join()
    assert len(keys) == 1


def test_a_signature_is_over_the_exact_text(tmp_path):
    """The signature verifies with the public half and only for the very text."""
    key = load_plan_key(tmp_path)
    public = ed25519.Ed25519PublicKey.from_public_bytes(base64.b64decode(key.public_key_b64))
    signature = base64.b64decode(key.sign_manifest('{"a": "é"}'))
    public.verify(signature, '{"a": "é"}'.encode())
    with pytest.raises(InvalidSignature):
        public.verify(signature, '{"a":"é"}'.encode())


@pytest.mark.parametrize("content", [b"", b"nonsense", "rsa"])
def test_an_unusable_key_file_is_an_error(tmp_path, content):
    """A damaged key, or one of another kind, is never replaced silently."""
    path = tmp_path / KEY_FILE
    path.parent.mkdir()
    if content == "rsa":
        content = rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )  # fmt: skip
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(SafetyError, match=r"plan\.key"):
        load_plan_key(tmp_path)
    assert path.read_bytes() == content


def test_a_key_that_others_can_read_is_refused(tmp_path):
    """Loose permissions are an error with the mend."""
    load_plan_key(tmp_path)
    (tmp_path / KEY_FILE).chmod(0o640)
    with pytest.raises(SafetyError, match="chmod 600"):
        load_plan_key(tmp_path)


@pytest.fixture(scope="module")
def host_key():
    """A host's Salt key."""
    return rsa.generate_private_key(65537, 2048)


def public_pem(key):
    """Return the public half as Salt keeps it."""
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def signed(key, text):
    """Return a host's signature over a text."""
    raw = key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
    return base64.b64encode(raw).decode()


def test_a_report_counts_with_its_hosts_key_only(host_key):
    """The right key gives the report; another key, text or signature is an error."""
    text = json.dumps({"outcome": "applied"})
    signature = signed(host_key, text)
    assert verify_report(text, signature, public_pem(host_key)) == {"outcome": "applied"}
    assert verify_report(text, signature, public_pem(host_key).decode())
    other = rsa.generate_private_key(65537, 2048)
    for bad_text, bad_signature, key in (
        (text + " ", signature, host_key), (text, signature, other), (text, "", host_key),
        (text, "%%%", host_key), (text, signature[:-8], host_key),
        (text, signed(other, text), host_key),
    ):  # fmt: skip
        with pytest.raises(HostError, match="not signed"):
            verify_report(bad_text, bad_signature, public_pem(key))


def test_keys_that_are_no_rsa_keys(host_key):
    """An accepted key that cannot be used is an error of its own."""
    for pem in (b"", b"x", public_pem(ed25519.Ed25519PrivateKey.generate())):
        with pytest.raises(HostError, match="accepted key"):
            verify_report("{}", signed(host_key, "{}"), pem)


@pytest.mark.parametrize("text", ["", "[]", "1", "{"])
def test_a_signed_text_that_is_no_report(host_key, text):
    """A signature does not make an object of a text."""
    with pytest.raises(HostError, match="the report is not"):
        verify_report(text, signed(host_key, text), public_pem(host_key))


def test_a_rotated_key_is_another_one_that_the_old_one_named(tmp_path: Path) -> None:
    """After a rotation the new key is loaded, and the old one signed the way to it."""
    old = load_plan_key(tmp_path)
    made = rotate_plan_key(tmp_path, now=7)
    new = load_plan_key(tmp_path)
    assert made.body == {"kind": "rotation", "from": old.public_key_b64, "to": new.public_key_b64,
                         "created": 7}  # fmt: skip
    assert old.sign_manifest(made.text) == made.signature
    again = rotate_plan_key(tmp_path, now=8)
    assert load_rotations(tmp_path) == [made, again]
    assert {path.name for path in (tmp_path / "keys").iterdir()} == {"plan.key", "rotations.json"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "keys").iterdir())


@pytest.mark.parametrize("told", [True, False])
def test_a_rotation_that_died_in_the_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    """Once the message is kept the next reader finishes it; before that nothing has happened."""
    old = load_plan_key(tmp_path)
    name = "_finish_rotation" if told else "_write_rotations"
    calls = []

    def die(*_: object) -> None:
        calls.append(name)
        if not told or len(calls) > 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(signing, name, die)
    with pytest.raises(KeyboardInterrupt):
        rotate_plan_key(tmp_path, now=7)
    monkeypatch.undo()
    now = load_plan_key(tmp_path)
    assert (now.fingerprint == old.fingerprint) == (not told)
    assert rotate_plan_key(tmp_path, now=8).body["from"] == now.public_key_b64


def test_damaged_rotations_are_an_error(tmp_path: Path) -> None:
    """Not a list of messages: said, since hosts would be lost without them."""
    load_plan_key(tmp_path)
    (tmp_path / "keys" / "rotations.json").write_text("[1]")
    with pytest.raises(SafetyError, match="damaged"):
        load_rotations(tmp_path)
