"""The inventory from real databases: the same bytes both ways, whole or an error."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3

import pytest

from cpacman.errors import InputError
from cpacman.inventory import decode_inventory, local_inventory, merge_thin
from cpacman.model import cookie_of
from tests.unit.agent import agenthost

DATA = agenthost.REPO.parent / "shared" / "data" / "rpms"


def data_folder():
    """Return where the real packages are; in continuous integration they must be there."""
    if not DATA.is_dir():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{DATA} is not here")
    return DATA


def take(root, *options, python=agenthost.SYSTEM_PYTHON):
    """Return an inventory's bytes."""
    return agenthost.run(python, agenthost.AGENT, "inventory", "--root", root, *options).stdout


def tree_state(root):
    """Return every path below a directory with its kind, mode, times and content."""
    found = {}
    for path in sorted([root, *root.rglob("*")]):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[str(path)] = (
            status.st_mode, status.st_mtime_ns, status.st_ctime_ns, status.st_ino,
            hashlib.sha256(content).hexdigest(),
        )  # fmt: skip
    return found


@pytest.fixture
def full(host):
    """A tree with all kinds of dependencies, an imported key, and the host's own settings."""
    host.install("base-1", "app-2", "lib-1", "old-1", "kern-1", "kern-2", "needy-1")
    etc = host.root / "etc"
    for name, text in {
        "os-release": 'ID="almalinux"\nID_LIKE="rhel centos"\nVERSION_ID=\'9.4\'\n# x=y\n',
        "hostname": "tree1\n",
        "machine-id": "abc\n",
        "dnf/modules.d/nodejs.module": "[nodejs]\nname=nodejs\nstream=18\nstate=enabled\n",
        "dnf/modules.d/off.module": "[off]\nname=off\nstream=1\nstate=disabled\n",
        "dnf/plugins/versionlock.list": "# Added\nbase-0:1-1.*\n\n!lib-0:2-1.*\n",
        "dnf/dnf.conf": "[main]\nexclude=kern* old,\n  more\ngpgcheck=1\n",
        "yum.conf": "no section = here\n[main\n[main]\nexcludepkgs=odd\n",
    }.items():
        (etc / name).parent.mkdir(parents=True, exist_ok=True)
        (etc / name).write_text(text)
    return host


@pytest.fixture
def real(host):
    """A tree with real packages of CentOS 2.1 to 7 and Fedora's tests."""
    files = [str(path) for path in sorted(data_folder().glob("*/*.rpm"))]
    host.rpm("-i", "--nosignature", "--nodeps", "--justdb", "--ignorearch", "--force", *files)
    return host


def test_bindings_and_command_give_the_same_bytes(full):
    """One database, two ways to read it, one document."""
    assert take(full.root) == take(full.root, "--no-bindings")


def test_real_old_packages_both_ways(real):
    """Headers from 2001 on, without modern digests, read the same both ways and decode."""
    document = take(real.root)
    assert document == take(real.root, "--no-bindings")
    inventory = decode_inventory(document, "tree")
    assert len(inventory.packages) > 40
    kinds = {package.digest.partition(":")[0] for package in inventory.packages}
    assert kinds <= {"sha256", "sha1", "md5"} and "sha1" in kinds
    release = next(p for p in inventory.packages if p.nevra == "centos-release-6:4-0.1.x86_64")
    assert ("config(centos-release)", "=", "6:4-0.1") in release.provides
    assert "/etc/redhat-release" in release.files


@pytest.mark.parametrize("python", agenthost.old_and_new_pythons(), ids=lambda path: path.parts[-3])
def test_every_python_gives_the_same_bytes(real, python):
    """Python 2.7 to 3.13 print the same document."""
    assert take(real.root, python=python) == take(real.root)


def test_the_document(full):
    """Fields, flags, epochs and files are those of the format."""
    document = json.loads(take(full.root))
    assert document["platform"] == "rpm" and document["schema"] == 1
    assert document["os"] == {
        "id": "almalinux", "id_like": "rhel centos", "version_id": "9.4"}  # fmt: skip
    assert document["host"] == "tree1" and document["facts"]["machine_id"] == "abc"
    assert document["modules"] == ["nodejs:18"] and document["modules_disabled"] == ["off"]
    assert document["holds"] == [
        "exclude: kern*", "exclude: more", "exclude: odd", "exclude: old",
        "versionlock: !lib-0:2-1.*", "versionlock: base-0:1-1.*",
    ]  # fmt: skip
    packages = {f"{p['name']}-{p['version']}": p for p in document["packages"]}
    assert list(packages) == sorted(packages)
    base, app = packages["base-1"], packages["app-2"]
    assert base["provides"] == [["base", "=", "1-1"], ["odd", "=", "3"], ["plain", "", ""]]
    assert packages["lib-1"]["provides"] == [["lib", "=", "3:1-1"]]
    assert app["requires"] == [["base", ">=", "2"]]
    assert app["recommends"] == [["(lib if base)", "", ""]]
    assert base["files"] == ["/usr/bin/base"] and base["vendor"] == ""
    assert base["digest"].startswith("sha256:") and len(base["digest"]) == 71
    assert packages["lib-1"]["epoch"] == 3 and base["epoch"] == 0
    pairs = [(p["digest"], p["installtime"]) for p in document["packages"]]
    assert document["cookie"] == cookie_of(pairs)


def test_files_that_a_dependency_names_are_listed(full):
    """A path outside of primary metadata is listed when an installed package requires it."""
    full.install("app-1")
    packages = {f"{p['name']}-{p['version']}": p for p in json.loads(take(full.root))["packages"]}
    assert packages["base-1"]["files"] == ["/usr/bin/base", "/usr/share/base"]


def test_files_that_the_master_asks_for(full):
    """Paths on stdin are listed where they are owned."""
    done = agenthost.run(
        agenthost.SYSTEM_PYTHON, agenthost.AGENT, "inventory", "--root", full.root, "--paths",
        stdin=b'["/usr/share/old", "/nowhere"]',
    )  # fmt: skip
    packages = {p["name"]: p for p in json.loads(done.stdout)["packages"]}
    assert packages["old"]["files"] == ["/usr/bin/old", "/usr/share/old"]


def test_keys_are_not_packages(full):
    """An imported key is not in the inventory, and importing one changes no cookie."""
    before = full.state()
    full.rpm("--import", data_folder() / "zoo" / "GPG-KEY-pulp-qe")
    assert "gpg-pubkey" in full.rpm("-qa")
    assert full.state() == before
    assert b"gpg-pubkey" not in take(full.root)
    assert take(full.root) == take(full.root, "--no-bindings")


def test_a_tree_is_never_written_to(full):
    """Reading changes nothing below the root, not even a time, in either way."""
    before = tree_state(full.root)
    take(full.root)
    take(full.root, "--no-bindings")
    assert tree_state(full.root) == before


def test_no_database_is_an_error_and_makes_none(tmp_path):
    """A tree without a database is exit 2, and stays as it is."""
    (tmp_path / "var/lib/rpm").mkdir(parents=True)
    for root in (tmp_path, tmp_path / "nowhere"):
        before = tree_state(tmp_path)
        done = agenthost.run(
            agenthost.SYSTEM_PYTHON, agenthost.AGENT, "inventory", "--root", root, check=False
        )
        assert done.returncode == 2 and done.stdout == b""
        assert b"no rpm database" in done.stderr and done.stderr.count(b"\n") == 1
        assert tree_state(tmp_path) == before


def test_the_newer_place_comes_first(host):
    """usr/lib/sysimage/rpm is looked at first; links inside the tree stay inside."""
    host.install("base-1")
    sysimage = host.root / "usr/lib/sysimage"
    sysimage.mkdir(parents=True, exist_ok=True)
    (host.root / "var/lib/rpm").rename(sysimage / "rpm")
    (host.root / "var/lib/rpm").symlink_to("/usr/lib/sysimage/rpm")
    assert len(json.loads(take(host.root))["packages"]) == 1
    (sysimage / "rpm").rename(sysimage / "moved")
    (host.root / "var/lib/rpm").unlink()
    (host.root / "var/lib/rpm").symlink_to("/usr/lib/sysimage/moved")
    assert len(json.loads(take(host.root))["packages"]) == 1


def test_an_empty_database_is_an_inventory(host):
    """A real database of no packages is an inventory of no packages."""
    document = json.loads(take(host.root))
    assert document["packages"] == []
    assert document["cookie"] == hashlib.sha256(b"").hexdigest()


def break_file(name):
    """Return a function that damages a database in one way."""

    def garbage(path):
        path.write_bytes(b"garbage" * 3000)

    def empty(path):
        path.write_bytes(b"")

    def truncated(path):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    def header(path):
        data = path.read_bytes()
        place = data.rindex(b"GNU" if b"GNU" in data else b"Test")
        path.write_bytes(data[:place] + b"XYZ" + data[place + 3 :])

    def row(path):
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE Packages SET blob = x'00' WHERE hnum = 2")

    def tables(path):
        path.unlink()
        sqlite3.connect(path).execute("CREATE TABLE other (x)").connection.close()

    return locals()[name]


@pytest.mark.parametrize("options", [(), ("--no-bindings",)])
@pytest.mark.parametrize("how", ["garbage", "empty", "truncated", "header", "row", "tables"])
def test_a_damaged_database_is_never_an_inventory(full, how, options):
    """Whole garbage, a cut, or one header out of seven: an error with the database's name."""
    folder = full.root / "var/lib/rpm"
    sqlite3.connect(folder / "rpmdb.sqlite").execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for name in ("rpmdb.sqlite-wal", "rpmdb.sqlite-shm"):
        (folder / name).unlink(missing_ok=True)
    break_file(how)(folder / "rpmdb.sqlite")
    done = agenthost.run(
        agenthost.SYSTEM_PYTHON, agenthost.AGENT, "inventory", "--root", full.root, *options,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2 and done.stdout == b"", done.stdout[:200]
    assert str(folder).encode() in done.stderr and b"damaged" in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_unmerged_changes_are_read(full):
    """What is only in SQLite's write-ahead log counts."""
    path = full.root / "var/lib/rpm/rpmdb.sqlite"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN")
    connection.execute("SELECT count(*) FROM Packages").fetchall()
    full.install("base-2")
    assert (full.root / "var/lib/rpm/rpmdb.sqlite-wal").stat().st_size > 0
    names = [(p["name"], p["version"]) for p in json.loads(take(full.root))["packages"]]
    connection.close()
    assert ("base", "2") in names


def test_this_machine_without_a_database(tmp_path):
    """Debian's rpm would make ~/.rpmdb; the agent says that there is none."""
    done = agenthost.subprocess.run(
        [agenthost.SYSTEM_PYTHON, str(agenthost.AGENT), "inventory"], capture_output=True,
        env={**agenthost.ENVIRONMENT, "HOME": str(tmp_path)}, check=False,
    )  # fmt: skip
    if "rpmdb" not in done.stderr.decode() and done.returncode == 0:
        pytest.skip("this machine is managed by rpm")
    assert done.returncode == 2 and list(tmp_path.iterdir()) == []


def test_reasons_from_dnf(full):
    """The newest transaction's reason of each name and architecture counts."""
    history = full.root / "var/lib/dnf/history.sqlite"
    history.parent.mkdir(parents=True)
    with sqlite3.connect(history) as connection:
        connection.executescript("""
            CREATE TABLE trans (id INTEGER, state INTEGER);
            CREATE TABLE trans_item (id INTEGER, trans_id INTEGER, item_id INTEGER,
                                     action INTEGER, reason INTEGER);
            CREATE TABLE rpm (item_id INTEGER, name TEXT, arch TEXT);
            INSERT INTO trans VALUES (1, 1), (2, 1), (3, 2);
            INSERT INTO rpm VALUES (1, 'base', 'noarch'), (2, 'lib', 'noarch');
            INSERT INTO rpm VALUES (3, 'old', 'noarch');
            INSERT INTO trans_item VALUES (1, 1, 1, 1, 1), (2, 2, 1, 11, 2), (3, 2, 2, 1, 4),
                                          (4, 3, 2, 1, 2), (5, 1, 3, 1, 5), (6, 2, 3, 8, 1);
        """)
    before = tree_state(full.root)
    reasons = {p["name"]: p["reason"] for p in json.loads(take(full.root))["packages"]}
    assert reasons["base"] == "user" and reasons["lib"] == "weak" and reasons["old"] == "user"
    assert reasons["app"] == "" and tree_state(full.root) == before
    history.write_bytes(b"garbage")
    assert {p["reason"] for p in json.loads(take(full.root))["packages"]} == {""}


def test_reasons_from_yum(full):
    """yum's files say it of one exact package."""
    folder = full.root / "var/lib/yum/yumdb/b/0123abcd-base-1-1-noarch"
    folder.mkdir(parents=True)
    (folder / "reason").write_text("dep")
    reasons = {p["name"]: p["reason"] for p in json.loads(take(full.root))["packages"]}
    assert reasons["base"] == "dep" and reasons["lib"] == ""


def thin(root, *options):
    """Return a thin answer."""
    command = [agenthost.AGENT, "inventory", "--thin", "--root", root, *options]
    return json.loads(agenthost.run(agenthost.SYSTEM_PYTHON, *command).stdout)


def details(root, digests):
    """Return the details of packages."""
    command = [agenthost.AGENT, "details", "--root", root]
    done = agenthost.run(
        agenthost.SYSTEM_PYTHON, *command, stdin=json.dumps(digests).encode() + b"\n"
    )
    return json.loads(done.stdout)


def test_thin_answers_make_the_same_inventory(full):
    """Head, digests and details together are the whole inventory, field by field."""
    full.install("app-1")
    answer = thin(full.root)
    wanted = [digest for digest, *_ in answer["packages"]]
    found = details(full.root, [*wanted, "sha256:" + "0" * 64])
    assert found["missing"] == ["sha256:" + "0" * 64]
    known = {package["digest"]: package for package in found["packages"]}
    assert all("installtime" not in p and "reason" not in p for p in known.values())
    merged = merge_thin(answer["head"], answer["packages"], known)
    assert merged == decode_inventory(take(full.root), "tree")
    structs = {p.digest: p for p in merged.packages}
    assert merge_thin(answer["head"], answer["packages"], structs) == merged
    again = thin(full.root, "--cookie", merged.cookie)
    head = {key: value for key, value in answer["head"].items() if key != "named_files"}
    assert {**again.pop("head"), "facts": {}} == {**head, "facts": {}}
    assert again == {"cookie": merged.cookie, "unchanged": True}
    assert "head" in thin(full.root, "--cookie", "0" * 64)


def test_thin_answers_that_do_not_fit(full):
    """Unknown digests, malformed pairs and a cookie of other packages are errors."""
    answer = thin(full.root)
    known = {p["digest"]: p for p in details(full.root, [d[0] for d in answer["packages"]])[
        "packages"]}  # fmt: skip
    with pytest.raises(InputError, match="cookie: not that of the packages"):
        merge_thin(answer["head"], answer["packages"][1:], known)
    with pytest.raises(InputError) as caught:
        merge_thin(answer["head"], [["sha256:" + "0" * 64, 1, ""], ["x"], None], known, "web1")
    assert len(caught.value.problems) == 3 and caught.value.problems[0].path == "web1: packages[0]"
    with pytest.raises(InputError, match="named_files"):
        merge_thin({**answer["head"], "named_files": [1]}, answer["packages"], known)


def test_the_consoles_own_inventory(full, tmp_path):
    """The console gets the agent's bytes, and its errors as input errors."""
    assert local_inventory(full.root) == take(full.root)
    with pytest.raises(InputError, match="no rpm database"):
        local_inventory(tmp_path / "nowhere")


def test_decoding_names_every_place():
    """All that is wrong is said at once, each with its place."""
    document = {
        "schema": 1,
        "packages": [
            {"name": "a", "version": "1", "epoch": None},
            {"name": "b", "version": 2},
            {"version": "2"},
            {"name": "d", "version": "1", "requires": [["x", "~", "1"]]},
        ],
    }
    with pytest.raises(InputError) as caught:
        decode_inventory(document, "h.json")
    assert [problem.path for problem in caught.value.problems] == [
        "h.json: packages[1].version", "h.json: packages[2]"]  # fmt: skip
    document["packages"][1:3] = []
    with pytest.raises(InputError) as caught:
        decode_inventory(json.dumps(document), "h.json")
    assert [problem.path for problem in caught.value.problems] == [
        "h.json: packages[1].requires[0]"]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (b"{", "h"), (b"[]", "h"), (b"\xff", "h"), (b'{"schema": 2}', "h: schema"),
        (b'{"platform": "win"}', "h: platform"), (b'{"host": "a/b"}', "h: host"),
        (b'{"packages": {}}', "h: packages"), (b'{"packages": [7]}', "h: packages[0]"),
        (b'{"packages": [{"name": "", "version": "1"}]}', "h: packages[0].name"),
        (b'{"packages": [{"name": "a", "version": "1", "epoch": -1}]}', "h: packages[0].epoch"),
        (b'{"packages": [{"name": "a", "version": "1", "size": true}]}', "h: packages[0].size"),
    ],
)  # fmt: skip
def test_decoding_refuses(text, place):
    """Each kind of wrong document is an input error with its place."""
    with pytest.raises(InputError) as caught:
        decode_inventory(text, "h")
    assert caught.value.problems[0].path == place


def test_what_is_missing_reads_as_empty():
    """A short document, as a person writes it, is an inventory."""
    text = b'{"os": {"id": "x"}, "packages": [{"name": "a", "version": "1", "vendor": null}]}'
    inventory = decode_inventory(text, "h")
    assert inventory.packages[0].vendor == "" and inventory.platform == "rpm"


def test_bdb_files_are_read_from_a_copy(host):
    """A Berkeley database that cannot be read is an error, and nothing is made beside it."""
    folder = host.root / "var/lib/rpm"
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "Packages").write_bytes(os.urandom(8192))
    before = tree_state(host.root)
    done = agenthost.run(
        agenthost.SYSTEM_PYTHON, agenthost.AGENT, "inventory", "--root", host.root, check=False
    )
    assert done.returncode == 2 and done.stdout == b""
    assert tree_state(host.root) == before
