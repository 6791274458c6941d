"""Reading repositories: rpm-md and bare folders, real, damaged and hostile."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import createrepo_c
import pytest

from cpacman.depot.repository import check_files, fingerprint_of, read_repository
from cpacman.errors import CpacmanError, RepositoryError
from tests.unit.depot.conftest import Build

Createrepo = Callable[..., None]


def tree(path: Path) -> set[tuple[str, int]]:
    """Return what lies below a folder, with mtimes."""
    return {(str(one), one.lstat().st_mtime_ns) for one in [path, *path.rglob("*")]}


def refused(path: Path, cache: Path) -> str:
    """Return the text of the error that reading a repository must raise."""
    with pytest.raises(RepositoryError) as caught:
        read_repository("zoo", path, cache)
    return str(caught.value)


def test_bare_folder(zoo: Path, tmp_path: Path) -> None:
    """A folder of packages is read whole, with the updateinfo beside them."""
    found = read_repository("zoo", zoo, tmp_path / "cache")
    assert (found.kind, len(found.packages), len(found.advisories)) == ("folder", 35, 4)
    duck = next(one for one in found.packages if one.nevra == "duck-0.6-1.noarch")
    data = (zoo / "duck-0.6-1.noarch.rpm").read_bytes()
    assert (duck.sha256, duck.size) == (hashlib.sha256(data).hexdigest(), len(data))
    assert (duck.location, duck.repository) == ("duck-0.6-1.noarch.rpm", "zoo")
    sea = found.advisories[0]
    assert (sea.id, sea.type) == ("RHEA-2012:0055", "security")
    assert "walrus-5.21-1.noarch" in sea.packages
    assert {kind for kind, _ in found.metadata.items()} == {"primary", "filelists", "updateinfo"}


def test_rpmmd_says_the_same_as_the_folder(
    zoo: Path, tmp_path: Path, createrepo: Createrepo
) -> None:
    """The same files indexed by createrepo_c are the same packages."""
    bare = read_repository("zoo", zoo, tmp_path / "cache")
    createrepo(zoo)
    indexed = read_repository("zoo", zoo, tmp_path / "cache")
    assert indexed.kind == "rpm-md"
    assert indexed.packages == bare.packages
    assert check_files(indexed, verify=True) == []


def test_nothing_is_written_into_a_repository(zoo: Path, tmp_path: Path) -> None:
    """A repository belongs to somebody else: not even a timestamp of it changes."""
    before = tree(zoo)
    read_repository("zoo", zoo, tmp_path / "cache")
    assert tree(zoo) == before


def test_every_generation_of_packages(data: Path, tmp_path: Path) -> None:
    """Packages of CentOS 2.1 to 7 are read, with the digests that tell they are whole."""
    found = read_repository("old", data / "rpms" / "centos-release", tmp_path / "cache")
    assert len(found.packages) == 10
    assert {one.evr for one in found.packages if one.arch == "i386"} == {
        "1:3.1-1", "6:4-0.1", "10:5-0.0.el5.centos.2",
    }  # fmt: skip


def test_real_metadata_cold_and_warm(data: Path, tmp_path: Path) -> None:
    """The CentOS Stream 9 metadata is read in the time that patience allows, warm in a tenth."""
    folders = sorted((data / "repodata").iterdir())
    took = []
    for _ in range(2):
        start = time.process_time()  # what else runs on this machine does not count
        found = [read_repository(one.name, one, tmp_path / "cache") for one in folders]
        took.append(time.process_time() - start)
    assert sum(len(one.packages) for one in found) == 18774
    assert took[0] < 6 and took[1] < 0.6  # of 3 s and 0.3 s that were promised


def test_cache_is_only_a_cache(indexed: Path, tmp_path: Path) -> None:
    """A damaged or foreign cache is read past, and two names never share packages."""
    cache = tmp_path / "cache"
    first = read_repository("zoo", indexed, cache)
    for file in (cache / "repositories").glob("*.msgpack"):
        file.write_bytes(b"\x93junk")
    assert read_repository("zoo", indexed, cache) == first
    assert {one.repository for one in read_repository("other", indexed, cache).packages} == {
        "other"
    }


def test_changes_are_seen_and_the_rest_is_not_read_again(
    zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that came, one that went and one that was replaced are noticed; others are known."""
    cache = tmp_path / "cache"
    before = read_repository("zoo", zoo, cache)
    (zoo / "bear-4.1-1.noarch.rpm").unlink()
    (zoo / "sub").mkdir()
    shutil.copyfile(zoo / "duck-0.6-1.noarch.rpm", zoo / "sub" / "again.rpm")
    shutil.copyfile(zoo / "cat-1.0-1.noarch.rpm", zoo / "sub" / "cat.rpm")
    (zoo / "cat-1.0-1.noarch.rpm").unlink()
    read: list[str] = []
    real = createrepo_c.package_from_rpm
    monkeypatch.setattr(
        createrepo_c, "package_from_rpm", lambda path, **k: read.append(path) or real(path, **k)
    )
    after = read_repository("zoo", zoo, cache)
    assert sorted(Path(one).name for one in read) == ["again.rpm", "cat.rpm"]
    assert after.fingerprint != before.fingerprint
    assert {one.nevra for one in before.packages} - {one.nevra for one in after.packages} == {
        "bear-4.1-1.noarch"
    }
    cat = next(one for one in after.packages if one.name == "cat")
    assert cat.location == "sub/cat.rpm"
    assert len([one for one in after.packages if one.evr == "0.6-1" and one.name == "duck"]) == 1


def test_metadata_of_a_folder_is_written_again_when_lost(zoo: Path, tmp_path: Path) -> None:
    """Whoever cleans the cache breaks nothing."""
    first = read_repository("zoo", zoo, tmp_path / "cache")
    shutil.rmtree(first.metadata.primary.parent)
    assert read_repository("zoo", zoo, tmp_path / "cache") == first


def test_source_packages_and_hidden_files_are_left_out(build: Build, tmp_path: Path) -> None:
    """Source packages, unfinished transfers and hidden folders are no packages."""
    folder = tmp_path / "r"
    (folder / ".partial").mkdir(parents=True)
    shutil.copy(build("alpha"), folder)
    shutil.copy(build("alpha", source=True), folder)
    (folder / ".partial" / "x.rpm").write_bytes(b"half")
    (folder / ".y.rpm").write_bytes(b"half")
    found = read_repository("r", folder, tmp_path / "cache")
    assert [one.nevra for one in found.packages] == ["alpha-1-1.noarch"]


def test_linked_folders_are_followed_once(zoo: Path, tmp_path: Path) -> None:
    """Mirrors link folders; a loop must not hang."""
    folder = tmp_path / "r"
    folder.mkdir()
    (folder / "Packages").symlink_to(zoo)
    (zoo / "loop").symlink_to(zoo)
    assert len(read_repository("r", folder, tmp_path / "cache").packages) == 35


def test_damaged_packages_are_all_named(zoo: Path, tmp_path: Path) -> None:
    """Truncated, torn, longer, empty and foreign files: one error that names each."""
    names = ["bear-4.1-1", "camel-0.1-1", "cat-1.0-1", "cow-2.2-3", "crow-0.8-1", "dog-4.23-1"]
    files = [zoo / f"{name}.noarch.rpm" for name in names]
    data = files[0].read_bytes()
    damage = [
        data[:-1], data[:700], data + b"more", b"", b"PK" + bytes(900),
        data[:-30] + bytes([data[-30] ^ 1]) + data[-29:],
    ]  # fmt: skip
    for file, content in zip(files, damage, strict=True):
        file.write_bytes(content)
    text = refused(zoo, tmp_path / "cache")
    assert [file for file in files if str(file) not in text] == []
    assert len(text.splitlines()) == 6
    assert "truncated: 1 of" in text
    for file in files:
        file.unlink()
    assert len(read_repository("zoo", zoo, tmp_path / "cache").packages) == 29


@pytest.mark.parametrize("cut", [10, 96, 100, 300, 1000, -1])
def test_truncated_modern_packages(build: Build, tmp_path: Path, cut: int) -> None:
    """What today's rpmbuild makes is seen to be cut, wherever the cut is."""
    folder = tmp_path / "r"
    folder.mkdir()
    (folder / "a.rpm").write_bytes(build("alpha").read_bytes()[:cut])
    assert "a.rpm" in refused(folder, tmp_path / "cache")


def test_missing_empty_and_wrong_paths(tmp_path: Path) -> None:
    """A path that is missing, a file, empty or half a mirror is named with a mend."""
    empty = tmp_path / "empty"
    empty.mkdir()
    file = tmp_path / "file"
    file.write_text("")
    half = tmp_path / "half"
    (half / "repodata").mkdir(parents=True)
    dead = tmp_path / "dead"
    dead.mkdir()
    (dead / "a.rpm").symlink_to(tmp_path / "nowhere")
    for path in (tmp_path / "missing", empty, file, half, dead):
        with pytest.raises(RepositoryError) as caught:
            read_repository("r", path, tmp_path / "cache")
        (problem,) = caught.value.problems
        assert problem.path.startswith(f"r: {path}") and problem.mend


def record_of(repo: Path, kind: str) -> Path:
    """Return the metadata file of a kind."""
    return next((repo / "repodata").glob(f"*-{kind}.xml*"))


@pytest.mark.parametrize("how", ["altered", "missing", "truncated"])
def test_metadata_that_repomd_does_not_know(indexed: Path, tmp_path: Path, how: str) -> None:
    """Absent and altered metadata is refused even when an earlier read is in the cache."""
    read_repository("zoo", indexed, tmp_path / "cache")
    files = [record_of(indexed, kind) for kind in ("primary", "filelists")]
    for file in files:
        if how == "missing":
            file.unlink()
        elif how == "altered":
            file.write_bytes(gzip.compress(b"<metadata/>"))
        else:
            file.write_bytes(file.read_bytes()[:-5])
    text = refused(indexed, tmp_path / "cache")
    assert [file for file in files if str(file) not in text] == []


@pytest.mark.parametrize(
    "repomd",
    [
        b"", b"<repomd", b"\xff\xfe", b"<repomd/>",
        b'<!DOCTYPE x [<!ENTITY a "b">]><repomd/>',
        b'<repomd xmlns="http://linux.duke.edu/metadata/repo"><data type="primary"/></repomd>',
    ],
)  # fmt: skip
def test_broken_repomd(indexed: Path, tmp_path: Path, repomd: bytes) -> None:
    """A repomd.xml that is broken or names nothing is refused with its path."""
    (indexed / "repodata" / "repomd.xml").write_bytes(repomd)
    assert "repomd.xml" in refused(indexed, tmp_path / "cache")


@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [
        (rb'href="repodata/[^"]*-primary', b'href="../../etc/primary'),
        (rb'href="repodata/[^"]*-primary', b'href="/etc/primary'),
        (rb'primary.xml.[a-z]+"', b'primary.xml.zck"'),
        (rb'<checksum type="sha256">', b'<checksum type="rot13">'),
        (rb'<checksum type="sha256">[0-9a-f]{64}', b'<checksum type="sha256">' + b"z" * 64),
        (rb'<checksum type="sha256">[0-9a-f]{64}', b'<checksum type="sha256">' + b"0" * 64),
        (rb"<size>[0-9]+", b"<size>-7"),
    ],
)
def test_hostile_repomd(indexed: Path, tmp_path: Path, pattern: bytes, replacement: bytes) -> None:
    """Records that lead outside, are unreadable or lie are refused."""
    path = indexed / "repodata" / "repomd.xml"
    path.write_bytes(re.sub(pattern, replacement, path.read_bytes()))
    assert "zoo: " in refused(indexed, tmp_path / "cache")


def forge(repo: Path, pattern: str, replacement: str, compress: Callable[[bytes], bytes],
          suffix: str) -> None:  # fmt: skip
    """Rewrite primary metadata, and repomd.xml with a right checksum of it."""
    text = gzip.decompress(record_of(repo, "primary").read_bytes()).decode()
    forged = re.sub(pattern, replacement, text, count=1, flags=re.DOTALL)
    data = compress(forged.encode())
    name = f"forged-primary.xml{suffix}"
    (repo / "repodata" / name).write_bytes(data)
    (repo / "repodata" / "repomd.xml").write_text(
        '<repomd xmlns="http://linux.duke.edu/metadata/repo"><data type="primary">'
        f'<checksum type="sha256">{hashlib.sha256(data).hexdigest()}</checksum>'
        f'<location href="repodata/{name}"/></data></repomd>'
    )


BEAR = r"(<name>bear</name>.*?)"


@pytest.mark.parametrize(
    ("pattern", "replacement", "said"),
    [
        (BEAR + r'href="[^"]*"', r'\1href="../x.rpm"', "outside"),
        (BEAR + r'href="[^"]*"', r'\1href="/etc/shadow"', "outside"),
        (BEAR + r'href="[^"]*"', r'\1href="a&#10;b.rpm"', "location"),
        (BEAR + r'<location [^>]*/>', r"\1", "no location"),
        ("<name>bear</name>", "<name>be&#10;ar</name>", r"be\nar"),
        ("<name>bear</name>", "<name>--root=x</name>", "--root"),
        ("<name>bear</name>", "<name>../bear</name>", "../bear"),
        ("<name>bear</name>", "<name></name>", "no name"),
        ("<name>bear</name>", "<name>be&#0;ar</name>", "can't be parsed"),
        (BEAR + r'<version [^>]*/>', r"\1", "no version"),
        (BEAR + r'epoch="0"', r'\1epoch="-1"', "epoch"),
        (BEAR + r'ver="[^"]*"', r'\1ver="1-2"', "version"),
        (BEAR + r'package="[0-9]*"', r'\1package="-5"', "size -5"),
        (BEAR + r'<size [^>]*/>', r"\1", "size 0"),
        (BEAR + r'package="[0-9]*"', r'\1package="99999999999999999999"', "size"),
        (BEAR + r">[0-9a-f]{64}<", r"\1>xyz<", "sha256"),
        (BEAR + r'type="sha256"', r'\1type="crc"', "crc"),
        (BEAR + r"<checksum.*?</checksum>", r"\1", "can't be parsed"),
        ("</metadata>", "", "can't be parsed"),
    ],
)  # fmt: skip
def test_hostile_packages(
    indexed: Path, tmp_path: Path, pattern: str, replacement: str, said: str
) -> None:
    """Metadata that names paths, options, broken lines or nothing is refused on one line."""
    forge(indexed, pattern, replacement, gzip.compress, ".gz")
    text = refused(indexed, tmp_path / "cache")
    assert said in text and "forged-primary" in text
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz", ".bz2", ".zst"])
def test_compressions(indexed: Path, tmp_path: Path, suffix: str) -> None:
    """Metadata is read in every compression that mirrors use."""

    def zstd(data: bytes) -> bytes:
        plain = tmp_path / "plain"
        plain.write_bytes(data)
        createrepo_c.compress_file(str(plain), str(tmp_path / "z"), createrepo_c.ZSTD)
        return (tmp_path / "z").read_bytes()

    ways = {
        "": bytes,
        ".gz": gzip.compress,
        ".xz": lzma.compress,
        ".bz2": bz2.compress,
        ".zst": zstd,
    }
    forge(indexed, "never matches", "", ways[suffix], suffix)
    assert len(read_repository("zoo", indexed, tmp_path / "cache").packages) == 35


@pytest.mark.parametrize("kind", ["sha1", "sha512"])
def test_other_checksums_become_sha256(
    zoo: Path, tmp_path: Path, createrepo: Createrepo, kind: str
) -> None:
    """Old metadata has sha1: the sha256 comes from the files, which must fit the sha1."""
    bare = read_repository("zoo", zoo, tmp_path / "cache")
    options = ["--checksum", kind]
    if kind == "sha1":
        pytest.importorskip("createrepo_c")
        forge_sha1(zoo, createrepo)
    else:
        createrepo(zoo, *options)
    found = read_repository("zoo", zoo, tmp_path / "cache")
    assert found.kind == "rpm-md" and found.packages == bare.packages
    (zoo / "bear-4.1-1.noarch.rpm").write_bytes(
        bytes((zoo / "bear-4.1-1.noarch.rpm").stat().st_size)
    )
    (zoo / "cat-1.0-1.noarch.rpm").unlink()
    text = refused(zoo, tmp_path / "fresh")
    assert "bear-4.1" in text and "cat-1.0" in text


def forge_sha1(repo: Path, createrepo: Createrepo) -> None:
    """Index with sha1 as createrepo of EL5 did; today's refuses to write it."""
    createrepo(repo)
    text = gzip.decompress(record_of(repo, "primary").read_bytes()).decode()
    for file in repo.glob("*.rpm"):
        data = file.read_bytes()
        text = text.replace(
            f'"sha256" pkgid="YES">{hashlib.sha256(data).hexdigest()}',
            f'"sha" pkgid="YES">{hashlib.sha1(data).hexdigest()}',
        )
    forge(repo, r"\A.*\Z", lambda _: text, gzip.compress, ".gz")  # type: ignore[arg-type]


def test_a_package_listed_twice(indexed: Path, tmp_path: Path) -> None:
    """The same file listed twice is one package; the same NEVRA with other bytes stays two."""
    entry = r'(<package type="rpm">\s*<name>bear</name>.*?</package>)'
    forge(indexed, entry, r"\1\1", gzip.compress, ".gz")
    assert len(read_repository("zoo", indexed, tmp_path / "cache").packages) == 35
    text = gzip.decompress((indexed / "repodata" / "forged-primary.xml.gz").read_bytes()).decode()
    found = re.search(entry, text, re.DOTALL)
    assert found
    other = re.sub(r">[0-9a-f]{64}<", f">{'0' * 64}<", found[1]).replace("bear-4.1", "bear2-4.1")
    shutil.copyfile(
        indexed / "repodata" / "forged-primary.xml.gz", indexed / "repodata" / "x-primary.xml.gz"
    )
    (indexed / "repodata" / "forged-primary.xml.gz").unlink()
    forge(indexed, entry, lambda m: m[1] + other, gzip.compress, ".gz")  # type: ignore[arg-type]
    packages = read_repository("zoo", indexed, tmp_path / "cache").packages
    assert len([one for one in packages if one.nevra == "bear-4.1-1.noarch"]) == 2


def test_files_are_checked_by_size_and_on_demand_by_content(indexed: Path, tmp_path: Path) -> None:
    """Missing files and other sizes are seen at once, other bytes with verify; all are named."""
    found = read_repository("zoo", indexed, tmp_path / "cache")
    bear, cat, cow = (indexed / f"{n}.noarch.rpm" for n in ("bear-4.1-1", "cat-1.0-1", "cow-2.2-3"))
    bear.unlink()
    cat.write_bytes(cat.read_bytes() + b"x")
    cow.write_bytes(bytes(cow.stat().st_size))
    quick = "\n".join(map(str, check_files(found)))
    assert "bear-4.1" in quick and "cat-1.0" in quick and "cow-2.2" not in quick
    assert len(check_files(found, verify=True)) == 3


def test_plans_need_no_package_files(data: Path, tmp_path: Path) -> None:
    """Metadata without files is read; that the files are missing is another question."""
    base = data / "repodata" / "cs9-baseos-2022-02"
    found = read_repository("baseos", base, tmp_path / "cache")
    assert len(found.packages) == 1125
    assert len(check_files(found)) == 1125


@pytest.mark.parametrize("text", ["<updates>", "<updates><update><id>a b</id></update></updates>"])
def test_broken_updateinfo(zoo: Path, tmp_path: Path, text: str) -> None:
    """Advisories that can't be read are an error, not an empty list."""
    (zoo / "updateinfo.xml").write_text(text)
    assert "updateinfo.xml" in refused(zoo, tmp_path / "cache")


def test_two_updateinfos(zoo: Path, tmp_path: Path) -> None:
    """Which of two is meant can't be known."""
    (zoo / "updateinfo.xml.gz").write_bytes(gzip.compress(b"<updates/>"))
    assert "updateinfo.xml.gz" in refused(zoo, tmp_path / "cache")


def test_fingerprint_follows_content(zoo: Path, tmp_path: Path) -> None:
    """The fingerprint is stable, and moves with any file, its time, and the advisories."""
    seen = {fingerprint_of("zoo", zoo)}
    assert fingerprint_of("zoo", zoo) in seen
    os.utime(zoo / "bear-4.1-1.noarch.rpm", (1, 1))
    seen.add(fingerprint_of("zoo", zoo))
    (zoo / "updateinfo.xml").write_text("<updates/>")
    seen.add(fingerprint_of("zoo", zoo))
    assert len(seen) == 3


def test_a_cache_that_can_not_be_written(zoo: Path, tmp_path: Path) -> None:
    """A cache directory that is a file is named, and is no bug report."""
    (tmp_path / "cache").write_text("")
    with pytest.raises(CpacmanError, match="cache"):
        read_repository("zoo", zoo, tmp_path / "cache")


def test_the_cache_keeps_to_its_own_folder(indexed: Path, zoo: Path, tmp_path: Path) -> None:
    """Whoever names a shared directory as cache loses nothing in it."""
    other = tmp_path / "cache" / ("0" * 64)
    other.mkdir(parents=True)
    os.utime(other, (1, 1))
    read_repository("zoo", indexed, tmp_path / "cache")
    assert other.is_dir()
    assert {one.name for one in (tmp_path / "cache").iterdir()} == {"0" * 64, "repositories"}


def test_cache_does_not_grow_for_ever(
    indexed: Path, tmp_path: Path, createrepo: Createrepo
) -> None:
    """What no read has asked for in a month goes when something new is written."""
    cache = tmp_path / "cache"
    read_repository("zoo", indexed, cache)
    (old,) = (cache / "repositories").iterdir()
    os.utime(old, (1, 1))
    createrepo(indexed, "--set-timestamp-to-revision", "--revision", "7")
    read_repository("zoo", indexed, cache)
    assert not old.exists() and len(list((cache / "repositories").iterdir())) == 1


def test_dates_of_advisories(zoo: Path, tmp_path: Path) -> None:
    """In seconds, in UTC; what a mirror wrote that is no date is not known, and breaks nothing."""
    rows = [
        ("A-1", "2026-01-02 03:04:05", "2026-02-02"),
        ("A-2", "yesterday", "1770000000"),
        ("A-3", "", "-5"),
    ]
    text = "".join(
        f'<update from="z" status="final" type="security" version="1"><id>{number}</id>'
        f'<title>t</title><issued date="{issued}"/><updated date="{updated}"/></update>'
        for number, issued, updated in rows
    )
    (zoo / "updateinfo.xml").write_text(f"<updates>{text}</updates>")
    found = read_repository("zoo", zoo, tmp_path / "cache").advisories
    told = {one.id: (one.issued, one.updated) for one in found}
    assert told == {"A-1": (1767323045, 1769990400), "A-2": (0, 1770000000), "A-3": (0, 0)}
