# -*- coding: utf-8 -*-
"""What CPacMan runs on a host: it gathers, receives, verifies and applies; it never decides.

One flat file, standard library only, for Python 2.7 and 3.4 and later: the system's own Python
starts it as a program, and the door (`cpacman.py` beside it) loads it as a library for the verbs
that need no rpm. Every verb prints one JSON document; an error is one line on stderr and exit 2.

Invariants:

* An inventory is whole or it is an error: an unreadable database never reads as "nothing
  installed". A tree given by `--root` is never written to.
* Bytes land only in files that a session's manifest declares, never past the declared size, and
  a file is complete only when its sha256 is the declared one.
* A transaction is the manifest's actions, all of them and nothing else, in one rpm transaction.
  Whatever rpm would do beyond them is a refusal before anything is touched.
* What happened is on disk before it is told: a journal line first, then the effect; and after
  the effect the database is read again, for it alone knows.
* A transaction that was cut off has no report. Until it is brought to its plan, or taken back by a
  manifest made for that, no other one starts on the host.
"""

from __future__ import absolute_import, division, print_function, unicode_literals

import sys

if __name__ == "__main__":
    # Beside this file lie Salt's own modules, some named like the standard library's.
    sys.path[:] = [path for path in sys.path if path not in ("", __file__.rpartition("/")[0])]

import binascii
import contextlib
import errno
import fcntl
import fnmatch
import glob
import hashlib
import io
import json
import os
import pwd
import re
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
import traceback

SCHEMA = 1
STATE_DIR = "/var/lib/cpacman"
CACHE_DIR = "/var/cache/cpacman"
CACHE_LIMIT = 2 * 1024 * 1024 * 1024
DATABASE_DIRS = ("usr/lib/sysimage/rpm", "var/lib/rpm")
DATABASE_FILES = ("rpmdb.sqlite", "Packages.db", "Packages")
SPACE_RESERVE = 32 * 1024 * 1024
SPACE_MARGIN = 8 * 1024 * 1024
RECORD_RESERVE = 512 * 1024
LOCK_WAIT = 120
LOG_TAIL = 4000
ERRORS_TAIL = 1024 * 1024
LONGEST_DETAIL = 4000
LONGEST_LINE = 1200
OUTPUT_TAIL = 1000
MOST_FOUND = 20
SESSIONS_KEPT = 30
NAMES_SHOWN = 10
CHUNK = 1024 * 1024
SYSTEM_DIRS = (
    "/", "/boot", "/etc", "/home", "/mnt", "/opt", "/root", "/run", "/srv", "/tmp", "/usr", "/var",
    "/var/cache", "/var/cache/salt", "/var/lib", "/var/lib/rpm", "/var/log", "/var/tmp",
)  # fmt: skip
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
SYSTEMD = "/run/systemd/system"
INIT_SCRIPTS = "/etc/init.d"
REBOOT_PAUSE = 1.0
REBOOT_HOLD = 600

SESSION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}\Z")
SHA256 = re.compile(r"[0-9a-f]{64}\Z")
FILE_NAME = re.compile(r"[A-Za-z0-9_][^\s/\x00-\x1f\x7f]{0,254}\Z")
PACKAGE_NAME = re.compile(r"[A-Za-z0-9_.+][^\s/\x00-\x1f\x7f]*\Z")
PACKAGE_PART = re.compile(r"[^\s/\x00-\x1f\x7f-]+\Z")
LEFTOVER = re.compile(r".;([0-9a-f]{8})\Z")
FILE_GHOST = 64
ADDING = ("upgrade", "install", "obsolete", "downgrade", "reinstall")
SIGNATURES = ("off", "warn", "require")

TEXT = type("")
NUMBERS = (int,) if sys.version_info[0] > 2 else (int, long)  # noqa: F821

DEPENDENCIES = (
    ("provides", "PROVIDE"),
    ("requires", "REQUIRE"),
    ("conflicts", "CONFLICT"),
    ("obsoletes", "OBSOLETE"),
    ("recommends", "RECOMMEND"),
    ("suggests", "SUGGEST"),
    ("supplements", "SUPPLEMENT"),
    ("enhances", "ENHANCE"),
)
KEY_TAGS = (
    "NAME", "EPOCH", "VERSION", "RELEASE", "ARCH", "INSTALLTIME",
    "SHA256HEADER", "SHA1HEADER", "SIGMD5",
)  # fmt: skip
FULL_TAGS = KEY_TAGS + ("VENDOR", "BUILDTIME", "LONGSIZE")
COMPARISONS = {2: "<", 4: ">", 8: "=", 10: "<=", 12: ">="}


def __virtual__():
    """Keep Salt's loader from exposing a program as an execution module."""
    return (False, "cpacman_agent is a program the cpacman module starts, not a module")


class Refused(Exception):
    """The host said no, and nothing was changed. `code` is for programs, the text for people."""

    def __init__(self, code, message):
        Exception.__init__(self, message)
        self.code = code
        self.message = message


# --- small things -----------------------------------------------------------------------------


def to_text(value):
    """Return any header string as text; what is not UTF-8 becomes U+FFFD, in every Python."""
    if value is None:
        return ""
    if isinstance(value, TEXT):
        if sys.version_info[0] == 2:
            return value
        value = value.encode("utf-8", "surrogateescape")
    return bytes(value).decode("utf-8", "replace")


def canonical(document):
    """Return the one JSON text of a document: ASCII, sorted keys, no spaces."""
    return to_text(json.dumps(document, sort_keys=True, separators=(",", ":")))


def evr_text(epoch, version, release):
    """Return `[epoch:]version-release`, leaving out an epoch of 0."""
    text = "%s-%s" % (version, release) if release else version
    return "%d:%s" % (epoch, text) if epoch else text


def nevra_text(name, epoch, version, release, arch):
    """Return `name-[epoch:]version-release.arch`."""
    return "%s-%s.%s" % (name, evr_text(epoch, version, release), arch)


def is_count(value):
    """Whether a value from JSON is a whole number of at least 0 (true and false are not)."""
    return isinstance(value, NUMBERS) and not isinstance(value, bool) and value >= 0


def sha256_text(text):
    """Return the sha256 of a text's UTF-8 bytes, as hex digits."""
    return to_text(hashlib.sha256(text.encode("utf-8")).hexdigest())


def sha256_file(path):
    """Return the sha256 of a file's content, as hex digits."""
    digest = hashlib.sha256()
    with io.open(path, "rb") as stream:
        for block in iter(lambda: stream.read(CHUNK), b""):
            digest.update(block)
    return to_text(digest.hexdigest())


def read_text(path):
    """Return a small text file's content, or "" where there is none."""
    try:
        with io.open(path, "rb") as stream:
            return to_text(stream.read())
    except (IOError, OSError):
        return ""


def read_end(path, length):
    """Return the last so many bytes of a file as text, or "" where there is none."""
    try:
        with io.open(path, "rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - length))
            return to_text(stream.read(length))
    except (IOError, OSError):
        return ""


def read_document(path):
    """Return the JSON object in a file, or an empty one where there is none."""
    try:
        said = json.loads(read_text(path) or "{}")
    except ValueError:
        said = {}
    return said if isinstance(said, dict) else {}


def open_private(path, flags):
    """Open a file 0600, never through a symbolic link, never inherited by a child."""
    handle = os.open(path, flags | os.O_NOFOLLOW, 0o600)
    fcntl.fcntl(handle, fcntl.F_SETFD, fcntl.fcntl(handle, fcntl.F_GETFD) | fcntl.FD_CLOEXEC)
    return handle


def write_all(handle, data):
    """Write all bytes at the handle's position, whatever a single write takes."""
    view = memoryview(data)
    while len(view):
        view = view[os.write(handle, view) :]


def write_atomically(path, text):
    """Replace a file by a text, so that a reader or a power cut sees the old or the new one."""
    temporary = "%s.%d.tmp" % (path, os.getpid())
    handle = open_private(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        write_all(handle, text.encode("utf-8"))
        os.fsync(handle)
    finally:
        os.close(handle)
    os.rename(temporary, path)
    sync_directory(os.path.dirname(path))


def sync_directory(path):
    """Make the names in a directory survive a power cut."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_private(path):
    """Make a directory 0700 with its parents; one that is there must be a real directory.

    Never one of the system's: nobody else could use that any more.
    """
    if os.path.normpath(path) in SYSTEM_DIRS or not os.path.isabs(path):
        raise Refused("state", "%s is no directory of our own: name one below it" % path)
    if not os.path.isdir(path):
        with suppressed(errno.EEXIST):
            os.makedirs(path, 0o700)
    if os.path.islink(path):
        raise Refused("state", "%s is a symbolic link" % path)
    os.chmod(path, 0o700)


def remove_file(path):
    """Remove a file if it is there."""
    with suppressed(errno.ENOENT):
        os.unlink(path)


@contextlib.contextmanager
def suppressed(*numbers):
    """Ignore an operating system error of these numbers."""
    try:
        yield
    except (IOError, OSError) as problem:
        if problem.errno not in numbers:
            raise


@contextlib.contextmanager
def locked(path, wait=0.0):
    """Hold the lock file `path`; yields whether it was got within `wait` seconds."""
    handle = open_private(path, os.O_RDWR | os.O_CREAT)
    try:
        yield acquire(handle, wait)
    finally:
        os.close(handle)


def acquire(handle, wait):
    """Try to lock an open file until `wait` seconds have passed; answer whether it worked."""
    end = time.time() + wait
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except (IOError, OSError) as problem:
            if problem.errno not in (errno.EAGAIN, errno.EACCES):
                raise
        if time.time() >= end:
            return False
        time.sleep(0.05)


def run_command(command, **options):
    """Run a command; return (exit code, stdout as bytes, stderr as text)."""
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            close_fds=True, **options
        )  # fmt: skip
    except (IOError, OSError) as problem:
        return 127, b"", "%s: %s" % (command[0], problem.strerror)
    output, errors = process.communicate(b"")
    return process.returncode, output, to_text(errors)


def rpm_errors(text):
    """Return what rpm reported as errors; its warnings are not ours."""
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line.startswith(("error:", "fatal:"))]


def load_bindings(wanted=True):
    """Return the distribution's `rpm` module, or None where it has none."""
    if not wanted:
        return None
    try:
        import rpm
    except ImportError:
        return None
    return rpm


# --- the package database -------------------------------------------------------------------------


def resolve_below(root, path):
    """Return `root/path` with symbolic links followed as a chroot to `root` would."""
    done, todo, hops = [], [part for part in path.split("/") if part], 0
    while todo:
        part = todo.pop(0)
        if part in (".", ".."):
            done = done[:-1] if part == ".." else done
            continue
        full = os.path.join(root, *(done + [part]))
        if not os.path.islink(full):
            done.append(part)
            continue
        hops += 1
        if hops > 40:
            raise Refused("database", "%s: too many symbolic links" % full)
        target = to_text(os.readlink(full))
        done = [] if target.startswith("/") else done
        todo = [step for step in target.split("/") if step] + todo
    return os.path.join(root, *done)


def has_database(path):
    """Whether a directory holds an rpm database of any kind."""
    return any(os.path.isfile(os.path.join(path, name)) for name in DATABASE_FILES)


def is_live(root):
    """Whether `root` means the running system rather than a tree."""
    return not root or os.path.realpath(root) == "/"


def find_database(root, rpm=None):
    """Return the directory of the package database of a tree, or of this machine.

    rpm itself is only asked where it keeps its own: it would rather create a database than
    say that there is none.
    """
    if not root:
        path = database_macro(rpm)
        if has_database(path):
            return path
        raise Refused("database", "no rpm database in %s" % (path or "this machine"))
    for candidate in DATABASE_DIRS:
        path = resolve_below(os.path.abspath(root), candidate)
        if has_database(path):
            return path
    raise Refused("database", "%s: no rpm database in %s" % (root, " or ".join(DATABASE_DIRS)))


def database_macro(rpm):
    """Return where this machine's rpm keeps its database."""
    if rpm is not None:
        return to_text(rpm.expandMacro("%{_dbpath}"))
    code, output, errors = run_command(["rpm", "--eval", "%{_dbpath}"])
    if code:
        raise Refused("database", "rpm does not run: %s" % errors.strip())
    return to_text(output).strip()


@contextlib.contextmanager
def database_copy(path):
    """Yield a copy of a database, because even reading makes rpm write beside the original.

    A database that changes while it is copied is copied again.
    """
    copy = tempfile.mkdtemp(prefix="cpacman-db-")
    try:
        for _ in range(3):
            before = copy_database(path, copy)
            if before == database_stamps(path):
                yield copy
                return
        raise Refused("database", "%s: the database keeps changing while it is read" % path)
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def database_stamps(path):
    """Return the name, size and time of every database file that matters for reading."""
    stamps = []
    for name in sorted(os.listdir(path)):
        status = os.stat(os.path.join(path, name))
        passing = name.startswith((".", "__db.")) or name.endswith("-shm")
        if stat.S_ISREG(status.st_mode) and not passing:
            stamps.append((name, status.st_size, status.st_mtime))
    return stamps


def copy_database(path, copy):
    """Copy the database files of `path` over those in `copy`; return their stamps before."""
    stamps = database_stamps(path)
    for name in os.listdir(copy):
        os.unlink(os.path.join(copy, name))
    for name, _, _ in stamps:
        shutil.copyfile(os.path.join(path, name), os.path.join(copy, name))
    return stamps


def count_rows(path):
    """Return how many headers an sqlite database holds, or None for other kinds.

    rpm skips a header it cannot read, and creates tables in an empty file: both would look
    like fewer packages. SQLite's own check and count do not.
    """
    file_name = os.path.join(path, "rpmdb.sqlite")
    if not os.path.isfile(file_name):
        return None
    try:
        import sqlite3
    except ImportError:
        return None
    try:
        connection = sqlite3.connect(file_name, timeout=30)
        try:
            check = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if check != "ok":
                raise Refused("database", "%s is damaged: %s" % (file_name, one_line(check)))
            return connection.execute("SELECT count(*) FROM Packages").fetchone()[0]
        finally:
            connection.close()
    except (sqlite3.Error, ValueError) as problem:  # garbage need not even be text
        raise Refused("database", "%s is damaged: %s" % (file_name, problem))


def one_line(text):
    """Return a text with every run of white space as one space."""
    return " ".join(to_text(text).split())


def read_headers(path, tags, lists, rpm):
    """Return every package of the database in `path` as a dict of raw values.

    Args:
        path: the database's directory.
        tags: names of single-valued tags.
        lists: whether dependencies and file names are wanted as well.
        rpm: the bindings, or None to use the command.

    Raises:
        Refused: code "database", when rpm or SQLite say that anything is not readable.
    """
    read = read_by_bindings if rpm is not None else read_by_command
    for _ in range(3):
        before = count_rows(path)
        try:
            rows, number, errors = read(path, tags, lists, rpm)
        except (TypeError, ValueError) as problem:
            raise Refused("database", "%s is damaged: %s" % (path, problem))
        if errors:
            raise Refused("database", "%s is damaged: %s" % (path, one_line(" ".join(errors))))
        if before is None or before == number:
            return rows
        if before == count_rows(path):
            break
    raise Refused("database", "%s: rpm reads %d of %d packages" % (path, number, before))


def read_by_bindings(path, tags, lists, rpm):
    """Read a database through the bindings; return (rows, number of headers, errors)."""
    wanted = [(tag, getattr(rpm, "RPMTAG_" + tag)) for tag in tags if has_tag(rpm, tag)]
    rows, number = [], 0
    rpm.addMacro("_dbpath", path)
    try:
        with captured_stderr() as said:
            try:
                for header in rpm.TransactionSet().dbMatch():
                    number += 1
                    if to_text(header[rpm.RPMTAG_NAME]) != "gpg-pubkey":
                        rows.append(header_row(rpm, header, wanted, lists))
            except rpm.error as problem:
                raise Refused("database", "%s is damaged: %s" % (path, problem))
    finally:
        rpm.delMacro("_dbpath")
    return rows, number, rpm_errors(said[0])


def has_tag(rpm, tag):
    """Whether this rpm knows a tag."""
    return hasattr(rpm, "RPMTAG_" + tag)


def header_row(rpm, header, wanted, lists):
    """Return one header's values: text, numbers, and lists of dependencies and file names."""
    row = dict((tag, plain(tag, header[number])) for tag, number in wanted)
    if lists:
        for field, prefix in DEPENDENCIES:
            row[field] = header_dependencies(rpm, header, prefix)
        row["files"] = [to_text(name) for name in header[rpm.RPMTAG_FILENAMES] or ()]
    return row


def header_dependencies(rpm, header, prefix):
    """Return one kind of dependencies of a header as (name, flag bits, evr)."""
    if not has_tag(rpm, prefix + "NAME"):
        return []
    names, flags, versions = [
        header[getattr(rpm, "RPMTAG_" + prefix + part)] or ()
        for part in ("NAME", "FLAGS", "VERSION")
    ]
    return [
        (to_text(name), int(bits), to_text(evr))
        for name, bits, evr in zip(names, flags, versions)  # noqa: B905
    ]


def plain(tag, value):
    """Return a single tag's value as text, or as a number where the tag holds one."""
    if isinstance(value, (list, tuple)):
        value = value[0] if value else None
    if tag in ("EPOCH", "INSTALLTIME", "BUILDTIME", "LONGSIZE"):
        return int(value or 0)
    if tag == "SIGMD5":
        return to_text(binascii.hexlify(bytes(value))) if value else ""
    return to_text(value)


@contextlib.contextmanager
def captured_stderr():
    """Collect what this process writes to stderr; the yielded list holds it afterwards."""
    said = [""]
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            sink.seek(0)
            said[0] = to_text(sink.read())


FIELD, ITEM, LIST, ROW = "\x1f", "\x1e", "\x1d", "\x1c"


def read_by_command(path, tags, lists, _):
    """Read a database through the rpm command; return (rows, number of headers, errors)."""
    known = set(to_text(run_command(["rpm", "--querytags"])[1]).split())
    kinds = [(field, tag) for field, tag in DEPENDENCIES if lists and tag + "NAME" in known]
    present = [tag for tag in tags if tag in known]
    form = query_format(present, kinds, lists)
    code, output, errors = run_command(["rpm", "--dbpath", path, "-qa", "--queryformat", form])
    problems = rpm_errors(errors)
    if code and not problems:
        problems = ["rpm -qa ended with %d: %s" % (code, errors)]
    if problems:
        return [], 0, problems
    rows = [parse_row(part, present, kinds, lists) for part in to_text(output).split(ROW)[:-1]]
    return [row for row in rows if row["NAME"] != "gpg-pubkey"], len(rows), []


def query_format(tags, kinds, lists):
    """Return the query format whose fields are set apart by control characters."""
    parts = [FIELD.join("%%{%s}" % tag for tag in tags)]
    for _, tag in kinds:
        names = FIELD.join("%%{%s%s}" % (tag, part) for part in ("NAME", "FLAGS", "VERSION"))
        parts.append("[%s%s]" % (names, ITEM))
    if lists:
        parts.append("[%%{FILENAMES}%s]" % ITEM)
    return LIST.join(parts) + ROW


def parse_row(text, tags, kinds, lists):
    """Return one package of the command's output as the bindings would give it."""
    parts = text.split(LIST)
    values = parts[0].split(FIELD)
    if len(parts) != 1 + len(kinds) + bool(lists) or len(values) != len(tags):
        raise Refused("database", "rpm -qa: a line that cannot be read: %s" % one_line(text)[:80])
    row = dict((tag, command_value(tag, value)) for tag, value in zip(tags, values))  # noqa: B905
    if lists:
        row.update((field, []) for field, _ in DEPENDENCIES)
        for (field, _), part in zip(kinds, parts[1:]):  # noqa: B905
            triples = [item.split(FIELD) for item in part.split(ITEM)[:-1]]
            row[field] = [(name, int(bits), evr) for name, bits, evr in triples]
        row["files"] = parts[-1].split(ITEM)[:-1]
    return row


def command_value(tag, value):
    """Return one value of the command's output; it writes `(none)` for a tag that is not set."""
    value = "" if value == "(none)" else value
    if tag in ("EPOCH", "INSTALLTIME", "BUILDTIME", "LONGSIZE"):
        return int(value or 0)
    return value


# --- from rows to the inventory -------------------------------------------------------------------


def row_digest(row):
    """Return what identifies a package's header: the strongest digest that it carries."""
    for kind, tag in (("sha256", "SHA256HEADER"), ("sha1", "SHA1HEADER"), ("md5", "SIGMD5")):
        if row.get(tag):
            return "%s:%s" % (kind, row[tag])
    return ""


def row_nevra(row):
    """Return a row's NEVRA."""
    return nevra_text(row["NAME"], row["EPOCH"], row["VERSION"], row["RELEASE"], row["ARCH"])


def row_dependencies(triples):
    """Return dependencies as the inventory has them: compared, sorted, each once."""
    found = set()
    for name, bits, evr in triples:
        if not name.startswith("rpmlib("):
            evr = evr[2:] if evr.startswith("0:") else evr
            flags = COMPARISONS.get(bits & 14, "") if evr else ""
            found.add((name, flags, evr if flags else ""))
    return [list(triple) for triple in sorted(found)]


def is_primary(path):
    """Whether primary metadata lists a file (createrepo's rule)."""
    return "bin/" in path or path.startswith("/etc/") or path == "/usr/lib/sendmail"


def package_of(row):
    """Return the details of a package, the same on every host; files are its primary ones."""
    package = {
        "name": row["NAME"],
        "epoch": row["EPOCH"],
        "version": row["VERSION"],
        "release": row["RELEASE"],
        "arch": row["ARCH"],
        "vendor": row["VENDOR"],
        "buildtime": row["BUILDTIME"],
        "digest": row_digest(row),
        "size": row["LONGSIZE"],
        "files": sorted(set(path for path in row["files"] if is_primary(path))),
    }
    for field, _ in DEPENDENCIES:
        package[field] = row_dependencies(row[field])
    return package


def named_files(rows, asked):
    """Return {digest: paths}: files outside of primary metadata that a dependency names.

    Named by the installed packages' own dependencies, or asked for by the master.
    """
    wanted = set(path for path in asked if not is_primary(path))
    for row in rows:
        for field, _ in DEPENDENCIES:
            wanted.update(name for name, _, _ in row[field] if name.startswith("/"))
    found = {}
    for row in rows:
        paths = set(path for path in row["files"] if path in wanted and not is_primary(path))
        if paths:
            found[row_digest(row)] = sorted(paths)
    return found


def cookie_of(rows):
    """Return the cookie: sha256 over the sorted lines of digest and time of installation."""
    pairs = sorted((row_digest(row), row["INSTALLTIME"]) for row in rows)
    return sha256_text("".join("%s %d\n" % pair for pair in pairs))


def packages_digest(rows):
    """Return the sha256 over the sorted NEVRA lines, which a manifest's `after` is compared to."""
    return sha256_text("".join(nevra + "\n" for nevra in sorted(map(row_nevra, rows))))


def sort_key(row):
    """Return the order of packages in every document."""
    return (
        row["NAME"], row["ARCH"], row["EPOCH"], row["VERSION"], row["RELEASE"], row_digest(row),
        row["INSTALLTIME"],
    )  # fmt: skip


def read_rows(root=None, tags=FULL_TAGS, lists=True, rpm=None):
    """Return the sorted rows of a tree's database (from a copy) or of this machine's own."""
    path = find_database(root, rpm)
    check_not_empty(path)
    if not root:
        rows = read_headers(path, tags, lists, rpm)
    else:
        with database_copy(path) as copy:
            rows = named_errors(path, copy, tags, lists, rpm)
    return sorted(rows, key=sort_key)


def named_errors(path, copy, tags, lists, rpm):
    """Read a copy; an error names the original."""
    try:
        return read_headers(copy, tags, lists, rpm)
    except Refused as no:
        raise Refused(no.code, no.message.replace(copy, path))


def check_not_empty(path):
    """Refuse a database file without content: rpm would turn it into a database of nothing."""
    for name in DATABASE_FILES:
        full = os.path.join(path, name)
        if os.path.isfile(full) and not os.path.getsize(full):
            raise Refused("database", "%s is damaged: the file is empty" % full)


def make_head(root, host, rows):
    """Return the inventory document without packages."""
    release = os_release(root)
    return {
        "schema": SCHEMA,
        "platform": "rpm",
        "host": host or host_name(root),
        "arch": machine_arch(root, rows),
        "os": dict((key, release.get(key.upper(), "")) for key in ("id", "id_like", "version_id")),
        "kernel": to_text(os.uname()[2]) if is_live(root) else "",
        "cookie": cookie_of(rows),
        "facts": gather_facts(root, rows),
        "modules": enabled_modules(root),
        "modules_disabled": disabled_modules(root),
        "holds": find_holds(root),
    }


def gather(root=None, host="", asked=(), rpm=None):
    """Return (head, rows, named files): everything the inventory documents are made of."""
    rows = read_rows(root, rpm=rpm)
    return make_head(root, host, rows), rows, named_files(rows, asked)


def inventory(root=None, host="", asked=(), rpm=None):
    """Return the whole inventory of a tree or of this machine."""
    head, rows, named = gather(root, host, asked, rpm)
    reasons = find_reasons(root)
    head["packages"] = []
    for row in rows:
        package = package_of(row)
        package["files"] = sorted(package["files"] + named.get(package["digest"], []))
        package["installtime"] = row["INSTALLTIME"]
        package["reason"] = row_reason(reasons, row)
        head["packages"].append(package)
    return head


def thin_inventory(root=None, host="", asked=(), cookie="", rpm=None):
    """Return the head, and the digests unless the cookie is the one the master knows.

    The head always comes: kernel, holds and facts change without any package doing so.
    """
    if cookie:
        rows = read_rows(root, KEY_TAGS, False, rpm)
        if cookie == cookie_of(rows):
            head = make_head(root, host, rows)
            return {"cookie": cookie, "unchanged": True, "head": head}
    head, rows, named = gather(root, host, asked, rpm)
    head["named_files"] = named
    reasons = find_reasons(root)
    pairs = [
        [row_digest(row), row["INSTALLTIME"], row_reason(reasons, row), seal_of(package_of(row))]
        for row in rows
    ]
    return {"cookie": head["cookie"], "head": head, "packages": pairs}


def thin_answer(settings, asked, cookie, rpm=None):
    """Return the thin inventory of a host, with the session that was cut off there, if one was."""
    found = thin_inventory(settings["root"], settings["host"], asked, cookie, rpm)
    cut_off = interrupted_session(settings["state_dir"])
    if cut_off:
        found["head"]["facts"]["interrupted"] = cut_off
    return found


def seal_of(package):
    """Return the seal of a package's details: by it the master knows whose details it may use.

    Without it one host could answer for a package that others have, and have them planned wrong.
    """
    return sha256_text(canonical(package))[:32]


def details(digests, root=None, rpm=None):
    """Return the details of the packages with these digests, and the digests not installed."""
    wanted = set(digests)
    found = {}
    for row in read_rows(root, rpm=rpm):
        if row_digest(row) in wanted:
            found[row_digest(row)] = package_of(row)
    return {
        "packages": [found[digest] for digest in sorted(found)],
        "missing": sorted(wanted - set(found)),
    }


def current_state(root=None, rpm=None):
    """Return the cookie and the digest of the package set as they are now."""
    rows = read_rows(root, KEY_TAGS, False, rpm)
    return {"cookie": cookie_of(rows), "packages": packages_digest(rows)}


def row_reason(reasons, row):
    """Return why a package is installed, as far as the host's own tools know."""
    full = (row["NAME"], row["ARCH"], "%s-%s" % (row["VERSION"], row["RELEASE"]))
    return reasons.get(full) or reasons.get((row["NAME"], row["ARCH"])) or ""


# --- the host around the packages -----------------------------------------------------------------


def below(root, path):
    """Return an absolute path of the host as a path of this process."""
    return path if is_live(root) else resolve_below(os.path.abspath(root), path)


def os_release(root):
    """Return os-release as a dict."""
    values = {}
    text = read_text(below(root, "/etc/os-release"))
    for line in (text or read_text(below(root, "/usr/lib/os-release"))).splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith("#"):
            values[key] = value.strip().strip("\"'")
    return values


def host_name(root):
    """Return the machine's name, or the name that a tree gives itself."""
    if is_live(root):
        return to_text(socket.gethostname())
    return read_text(below(root, "/etc/hostname")).strip()


def machine_arch(root, rows):
    """Return the machine's architecture; for a tree, what most of its packages are made for."""
    if is_live(root):
        return to_text(os.uname()[4])
    counts = {}
    for row in rows:
        if row["ARCH"] not in ("noarch", ""):
            counts[row["ARCH"]] = counts.get(row["ARCH"], 0) + 1
    return max(sorted(counts), key=counts.get) if counts else to_text(os.uname()[4])


def gather_facts(root, rows):
    """Return what is worth knowing of the machine; of a tree only what its files say."""
    facts = {
        "hostname": host_name(root),
        "machine_id": read_text(below(root, "/etc/machine-id")).strip(),
    }
    if is_live(root):
        facts.update(live_facts(rows))
    return facts


def live_facts(rows):
    """Return the facts that only a running machine has. Memory and disks are in bytes."""
    kernel = to_text(os.uname()[2])
    running = [row_nevra(row) for row in rows if is_kernel(row, kernel)]
    return {
        "boot_id": boot_id(),
        "memory": memory_facts(),
        "disk": dict((path, disk_facts(path)) for path in ("/", "/boot", "/var")),
        "kernel_package": running[0] if running else "",
        "fips": read_text("/proc/sys/crypto/fips_enabled").strip() == "1",
        "python": "%d.%d.%d" % sys.version_info[:3],
    }


def is_kernel(row, release):
    """Whether a package is of the version of the kernel of a `uname -r`.

    EL appends the arch (and `+debug`), SUSE leaves the last part of the release away and appends
    the flavour. The master has the same rule.
    """
    if not release or not row["NAME"].startswith("kernel"):
        return False
    version, own = "%s-%s" % (row["VERSION"], row["RELEASE"]), release.split("+")[0]
    if own in (version, "%s.%s" % (version, row["ARCH"])):
        return True
    base, _, flavour = own.rpartition("-")
    return bool(flavour) and not flavour[0].isdigit() and (version + ".").startswith(base + ".")


def boot_id():
    """Return the id of this boot."""
    return read_text("/proc/sys/kernel/random/boot_id").strip()


def memory_facts():
    """Return the total and the available memory."""
    found = dict(re.findall(r"^(\w+): +([0-9]+) kB", read_text("/proc/meminfo"), re.MULTILINE))
    total, available = found.get("MemTotal", 0), found.get("MemAvailable", found.get("MemFree", 0))
    return {"total": int(total) * 1024, "available": int(available) * 1024}


def disk_facts(path):
    """Return the size and the free bytes of the file system that holds a path."""
    try:
        status = os.statvfs(path)
    except OSError:
        return {"size": 0, "free": 0}
    return {
        "size": status.f_blocks * status.f_frsize,
        "free": status.f_bavail * status.f_frsize,
    }


def ini_sections(text):
    """Return {section: {key: value}} of an ini file, continued lines joined by a space.

    Not configparser: a line it cannot read must not hide the others, a hold among them.
    """
    sections, section, key = {}, {}, None
    for line in text.splitlines():
        bare = line.strip()
        if not bare or bare.startswith(("#", ";")):
            continue
        if bare.startswith("[") and bare.endswith("]"):
            section, key = sections.setdefault(bare[1:-1], {}), None
        elif line[0] in " \t" and key:
            section[key] += " " + bare
        elif "=" in bare:
            key, _, value = bare.partition("=")
            key = key.strip().lower()
            section[key] = value.strip()
    return sections


ENABLED = ("enabled", "1")


def enabled_modules(root):
    """Return the enabled module streams as `name:stream`."""
    rows = module_rows(root)
    return sorted(
        set(name + ":" + stream for name, state, stream in rows if stream and state in ENABLED)
    )


def disabled_modules(root):
    """Return the names of modules of which the host wants no stream, not even a default one."""
    return sorted(set(name for name, state, _ in module_rows(root) if state == "disabled"))


def module_rows(root):
    """Return (module, state, stream) as dnf has written them down."""
    found = []
    for path in glob.glob(os.path.join(below(root, "/etc/dnf/modules.d"), "*.module")):
        for name, values in ini_sections(read_text(path)).items():
            row = (values.get("name", name), values.get("state", ""), values.get("stream", ""))
            found.append(row)
    return found


def find_holds(root):
    """Return the host's own locks and excludes."""
    found = []
    for path in ("/etc/dnf/plugins/versionlock.list", "/etc/yum/pluginconf.d/versionlock.list"):
        for line in read_text(below(root, path)).splitlines():
            bare = line.split("#")[0].strip()
            if bare:
                found.append("versionlock: " + bare)
    for path in ("/etc/dnf/dnf.conf", "/etc/yum.conf"):
        main = ini_sections(read_text(below(root, path))).get("main", {})
        for key in ("exclude", "excludepkgs"):
            names = re.split(r"[\s,]+", main.get(key, ""))
            found.extend("exclude: " + name for name in names if name)
    return sorted(set(found))


def find_reasons(root):
    """Return why packages were installed, from dnf's history or from yum's files."""
    history = below(root, "/var/lib/dnf/history.sqlite")
    if os.path.isfile(history):
        with suppressed(errno.ENOENT, errno.EACCES):
            return dnf_reasons(history)
    found = {}
    for path in glob.glob(os.path.join(below(root, "/var/lib/yum/yumdb"), "?", "*", "reason")):
        parts = to_text(os.path.basename(os.path.dirname(path))).rsplit("-", 3)
        name = parts[0].partition("-")[2]
        reason = read_text(path).strip()
        if len(parts) == 4 and reason in ("user", "dep"):
            found[(name, parts[3], "-".join(parts[1:3]))] = reason
    return found


DNF_REASONS = {1: "dep", 2: "user", 3: "dep", 4: "weak", 5: "user"}
DNF_QUERY = """
    SELECT rpm.name, rpm.arch, trans_item.reason FROM trans_item
    JOIN rpm ON rpm.item_id = trans_item.item_id JOIN trans ON trans.id = trans_item.trans_id
    WHERE trans.state = 1 AND trans_item.action NOT IN (3, 5, 7, 8) ORDER BY trans_item.id
"""


def dnf_reasons(path):
    """Return {(name, arch): reason} from a copy of dnf's history; a broken one knows nothing."""
    try:
        import sqlite3
    except ImportError:
        return {}
    copy = tempfile.mkdtemp(prefix="cpacman-history-")
    try:
        for name in (path, path + "-wal"):
            if os.path.isfile(name):
                shutil.copyfile(name, os.path.join(copy, os.path.basename(name)))
        connection = sqlite3.connect(os.path.join(copy, os.path.basename(path)))
        try:
            rows = connection.execute(DNF_QUERY).fetchall()
        finally:
            connection.close()
    except sqlite3.Error:
        return {}
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    return dict(((name, arch), DNF_REASONS.get(reason, "")) for name, arch, reason in rows)


# --- the manifest -----------------------------------------------------------------------------


def parse_manifest(text):
    """Return a manifest as a dict, every field that is used checked for kind and shape.

    Raises:
        Refused: code "manifest"; a signature says who wrote it, not that it is sound.
    """
    try:
        manifest = json.loads(text)
    except ValueError as problem:
        raise Refused("manifest", "the manifest is not JSON: %s" % problem)
    demand(isinstance(manifest, dict), "it is not an object")
    demand(manifest.get("schema") == SCHEMA and manifest.get("kind") == "manifest", "schema, kind")
    for key in ("host", "plan", "transaction", "session", "nonce", "cookie", "after"):
        demand(isinstance(manifest.get(key), TEXT) and manifest[key], key)
    demand(SESSION_NAME.match(manifest["session"]), "session")
    demand(SHA256.match(manifest["after"]), "after")
    for key in ("sequence", "expires"):
        demand(is_count(manifest.get(key)), key)
    demand(is_count(manifest.get("cache", 0)), "cache")
    demand(manifest.get("signatures", "off") in SIGNATURES, "signatures")
    protected = manifest.get("protected", [])
    demand(isinstance(protected, list) and all(isinstance(n, TEXT) for n in protected), "protected")
    recovers = manifest.get("recovers", manifest["session"])
    for key in ("restart_minion", "reboot"):
        demand(isinstance(manifest.get(key, False), bool), key)
    demand(isinstance(recovers, TEXT) and SESSION_NAME.match(recovers), "recovers")
    files = check_files(manifest.get("files"))
    check_actions(manifest.get("actions"), files)
    return manifest


def demand(truth, what):
    """Refuse a manifest whose `what` is wrong."""
    if not truth:
        raise Refused("manifest", "the manifest is malformed: %s" % what)


def check_files(files):
    """Check a manifest's list of files; return {sha256: size}."""
    demand(isinstance(files, list), "files")
    found = {}
    for number, entry in enumerate(files):
        place = "files[%d]" % number
        demand(isinstance(entry, dict), place)
        sha256, name = entry.get("sha256"), entry.get("name")
        demand(isinstance(sha256, TEXT) and SHA256.match(sha256), place + ".sha256")
        demand(is_count(entry.get("size")) and entry["size"] > 0, place + ".size")
        demand(isinstance(name, TEXT) and FILE_NAME.match(name), place + ".name")
        demand(entry.get("signatures", "off") in SIGNATURES, place + ".signatures")
        demand(sha256 not in found, place + ": declared twice")
        found[sha256] = entry["size"]
    return found


def check_actions(actions, files):
    """Check a manifest's actions, and that the files are just those the actions name."""
    demand(isinstance(actions, list) and actions, "actions")
    named = set()
    for number, action in enumerate(actions):
        place = "actions[%d]" % number
        demand(isinstance(action, dict), place)
        check_package(action, place)
        kind, old, sha256 = action.get("action"), action.get("from"), action.get("sha256")
        demand(kind in ADDING + ("remove",), place + ".action")
        demand(old is None or isinstance(old, TEXT), place + ".from")
        demand(old or kind in ("install", "reinstall", "remove"), place + ".from")
        demand(sha256 is None or isinstance(sha256, TEXT), place + ".sha256")
        demand(sha256 in files if kind in ADDING else sha256 is None, place + ".sha256")
        named.add(sha256)
    demand(named - {None} == set(files), "files that no action names")


def check_package(action, place):
    """Check the five fields of an action's NEVRA, and that they make its nevra."""
    for key, form in (
        ("name", PACKAGE_NAME), ("version", PACKAGE_PART), ("release", PACKAGE_PART),
        ("arch", PACKAGE_PART),
    ):  # fmt: skip
        demand(isinstance(action.get(key), TEXT) and form.match(action[key]), place + "." + key)
    demand(is_count(action.get("epoch")), place + ".epoch")
    demand(action.get("nevra") == action_nevra(action), place + ".nevra")


def action_nevra(action):
    """Return the NEVRA of an action's package."""
    return nevra_text(*[action[key] for key in ("name", "epoch", "version", "release", "arch")])


def sizes_of(manifest):
    """Return {sha256: size} of the files that a manifest declares."""
    return dict((entry["sha256"], entry["size"]) for entry in manifest["files"])


# --- sessions and the file cache ------------------------------------------------------------------


def session_path(settings, session):
    """Return a session's state directory; its name never leaves the directory of sessions."""
    if not isinstance(session, TEXT) or not SESSION_NAME.match(session):
        raise Refused("session", "not a session's name: %r" % (session,))
    return os.path.join(settings["state_dir"], "transactions", session)


def load_session(settings, session):
    """Return (directory, manifest) of a session that was begun here."""
    path = session_path(settings, session)
    text = read_text(os.path.join(path, "manifest.json"))
    if not text:
        raise Refused("session", "no session %s here" % session)
    return path, parse_manifest(text)


def begin(settings, text, extra=None):
    """Take in a manifest; beginning the very same one again resumes it.

    Args:
        settings: `host`, `state_dir`, `cache_dir` and `root`.
        text: the manifest's exact text. Whoever calls has checked its signature.
        extra: {name: text} of further files for the session's directory (the signature).
    """
    manifest = parse_manifest(text)
    check_address(manifest, settings["host"])
    for path in (settings["state_dir"], settings["cache_dir"]):
        make_private(path)
    path = session_path(settings, manifest["session"])
    with locked(os.path.join(settings["state_dir"], "begin.lock"), 30) as mine:
        if not mine:
            raise Refused("busy", "another manifest is being taken in")
        check_sequence(settings, manifest, text)
        check_record(settings, text)
        make_session(settings, path, text, extra or {})
        prune_sessions(path)
        note_sequence(settings, manifest, text)
        missing = missing_segments(settings["cache_dir"], sizes_of(manifest))
        lacking = sum(length for _, _, length in missing)
        make_room(settings, manifest, lacking)
    free = disk_facts(settings["cache_dir"])["free"]
    if lacking and lacking + SPACE_RESERVE > free:
        raise Refused("space", "%s: %d bytes are free, %d are needed" % (
            settings["cache_dir"], free, lacking + SPACE_RESERVE))  # fmt: skip
    state = session_status(path)["state"]
    return {"session": manifest["session"], "missing": missing, "free": free, "state": state}


def check_record(settings, text):
    """Refuse where what a transaction writes down has no room: it would end without a report."""
    place, need = settings["state_dir"], RECORD_RESERVE + 4 * len(text)
    free = disk_facts(place)["free"]
    if need > free:
        raise Refused("space", "%s: %d KB are free, %d KB are needed for the record" % (
            place, free // 1000, -(-need // 1000)))  # fmt: skip


def check_address(manifest, host):
    """Refuse a manifest for another host, or one whose time is over."""
    if manifest["host"] != host:
        raise Refused("host", "the manifest is for %s, this is %s" % (manifest["host"], host))
    if time.time() > manifest["expires"]:
        raise Refused("expired", "the manifest expired %d s ago; is the clock right?" % (
            time.time() - manifest["expires"]))  # fmt: skip


def last_sequence(settings):
    """Return (number, sha256 of the manifest) of the newest manifest taken in."""
    text = read_text(os.path.join(settings["state_dir"], "sequence"))
    if not text:
        return -1, ""
    try:
        number, _, digest = text.strip().partition(" ")
        return int(number), digest
    except ValueError:
        raise Refused("state", "%s/sequence is damaged" % settings["state_dir"])


def check_sequence(settings, manifest, text):
    """Refuse a manifest older than one already taken in: that is a replay."""
    number, digest = last_sequence(settings)
    same = number == manifest["sequence"] and digest == sha256_text(text)
    if manifest["sequence"] <= number and not same:
        raise Refused("replay", "sequence %d is not newer than %d" % (
            manifest["sequence"], number))  # fmt: skip


def note_sequence(settings, manifest, text):
    """Keep the sequence of the manifest just taken in."""
    line = "%d %s\n" % (manifest["sequence"], sha256_text(text))
    write_atomically(os.path.join(settings["state_dir"], "sequence"), line)


def make_session(settings, path, text, extra):
    """Make a session's directory, whole or not at all; a present one must hold the same text."""
    if os.path.isdir(path):
        if read_text(os.path.join(path, "manifest.json")) != text:
            raise Refused("session", "the session exists with another manifest")
        return
    make_private(os.path.dirname(path))
    fresh = tempfile.mkdtemp(prefix=".new-", dir=os.path.dirname(path))
    contents = dict(extra)
    contents["manifest.json"] = text
    contents["session.json"] = canonical(settings)
    for name in sorted(contents):
        write_atomically(os.path.join(fresh, name), contents[name])
    append_journal(fresh, {"state": "staged"})
    os.rename(fresh, path)
    sync_directory(os.path.dirname(path))


def prune_sessions(newest):
    """Remove the oldest sessions that ended or never started, and half of one being made.

    One that was cut off has not ended, however old it is; the newest stays, whatever the clock.
    """
    ended, folder = [], os.path.dirname(newest)
    for path in set(glob.glob(os.path.join(folder, "*"))) - set([newest]):
        states = [entry["state"] for entry in read_journal(path) if "state" in entry]
        if not states or states[-1] not in ("checking", "running", "verifying"):
            ended.append((os.stat(path).st_mtime, path))
    stale = [path for _, path in sorted(ended)[:-SESSIONS_KEPT]]
    for path in stale + glob.glob(os.path.join(folder, ".new-*")):
        shutil.rmtree(path, ignore_errors=True)


def missing_segments(cache, sizes):
    """Return [[sha256, offset, length], ...] of what the cache lacks of these files."""
    return [
        [sha256, offset, length]
        for sha256 in sorted(sizes)
        for offset, length in settle(cache, sha256, sizes[sha256])[0]
    ]


def make_room(settings, manifest, lacking):
    """Remove the files that were needed last longest ago, until what is to come has room.

    What this manifest or a session that is not over needs stays, even where that is too much.
    """
    cache, limit = settings["cache_dir"], manifest.get("cache", CACHE_LIMIT)
    found = cached_files(cache)
    for sha256 in sizes_of(manifest):
        if sha256 in found:
            touch_file(os.path.join(cache, sha256))
    total = lacking + sum(size for _, size in found.values())
    short = lacking + SPACE_RESERVE - disk_facts(cache)["free"] if lacking else 0
    needed = None
    for sha256 in sorted(found, key=lambda name: found[name]):
        if total <= limit and short <= 0:
            return
        needed = needed_files(settings) if needed is None else needed
        if sha256 not in needed:
            for ending in ("", ".part", ".map", ".map.tmp"):
                remove_file(os.path.join(cache, sha256 + ending))
            total -= found[sha256][1]
            short -= found[sha256][1]


def cached_files(cache):
    """Return {sha256: (when it was last needed, bytes)} of what lies in the cache, whole or not."""
    found = {}
    for name in os.listdir(cache):
        sha256, _, ending = to_text(name).partition(".")
        if SHA256.match(sha256) and ending in ("", "part"):
            status = os.lstat(os.path.join(cache, name))
            found[sha256] = (status.st_mtime, status.st_size)
    return found


def touch_file(path):
    """Note that a file is needed now."""
    with suppressed(errno.ENOENT):
        os.utime(path, None)


def needed_files(settings):
    """Return the sha256s of the files of all sessions that are not over.

    One is over with its report; staged only, with its time, since no order can start it then.
    """
    needed = set()
    base = os.path.join(settings["state_dir"], "transactions")
    for name in os.listdir(base):
        path = os.path.join(base, name)
        text = read_text(os.path.join(path, "manifest.json"))
        if not text or os.path.exists(os.path.join(path, "report.json")):
            continue
        try:
            manifest = parse_manifest(text)
        except Refused:
            continue  # damaged: it can't be started, either
        if session_status(path)["state"] != "staged" or manifest["expires"] >= time.time():
            needed.update(sizes_of(manifest))
    return needed


@contextlib.contextmanager
def open_partial(cache, sha256):
    """Yield the locked handle of a file's partial, or None when the file is complete.

    The partial is its own lock. Whoever waited for it may hold a file that has meanwhile been
    renamed or removed, so the name is looked at again.
    """
    path = os.path.join(cache, sha256)
    while True:
        if os.path.isfile(path):
            yield None
            return
        handle = open_private(path + ".part", os.O_RDWR | os.O_CREAT)
        try:
            if not acquire(handle, 600):
                raise Refused("busy", "%s.part is locked" % path)
            if not is_same_file(handle, path + ".part"):
                continue
            yield handle
            return
        finally:
            os.close(handle)


def is_same_file(handle, path):
    """Whether an open file still has this name."""
    try:
        named, opened = os.stat(path), os.fstat(handle)
    except OSError:
        return False
    return (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)


def read_ranges(path, size):
    """Return the sorted [start, end] ranges recorded for a partial; a damaged record is empty."""
    try:
        ranges = [[int(start), int(end)] for start, end in json.loads(read_text(path) or "[]")]
    except (TypeError, ValueError):
        return []
    if any(not 0 <= start < end <= size for start, end in ranges):
        return []
    return merge_ranges(ranges)


def merge_ranges(ranges):
    """Return ranges sorted, with those that touch or overlap made one."""
    merged = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([start, end])
    return merged


def find_gaps(ranges, size):
    """Return what the ranges leave out of a file, as [offset, length]."""
    gaps, position = [], 0
    for start, end in ranges + [[size, size]]:
        if start > position:
            gaps.append([position, start - position])
        position = end
    return gaps


def receive(settings, session, segments, data):
    """Write a chunk: concatenated segments `[sha256, offset, length]` of declared files."""
    _, manifest = load_session(settings, session)
    sizes = sizes_of(manifest)
    check_segments(segments, len(data), sizes)
    view, position = memoryview(data), 0
    for sha256, offset, length in segments:
        part = view[position : position + length]
        write_segment(settings["cache_dir"], sha256, sizes[sha256], offset, part)
        position += length
    return {"got": [[sha256, offset, length] for sha256, offset, length in segments]}


def check_segments(segments, length, sizes):
    """Refuse segments that are not of declared files, or not just as long as the data."""
    if not isinstance(segments, (list, tuple)) or not segments:
        raise Refused("segment", "a chunk without segments")
    total = 0
    for segment in segments:
        if not isinstance(segment, (list, tuple)) or len(segment) != 3:
            raise Refused("segment", "a segment is [sha256, offset, length]")
        sha256, offset, count = segment
        if not isinstance(sha256, TEXT) or sha256 not in sizes:
            raise Refused("segment", "a file that the manifest does not declare: %r" % (sha256,))
        if not is_count(offset) or not is_count(count) or not 0 < count <= sizes[sha256] - offset:
            raise Refused("segment", "%s: %r+%r is not within its %d bytes" % (
                sha256, offset, count, sizes[sha256]))  # fmt: skip
        total += count
    if total != length:
        raise Refused("segment", "the segments name %d bytes, the data has %d" % (total, length))


def write_segment(cache, sha256, size, offset, data):
    """Write one segment, and only then record its range."""
    record = os.path.join(cache, sha256 + ".map")
    with open_partial(cache, sha256) as handle:
        if handle is None:
            return
        try:
            os.lseek(handle, offset, os.SEEK_SET)
            write_all(handle, data)
            ranges = read_ranges(record, size) + [[offset, offset + len(data)]]
            write_record(record, merge_ranges(ranges))
        except (IOError, OSError) as problem:
            if problem.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise Refused("space", "%s: %s" % (cache, problem.strerror))


def write_record(path, ranges):
    """Replace a record of ranges. After a power cut the sha256 decides, so nothing is synced."""
    handle = open_private(path + ".tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        write_all(handle, json.dumps(ranges).encode("utf-8"))
    finally:
        os.close(handle)
    os.rename(path + ".tmp", path)


def settle(cache, sha256, size):
    """Complete a file whose bytes are all there, drop one that is not what its name says.

    Returns:
        The gaps as [[offset, length], ...], and whether a wrong file was dropped.
    """
    path = os.path.join(cache, sha256)
    if os.path.lexists(path):
        if is_right(path, sha256, size):
            return [], False
        remove_file(path)
        return [[0, size]], True
    if not os.path.lexists(path + ".part"):
        remove_file(path + ".map")
        return [[0, size]], False
    with open_partial(cache, sha256) as handle:
        if handle is None:
            return [], False
        gaps = find_gaps(read_ranges(path + ".map", size), size)
        if gaps:
            return gaps, False
        right = is_right(path + ".part", sha256, size)
        if right:
            os.fsync(handle)
            os.rename(path + ".part", path)
        remove_file(path + ".map")
        remove_file(path + ".part")
        return ([], False) if right else ([[0, size]], True)


def is_right(path, sha256, size):
    """Whether a file is a regular one of this size and sha256."""
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode) or status.st_size != size:
        return False
    return sha256_file(path) == sha256


def staged(settings, session):
    """Return which bytes of a session's files are missing, after hashing what is complete."""
    _, manifest = load_session(settings, session)
    missing, bad = [], []
    for sha256, size in sorted(sizes_of(manifest).items()):
        gaps, dropped = settle(settings["cache_dir"], sha256, size)
        missing.extend([sha256, offset, length] for offset, length in gaps)
        bad.extend([sha256] if dropped else [])
    return {"complete": not missing, "missing": missing, "bad": bad}


# --- what a session's directory says --------------------------------------------------------------


def append_journal(path, entry):
    """Add a line to a session's journal and wait until it is on disk."""
    handle = open_journal(path)
    try:
        write_entry(handle, entry)
    finally:
        os.close(handle)


def open_journal(path):
    """Open a session's journal for adding to it."""
    return open_private(os.path.join(path, "journal.jsonl"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def write_entry(handle, entry, sync=True):
    """Write a line to an open journal."""
    line = canonical(dict(entry, at=round(time.time(), 3))) + "\n"
    write_all(handle, line.encode("utf-8"))
    if sync:
        os.fsync(handle)


def read_journal(path):
    """Return the journal's entries; a line cut short by a power cut is left out."""
    entries = []
    for line in read_text(os.path.join(path, "journal.jsonl")).splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        entries.extend([entry] if isinstance(entry, dict) else [])
    return entries


def session_status(path):
    """Return the state of a session: its report, or how far it is, or that it was cut off."""
    report = read_document(os.path.join(path, "report.json"))
    if report:
        return report
    journal = read_journal(path)
    # A file system that was repaired may have emptied what we keep; the cookie tells what ran.
    states = [entry for entry in journal if "state" in entry] or [{"state": "staged"}]
    status = {
        "state": states[-1]["state"], "outcome": None, "code": "", "detail": "", "ended": None,
        "started": started_at(states), "log": log_tail(path), "findings": {},
    }  # fmt: skip
    if status["state"] == "staged" or is_running(path):
        return status
    # It may have written its report and gone since the first look.
    report = read_document(os.path.join(path, "report.json"))
    if report:
        return report
    touched = status["state"] in ("running", "verifying")
    return dict(
        status,
        state="failed",
        outcome="failed" if touched else "refused",
        code="interrupted",
        detail=interruption(journal),
    )


def interruption(journal):
    """Return in words where a session was cut off, and why it was not mended yet."""
    state = [entry["state"] for entry in journal if "state" in entry][-1]
    parts = ["cut off while " + (cut_point(journal) if state == "running" else state)]
    refusals = [entry for entry in journal if "recovery" in entry]
    if refusals:
        parts.append("it could not be recovered: %s: %s" % (
            refusals[-1]["recovery"], refusals[-1]["detail"]))  # fmt: skip
    return "; ".join(parts)


def cut_point(journal):
    """Return in words what rpm was doing when the journal ends."""
    for entry in reversed(journal):
        if "phase" in entry:
            return "%s %s" % (entry["phase"], entry["of"])
        if "installed" in entry or "erased" in entry:
            return "between packages, after %s" % (entry.get("installed") or entry["erased"])
        if "state" in entry:
            return entry["state"]
    return "starting"


def interrupted_session(state_dir):
    """Return the session whose transaction was cut off on this host and is not mended, or ""."""
    for path in sorted(glob.glob(os.path.join(state_dir, "transactions", "*"))):
        if os.path.exists(os.path.join(path, "report.json")):
            continue
        states = [entry["state"] for entry in read_journal(path) if "state" in entry]
        if states and states[-1] in ("running", "verifying") and not is_running(path):
            return os.path.basename(path)
    return ""


def last_success(settings):
    """Return the manifest of the newest session whose end the host was proven to have, or None."""
    found = []
    for path in glob.glob(os.path.join(settings["state_dir"], "transactions", "*")):
        session = os.path.basename(path)
        if SESSION_NAME.match(session) and session_status(path)["outcome"] in (
            "applied",
            "unchanged",
        ):
            found.append(load_session(settings, session)[1])
    return max(found, key=lambda manifest: manifest["sequence"]) if found else None


def compliance(settings, now):
    """Compare the packages, which `now()` tells, with what the last success left here."""
    manifest = last_success(settings)
    if manifest is None:
        return {"state": "unknown", "plan": "", "session": ""}
    state = "equal" if now()["packages"] == manifest["after"] else "differs"
    return {"state": state, "plan": manifest["plan"], "session": manifest["session"]}


def started_at(states):
    """Return when applying began, or None."""
    times = [entry["at"] for entry in states if entry["state"] == "checking"]
    return times[0] if times else None


def log_tail(path):
    """Return the end of a session's log; a scriptlet may have written without end."""
    return read_end(os.path.join(path, "log"), LOG_TAIL)


def is_running(path):
    """Whether a process is applying this session right now: it holds the session's lock."""
    with locked(os.path.join(path, "lock")) as mine:
        return not mine


def running_session(settings):
    """Return the session that is being applied on this host, or ""."""
    path = os.path.join(settings["state_dir"], "apply.lock")
    if not os.path.exists(path):
        return ""
    with locked(path, 0.3) as mine:
        return "" if mine else read_text(path).strip() or "another"


# --- starting what outlives us --------------------------------------------------------------------


def clean_environment():
    """Return an environment without the caller's own: its libraries and paths break other programs.

    Salt's packages bring a Python of their own, and a person who logs in brings anything.
    """
    return {"PATH": SYSTEM_PATH, "LC_ALL": "C", "HOME": pwd.getpwuid(os.geteuid()).pw_dir}


def check_order(text, session, host):
    """Refuse to start what is not ordered for this session, host and minute.

    Whoever calls has checked who gave the order.
    """
    read_order(text, {"kind": "order", "session": session, "host": host})


def read_order(text, wanted):
    """Return what an order says, if it is the one that is wanted, and of this minute."""
    try:
        said = json.loads(text)
        right = all(said[key] == wanted[key] for key in wanted)
        late = time.time() - said["expires"]
    except (KeyError, TypeError, ValueError):
        said, right, late = {}, False, 0
    if not right:
        raise Refused("order", "this is no order of the kind for this session and host")
    if late > 0:
        raise Refused("expired", "the order ran out %d s ago; is the clock right?" % late)
    return said


def start_session(settings, session, program, python):
    """Start a session's transaction in a process that is nobody's child, unless it is done or runs.

    Args:
        settings: of this host.
        session: its name.
        program: the text of this file; a copy is started, since a sync may replace the original.
        python: finds the Python to start it with.
    """
    path, _ = load_session(settings, session)
    if os.path.exists(os.path.join(path, "report.json")) or is_running(path):
        return
    busy = running_session(settings)
    if busy and busy != session:
        raise Refused("busy", "session %s is being applied" % busy)
    start_program("apply", path, program, python)


def start_program(verb, path, program, python):
    """Start a verb on a session's directory, as nobody's child."""
    copy = os.path.join(path, "agent.py")
    write_atomically(copy, program)
    command = [python(), "-Es", copy, verb, path]
    if os.path.isdir(SYSTEMD):
        unit = "cpacman-" + os.path.basename(path)
        start_service(unit if verb == "apply" else "%s-%s" % (unit, verb), command)
    else:
        call_starter(command + ["--detach"])


def start_service(unit, command):
    """Start a transient service of PID 1: a child of the minion, or of a login, would die with it.

    Only the main process is killed by a stop, since scriptlets may have started daemons.
    """
    line = ["systemd-run", "--unit=" + unit, "--property=KillMode=process", "--quiet"]
    line += ["--setenv=%s=%s" % item for item in sorted(clean_environment().items())]
    with open(os.devnull, "r+b") as null:
        subprocess.call(
            ["systemctl", "reset-failed", unit + ".service"],
            env=clean_environment(), stdout=null, stderr=null,
        )  # fmt: skip
    try:
        call_starter(line + ["--collect"] + command)
    except Refused as no:
        if "unrecognized option" not in no.message:
            raise
        call_starter(line + command)  # systemd before 236


def call_starter(command):
    """Run a command that starts something; refuse with what it says when it fails."""
    with open(os.devnull, "rb") as null:
        process = subprocess.Popen(
            command, stdin=null, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=clean_environment(), cwd="/",
        )  # fmt: skip
        said = process.communicate()[0]
    if process.returncode:
        text = to_text(said).strip()
        raise Refused("start", "%s: %s" % (os.path.basename(command[0]), text))


def report_of(settings, session, nonce, now):
    """Return the report of a session: how far it is, or how it ended.

    Args:
        settings: of this host.
        session: its name.
        nonce: a text of the master's, repeated so that the report cannot be an old one.
        now: returns the cookie and the package digest as they are, once nothing is at work.
    """
    if not isinstance(nonce, TEXT) or not 0 < len(nonce) <= 128:
        raise Refused("nonce", "a nonce is a text of 1 to 128 characters")
    path, manifest = load_session(settings, session)
    status = session_status(path)
    report = dict((key, manifest[key]) for key in ("plan", "transaction", "session", "host"))
    for key in ("state", "outcome", "code", "detail", "log", "started", "ended"):
        report[key] = status[key]
    report["findings"] = status.get("findings", {})
    report["ended_boot_id"] = status.get("boot_id", "")
    report.update(nonce=nonce, boot_id=boot_id(), cookie="", packages="")
    report["restart"] = read_document(os.path.join(path, "restart.json"))
    report["reboot"] = read_document(os.path.join(path, "reboot.json"))
    if status["outcome"] is not None:
        # While rpm is at work they mean nothing; unreadable, they are not what was planned.
        with suppressed_refusal():
            report.update(now())
    return report


@contextlib.contextmanager
def suppressed_refusal():
    """Go on without what was refused."""
    try:
        yield
    except Refused:
        pass


# --- the transaction --------------------------------------------------------------------------


def apply_session(path, rpm=None):
    """Carry out a session's transaction, or say what became of it before; return its report."""
    if os.path.exists(os.path.join(path, "report.json")):
        return session_status(path)
    settings = json.loads(read_text(os.path.join(path, "session.json")) or "null")
    text = read_text(os.path.join(path, "manifest.json"))
    if not settings or not text:
        raise Refused("session", "%s is not a session" % path)
    with locked(os.path.join(path, "lock"), 2) as mine:
        if not mine or os.path.exists(os.path.join(path, "report.json")):
            return session_status(path)
        with Session(path, settings, parse_manifest(text)) as session:
            return carry_out(session, rpm)


class Session(object):
    """A session being applied: its directory, settings and manifest, and when it began."""

    def __init__(self, path, settings, manifest):
        self.path = path
        self.host = settings["host"]
        self.root = settings.get("root") or None
        self.cache_dir = settings["cache_dir"]
        self.lock_file = os.path.join(settings["state_dir"], "apply.lock")
        self.state_dir = settings["state_dir"]
        self.lock_wait = settings.get("lock_wait", LOCK_WAIT)
        self.restart = settings.get("restart")
        self.manifest = manifest
        self.started = round(time.time(), 3)
        self.journal = read_journal(path)
        states = [entry for entry in self.journal if "state" in entry]
        self.last = states[-1] if states else {"state": "staged"}
        self.cut_off = self.last["state"] == "running"
        self.cut_path = path
        self.findings = {}
        # Open from the start: on another root rpm calls back from inside of it.
        self.writing = open_journal(path)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.writing)

    def is_noted(self, key):
        """Whether an entry of the journal has this key."""
        return any(key in entry for entry in read_journal(self.path))

    def note(self, **entry):
        """Add an entry to the journal."""
        write_entry(self.writing, entry)

    def note_phase(self, phase, of):
        """Say what rpm does now. Not worth waiting for the disk: it only words a report."""
        write_entry(self.writing, {"phase": phase, "of": of}, sync=False)

    def finish(self, outcome, code, detail, state):
        """Write the report, which ends the session for good, and return it."""
        report = {
            "state": "failed" if outcome == "failed" else "done", "outcome": outcome,
            "code": code, "detail": shortened(detail, LONGEST_DETAIL), "cookie": state.get("cookie", ""),
            "packages": state.get("packages", ""), "log": log_tail(self.path),
            "started": self.started, "ended": round(time.time(), 3), "findings": self.findings,
            "boot_id": boot_id(),
        }  # fmt: skip
        write_atomically(os.path.join(self.path, "report.json"), canonical(report))
        self.note(state=report["state"], outcome=outcome, code=code)
        return report


def carry_out(session, rpm):
    """Run a session to its report; whatever goes wrong, the database says what happened."""
    with locked(session.lock_file, 1) as mine:
        if not mine:
            other = read_text(session.lock_file).strip()
            return session.finish("refused", "busy", "session %s is being applied" % other, {})
        note_holder(session)
        try:
            return transact(session, rpm)
        except Refused as no:
            return give_up(session, no.code, no.message, rpm)
        except Exception as problem:
            sys.stderr.write(traceback.format_exc())
            sys.stderr.flush()
            detail = "%s: %s" % (type(problem).__name__, problem)
            return give_up(session, "internal", detail, rpm)


def give_up(session, code, detail, rpm):
    """End a session that a check stopped; one that was cut off before stays to be recovered."""
    if not was_touched(session):
        return session.finish("refused", code, detail, safe_state(session, rpm))
    if session.cut_off:
        session.note(recovery=code, detail=shortened(detail, LONGEST_DETAIL))
        return dict(
            session_status(session.path), state="failed", outcome="failed", code="interrupted",
            detail=interruption(read_journal(session.path)),
        )  # fmt: skip
    return session.finish("failed", code, detail, safe_state(session, rpm))


def note_holder(session):
    """Write into the host's lock file whose session holds it."""
    with io.open(session.lock_file, "w", encoding="utf-8") as stream:
        stream.write(session.manifest["session"] + "\n")


def was_touched(session):
    """Whether the transaction may have changed the host: its journal says it was let go."""
    return any(entry.get("state") == "running" for entry in read_journal(session.path))


def safe_state(session, rpm):
    """Return the state of the database, or nothing where it cannot be read."""
    try:
        return current_state(session.root, rpm)
    except Refused:
        return {}


def transact(session, rpm):
    """Check, run and verify; return the report."""
    if session.last["state"] == "verifying":
        restart_minion(session)
        rows = read_rows(session.root, KEY_TAGS, False, rpm)
        return judge_rows(
            session, rows, session.last.get("problems"), session.last.get("scriptlets") or []
        )
    if session.cut_off:
        return carry_on(session, rpm)
    session.note(state="checking")
    check_address(session.manifest, session.host)
    again = check_interrupted(session)
    rows = settled_rows(session, rpm)
    steps = Steps(session.manifest, session.cache_dir, rows, again)
    if packages_digest(rows) == session.manifest["after"] and not steps.replaced:
        return session.finish("unchanged", "", "", state_of(rows))
    if cookie_of(rows) != session.manifest["cookie"]:
        raise Refused("changed", "the packages changed since the plan")
    if not again:
        steps.check_present()
    report = check_and_run(session, steps, rows, rpm)
    if again and report["outcome"] == "applied":
        close_interrupted(session, again)
    return report


def check_interrupted(session):
    """Refuse to work on top of a transaction that was cut off, unless this one takes it back.

    Returns:
        The session that is taken back, or "".
    """
    other = interrupted_session(session.state_dir)
    if other and other != session.manifest.get("recovers"):
        raise Refused("interrupted", "session %s was cut off here: recover it first" % other)
    if other:
        wait_for_scriptlets(session, other)
        session.cut_path = os.path.join(os.path.dirname(session.path), other)
        session.journal = read_journal(session.cut_path)
    return other


def close_interrupted(session, other):
    """Give the session that this one took back its report."""
    path = os.path.join(os.path.dirname(session.path), other)
    manifest = parse_manifest(read_text(os.path.join(path, "manifest.json")))
    settings = json.loads(read_text(os.path.join(path, "session.json")))
    with Session(path, settings, manifest) as closed:
        detail = "%s; taken back by %s" % (
            interruption(closed.journal), session.manifest["session"])  # fmt: skip
        closed.finish("failed", "taken-back", detail, {})


def settled_rows(session, rpm):
    """Return what is installed, once nobody is changing it."""
    wait_for_rpm(session, rpm)
    return read_rows(session.root, KEY_TAGS, False, rpm)


def check_unchanged(session, rows, rpm):
    """Refuse when somebody changed packages between our look and now; he held the lock, perhaps."""
    if cookie_of(settled_rows(session, rpm)) != cookie_of(rows):
        raise Refused("changed", "the packages changed while this transaction was checked")


def carry_on(session, rpm):
    """Bring a host whose transaction was cut off to its plan: the whole of it once more.

    Repeating only what is missing mends nothing: a package that stands in the database may lack
    files and scriptlets, an old one may stand beside the new.
    """
    wait_for_scriptlets(session, session.manifest["session"])
    rows = settled_rows(session, rpm)
    return check_and_run(session, Steps(session.manifest, session.cache_dir, rows, True), rows, rpm)


def check_and_run(session, steps, rows, rpm):
    """Check everything, run the transaction, and return the report of what came of it."""
    steps.check_protected(session.manifest.get("protected", []))
    check_kernel(session, steps, to_text(os.uname()[2]) if is_live(session.root) else "")
    check_contents(session)
    transaction = (ByBindings if rpm is not None else ByCommand)(session, steps, rpm)
    contents = transaction.contents()
    wait_for_rpm(session, rpm)
    if steps.again:
        sweep(session, contents)
    check_space(session, contents)
    transaction.check()
    keep_folders(session, contents)
    session.note(scriptlets_to_run=transaction.scripted(), boots=boots_with(contents))
    check_unchanged(session, rows, rpm)
    session.note(state="running", before=cookie_of(rows), again=steps.again)
    problems = let_go(transaction)
    settle_disks(session, contents, rpm)
    session.note(state="verifying", problems=problems, scriptlets=transaction.scriptlets)
    restart_minion(session)
    return judge(session, problems, transaction.scriptlets, rpm)


def settle_disks(session, contents, rpm):
    """Wait until what rpm wrote is on disk: rpm does not, and a report must not outlive it.

    A power cut before this is found as `running`, and everything runs again. Only the file systems
    that rpm wrote to are waited for: some other one may hang for ever.
    """
    database = find_database(session.root, rpm)
    places = set(os.path.join(database, name) for name in list_directory(database))
    if is_live(session.root):
        places.update(place for place, _ in space_needs(session.root, contents).values())
    for place in sorted(places):
        with suppressed(errno.ENOENT, errno.EINVAL):
            handle = os.open(place, os.O_RDONLY)
            try:
                if os.path.isdir(place):
                    sync_file_system(handle)
                else:
                    os.fsync(handle)
            finally:
                os.close(handle)


def sync_file_system(handle):
    """Bring all of a file system to disk, where the C library can."""
    try:
        import ctypes

        ctypes.CDLL(None).syncfs(handle)
    except (ImportError, AttributeError, OSError):
        os.fsync(handle)


def restart_minion(session):
    """Restart Salt's minion, once, when what it runs on was replaced: the last step of all.

    We are no child of it. Its report is written only after that, so whoever asks gets it from the
    new one; should we die with it, the next start finds `verifying` and goes on from there.
    """
    if not session.manifest.get("restart_minion") or session.is_noted("minion"):
        return
    command = session.restart or restart_command(session.root)
    if not command:
        session.note(minion="not restarted: this host has no service manager that we know")
        return
    session.note(minion="restarting")
    code, output, errors = run_command(command, env=clean_environment(), cwd="/")
    said = one_line(to_text(output) + errors)
    session.note(minion="not restarted: " + said if code else "restarted")


def restart_command(root):
    """Return what restarts the minion on this host if it runs, or None."""
    if not is_live(root):
        return None
    if os.path.isdir(SYSTEMD):
        return ["systemctl", "try-restart", "salt-minion.service"]
    return ["service", "salt-minion", "restart"] if os.path.exists(
        "/etc/init.d/salt-minion") else None  # fmt: skip


def let_go(transaction):
    """Run a transaction; an exception is one more problem, for the database to be asked about."""
    try:
        return transaction.run()
    except Exception as problem:
        sys.stderr.write(traceback.format_exc())
        sys.stderr.flush()
        return ["%s: %s" % (type(problem).__name__, problem)]


def state_of(rows):
    """Return cookie and package digest of rows already read."""
    return {"cookie": cookie_of(rows), "packages": packages_digest(rows)}


def judge(session, problems, scriptlets, rpm):
    """Read the database again and return the report: it alone knows what happened."""
    try:
        rows = read_rows(session.root, KEY_TAGS, False, rpm)
    except Refused as no:
        return session.finish("failed", no.code, no.message, {})
    return judge_rows(session, rows, problems, scriptlets)


def judge_rows(session, rows, problems, scriptlets):
    """Return the report for what is installed after the transaction ran."""
    state = state_of(rows)
    session.findings = find_after(session, rows)
    said = cut_short(list(problems or []) + scriptlets)
    if state["packages"] == session.manifest["after"] and problems is None:
        if scriptlets:
            detail = "every package is as planned, but: " + "; ".join(said)
            return session.finish("failed", "scriptlet", detail, state)
        return session.finish("applied", "", recovered(session), state)
    if state["cookie"] == session.manifest["cookie"] and not session.cut_off:
        return session.finish("refused", "run", "; ".join(said) or "rpm changed nothing", state)
    broken = ["broken: " + line for line in session.findings.get("broken", ())]
    parts = [difference(session.manifest, rows)] + broken + said + [recovered(session)]
    return session.finish("failed", "different", "; ".join(part for part in parts if part), state)


def recovered(session):
    """Return in words that a session was cut off before, or ""."""
    return "was %s; the whole of it ran again" % interruption(session.journal) if (
        session.cut_off) else ""  # fmt: skip


def difference(manifest, rows):
    """Return in words which planned packages are not there, and which leftovers still are."""
    present = set(row_nevra(row) for row in rows)
    adds = set(action_nevra(a) for a in manifest["actions"] if a["action"] in ADDING)
    gone = set(leaving_of(manifest)) - adds
    parts = []
    for what, names in (("not installed", adds - present), ("still installed", gone & present)):
        if names:
            shown = sorted(names)[:NAMES_SHOWN]
            more = len(names) - len(shown)
            parts.append("%s: %s%s" % (what, " ".join(shown), " +%d" % more if more else ""))
    if not parts and packages_digest(rows) != manifest["after"]:
        parts.append("other packages than the plan's have changed")
    return "; ".join(parts)


def leaving_of(manifest):
    """Return the NEVRAs that the plan says will leave."""
    leaving = []
    for action in manifest["actions"]:
        if action["action"] == "remove":
            leaving.append(action_nevra(action))
        elif action["action"] != "reinstall" and action.get("from"):
            leaving.append(action["from"])
    return leaving


def changes_arch(action):
    """Whether an action replaces a package by its like of another architecture."""
    old = action.get("from")
    if action["action"] not in ("upgrade", "downgrade") or not old:
        return False
    return old.rpartition(".")[2] != action["arch"]


# --- what a transaction has left ------------------------------------------------------------------


CONFIG_LEFT = re.compile(r"(?:created|saved) as (/\S+\.rpm(?:new|save|orig))")
REBOOT_NAMES = (
    "kernel", "kernel-core", "kernel-rt", "kernel-rt-core", "kernel-default", "kernel-uek", "glibc",
    "linux-firmware", "systemd", "dbus", "dbus-broker", "dbus-daemon", "microcode_ctl",
)  # fmt: skip
BOOT_FILES = re.compile(
    r"/boot/|(/usr)?/lib/(modules|firmware)/|(/usr)?/lib/systemd/systemd\Z|(/usr)?/sbin/init\Z"
)
SALT_NAMES = ("salt-minion", "salt")


def find_after(session, rows):
    """Return what somebody should know of a host on which a transaction ran; never fails.

    Each list is cut at 20 entries, with the number of the others as its last.
    """
    found = {}
    for name, look in (
        ("scriptlets", find_scriptlets), ("will_run", find_will_run), ("configs", find_configs),
        ("verify", find_verify), ("broken", find_broken), ("services", find_services),
        ("reboot", find_reboot), ("salt", find_salt),
    ):  # fmt: skip
        try:
            value = look(session, rows)
        except (Refused, IOError, OSError, ValueError) as problem:
            value = ["could not look: %s" % problem]
        if value:
            found[name] = cut_short(value)
    return found


def cut_short(value):
    """Return a list with the number of what is left out, where it is too long for a report."""
    if not isinstance(value, list):
        return value
    lines = [shortened(line, LONGEST_LINE) for line in value[:MOST_FOUND]]
    return lines + ["+%d" % (len(value) - MOST_FOUND)] if len(value) > MOST_FOUND else lines


def shortened(text, most):
    """Return a text, or its beginning and how much more there was: a report has to travel."""
    return text if len(text) <= most else "%s... (+%d)" % (text[:most], len(text) - most)


def find_scriptlets(session, _):
    """Return the failed scriptlets with what they said."""
    entries = [entry for entry in read_journal(session.path) if "scriptlet" in entry]
    return ["%s: %s" % (entry["scriptlet"], one_line(entry.get("output", ""))) for entry in entries]


def find_will_run(session, _):
    """Return the scriptlets that were announced before the transaction."""
    noted = [e["scriptlets_to_run"] for e in read_journal(session.path) if "scriptlets_to_run" in e]
    return noted[-1] if noted else []


def find_configs(session, _):
    """Return the files that rpm put beside configuration which somebody had changed."""
    found = set()
    with suppressed(errno.ENOENT), io.open(os.path.join(session.path, "log"), "rb") as stream:
        for line in iter(lambda: stream.readline(LOG_TAIL), b""):
            found.update(CONFIG_LEFT.findall(to_text(line)))
    return sorted(found)


def find_verify(session, rows):
    """Return what of the planned packages is not on disk as it was packed; not configuration."""
    planned = set(action_nevra(a) for a in session.manifest["actions"] if a["action"] in ADDING)
    present = sorted(planned & set(map(row_nevra, rows)))
    lines = verify_packages(session, ["--nodeps"] + [without_epoch(nevra) for nevra in present])
    return [line for line in lines if present and not re.match(r"\S+ +[cg] /", line)]


def find_broken(session, rows):
    """Return requirements that do not hold, when the packages are not those of the plan.

    A package whose %pre failed is left out by rpm, and those that need it are installed.
    """
    if packages_digest(rows) == session.manifest["after"]:
        return []
    lines = verify_packages(session, ["-a", "--nofiles"])
    return [
        re.sub(r"-0:([^-]+-[^-]+)\Z", r"-\1", line.replace(" (installed)", ""))
        for line in lines if " is needed by " in line
    ]  # fmt: skip


def verify_packages(session, words):
    """Return the lines of `rpm -V`; its own scripts are not run."""
    command = ["rpm", "-V", "--noscripts", "--nosignature"] + rpm_place(session) + words
    output = to_text(run_command(command)[1])
    return [one_line(line) for line in output.splitlines() if line.strip()]


def find_services(session, _):
    """Return the services, or else the programs, that use files which were replaced."""
    return user_lines(users_of_deleted()) if is_live(session.root) else []


def users_of_deleted():
    """Return service, or else program -> the processes of it that use files which are gone."""
    found = {}
    for path in glob.glob("/proc/[0-9]*"):
        if uses_deleted(path):
            found.setdefault(unit_of(path), []).append(os.path.basename(path))
    found.pop("", None)
    return found


def user_lines(users):
    """Return a line for each service or program, with its processes."""
    return ["%s (%s)" % (name, " ".join(sorted(users[name], key=int))) for name in sorted(users)]


def uses_deleted(path):
    """Whether a process has a program or library in memory that is not on disk any more."""
    maps = read_text(path + "/maps")
    return bool(re.search(r"/(usr|lib|lib64|bin|sbin|opt)/\S+ \(deleted\)$", maps, re.MULTILINE))


def unit_of(path):
    """Return a process's service by its control group, or its name.

    What runs below a person's login is a service of that person, which nobody restarts for them.
    """
    match = re.search(
        r"^[^/]*(/\S*/)([^/\s]+\.service)$", read_text(path + "/cgroup"), re.MULTILINE
    )
    if match and "/user.slice/" not in match.group(1):
        return match.group(2)
    return read_text(path + "/comm").strip()


def boots_with(contents):
    """Return the packages with a file that only the next boot uses."""
    return sorted(
        nevra for nevra in contents if any(BOOT_FILES.match(row[0]) for row in contents[nevra])
    )


def find_reboot(session, _):
    """Return the planned packages after which a host wants a reboot.

    Which advisory suggests one, only the master knows: its manifest says that there is one.
    """
    actions = [a for a in session.manifest["actions"] if a["action"] in ADDING]
    found = set(action_nevra(a) for a in actions if a["name"] in REBOOT_NAMES)
    for entry in read_journal(session.path):
        found.update(entry.get("boots", ()))
    if session.manifest.get("reboot") and not found:
        return ["an advisory suggests it"]
    return sorted(found)


def find_salt(session, rows):
    """Return the installed version of Salt, and whether it was restarted.

    The door adds which version is running.
    """
    noted = [entry["minion"] for entry in read_journal(session.path) if "minion" in entry][-1:]
    return sorted(row_nevra(row) for row in rows if row["NAME"] in SALT_NAMES) + noted


# --- what follows a transaction -------------------------------------------------------------------


LEFT_ALONE = re.compile(
    r"dbus|systemd-|elogind|auditd|polkit|user@|user-runtime-dir@|session-|getty@|serial-getty@"
    r"|console-getty|gdm|kdm|lightdm|lxdm|nodm|sddm|slim|wdm|xdm|display-manager|plymouth"
    r"|NetworkManager|network|wicked|wpa_supplicant|ofono|dhclient|dhcpcd|rc-local|emergency|rescue"
    r"|iscsi|multipathd|lvm2|dm-event|mdmonitor|docker|containerd|podman|virtlogd|virtlockd"
    r"|salt-|cpacman-"
)
# Restarted, these end sessions, connections, containers or this very work. After needrestart's list.


def order_restart(settings, session, text, program, python):
    """Take the order to restart services that use replaced files, and start a process for it.

    Args:
        settings: of this host.
        session: whose transaction it follows.
        text: the order. Whoever calls has checked who gave it.
        program: the text of this file.
        python: finds the Python to start it with.
    """
    wanted = {"kind": "restart", "session": session, "host": settings["host"]}
    order = check_restart(read_order(text, wanted))
    path = applied_session(settings, session)
    if not is_restarted(path, order) and not is_held(os.path.join(path, "restart.lock")):
        write_atomically(os.path.join(path, "restart.order"), canonical(order))
        start_program("restart", path, program, python)
    return {"ordered": True}


def check_restart(order):
    """Return an order to restart services, if it is sound."""
    names, times = order.get("names"), [order.get("timeout"), order.get("within")]
    sound = isinstance(order.get("number"), TEXT) and isinstance(names, list)
    sound = sound and all(isinstance(name, TEXT) for name in names)
    if not sound or not all(is_count(one) and one > 0 for one in times):
        raise Refused("order", "the order to restart services is malformed")
    return order


def applied_session(settings, session):
    """Return the directory of a session that was applied: nothing follows on any other."""
    path, _ = load_session(settings, session)
    if session_status(path)["outcome"] != "applied":
        raise Refused("order", "session %s was not applied, so nothing follows it" % session)
    return path


def is_restarted(path, order):
    """Whether an order to restart services is carried out already."""
    said = read_document(os.path.join(path, "restart.json"))
    return said.get("number") == order["number"] and said["state"] == "done"


def is_held(path):
    """Whether a process holds a lock file."""
    with locked(path) as mine:
        return not mine


def run_restart(path):
    """Restart the services that an order means, one after the other, and say how it went.

    What was restarted before this process was killed and started again is kept.
    """
    with locked(os.path.join(path, "restart.lock"), 2) as mine:
        order = read_document(os.path.join(path, "restart.order"))
        if not mine or not order or is_restarted(path, order):
            return
        place = os.path.join(path, "restart.json")
        said, down = read_document(place), []
        if said.get("number") != order["number"]:
            down = [one["unit"] for one in said.get("units", ()) if not one["ok"]]
            said = {"number": order["number"], "state": "running", "units": [], "left": []}
        # Who did not come back before uses no file any more: it is looked at, not forgotten.
        said["units"] += [one for one in map(look_again, sorted(set(down))) if not one["ok"]]
        write_atomically(place, canonical(said))
        end = time.time() + order["within"]
        for name in sorted(users_of_deleted()):
            if is_meant(name, order["names"]) and time.time() < end:
                said["units"].append(restart_service(path, name, order["timeout"]))
                write_atomically(place, canonical(said))
        said.update(state="done", left=cut_short(user_lines(users_of_deleted())))
        write_atomically(place, canonical(said))


def is_meant(name, globs):
    """Whether a service may be restarted at all, and is among those that are named."""
    if LEFT_ALONE.match(name):
        return False
    if os.path.isdir(SYSTEMD):
        known = name.endswith(".service")
    else:
        known = os.path.exists(os.path.join(INIT_SCRIPTS, name))
    base = name[: -len(".service")] if name.endswith(".service") else name
    words = (base, base + ".service")
    return known and any(fnmatch.fnmatchcase(word, one) for one in globs for word in words)


def look_again(name):
    """Return whether a service that did not come back when it was restarted is well by now."""
    if os.path.isdir(SYSTEMD):
        well = run_command(["systemctl", "is-failed", "--quiet", "--", name])[0] != 0
    else:
        command = ["timeout", "30", "service", name, "status"]
        well = not run_command(command, env=clean_environment(), cwd="/")[0]
    return {"unit": name, "ok": well, "output": "" if well else "it is still down"}


def restart_service(path, name, seconds):
    """Restart a service that runs; return whether it did in time, and what was said.

    What it says goes to a file: a daemon that inherits a pipe keeps whoever reads it waiting.
    """
    by_systemd = os.path.isdir(SYSTEMD)
    command = ["systemctl", "try-restart", "--", name] if by_systemd else [
        "service", name, "restart"]  # fmt: skip
    log = os.path.join(path, "restart.log")
    write_atomically(log, "")
    handle = open_private(log, os.O_WRONLY | os.O_APPEND)
    try:
        with open(os.devnull, "rb") as null:
            code = subprocess.call(
                ["timeout", "-k", "5", "%d" % seconds] + command, stdin=null, stdout=handle,
                stderr=handle, env=clean_environment(), cwd="/", close_fds=True,
            )  # fmt: skip
    except (IOError, OSError) as problem:
        return {"unit": name, "ok": False, "output": str(problem)}
    finally:
        os.close(handle)
    words = "not done in %d s" % seconds if code in (124, 137) else one_line(read_text(log))[-300:]
    if not code and by_systemd and not run_command(["systemctl", "is-failed", "--", name])[0]:
        code, words = 1, "it was started again, and failed"
    return {"unit": name, "ok": not code, "output": words}


def order_reboot(settings, session, text, program, python):
    """Take the order to reboot out of one boot, and start a process for it.

    Args:
        settings: of this host.
        session: whose transaction it follows.
        text: the order. Whoever calls has checked who gave it.
        program: the text of this file.
        python: finds the Python to start it with.
    """
    wanted = {"kind": "reboot", "session": session, "host": settings["host"]}
    order = read_order(text, wanted)
    path, now = applied_session(settings, session), boot_id()
    if not now or not isinstance(order.get("boot_id"), TEXT):
        raise Refused("order", "the boot that is to end is not known")
    if order["boot_id"] != now:
        return {"rebooted": True}
    if is_given_up(path, order):
        return {"ordered": True}
    command = settings.get("reboot") or reboot_command(settings.get("root"))
    if not command:
        raise Refused("order", "a tree cannot be rebooted")
    busy = running_session(settings)
    if busy and not is_held(os.path.join(path, "reboot.lock")):
        raise Refused("busy", "session %s is being applied" % busy)
    if not busy:
        noted = {"boot_id": now, "error": "", "command": command, "number": order.get("number")}
        write_atomically(os.path.join(path, "reboot.json"), canonical(noted))
        start_program("reboot", path, program, python)
    return {"ordered": True}


def is_given_up(path, order):
    """Whether this very order was tried already, and did not end this boot.

    A copy of it that comes late must not reboot a host that was reported as it is.
    """
    said, number = read_document(os.path.join(path, "reboot.json")), order.get("number")
    same = said.get("boot_id") == order["boot_id"] and said.get("number") == number
    return bool(same and number and said.get("error"))


def reboot_command(root):
    """Return what reboots this host, or None where that is none."""
    if not is_live(root or None):
        return None
    return ["systemctl", "reboot"] if os.path.isdir(SYSTEMD) else ["reboot"]


def run_reboot(path):
    """Reboot, once the answer is on its way; what stands in the way is noted.

    The lock of transactions is held until the end, so that none begins meanwhile.
    """
    place = os.path.join(path, "reboot.json")
    settings = read_document(os.path.join(path, "session.json"))
    with locked(os.path.join(path, "reboot.lock"), 2) as mine:
        noted = read_document(place)
        if not mine or noted.get("boot_id") != boot_id():
            return
        time.sleep(REBOOT_PAUSE)
        with locked(os.path.join(settings["state_dir"], "apply.lock"), 2) as free:
            error = leave_boot(settings, noted["command"]) if free else "a session is being applied"
        write_atomically(place, canonical(dict(noted, error=error)))


def leave_boot(settings, command):
    """Run what reboots, and wait for the end; return why it did not come."""
    try:
        wait_for_database(settings.get("root") or None, settings.get("lock_wait", LOCK_WAIT), None)
    except Refused as no:
        return no.message
    code, output, errors = run_command(command, env=clean_environment(), cwd="/")
    if code:
        return one_line(to_text(output) + errors) or "%s ended with %d" % (command[0], code)
    time.sleep(REBOOT_HOLD)
    return "still up %d s after %s" % (REBOOT_HOLD, " ".join(command))


class Steps(object):
    """A manifest's actions as rpm needs them.

    Attributes:
        adds: {nevra: (path, mode)}; mode "u" replaces, "i" puts beside.
        replaced: those of them that are installed already and are to be installed once more.
        erased: the NEVRAs to erase by name; `leaving`: all that will be gone.
        named: those that rpm may not erase by itself: also what another architecture replaces.
        again: whether a transaction was cut off before; then what is not there any more has left
            already, and whatever is there of the new is replaced.
    """

    def __init__(self, manifest, cache, rows, again=False):
        self.rows = dict((row_nevra(row), row) for row in rows)
        self.again = bool(again)
        self.actions = manifest["actions"]
        self.leaving = set(leaving_of(manifest))
        self.erased = [action_nevra(a) for a in self.actions if a["action"] == "remove"]
        self.named = self.erased + [a["from"] for a in self.actions if changes_arch(a)]
        if self.again:
            self.leaving &= set(self.rows)
            self.erased = [nevra for nevra in self.erased if nevra in self.rows]
            self.named = sorted(self.leaving)
        self.reinstalled = set(action_nevra(a) for a in self.actions if a["action"] == "reinstall")
        self.adds, self.names, kinds = {}, {}, {}
        for action in self.actions:
            if action["action"] in ADDING:
                nevra = action_nevra(action)
                path = os.path.join(cache, action["sha256"])
                if self.adds.setdefault(nevra, path) != path:
                    raise Refused("plan", "two files are to be %s" % nevra)
                self.names[nevra] = action["name"]
                kinds.setdefault(nevra, set()).add(action["action"])
        self.kinds = set().union(*kinds.values()) if kinds else set()
        self.replaced = set(self.reinstalled)
        if self.again:
            self.replaced = set(self.adds) & set(self.rows)
        for nevra, path in self.adds.items():
            self.adds[nevra] = (path, self.mode(nevra, kinds[nevra]))

    def check_present(self):
        """Refuse a plan that replaces or removes what is not installed."""
        absent = sorted((self.leaving | self.reinstalled) - set(self.rows))
        if absent:
            raise Refused("plan", "not installed: %s" % " ".join(absent[:NAMES_SHOWN]))

    def mode(self, nevra, kinds):
        """Return how rpm is to take one package.

        An install of a name that is new here is an upgrade to rpm, so that its Obsoletes count:
        what they would erase must be in the plan. Beside a package of its name it is not.
        """
        if kinds != {"install"}:
            return "u"
        name = self.names[nevra]
        present = any(row["NAME"] == name for other, row in self.rows.items() if other != nevra)
        return "i" if present or list(self.names.values()).count(name) > 1 else "u"

    def check_protected(self, protected):
        """Refuse what would leave nothing of a protected name; one of several kernels may go."""
        stay = [row for nevra, row in self.rows.items() if nevra not in self.leaving]
        beside = set((row["NAME"], row["ARCH"]) for row in stay)
        coming = set(self.names.values())
        for nevra in sorted(self.leaving):
            name, arch = self.rows[nevra]["NAME"], self.rows[nevra]["ARCH"]
            if name in protected and name not in coming and (name, arch) not in beside:
                raise Refused("protected", "%s is protected" % nevra)

    def check_elements(self, adds, erases):
        """Refuse when rpm would install or erase anything but what the plan says."""
        erases = set(erases) - self.replaced
        for what, found, planned in (
            ("install", set(adds), set(self.adds)), ("erase", erases, self.leaving),
        ):  # fmt: skip
            extra, lacking = sorted(found - planned), sorted(planned - found)
            if extra:
                raise Refused("plan", "rpm would also %s %s" % (
                    what, " ".join(extra[:NAMES_SHOWN])))  # fmt: skip
            if lacking:
                raise Refused("plan", "rpm would not %s %s" % (
                    what, " ".join(lacking[:NAMES_SHOWN])))  # fmt: skip


def check_kernel(session, steps, release):
    """Refuse to take away, or to replace, what the running kernel loads its modules from.

    Its tools and headers have the same version and are replaced like any other package.
    """
    for nevra in sorted(steps.leaving):
        if is_kernel(steps.rows[nevra], release) and holds_kernel(session, nevra, release):
            mend = "boot another kernel first"
            raise Refused("protected", "%s is the running kernel; %s" % (nevra, mend))


def holds_kernel(session, nevra, release):
    """Whether an installed package has files of a kernel; unknown counts as yes."""
    command = ["rpm", "-ql"] + rpm_place(session) + [without_epoch(nevra)]
    code, output, _ = run_command(command)
    places = re.compile(
        r"((/usr)?/lib/modules/|/boot/[A-Za-z.]+-|/boot/)%s(/|\Z)" % re.escape(release)
    )
    return bool(code) or any(places.match(line) for line in to_text(output).splitlines())


def check_contents(session):
    """Hash every file again; one that is not what the manifest says is dropped and refused."""
    for entry in session.manifest["files"]:
        gaps, dropped = settle(session.cache_dir, entry["sha256"], entry["size"])
        if dropped:
            raise Refused("file", "%s is damaged and was removed" % entry["name"])
        if gaps:
            raise Refused("file", "%s is not staged" % entry["name"])


def check_header(nevra, values, source):
    """Refuse a file whose header is not the planned package's."""
    found = nevra_text(*values)
    if source or found != nevra:
        raise Refused("package", "a file is %s%s, not %s" % (
            found, " (source)" if source else "", nevra))  # fmt: skip


def rpm_place(session):
    """Return the options that make the rpm command work on a session's root."""
    if not session.root:
        return []
    return ["--root", session.root, "--dbpath", inner_database(session.root)]


def inner_database(root):
    """Return where a tree's database is, as seen from inside the tree."""
    return "/" + os.path.relpath(find_database(root), os.path.abspath(root))


def check_signature(session, entry):
    """Check one package's signature, as far as the manifest demands it for this file.

    rpm passes a package without a signature, so that there is one is looked at separately.
    """
    wanted = entry.get("signatures") or session.manifest.get("signatures", "off")
    if wanted == "off":
        return
    path, name = os.path.join(session.cache_dir, entry["sha256"]), entry["name"]
    tags = ("RSAHEADER", "DSAHEADER", "SIGPGP", "SIGGPG")
    form = "".join("%%{%s:pgpsig}" % tag for tag in tags)
    query = ["rpm", "-qp", "--nosignature", "--nomanifest", "--queryformat", form, path]
    signed = to_text(run_command(query)[1]).replace("(none)", "")
    levels = [("_pkgverify_level", "all"), ("_pkgverify_flags", "0"), ("_vsflags_verify", "0")]
    command = ["rpm", "-K"] + rpm_place(session)
    for key, value in levels:
        command += ["--define", "%s %s" % (key, value)]
    code, output, errors = run_command(command + [path])
    if signed and code == 0:
        return
    said = one_line(to_text(output).replace(path, "") + errors) if signed else "it is not signed"
    if wanted == "require":
        raise Refused("signature", "%s: %s" % (name, said))
    session.note(warning="signature", file=name, detail=said)


def check_signatures(session):
    """Check the signatures of all files of a session."""
    for entry in session.manifest["files"]:
        check_signature(session, entry)


def wait_for_rpm(session, rpm):
    """Wait a bounded time until nobody else holds rpm's own lock; rpm itself waits for ever."""
    wait_for_database(session.root, session.lock_wait, rpm)


def wait_for_database(root, seconds, rpm):
    """Wait so long until nobody holds the lock of a database."""
    path = os.path.join(find_database(root, rpm), ".rpm.lock")
    if not os.path.exists(path):
        return
    end = time.time() + seconds
    while not is_free(path):
        if time.time() >= end:
            raise Refused("lock", "%s is held by %s" % (path, lock_holder(path) or "somebody"))
        time.sleep(0.2)


def is_free(path):
    """Whether nobody holds a POSIX lock on a file."""
    handle = os.open(path, os.O_RDWR)
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except (IOError, OSError) as problem:
        if problem.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        return False
    finally:
        os.close(handle)


def lock_holder(path):
    """Return `name (pid)` of the process that holds a file's lock, or ""."""
    inode = ":%d" % os.stat(path).st_ino
    for line in read_text("/proc/locks").splitlines():
        parts = line.split()
        if len(parts) > 5 and parts[5].endswith(inode) and parts[4].isdigit():
            name = read_text("/proc/%s/comm" % parts[4]).strip()
            return "%s (pid %s)" % (name or "?", parts[4])
    return ""


# --- what a transaction that was cut off leaves behind ----------------------------------------


def wait_for_scriptlets(session, other):
    """Wait a bounded time for scriptlets that outlived a transaction: they still write."""
    end = time.time() + session.lock_wait
    while True:
        orphans = scriptlets_of(other)
        if not orphans:
            return
        if time.time() >= end:
            raise Refused("lock", "a scriptlet of it still runs: %s" % ", ".join(orphans))
        time.sleep(0.2)


def scriptlets_of(session):
    """Return `name (pid)` of the processes that run scriptlets of a session.

    What a scriptlet started for good (a daemon) inherits the mark, but not rpm's file.
    """
    mark = ("CPACMAN_SESSION=%s\0" % session).encode("utf-8")
    found = []
    for path in glob.glob("/proc/[0-9]*"):
        if mark in read_bytes(path + "/environ") and b"rpm-tmp." in read_bytes(path + "/cmdline"):
            name = read_text(path + "/comm").strip()
            found.append("%s (pid %s)" % (name, os.path.basename(path)))
    return found


def read_bytes(path):
    """Return a small file's bytes, or none where it can't be read."""
    try:
        with io.open(path, "rb") as stream:
            return stream.read()
    except (IOError, OSError):
        return b""


def folders_of(contents):
    """Return the directories that the planned packages have files in, sorted."""
    found = set(path.rpartition("/")[0] for files in contents.values() for path, _, _ in files)
    return sorted(folder or "/" for folder in found)


def keep_folders(session, contents):
    """Write down where rpm is going to write, for whoever has to tidy up after it."""
    text = canonical(folders_of(contents))
    write_atomically(os.path.join(session.path, "folders.json"), text)


def sweep(session, contents):
    """Remove what a transaction that was cut off has left: half-written files, and scriptlets."""
    kept = json.loads(read_text(os.path.join(session.cut_path, "folders.json")) or "[]")
    begun = min(entry["at"] for entry in session.journal if entry.get("state") == "checking")
    folders = sorted(set(kept + folders_of(contents)))
    swept = sweep_files(session.root, folders, begun) + sweep_scripts(session.root, begun)
    if swept:
        session.note(swept=len(swept), files=sorted(swept)[:NAMES_SHOWN])


def sweep_files(root, folders, begun):
    """Remove rpm's half-written files; return what was removed.

    rpm writes `name;xxxxxxxx` first, the eight digits being when the transaction was made.
    """
    swept = []
    for folder in folders:
        place = below(root, folder)
        for entry in list_directory(place):
            match = LEFTOVER.search(entry)
            if match and begun - 2 <= int(match.group(1), 16) <= time.time() + 2:
                with suppressed(errno.ENOENT, errno.EISDIR, errno.EPERM):
                    os.unlink(os.path.join(place, entry))
                    swept.append("%s/%s" % (folder.rstrip("/"), entry))
    return swept


def list_directory(path):
    """Return the names in a directory, or none where there is none."""
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []


def sweep_scripts(root, begun):
    """Remove the scriptlets that rpm wrote down since then, and that nobody runs now."""
    running = b"".join(read_bytes(path) for path in glob.glob("/proc/[0-9]*/cmdline"))
    swept = []
    for path in glob.glob(os.path.join(below(root, "/var/tmp"), "rpm-tmp.*")):
        status = os.lstat(path)
        own = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
        used = os.path.basename(path).encode("utf-8") in running
        if own and not used and status.st_mtime >= begun - 1:
            remove_file(path)
            swept.append(path)
    return swept


# --- room for the transaction -----------------------------------------------------------------


def check_space(session, contents):
    """Refuse unless every file system has room for the new files, with a margin.

    rpm's own test counts blocks to the last one; scriptlets, logs and the database need some, too.
    """
    needs = space_needs(session.root, contents)
    short = []
    for device in sorted(needs):
        place, need = needs[device]
        free = disk_facts(place)["free"]
        if need + SPACE_MARGIN > free:
            short.append("%s: %d MB short: %d MB are free, %d MB are needed" % (
                mount_point(place), megabytes(need + SPACE_MARGIN - free), free // 1000000,
                megabytes(need + SPACE_MARGIN)))  # fmt: skip
    if short:
        raise Refused("space", "; ".join(short))


def megabytes(size):
    """Return a size in MB, rounded up: what is short must never read as nothing."""
    return -(-size // 1000000)


def space_needs(root, contents):
    """Return {device: (a directory on it, bytes)} that the packages' files need at the worst.

    What files replace becomes free when their package is in place. Until then old and new are
    there together, so beside the growth of all there is the most that one package replaces.
    """
    grown, most, places = {}, {}, {}
    for nevra in sorted(contents):
        replaced = {}
        for path, size, flags in contents[nevra] + kernel_extra(root, contents[nevra]):
            if flags & FILE_GHOST:
                continue
            place = existing_folder(below(root, path.rpartition("/")[0] or "/"))
            device = os.stat(place).st_dev
            places.setdefault(device, place)
            old = size_of(below(root, path))
            replaced[device] = replaced.get(device, 0) + old
            grown[device] = grown.get(device, 0) + -(-size // 4096) * 4096 - old
        for device, size in replaced.items():
            most[device] = max(size, most.get(device, 0))
    return dict(
        (device, (places[device], max(grown[device], 0) + most[device])) for device in places
    )


def kernel_extra(root, files):
    """Return what a kernel's scriptlets write below /boot and no package counts."""
    modules = [f for f in files if re.match(r"(/usr)?/lib/modules/[^/]+/vmlinuz\Z", f[0])]
    if not modules and not any(re.match(r"/boot/vmlinuz", path) for path, _, _ in files):
        return []
    images = glob.glob(os.path.join(below(root, "/boot"), "init*"))
    extra = [("/boot/vmlinuz", size, 0) for _, size, _ in modules]
    return extra + [("/boot/initramfs", max([size_of(path) for path in images] or [0]), 0)]


def existing_folder(path):
    """Return the nearest directory above that exists."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def size_of(path):
    """Return a regular file's size, or 0."""
    try:
        status = os.lstat(path)
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def mount_point(path):
    """Return where the file system of a path is mounted."""
    device = os.stat(path).st_dev
    while path != "/" and os.stat(os.path.dirname(path)).st_dev == device:
        path = os.path.dirname(path)
    return path


# --- the transaction by the system's rpm module, and by the rpm command ------------------------------


class ByBindings(object):
    """The transaction through the distribution's rpm module: one, whatever it is made of."""

    def __init__(self, session, steps, rpm):
        self.session = session
        self.steps = steps
        self.rpm = rpm
        self.scriptlets = []
        self.opened = {}
        self.log, self.spoken = None, 0
        if session.root:
            rpm.addMacro("_dbpath", inner_database(session.root))

    def check(self):
        """Refuse unless rpm would do just the plan, its dependencies hold, and a test passes."""
        if not self.steps.adds and not self.steps.named:
            return
        transaction = self.build()
        elements = [(te.Type(), te_nevra(te)) for te in transaction]
        self.steps.check_elements(
            [nevra for kind, nevra in elements if kind == self.rpm.TR_ADDED],
            [nevra for kind, nevra in elements if kind == self.rpm.TR_REMOVED],
        )
        check_signatures(self.session)
        transaction.check()
        problems = [to_text(str(problem)) for problem in transaction.problems() or ()]
        if problems:
            raise Refused("check", "; ".join(cut_short(problems)))
        transaction.order()
        transaction.setFlags(self.rpm.RPMTRANS_FLAG_TEST)
        problems = self.answer(transaction.run(self.callback, ""))
        if problems is not None:
            raise Refused("test", "; ".join(cut_short(problems)))

    def run(self):
        """Run the transaction; return None, or what rpm names as problems."""
        if not self.steps.adds and not self.steps.named:
            return None
        transaction = self.build()
        transaction.order()
        self.scriptlets = []
        with log_file(self.session.path) as log:
            self.log = log.fileno()
            transaction.scriptFd = self.log
            return self.answer(transaction.run(self.callback, ""))

    @staticmethod
    def answer(problems):
        """Return rpm's answer as texts: None is success, an empty list is a failed scriptlet."""
        if problems is None:
            return None
        texts = [to_text(entry[0]) for entry in problems]
        return texts or ["rpm stopped without naming a problem"]

    def transaction(self):
        """Return an empty transaction set on the session's root; signatures are checked apart."""
        rpm = self.rpm
        transaction = rpm.TransactionSet(self.session.root or "/")
        transaction.setVSFlags(getattr(rpm, "RPMVSF_MASK_NOSIGNATURES", 0) or
                               rpm._RPMVSF_NOSIGNATURES)  # fmt: skip
        return transaction

    def build(self):
        """Return a transaction set with every action in it."""
        transaction = self.transaction()
        transaction.setProbFilter(self.filters())
        for nevra in sorted(self.steps.adds):
            self.add(transaction, nevra, *self.steps.adds[nevra])
        for nevra in sorted(self.steps.named):
            for header in self.installed(transaction, nevra):
                transaction.addErase(header)
        return transaction

    def filters(self):
        """Return which of rpm's objections the plan's own actions answer."""
        bits = 0
        if "downgrade" in self.steps.kinds:
            bits |= self.rpm.RPMPROB_FILTER_OLDPACKAGE
        if self.steps.replaced:
            bits |= self.rpm.RPMPROB_FILTER_REPLACEPKG
        return bits

    def add(self, transaction, nevra, path, mode):
        """Add one package file after a look into its header."""
        header = self.read_header(transaction, nevra, path)
        try:
            if nevra in self.steps.replaced and hasattr(transaction, "addReinstall"):
                transaction.addReinstall(header, (path, nevra))
            else:
                transaction.addInstall(header, (path, nevra), mode)
        except self.rpm.error as problem:
            raise Refused("plan", "%s: %s" % (nevra, problem))

    def read_header(self, transaction, nevra, path):
        """Return the header of a package file, which must be the planned package's."""
        rpm = self.rpm
        handle = os.open(path, os.O_RDONLY)
        try:
            header = transaction.hdrFromFdno(handle)
        except rpm.error as problem:
            raise Refused("package", "%s: %s" % (nevra, problem))
        finally:
            os.close(handle)
        check_header(nevra, header_values(rpm, header), header[rpm.RPMTAG_SOURCEPACKAGE])
        return header

    def contents(self):
        """Return {nevra: [(path, size, flags), ...]} of the files in the planned packages."""
        rpm, found = self.rpm, {}
        transaction = self.transaction()
        for nevra in sorted(self.steps.adds):
            header = self.read_header(transaction, nevra, self.steps.adds[nevra][0])
            sizes = header[rpm.RPMTAG_FILESIZES] or header[rpm.RPMTAG_LONGFILESIZES] or ()
            names, flags = header[rpm.RPMTAG_FILENAMES] or (), header[rpm.RPMTAG_FILEFLAGS] or ()
            found[nevra] = [
                (to_text(name), int(size), int(bits))
                for name, size, bits in zip(names, sizes, flags)  # noqa: B905
            ]
        return found

    def scripted(self):
        """Return `nevra: %pre %post` of the packages that bring scriptlets, or leave with some."""
        transaction, lines = self.transaction(), []
        for nevra in sorted(self.steps.adds):
            header = self.read_header(transaction, nevra, self.steps.adds[nevra][0])
            lines.append((nevra, header, ("PREIN", "POSTIN", "PRETRANS", "POSTTRANS")))
        for nevra in sorted(self.steps.leaving):
            for header in self.installed(transaction, nevra):
                lines.append((nevra, header, ("PREUN", "POSTUN")))
        found = [(nevra, self.scripts_in(header, tags)) for nevra, header, tags in lines]
        return ["%s: %s" % (nevra, " ".join(names)) for nevra, names in found if names]

    def scripts_in(self, header, tags):
        """Return the names of those scriptlets that a header has."""
        rpm = self.rpm
        return [
            "%" + scriptlet_name(rpm, getattr(rpm, "RPMTAG_" + tag)) for tag in tags
            if header[getattr(rpm, "RPMTAG_" + tag)] or header[getattr(rpm, "RPMTAG_%sPROG" % tag)]
        ]  # fmt: skip

    def installed(self, transaction, nevra):
        """Return the headers of an installed package; cut off, it may be there twice."""
        name = self.steps.rows[nevra]["NAME"]
        headers = list(transaction.dbMatch("name", str(name)))
        return [h for h in headers if nevra_text(*header_values(self.rpm, h)) == nevra]

    def callback(self, what, amount, total, key, data):
        """Answer rpm's progress calls; it ends the process if this raises."""
        try:
            return self.react(what, amount, key)
        except Exception:
            sys.stderr.write(traceback.format_exc())
            return None

    def react(self, what, amount, key):
        """Open and close package files, and keep a record of elements and failed scriptlets."""
        rpm = self.rpm
        nevra = key[1] if isinstance(key, tuple) else to_text(key)
        if what == rpm.RPMCALLBACK_INST_OPEN_FILE:
            self.opened[nevra] = os.open(key[0], os.O_RDONLY)
            fcntl.fcntl(self.opened[nevra], fcntl.F_SETFD, fcntl.FD_CLOEXEC)
            return self.opened[nevra]
        self.note_phase(what, amount, nevra)
        if what == rpm.RPMCALLBACK_INST_CLOSE_FILE:
            os.close(self.opened.pop(nevra))
        elif what == rpm.RPMCALLBACK_INST_STOP:
            self.session.note(installed=nevra)
        elif what == rpm.RPMCALLBACK_UNINST_STOP:
            self.session.note(erased=nevra)
        elif what == rpm.RPMCALLBACK_SCRIPT_ERROR:
            text = "%%%s of %s failed" % (scriptlet_name(rpm, amount), nevra)
            self.scriptlets.append(text)
            self.session.note(scriptlet=text, output=self.said())
        return None

    def said(self):
        """Return what the scriptlet that is running has written into the log."""
        if self.log is None:
            return ""
        size = os.fstat(self.log).st_size
        start = max(self.spoken, size - OUTPUT_TAIL)
        os.lseek(self.log, start, os.SEEK_SET)
        return to_text(os.read(self.log, OUTPUT_TAIL)).strip()

    def note_phase(self, what, amount, nevra):
        """Keep what rpm begins, so that a transaction that is cut off can tell where."""
        rpm = self.rpm
        if what == rpm.RPMCALLBACK_INST_START:
            self.session.note_phase("unpacking", nevra)
        elif what == rpm.RPMCALLBACK_UNINST_START:
            self.session.note_phase("erasing", nevra)
        elif what == getattr(rpm, "RPMCALLBACK_SCRIPT_START", None):
            of = "%%%s of %s" % (scriptlet_name(rpm, amount), nevra)
            self.session.note_phase("running", of)
            self.spoken = os.fstat(self.log).st_size if self.log is not None else 0
        elif what == getattr(rpm, "RPMCALLBACK_SCRIPT_STOP", None):
            self.session.note_phase("between packages, after", nevra)


def te_nevra(element):
    """Return the NEVRA of a transaction element."""
    epoch = int(element.E() or 0)
    values = [to_text(value) for value in (element.V(), element.R(), element.A())]
    return nevra_text(to_text(element.N()), epoch, *values)


def header_values(rpm, header):
    """Return name, epoch, version, release and arch of a header."""
    tags = ("NAME", "EPOCH", "VERSION", "RELEASE", "ARCH")
    return [plain(tag, header[getattr(rpm, "RPMTAG_" + tag)]) for tag in tags]


SCRIPTLETS = {"POSTIN": "post", "PREIN": "pre"}


def scriptlet_name(rpm, tag):
    """Return a scriptlet's name (`post`) for its tag."""
    for name in ("PREIN", "POSTIN", "PREUN", "POSTUN", "PRETRANS", "POSTTRANS", "TRIGGERIN",
                 "TRIGGERUN", "TRIGGERPOSTUN", "TRIGGERPREIN", "FILETRIGGERSCRIPTS",
                 "TRANSFILETRIGGERSCRIPTS"):  # fmt: skip
        if getattr(rpm, "RPMTAG_" + name, None) == tag:
            return SCRIPTLETS.get(name, name.lower())
    return "scriptlet"


@contextlib.contextmanager
def log_file(path):
    """Yield a session's log, opened for appending."""
    handle = open_private(os.path.join(path, "log"), os.O_RDWR | os.O_CREAT | os.O_APPEND)
    with os.fdopen(handle, "ab") as stream:
        yield stream


ORDERED = re.compile(r"D:\s+(?:[0-9]+\s+)+([+-])(\S+)\s*\Z")


class ByCommand(object):
    """The transaction through the rpm command, where a system has no bindings.

    The command takes either files or names, and either replaces or puts beside: a plan that
    needs both at once is refused, never split.
    """

    def __init__(self, session, steps, _):
        self.session = session
        self.steps = steps
        self.scriptlets = []
        modes = set("i" if mode == "i" else "U" for _, mode in steps.adds.values())
        if len(modes) + bool(steps.erased) > 1:
            raise Refused("needs-bindings", "this plan needs python's rpm module on the host")
        self.mode = "-" + (modes.pop() if modes else "e")

    def command(self, *options):
        """Return the command for the whole plan."""
        line = ["rpm", self.mode] + rpm_place(self.session) + list(options)
        if self.steps.erased:
            return line + [without_epoch(nevra) for nevra in sorted(self.steps.erased)]
        line += ["--nomanifest"]
        line += ["--oldpackage"] if "downgrade" in self.steps.kinds else []
        line += ["--replacepkgs"] if self.steps.replaced else []
        return line + [self.steps.adds[nevra][0] for nevra in sorted(self.steps.adds)]

    def contents(self):
        """Return {nevra: [(path, size, flags), ...]} of the files in the planned packages."""
        form = "[%%{FILENAMES}%s%%{FILESIZES}%s%%{FILEFLAGS:fflags}%s]" % (FIELD, FIELD, ITEM)
        found = {}
        for nevra in sorted(self.steps.adds):
            path = self.steps.adds[nevra][0]
            self.check_file(nevra, path)
            query = ["rpm", "-qp", "--nosignature", "--nomanifest", "--queryformat", form, path]
            lines = to_text(run_command(query)[1]).split(ITEM)[:-1]
            fields = [line.split(FIELD) for line in lines if line.count(FIELD) == 2]
            found[nevra] = [
                (name, int(size) if size.isdigit() else 0, FILE_GHOST if "g" in flags else 0)
                for name, size, flags in fields
            ]
        return found

    def check(self):
        """Refuse unless the headers are right, a test passes, and it would do just the plan."""
        check_signatures(self.session)
        if not self.steps.adds and not self.steps.erased:
            return
        code, output, errors = run_command(self.command("--test", "-vv"))
        said = to_text(output) + errors
        if code:
            lines = [line.strip() for line in said.splitlines() if not line.startswith("D:")]
            text = one_line(" ".join(line for line in lines if not line.startswith("rpm: ")))
            raise Refused("check" if "Failed dependencies" in text else "test", text)
        found = [match.groups() for match in map(ORDERED.match, said.splitlines()) if match]
        self.check_found(found)

    def scripted(self):
        """Return `nevra: %pre %post` of the packages that bring scriptlets, or leave with some."""
        coming = [(n, ["-p", self.steps.adds[n][0]]) for n in sorted(self.steps.adds)]
        leaving = [(n, rpm_place(self.session) + [without_epoch(n)])
                   for n in sorted(self.steps.leaving)]  # fmt: skip
        found = []
        for names, packages in (("PREIN POSTIN PRETRANS POSTTRANS", coming),
                                ("PREUN POSTUN", leaving)):  # fmt: skip
            form = "".join("%%|%sPROG?{%s }|" % (name, name) for name in names.split())
            for nevra, words in packages:
                query = ["rpm", "-q", "--nosignature", "--queryformat", form] + words
                tags = to_text(run_command(query)[1]).split()
                shown = " ".join("%" + SCRIPTLETS.get(tag, tag.lower()) for tag in tags)
                found.extend(["%s: %s" % (nevra, shown)] if tags else [])
        return found

    def check_found(self, found):
        """Compare what rpm would do with the plan; not every rpm writes epochs there."""
        known = dict((without_epoch(n), n) for n in self.steps.rows)
        known.update((without_epoch(n), n) for n in self.steps.adds)
        named = [(sign, known.get(without_epoch(nevra), nevra)) for sign, nevra in found]
        adds = [nevra for sign, nevra in named if sign == "+"]
        self.steps.check_elements(adds, [nevra for sign, nevra in named if sign == "-"])

    def check_file(self, nevra, path):
        """Look into a package file's header."""
        form = FIELD.join("%%{%s}" % tag for tag in (
            "NAME", "EPOCH", "VERSION", "RELEASE", "ARCH", "SOURCEPACKAGE"))  # fmt: skip
        query = ["rpm", "-qp", "--nosignature", "--nomanifest", "--queryformat", form, path]
        code, output, errors = run_command(query)
        values = to_text(output).split(FIELD)
        if code or len(values) != 6:
            raise Refused("package", "%s: %s" % (nevra, one_line(errors)))
        values[1] = command_value("EPOCH", values[1])
        check_header(nevra, values[:5], values[5] != "(none)")

    def run(self):
        """Run the command; return None, or what it names as problems."""
        if not self.steps.adds and not self.steps.erased:
            return None
        code, errors = self.run_into_files()
        lines = [line.strip() for line in errors.splitlines()]
        self.scriptlets = [line for line in lines if "scriptlet failed" in line]
        if not code:
            self.scriptlets = self.scriptlets or rpm_errors(errors)
            return None
        return rpm_errors(errors) or ["rpm %s ended with %d" % (self.mode, code)]

    def run_into_files(self):
        """Run the command; return its exit code and what it and scriptlets said as errors.

        Into files: a daemon that a scriptlet starts keeps a pipe open for as long as it lives, and
        a pipe whose reader was killed would end rpm in the middle.
        """
        path = os.path.join(self.session.path, "errors")
        handle = open_private(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        try:
            with log_file(self.session.path) as log, open(os.devnull, "rb") as null:
                code = subprocess.call(
                    self.command(), stdin=null, stdout=log, stderr=handle, close_fds=True
                )
                errors = read_end(path, ERRORS_TAIL)
                log.write(errors.encode("utf-8"))
        except (IOError, OSError) as problem:
            return 127, "error: rpm: %s" % problem
        finally:
            os.close(handle)
        return code, errors


def without_epoch(nevra):
    """Return a NEVRA without its epoch."""
    return re.sub(r"-[0-9]+:([^-]+-[^-]+)\Z", r"-\1", nevra)


# --- the program ----------------------------------------------------------------------------------


def detach():
    """Go on in a process group and session of its own, and return there only.

    The starter ends when that has happened, not before: whoever kills its group then kills
    nothing of ours.
    """
    ready, tell = os.pipe()
    if os.fork():
        os.close(tell)
        os._exit(0 if os.read(ready, 1) else 2)
    os.setsid()
    if os.fork():
        os._exit(0)
    os.write(tell, b"1")
    os.close(tell)
    os.close(ready)


def divert_output(path):
    """Send stdin to /dev/null and all output of rpm and its scriptlets to the session's log.

    Returns:
        A handle on the stdout that was, for the report.
    """
    os.chdir("/")
    kept = os.dup(1)
    fcntl.fcntl(kept, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    with log_file(path) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    return kept


def calm_signals():
    """Let no passing signal end a transaction, and let scriptlets have the usual ones.

    Handlers, not SIG_IGN: what is ignored stays ignored in every program that is started.
    """
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def run_apply(options, rpm):
    """Apply the session in a directory; with --detach answer nothing and live on alone."""
    path = options["operand"]
    if not path or not os.path.isdir(path):
        raise Refused("session", "apply: not a session's directory: %s" % path)
    if options["detach"]:
        detach()
    kept = divert_output(path)
    if options["detach"]:
        os.close(kept)
    calm_signals()
    os.environ["CPACMAN_SESSION"] = str(os.path.basename(os.path.abspath(path)))
    os.umask(0o022)
    report = apply_session(os.path.abspath(path), rpm)
    if not options["detach"]:
        with suppressed(errno.EPIPE):
            write_all(kept, (canonical(report) + "\n").encode("utf-8"))


def run_following(verb, options):
    """Restart services, or reboot, as a session's directory has it ordered."""
    path = options["operand"]
    if not path or not os.path.isdir(path):
        raise Refused("session", "%s: not a session's directory: %s" % (verb, path))
    if options["detach"]:
        detach()
    os.close(divert_output(path))
    {"restart": run_restart, "reboot": run_reboot}[verb](os.path.abspath(path))


def read_input():
    """Return the JSON document on stdin's first line, and the bytes after it."""
    stream = getattr(sys.stdin, "buffer", sys.stdin)
    try:
        return json.loads(to_text(stream.readline())), stream.read()
    except ValueError as problem:
        raise Refused("usage", "stdin: not JSON: %s" % problem)


def settings_of(options):
    """Return the settings of a session's host from the command line."""
    return {
        "host": options["host"] or to_text(socket.gethostname()),
        "state_dir": options["state"] or STATE_DIR,
        "cache_dir": options["cache"] or CACHE_DIR,
        "root": options["root"],
    }


def run_session_verb(verb, options):
    """Run a verb that needs no rpm."""
    settings = settings_of(options)
    if verb == "begin":
        return begin(settings, read_input()[0])
    if verb == "receive":
        document, data = read_input()
        return receive(settings, document.get("session"), document.get("segments"), data)
    if verb == "staged":
        return staged(settings, options["operand"])
    return session_status(load_session(settings, options["operand"])[0])


def run_query_verb(verb, options, rpm):
    """Run a verb that reads the package database."""
    if verb == "state":
        return current_state(options["root"], rpm)
    if verb == "details":
        return details(read_input()[0], options["root"], rpm)
    asked = read_input()[0] if options["paths"] else ()
    if options["thin"]:
        settings = dict(settings_of(options), host=options["host"])  # "": the tree's own name
        return thin_answer(settings, asked, options["cookie"], rpm)
    return inventory(options["root"], options["host"], asked, rpm)


USAGE = """usage: cpacman_agent.py VERB [OPTIONS]
  inventory [--root DIR] [--host ID] [--paths] [--thin [--cookie C]] [--no-bindings]
  details   [--root DIR] [--no-bindings]      a JSON list of digests on stdin
  state     [--root DIR] [--no-bindings]      cookie and digest of the package set
  begin     a manifest's text as a JSON string on stdin
  receive   one line {"session", "segments"} on stdin, then the bytes
  staged SESSION | status SESSION
  apply SESSION_DIR [--detach] [--no-bindings]
  restart SESSION_DIR | reboot SESSION_DIR    [--detach] what an order in it says
all: [--state DIR] [--cache DIR]; --paths reads a JSON list of file names from stdin"""
FLAGS = ("thin", "detach", "no-bindings", "paths")
VALUES = ("root", "host", "cookie", "state", "cache")
VERBS = ("inventory", "details", "state", "begin", "receive", "staged", "status", "apply",
         "restart", "reboot")  # fmt: skip


def parse_arguments(arguments):
    """Return (verb, options). By hand: the same words, the same errors in every Python."""
    options = dict((name, False) for name in FLAGS)
    options.update((name, "") for name in VALUES + ("operand",))
    if not arguments or arguments[0] not in VERBS:
        raise Refused("usage", USAGE.splitlines()[0] + "; VERB is one of " + ", ".join(VERBS))
    rest = [to_text(word) for word in arguments[1:]]
    while rest:
        word = rest.pop(0)
        name, equals, value = word[2:].partition("=")
        if word.startswith("--") and name in FLAGS and not equals:
            options[name] = True
        elif word.startswith("--") and name in VALUES and (equals or rest):
            options[name] = value if equals else rest.pop(0)
        elif not word.startswith("-") and not options["operand"]:
            options["operand"] = word
        else:
            raise Refused("usage", "%s: not understood: %s" % (arguments[0], word))
    return arguments[0], options


def main(arguments):
    """Run one verb; return the exit code."""
    os.environ["LC_ALL"] = "C"
    try:
        verb, options = parse_arguments(arguments)
        if verb in ("restart", "reboot"):
            run_following(verb, options)
            return 0
        if verb in ("begin", "receive", "staged", "status"):
            answer = run_session_verb(verb, options)
        else:
            rpm = load_bindings(not options["no-bindings"])
            if verb == "apply":
                run_apply(options, rpm)
                return 0
            answer = run_query_verb(verb, options, rpm)
        say(sys.stdout, canonical(answer))
        return 0
    except Refused as no:
        say(sys.stderr, "%s: %s" % (no.code, one_line(no.message)))
        return 2
    except (IOError, OSError) as problem:
        say(sys.stderr, "system: %s" % one_line(str(problem)))
        return 2
    except Exception as problem:
        say(sys.stderr, "internal: %s: %s" % (type(problem).__name__, one_line(str(problem))))
        return 2


def say(stream, text):
    """Write a line as UTF-8, whatever the locale."""
    stream = getattr(stream, "buffer", stream)
    stream.write((text + "\n").encode("utf-8"))
    stream.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
