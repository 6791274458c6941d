"""Provenance at the door: only what a channel's keys signed enters, told by rpm, in every case."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cpacman.config import Channel, RepositorySettings
from cpacman.depot import signatures
from cpacman.depot.provenance import standing_of
from cpacman.depot.rpmfile import HEADER_MAGIC
from cpacman.depot.rpmkeys import open_keyring, verify_detached, verify_packages
from cpacman.depot.snapshot import Snapshot, list_snapshots
from cpacman.depot.taking import take_snapshot
from cpacman.errors import CpacmanError, RepositoryError
from cpacman.report.progress import Silent
from tests.unit.depot.conftest import Build
from tests.unit.depot.signing import Signer

Createrepo = Callable[..., None]
OLD, BETWEEN = "20200101T000000", "20210601T000000"


class Keys(NamedTuple):
    """Public keys as a channel names them, and signed packages by what is the matter with them."""

    signer: Signer
    folder: Path
    packages: Path
    good: str

    def __getitem__(self, name: Any) -> Path:
        return self.folder / name


@pytest.fixture(scope="session")
def keys(build: Build, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keys]:
    """Keys of each kind, and a package signed by each."""
    base = tmp_path_factory.mktemp("keys")
    # A GnuPG home must have a short path: there is a socket in it.
    signer = Signer(Path(tempfile.mkdtemp(prefix="gpg-")) / "home")
    packages = base / "packages"
    packages.mkdir()

    def package(name: str, key: str = "", *, at: str = "") -> None:
        target = Path(shutil.copy(build(name), packages / f"{name}.rpm"))
        if key:
            signer.sign(target, key, at=at)

    good, wrong, revoked = (signer.key(one) for one in ("good", "wrong", "revoked"))
    lapsed = signer.key("lapsed", at=OLD)
    package("plain")
    package("good", good)
    package("wrong", wrong)
    package("revoked", revoked)
    package("in-time", lapsed, at=BETWEEN)
    package("too-late", lapsed)
    signer.export(good, base / "good")
    signer.revoke(revoked)
    signer.export(revoked, base / "revoked")
    signer.expire(lapsed, at="20200201T000000", after="2y")
    signer.export(lapsed, base / "lapsed")
    whole = (packages / "good.rpm").read_bytes()
    header = whole.index(HEADER_MAGIC, whole.index(HEADER_MAGIC) + 1)  # after the signature's own
    for name, spot in (("header", header + 300), ("payload", len(whole) - 20)):
        data = bytearray(whole)
        data[spot] ^= 1
        (packages / f"damaged-{name}.rpm").write_bytes(data)
    (packages / "truncated.rpm").write_bytes(whole[:-9])
    yield Keys(signer, base, packages, good)
    signer.end()
    shutil.rmtree(signer.home.parent, ignore_errors=True)


EXPECTED = {
    "good": ("good", ""),
    "in-time": ("good", ""),
    "plain": ("unsigned", "not signed"),
    "wrong": ("bad", "none of keys"),
    "revoked": ("bad", "revoked"),
    "too-late": ("bad", "not valid"),
    "damaged-header": ("bad", ""),
    "damaged-payload": ("bad", "BAD"),
    "truncated": ("bad", ""),
}


def test_every_kind_of_signature(keys: Keys, tmp_path: Path) -> None:
    """All in one lot: each has its own verdict, and one refused package spoils no other."""
    ring = open_keyring([keys["good"], keys["revoked"], keys["lapsed"]], tmp_path)
    files = {name: keys.packages / f"{name}.rpm" for name in EXPECTED}
    verdicts = verify_packages(ring, list(files.values()))
    found = {name: verdicts[file] for name, file in files.items()}
    assert {name: one.status for name, one in found.items()} == {
        name: status for name, (status, _) in EXPECTED.items()
    }
    for name, (_, words) in EXPECTED.items():
        assert words in found[name].detail, name


def test_the_machines_own_keys_do_not_count(keys: Keys, tmp_path: Path) -> None:
    """Only the channel's key ring is asked: another channel's package is a stranger's."""
    ring = open_keyring([keys["lapsed"]], tmp_path)
    verdict = verify_packages(ring, [keys.packages / "good.rpm"])
    assert [one.status for one in verdict.values()] == ["bad"]


def test_real_packages_of_three_generations(data: Path, tmp_path: Path) -> None:
    """CentOS 6 (its key expired since) and 7 verify; 3 to 5, whose keys rpm can't use, do not."""
    folder = data / "rpms" / "centos-release"
    ring = open_keyring(sorted(folder.glob("RPM-GPG-KEY-CentOS-*")), tmp_path)
    assert {Path(one).name[-1] for one in ring.unusable} >= {"5"}
    verdicts = verify_packages(ring, sorted(folder.glob("*.rpm")))
    good = {file.name.split("-")[2] for file, one in verdicts.items() if one.status == "good"}
    assert good == {"6", "7"}
    assert all("rpm can't use" in o.detail or "none of" in o.detail for o in verdicts.values()
               if o.status != "good")  # fmt: skip


def test_keys_that_are_none(keys: Keys, tmp_path: Path, data: Path) -> None:
    """A missing file, an empty folder, a file that is no key, keys that rpm refuses: all said."""
    nonsense = tmp_path / "nonsense"
    nonsense.write_text("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n")
    empty = tmp_path / "empty"
    empty.mkdir()
    old = data / "rpms" / "centos-release" / "RPM-GPG-KEY-CentOS-5"
    for place in (tmp_path / "missing", empty, nonsense, old):
        with pytest.raises(CpacmanError, match=place.name):
            open_keyring([place], tmp_path / "cache")
    together = tmp_path / "together"
    together.mkdir()
    shutil.copy(keys["good"], together)
    assert open_keyring([together], tmp_path / "cache").keys


class Place:
    """A mirror of chosen packages, and a depot."""

    def __init__(self, base: Path, keys: Keys, createrepo: Createrepo) -> None:
        self.base, self.keys, self.createrepo = base, keys, createrepo
        self.mirror = base / "mirror"
        self.said: list[str] = []
        self.channel = self.configured()

    def configured(self, *names: str, **flags: Any) -> Channel:
        """Return a channel of this mirror with the named keys."""
        repository = {"path": str(self.mirror), **flags}
        keys = [str(self.keys[name]) for name in names]
        self.channel = Channel.model_validate({"keys": keys, "repositories": {"main": repository}})
        return self.channel

    def fill(self, *names: str) -> None:
        """Put packages into the mirror and index it."""
        self.mirror.mkdir(exist_ok=True)
        for name in names:
            shutil.copy(self.keys.packages / f"{name}.rpm", self.mirror)
        self.createrepo(self.mirror)

    def take(self) -> Snapshot:
        """Take a snapshot as the channel is configured."""
        told = Silent()
        told.line = self.said.append  # type: ignore[method-assign]
        return take_snapshot(
            "el9",
            self.channel.repositories,
            depot=self.base / "depot",
            cache=self.base / "cache",
            keys=self.channel.keys,
            reporter=told,
        )

    def kept(self) -> list[Path]:
        """Return the package files in the depot."""
        return list((self.base / "depot" / "files").glob("*/*"))

    def counts(self, snapshot: Snapshot) -> dict[str, int]:
        """Return how a snapshot's packages stand."""
        return standing_of(self.channel, snapshot.packages, self.base / "depot").counts


@pytest.fixture
def place(tmp_path: Path, keys: Keys, createrepo: Createrepo) -> Place:
    """An empty mirror and depot."""
    return Place(tmp_path, keys, createrepo)


def test_keys_alone_require(place: Place) -> None:
    """With keys and no word about signatures everything bad is named, and nothing is let in."""
    place.configured("good")
    place.fill("good", "plain", "wrong")
    with pytest.raises(RepositoryError) as caught:
        place.take()
    text = str(caught.value)
    assert "plain.rpm: it is not signed" in text and "wrong.rpm: it is signed by" in text
    assert "good.rpm" not in text
    assert place.kept() == [] and list_snapshots(place.base / "depot") == ()


def test_warn_lets_in_and_says_so(place: Place) -> None:
    """`warn` takes it, names it, and counts it ever after."""
    place.configured("good", signatures="warn")
    place.fill("good", "plain", "wrong")
    taken = place.take()
    assert place.counts(taken) == {"bad": 1, "good": 1, "unsigned": 1}
    (line,) = place.said
    assert "plain.rpm it is not signed" in line and "wrong.rpm" in line


def test_off_and_no_keys_look_at_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither verifies: no program is started, and nothing is said to be good."""
    monkeypatch.setattr(signatures, "verify_packages", None)
    place.fill("plain")
    for flags in ({}, {"signatures": "off"}, {"signatures": False}):
        place.configured(*(["good"] if flags else []), **flags)
        assert place.counts(place.take()) == {}


def test_verdicts_are_kept_by_bytes_and_keys(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known is not verified again; other keys are another question, and may refuse."""
    place.configured("good")
    place.fill("good")
    first = place.take()
    asked: list[int] = []
    real = signatures.verify_packages

    def counted(ring: Any, files: Any) -> Any:
        asked.append(len(files))
        return real(ring, files)

    monkeypatch.setattr(signatures, "verify_packages", counted)
    assert place.take() == first and asked == []
    place.fill("in-time")
    place.configured("good", "lapsed")
    assert place.counts(first) == {"unchecked": 1}
    assert place.counts(place.take()) == {"good": 2} and sum(asked) == 2
    place.configured("lapsed")
    with pytest.raises(RepositoryError, match=r"good\.rpm: it is signed by"):
        place.take()


def test_a_verdict_is_about_the_bytes_it_was_made_of(place: Place) -> None:
    """A signed package under another one's checksum is no proof of that other one."""
    place.configured("good")
    place.fill("good", "plain")
    good, plain = (place.mirror / f"{one}.rpm" for one in ("good", "plain"))
    stolen = good.read_bytes().ljust(plain.stat().st_size, b"\0")[: plain.stat().st_size]
    state = plain.stat()
    plain.write_bytes(stolen)
    os.utime(plain, ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises(RepositoryError, match="altered"):
        place.take()
    assert list((place.base / "depot" / "signatures").glob("*")) == []


def test_signed_metadata(place: Place, keys: Keys, tmp_path: Path) -> None:
    """repomd.xml.asc by a key of the channel passes; another key, or other bytes, refuse."""
    place.configured("good")
    place.fill("good")
    repomd = place.mirror / "repodata" / "repomd.xml"
    signature = keys.signer.detach(repomd, keys.good)
    taken = place.take()
    place.configured("lapsed", "good")
    text = signature.read_text()
    for other in ("lapsed",):
        ring = open_keyring([keys[other]], tmp_path / "rings")
        assert verify_detached(ring, repomd.read_bytes(), signature).status == "bad"
    repomd.write_bytes(repomd.read_bytes() + b"\n")
    with pytest.raises(RepositoryError, match=r"repomd\.xml\.asc: gpgv"):
        place.take()
    signature.write_text("nonsense")
    with pytest.raises(RepositoryError, match=r"repomd\.xml\.asc"):
        place.take()
    signature.write_text(text)
    assert [one.id for one in list_snapshots(place.base / "depot")] == [taken.id]


def test_without_rpm_nothing_is_verified(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A master that lacks rpm refuses, with what to install, rather than trust."""
    from cpacman.depot import rpmkeys

    def missing(*_: Any, **__: Any) -> Any:
        raise FileNotFoundError

    place.configured("good")
    place.fill("good")
    monkeypatch.setattr(rpmkeys.subprocess, "run", missing)
    with pytest.raises(CpacmanError, match="install rpm and gnupg"):
        place.take()
    assert place.kept() == []


def test_asking_for_signatures_without_keys_is_refused() -> None:
    """A repository that wants what nobody can check is a mistake in the configuration."""
    with pytest.raises(ValueError, match=r"repositories\.main\.signatures needs keys"):
        Channel.model_validate({"repositories": {"main": {"path": "/x", "signatures": "require"}}})
    assert (
        RepositorySettings.model_validate({"path": "/x", "signatures": False}).signatures == "off"
    )
