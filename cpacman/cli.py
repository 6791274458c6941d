"""The console `cpacman`: inventories and plans without Salt and without a running master.

Invariants: nothing is changed on any host; errors go to stderr, one line each with the path of
what is wrong, all of them at once; `--format json` prints one document to stdout and nothing else.
Whatever is heavy is imported by the command that needs it.
"""

from __future__ import annotations

import argparse
import datetime
import difflib
import gc
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from cpacman import __version__
from cpacman.errors import EXIT_NOT_PLANNED, EXIT_OK, EXIT_OTHER, EXIT_USAGE

if TYPE_CHECKING:
    from cpacman.offline.planning import Order
    from cpacman.report.terminal import Terminal


def main(argv: Sequence[str] | None = None) -> int:
    """Run the console and return its exit code.

    0 done, 2 wrong usage, configuration or input, 3 a host could not be planned, 1 anything else.
    """
    try:
        options = _parser().parse_args(argv)
        return _guarded(options)
    except SystemExit as stop:
        return int(stop.code or 0)
    except BrokenPipeError:
        # Nobody reads any more; the interpreter must not find that out again when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OTHER


def _guarded(options: argparse.Namespace) -> int:
    """Run a command; every error becomes its lines and its exit code."""
    from cpacman.errors import CpacmanError

    try:
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except CpacmanError as error:
        for line in str(error).splitlines():
            _complain(line)
        return error.exit_code
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        _complain("interrupted")
        return EXIT_OTHER
    except Exception as error:
        if os.environ.get("CPACMAN_DEBUG") == "1":
            traceback.print_exc()
        what = f"{type(error).__name__}: {error}".replace("\n", " ")
        hint = "please report it; CPACMAN_DEBUG=1 shows where"
        _complain(f"this is a bug in cpacman, not your mistake ({what}); {hint}")
        return EXIT_OTHER


def _complain(line: str) -> None:
    text = "".join(c if c.isprintable() else "?" for c in line)
    with suppress(BrokenPipeError):
        sys.stderr.write(f"{text}\n")


class _Parser(argparse.ArgumentParser):
    """An argument parser that names the option that was probably meant."""

    def error(self, message: str) -> NoReturn:
        _complain(f"{self.prog}: {message}{self._nearest(message)}")
        self.exit(EXIT_USAGE)

    def _nearest(self, message: str) -> str:
        words = message.partition("unrecognized arguments: ")[2].split()
        known = list(self._all_options())
        for word in (w.partition("=")[0] for w in words if w.startswith("-")):
            if near := difflib.get_close_matches(word, known, 1):
                return f"; did you mean {near[0]}?"
        return ""

    def _all_options(self) -> Iterator[str]:
        yield from self._option_string_actions
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                for parser in action.choices.values():
                    yield from parser._option_string_actions


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="cpacman",
        allow_abbrev=False,
        description="Inventories and plans, without Salt and without a running master.",
        epilog="Exit: 0 done, 2 usage, configuration or input, 3 a host not planned, 1 other.",
    )
    parser.add_argument("--version", action="version", version=f"cpacman {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_inventory(commands)
    _add_plan(commands)
    _add_why(commands)
    _add_replay(commands)
    _add_watch(commands)
    return parser


def _add_inventory(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = commands.add_parser(
        "inventory",
        allow_abbrev=False,
        help="print this machine's inventory as JSON",
        description="Print what this machine, or the tree DIR, has installed, as JSON.",
    )
    parser.add_argument("--root", metavar="DIR", type=Path, help="look below DIR, not at /")
    parser.add_argument(
        "--platform", choices=("rpm", "deb"), default="rpm", help="the kind of packages (rpm)"
    )
    parser.set_defaults(run=_run_inventory)


def _add_plan(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = commands.add_parser(
        "plan",
        allow_abbrev=False,
        help="plan for inventories, from repositories",
        description="Work out what every host of some inventories needs, from repositories. "
        "Package files are not looked at. Nothing named: upgrade all.",
    )
    _add_words(parser, "--repo", "NAME=DIR", "a repository and its name", required=True)
    _add_words(parser, "--inventory", "FILE|DIR", "inventories, or folders of them", required=True)
    _add_rules(parser)
    _add_request(parser)
    parser.add_argument(
        "--no-reasons",
        dest="reasons",
        action="store_false",
        help="do not ask why the solver holds a package: twice as fast for many hosts",
    )
    _add_output(parser)
    parser.set_defaults(run=_run_plan)


def _add_rules(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", metavar="FILE", type=Path, help="the cpacman: section, for its policy"
    )
    _add_words(parser, "--arch-change", "NAME", "packages that may change architecture")
    _add_words(parser, "--noautoupdate", "NAME", "repositories for named packages only")


def _add_request(parser: argparse.ArgumentParser) -> None:
    """Add what may be asked for; nothing: upgrade all."""
    _add_words(parser, "--upgrade", "SPEC", "upgrade these only")
    _add_words(parser, "--install", "SPEC", "install these")
    _add_words(parser, "--remove", "SPEC", "remove these")
    parser.add_argument(
        "--sync", action="store_true", help="make hosts equal to the repositories, downgrades too"
    )
    _add_words(parser, "--exclude", "GLOB", "never take these")
    _add_words(parser, "--lock", "SPEC", "keep these: name, name-version, 'name < 2'")
    _add_words(parser, "--advisory", "ID", "only what these advisories or CVEs fix")
    parser.add_argument("--security", action="store_true", help="only what security advisories fix")
    _add_words(parser, "--severity", "WORD", "only what advisories of this severity fix")
    parser.add_argument(
        "--minimal", action="store_true", help="not further than the versions advisories name"
    )
    parser.add_argument(
        "--strict", action="store_true", help="fail a host instead of holding packages"
    )
    parser.set_defaults(reasons=True)


def _add_output(parser: argparse.ArgumentParser, *, dump: bool = True) -> None:
    if dump:
        parser.add_argument(
            "--dump", metavar="FILE", type=Path, help="write the one host's case there, to replay"
        )
    parser.add_argument(
        "--format", choices=("table", "json"), default="table", help="how it is printed"
    )


def _add_why(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = commands.add_parser(
        "why",
        allow_abbrev=False,
        help="why a package is, or is not, in the plan of a host",
        description="Tell where a package is installed from, which candidates there are, which "
        "one is taken, and each rule that removed one. Nothing asked for: upgrade all.",
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="the package")
    _add_words(parser, "--repo", "NAME=DIR", "a repository and its name", required=True)
    parser.add_argument("--inventory", metavar="FILE", required=True, help="the host's inventory")
    _add_rules(parser)
    _add_request(parser)
    _add_output(parser)
    parser.set_defaults(run=_run_why, parser=parser)


def _add_replay(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = commands.add_parser(
        "replay",
        allow_abbrev=False,
        help="plan a case file again, and tell if that gives the same",
        description="Plan what a case file holds (plan --dump, why --dump) and compare the result "
        "with what the file expects. Exit 1 when they differ.",
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="the case")
    _add_output(parser, dump=False)
    parser.set_defaults(run=_run_replay)


def _add_watch(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = commands.add_parser(
        "watch",
        allow_abbrev=False,
        help="watch rollouts, from the master's database",
        description="Show how far rollouts and chains are until they are over: drawn over and over "
        "on a terminal, else a line whenever something changes. Then what failed, and what to "
        "type. Exit 4 when hosts are not where they should be.",
    )
    parser.add_argument("id", metavar="ID", nargs="?", help="a rollout or chain (all open ones)")
    parser.add_argument(
        "--config", metavar="FILE", type=Path,
        help="the master's cpacman: section (/etc/salt/cpacman.yaml, where it is there)",
    )  # fmt: skip
    parser.add_argument("--database", metavar="URL", help="the database itself")
    parser.add_argument(
        "--interval", metavar="SECONDS", type=float, default=1.0, help="between two looks (1)"
    )
    _add_output(parser, dump=False)
    parser.set_defaults(run=_run_watch)


def _add_words(
    parser: argparse.ArgumentParser, name: str, what: str, text: str, *, required: bool = False
) -> None:
    """Add an option that takes several words and may be repeated."""
    parser.add_argument(
        name, metavar=what, help=text, nargs="+", action="extend", default=[], required=required
    )


def _run_inventory(options: argparse.Namespace) -> int:
    from cpacman.errors import Problem, UsageError
    from cpacman.inventory import local_inventory

    if options.platform == "deb":
        raise UsageError(Problem("--platform deb", "is not supported yet", "use rpm"))
    sys.stdout.buffer.write(local_inventory(options.root))
    return EXIT_OK


def _run_plan(options: argparse.Namespace) -> int:
    _start_quickly()
    from cpacman.offline import planning

    with _cache_directory() as cache, _progress() as reporter:
        order = _order(options, options.inventory)
        today = datetime.date.today()
        made = planning.make_plan(order, cache=cache, today=today, reporter=reporter)
    sys.stdout.buffer.write(planning.render(made, options.format))
    return EXIT_NOT_PLANNED if made.plan.failed else EXIT_OK


def _order(options: argparse.Namespace, inventories: Sequence[str]) -> Order:
    """Return what was typed."""
    from cpacman.model import Request
    from cpacman.offline.planning import Order

    return Order(
        repos=tuple(options.repo),
        inventories=tuple(inventories),
        config=options.config,
        request=Request(
            upgrade=tuple(options.upgrade),
            install=tuple(options.install),
            remove=tuple(options.remove),
            sync=options.sync,
            strict=options.strict,
            exclude=tuple(options.exclude),
            lock=tuple(options.lock),
            advisory=tuple(options.advisory),
            security=options.security,
            severity=tuple(options.severity),
            minimal=options.minimal,
            reasons=options.reasons,
        ),
        arch_change=tuple(options.arch_change),
        noautoupdate=tuple(options.noautoupdate),
        dump=options.dump,
    )


def _run_why(options: argparse.Namespace) -> int:
    _start_quickly()
    from cpacman.offline import planning

    if options.name is None and "=" not in options.repo[-1]:
        # An option that takes several words takes the last one, too: --repo a=/srv/a NAME
        options.name = options.repo.pop()
    if options.name is None:
        options.parser.error("name the package: cpacman why --repo ... --inventory FILE NAME")
    with _cache_directory() as cache, _progress() as reporter:
        order = _order(options, (options.inventory,))
        today = datetime.date.today()
        told = planning.explain(order, options.name, cache=cache, today=today, reporter=reporter)
    sys.stdout.buffer.write(planning.render_why(told, options.format))
    return EXIT_NOT_PLANNED if told.failed else EXIT_OK


def _run_replay(options: argparse.Namespace) -> int:
    _start_quickly()
    from cpacman.offline import planning

    made, different = planning.replay(options.file)
    sys.stdout.buffer.write(planning.render(made, options.format))
    for line in different:
        _complain(f"{options.file}: {line}")
    return EXIT_OTHER if different else EXIT_OK


def _run_watch(options: argparse.Namespace) -> int:
    from cpacman.commands.watching import Watch, open_to_look, watch
    from cpacman.errors import Problem, UsageError

    if not 0.1 <= options.interval <= 3600:
        raise UsageError(Problem("--interval", f"{options.interval:g} is not from 0.1 to 3600"))
    with open_to_look(options.config, options.database) as store:
        found = Watch(store, options.id)
        if options.format == "json":
            import json

            sys.stdout.write(f"{json.dumps(found.look())}\n")
            return EXIT_OK
        return watch(found, sys.stdout, interval=options.interval)


@contextmanager
def _progress() -> Iterator[Terminal]:
    """Give what shows progress on the terminal, and takes it away in the end."""
    from cpacman.report.terminal import Terminal

    reporter = Terminal(sys.stderr)
    try:
        yield reporter
    finally:
        reporter.clear()


def _start_quickly() -> None:
    """Leave out what costs a short run more than it brings."""
    gc.disable()  # over many values that all stay, looking for garbage is in vain
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # looking for them takes a while


@contextmanager
def _cache_directory() -> Iterator[Path]:
    """Give the user's cache, or where that can't be written one that does not stay."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    path = Path(home) / "cpacman"
    with suppress(OSError):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.access(path, os.W_OK | os.X_OK):
        yield path
        return
    import tempfile

    with tempfile.TemporaryDirectory(prefix="cpacman-") as scratch:
        yield Path(scratch)
