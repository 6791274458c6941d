"""Bad input to the console: a clear word on one line, never a traceback, never a wrong plan."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cpacman.cli import main
from tests.unit.cli.test_cli import _sha256, make_inventory, make_repository
from tests.unit.planner.casefile import Pkg, primary_xml

LONG = "a" * 10_000_000


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


class Console:
    """Runs the console and looks at what every answer must have."""

    def __init__(self, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capfd = folder, capfd
        self.repo = make_repository(folder / "base", "bash-5-2.x86_64")
        self.web1 = make_inventory(folder / "web1.json", "bash-5-1.x86_64")

    def run(self, *words: str) -> tuple[int, str, str]:
        """Return the exit code, what was printed, and the errors."""
        code = main(list(words))
        told = self._capfd.readouterr()
        assert "Traceback" not in told.err and "bug in cpacman" not in told.err
        assert all(c.isprintable() or c == "\n" for c in told.out + told.err)
        assert all(len(line) < 4000 for line in told.err.splitlines())
        assert (code == 2) == (bool(told.err) and not told.out)
        return code, told.out, told.err

    def plan(self, *more: str, repo: Path | None = None) -> tuple[int, str, str]:
        """Plan, with the good repository and inventory where no others are given."""
        inventory = [] if "--inventory" in more else ["--inventory", str(self.web1)]
        return self.run("plan", "--repo", f"base={repo or self.repo}", *inventory, *more)


@pytest.fixture
def console(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Console:
    """The console, with a repository and a host."""
    return Console(tmp_path, capfd)


def rewritten(repo: Path, change: Callable[[str], str], *, told: bool = True) -> Path:
    """Change a repository's primary metadata; `told` says that repomd.xml knows."""
    primary = repo / "repodata" / "primary.xml.gz"
    old = primary.read_bytes()
    text = change(gzip.decompress(old).decode())
    new = gzip.compress(text.encode("utf-8", "surrogatepass"), mtime=0)
    primary.write_bytes(new)
    if told:
        repomd = repo / "repodata" / "repomd.xml"
        known = repomd.read_text().replace(_sha256(old), _sha256(new))
        known = re.sub(rf"<size>{len(old)}</size>", f"<size>{len(new)}</size>", known)
        plain = gzip.decompress(old)
        known = known.replace(_sha256(plain), _sha256(text.encode("utf-8", "surrogatepass")))
        repomd.write_text(known.replace(f"<open-size>{len(plain)}<", f"<open-size>{len(text)}<"))
    return repo


# ---- metadata --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<name>bash</name>", ""),
        ("<arch>x86_64</arch>", ""),
        ("<arch>x86_64</arch>", "<arch>../x</arch>"),
        ("<arch>x86_64</arch>", "<arch></arch>"),
        ('ver="5"', ""),
        ('ver="5"', 'ver=""'),
        ('ver="5"', 'ver="5 6"'),
        ('epoch="0"', 'epoch="x"'),
        ('epoch="0"', 'epoch="-1"'),
        ('package="1000"', 'package="many"'),
        ('package="1000"', 'package="-5"'),
        ('type="sha256"', 'type="crc"'),
        ('YES">', 'YES">zz'),
        ('href="Packages/', 'href="../../etc/'),
        ('href="Packages/', 'href="/etc/'),
        ("<name>bash", "<name>../bash"),
        ("<name>bash", "<name>ba\nsh"),
        ("<name>bash", "<name>ba&#27;[2Jsh"),
        ("<name>bash", "<name>ba\u202esh"),
        ("<name>bash", f"<name>{LONG}"),
        ("</metadata>", ""),
        ("<package ", "<packet "),
    ],
    ids=lambda text: text[:24],
)
def test_wrong_fields_of_metadata(console: Console, old: str, new: str) -> None:
    """A field that is missing or wrong is an error with the repository's path, and no plan."""
    repo = rewritten(console.repo, lambda text: text.replace(old, new, 1))
    code, out, errors = console.plan(repo=repo)
    assert (code, out) == (2, "")
    assert str(repo) in errors


def test_wrong_checksum_of_metadata(console: Console) -> None:
    """Metadata that is not what repomd.xml says is refused."""
    repo = rewritten(console.repo, lambda text: text.replace("bash", "dash"), told=False)
    code, out, errors = console.plan(repo=repo)
    assert (code, out) == (2, "")
    assert "primary.xml.gz" in errors and "mirror" in errors


def test_cut_metadata(console: Console) -> None:
    """A compressed file that ends too early is an error, and so is one that is none."""
    primary = console.repo / "repodata" / "primary.xml.gz"
    for data in (primary.read_bytes()[:-9], b"", b"\x1f\x8b"):
        primary.write_bytes(data)
        code, out, errors = console.plan()
        assert (code, out) == (2, "") and "primary.xml.gz" in errors


def test_an_empty_repository(console: Console) -> None:
    """From nothing nothing comes: an empty plan, which is done."""
    repo = make_repository(console.folder / "empty")
    code, out, _ = console.plan(repo=repo)
    assert code == 0 and "0 change in 0 groups, 1 unchanged" in out


@pytest.mark.parametrize(
    "said",
    [
        {"a-2-1.x86_64": {"obsoletes": "b"}, "b-2-1.x86_64": {"obsoletes": "a"}},
        {"a-2-1.x86_64": {"obsoletes": "a"}, "b-2-1.x86_64": {"requires": "b = 2"}},
        {"a-2-1.x86_64": {"requires": "a", "conflicts": "a < 1"}, "b-2-1.x86_64": {}},
        {"a-2-1.x86_64": {"requires": "b >= 2"}, "b-2-1.x86_64": {"requires": "a >= 2"}},
        {"a-2-1.x86_64": {"requires": "a = 3"}, "b-2-1.x86_64": {"conflicts": "b"}},
    ],
)
def test_packages_about_themselves(console: Console, said: dict[str, dict[str, str]]) -> None:
    """Obsoletes in a circle, and packages that need or exclude themselves, end in a plan."""
    rows = [Pkg(nevra, fields) for nevra, fields in said.items()]
    repo = rewritten(
        make_repository(console.folder / "odd", *said), lambda _: primary_xml("odd", rows)
    )
    file = make_inventory(console.folder / "host.json", "a-1-1.x86_64", "b-1-1.x86_64")
    code, out, errors = console.plan("--inventory", str(file), "--format", "json", repo=repo)
    assert (code, errors) == (0, "")
    (transaction,) = json.loads(out)["transactions"].values()
    leaving = [action["from"] for action in transaction["actions"]]
    assert len(leaving) == len(set(leaving))
    assert all(action["action"] != "remove" for action in transaction["actions"])


# ---- inventories -------------------------------------------------------------------------------


def changed(console: Console, change: Callable[[dict[str, Any]], object]) -> Path:
    """Change the good inventory."""
    document = json.loads(console.web1.read_text())
    change(document)
    console.web1.write_text(json.dumps(document))
    return console.web1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d["packages"].append(d["packages"][0]), "listed"),
        (lambda d: d["packages"][0].update(name="../x"), "../x"),
        (lambda d: d["packages"][0].update(name="a\nb"), ""),
        (lambda d: d["packages"][0].update(name="a\0b"), ""),
        (lambda d: d["packages"][0].update(name="\x1b[31m"), ""),
        (lambda d: d["packages"][0].update(name="a" * 10_000_000), ""),
        (lambda d: d["packages"][0].update(arch="toaster"), "toaster"),
        (lambda d: d["packages"][0].update(epoch=-1), "epoch"),
        (lambda d: d["packages"][0].update(epoch="one"), "epoch"),
        (lambda d: d["packages"][0].update(requires=[["x"]]), "requires"),
        (lambda d: d["packages"][0].update(requires="x"), "requires"),
        (lambda d: d["packages"][0].pop("name"), "name"),
        (lambda d: d.update(packages={}), "packages"),
        (lambda d: d.update(packages=[1]), "packages[0]"),
        (lambda d: d.update(arch="z80"), "z80"),
        (lambda d: d.update(platform="deb"), "deb"),
        (lambda d: d.update(platform="tape"), "tape"),
        (lambda d: d.update(schema=99), "99"),
        (lambda d: d.update(host="../etc"), "host"),
        (lambda d: d.update(host="a\nb"), "host"),
        (lambda d: d.update(holds=["exclude: \x1b[2J"]), "hold"),
        (lambda d: d.update(modules="x"), "modules"),
    ],
)
def test_wrong_inventories(
    console: Console, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    """What no host can be is an error of its file, or of that host alone, which is not planned."""
    file = changed(console, change)
    good = make_inventory(console.folder / "good.json", "bash-5-1.x86_64")
    code, out, errors = console.plan("--inventory", str(file), str(good))
    assert code in (2, 3)
    told = errors if code == 2 else out
    assert words in told and ("NOT PLANNED" in out or str(file) in errors)
    if code == 3:
        assert "1 change" in out and "1 NOT PLANNED" in out


@pytest.mark.parametrize(
    "text", [b"", b"{", b"null", b"[]", b"\xff\xfe", b"[" * 100_000, b"1" * 999]
)
def test_files_that_are_no_inventory(console: Console, text: bytes) -> None:
    """A file with something else in it is an error with its path."""
    console.web1.write_bytes(text)
    code, out, errors = console.plan()
    assert (code, out) == (2, "") and str(console.web1) in errors


def test_an_inventory_of_another_architecture(console: Console) -> None:
    """A host whose architecture the repositories do not serve gets nothing from them."""
    changed(console, lambda d: (d.update(arch="aarch64"), d["packages"][0].update(arch="aarch64")))
    code, out, _ = console.plan()
    assert code == 0 and "1 unchanged" in out and "upgrade" not in out


# ---- words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--upgrade", "--install", "--remove", "--exclude", "--lock"])
@pytest.mark.parametrize(
    "word", ["../x", "a\nb", "\x1b[2J", "[", "*" * 500, "(a if", "a < ", "/..//\u202e", "-", " "]
)
def test_hostile_words(console: Console, option: str, word: str) -> None:
    """Whatever is named, the answer is a plan, or one that says what is not there."""
    code, out, errors = console.plan(f"{option}={word}")
    assert code in (0, 2, 3) and (out or errors)


def test_hostile_configuration(console: Console) -> None:
    """A configuration that is none is an error with its place."""
    config = console.folder / "c.yaml"
    texts = (
        "\0", "- a", "policy: {", "policy: [{lock: [[]]}]", "a: &a [*a]", "? [x]: y",
        "policy: [{pin: {a: 1}}]", "policy: 7", "\t", "!!python/object:os.system x",
    )  # fmt: skip
    for text in texts:
        config.write_text(text)
        code, out, errors = console.plan("--config", str(config))
        assert (code, out) == (2, ""), text
        assert str(config) in errors


# ---- noise ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
def test_noise(console: Console, seed: int) -> None:
    """Bytes of any input changed at random: an answer or an error, never a traceback."""
    rng = random.Random(seed)
    config = console.folder / "c.yaml"
    config.write_text("policy: [{lock: bash, until: 2100-01-01, reason: x}]\nlevels: [a, b]\n")
    console.run("plan", "--repo", f"base={console.repo}", "--inventory", str(console.web1),
                "--dump", str(console.folder / "one.case"))  # fmt: skip
    files = {
        "inventory": console.web1,
        "config": config,
        "repomd": console.repo / "repodata" / "repomd.xml",
        "case": console.folder / "one.case",
    }
    kind = rng.choice(sorted(files))
    data = bytearray(files[kind].read_bytes())
    for _ in range(rng.randint(1, 8)):
        place = rng.randrange(len(data))
        data[place : place + rng.randint(0, 3)] = rng.randbytes(rng.randint(0, 3))
    files[kind].write_bytes(data)
    code, _, _ = (
        console.run("replay", str(files["case"]))
        if kind == "case"
        else console.plan("--config", str(config))
    )
    assert code in (0, 1, 2, 3)


@pytest.mark.parametrize("seed", range(30))
def test_noise_in_metadata(console: Console, seed: int) -> None:
    """Characters of the metadata changed at random, with checksums that fit, likewise."""
    rng = random.Random(seed)

    def change(text: str) -> str:
        letters = list(text)
        for _ in range(rng.randint(1, 6)):
            letters[rng.randrange(len(letters))] = rng.choice("\0\x1b<>&\"'/a\n\u202e\u00e9 0-")
        return "".join(letters)

    code, _, _ = console.plan(repo=rewritten(console.repo, change))
    assert code in (0, 2, 3)
