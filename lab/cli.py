"""`python -m lab up|status|shell|run|down`: a lab for a person.

Invariants: after `up` a process of its own (the owner) holds the lab until `down`; whatever ends
`up` before it says "up" ends the owner too. Errors go to stderr, one line each; exit 2 is wrong
usage, 1 anything else; `shell` and `run` give back the code of what they ran.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from cpacman.errors import CpacmanError, Problem
from lab.directory import (
    LONGEST_DEATH,
    base_directory,
    has_owner,
    labs,
    read_state,
    sweep,
    wait_until_free,
)
from lab.errors import LabError
from lab.host import SALT
from lab.hub import CHECKOUT, KINDS
from lab.lab import Lab
from lab.namespace import Namespace

READY = "up"
DEFAULT_NAME = "lab"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = make_parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.function
    try:
        return command(arguments)
    except CpacmanError as error:
        print("\n".join(f"lab: {problem}" for problem in error.problems), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("lab: interrupted", file=sys.stderr)
        return 130


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="lab", description="A throw-away Salt fleet, for root.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, function: Callable[[argparse.Namespace], int], text: str) -> Any:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(function=function)
        command.add_argument("--name", help="which lab, where there are several")
        return command

    up = add("up", command_up, "start a lab; it runs until `down`")
    own = add("own", command_own, "hold a lab in the foreground; what `up` starts")
    for command in (up, own):
        command.add_argument("--hosts", default="3", metavar="N|NAMES", help="hosts with a minion")
        command.add_argument("--ssh-hosts", default="0", metavar="N|NAMES", help="hosts with sshd")
    demo = add("demo", command_demo, "the main job, for real, in a lab of its own")
    demo.add_argument("--keep", action="store_true", help="leave the lab up until Ctrl-C")
    add("status", command_status, "what is up")
    add("down", command_down, "end a lab, and remove what dead ones left")
    shell = add("shell", command_shell, "a shell, or a command, on a host")
    shell.add_argument("host")
    run = add("run", command_run, "a command where the master runs")
    for command in (shell, run):
        command.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    return parser


def host_names(text: str, stem: str) -> list[str]:
    """`3` -> stem1 stem2 stem3; `a,b` -> a b."""
    if text.isdigit():
        return [f"{stem}{number}" for number in range(1, int(text) + 1)]
    return [name for name in text.split(",") if name]


# -- up and down


def command_up(arguments: argparse.Namespace) -> int:
    """Start the owner and wait until it says that the lab is up."""
    started = time.monotonic()
    name = arguments.name or DEFAULT_NAME
    own = ["own", "--name", name, "--hosts", arguments.hosts, "--ssh-hosts", arguments.ssh_hosts]
    owner = subprocess.Popen(
        [sys.executable, "-m", "lab", *own],
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert owner.stdout is not None
    try:
        said = owner.stdout.readline().decode().strip()
    except BaseException:
        owner.terminate()
        owner.wait()
        raise
    if said != READY:
        return owner.wait() or 1
    show_lab(base_directory() / name)
    option = "" if name == DEFAULT_NAME else f" --name {name}"
    print(f"up in {time.monotonic() - started:.1f} s; `python -m lab down{option}` ends it")
    return 0


def command_own(arguments: argparse.Namespace) -> int:
    """Hold a lab until a signal comes, or it dies."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    hosts = host_names(arguments.hosts, "web")
    ssh_hosts = host_names(arguments.ssh_hosts, "ssh")
    with Lab(hosts, ssh_hosts=ssh_hosts, name=arguments.name or DEFAULT_NAME) as lab:
        # Fails when `up` is gone: then nobody knows of this lab, and it ends here.
        sys.stdout.write(f"{READY}\n")
        sys.stdout.flush()
        log = os.open(lab.directory / "owner.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for stream in (1, 2):
            os.dup2(log, stream)
        lab.wait()
    return 0


def command_demo(arguments: argparse.Namespace) -> int:
    """Tell the story; the lab goes away with it, whatever happens."""
    from lab.demo import run_demo

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    return run_demo(keep=arguments.keep)


def command_down(arguments: argparse.Namespace) -> int:
    """End the named lab, or the default one; then remove what dead labs left.

    Never "the only one": that may be the lab of a test run.
    """
    end_lab(base_directory() / (arguments.name or DEFAULT_NAME))
    for name in sweep(base_directory()):
        print(f"{name}: removed what was left")
    return 0


def end_lab(path: Path) -> None:
    """Ask the owner (a test run, for a lab that one holds) to end, then insist.

    Raises:
        LabError: its processes do not go away.
    """
    if not has_owner(path):
        print(f"{path.name}: is not up")
        return
    owner = int(read_state(path)["owner"])
    for number, seconds in ((signal.SIGTERM, 15.0), (signal.SIGKILL, LONGEST_DEATH)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(owner, number)
        if wait_until_free(path, seconds):
            print(f"{path.name}: down")
            return
    raise LabError(Problem(path.name, f"its owner {owner} is dead, but processes of it remain"))


# -- looking


def choose(alive: Sequence[Path], name: str | None) -> Path:
    """The lab `name` of those `alive`; None: the only one, or the one with the default name.

    Raises:
        LabError: there is none, or it is not clear which.
    """
    names = {path.name: path for path in alive}
    only = next(iter(names)) if len(names) == 1 else DEFAULT_NAME
    wanted = name or (DEFAULT_NAME if DEFAULT_NAME in names else only)
    if wanted in names:
        return names[wanted]
    mend = f"up are: {' '.join(names)}" if names else "python -m lab up"
    raise LabError(Problem(wanted, "this lab is not up", mend))


def find_lab(name: str | None) -> dict[str, Any]:
    """The state of the lab `name`, which is up.

    Raises:
        LabError: it is not, or not yet.
    """
    path = choose([path for path in labs(base_directory()) if has_owner(path)], name)
    state = read_state(path)
    if not state.get("ready"):
        raise LabError(Problem(path.name, "this lab is still starting"))
    return state


def command_status(arguments: argparse.Namespace) -> int:
    """Print every lab; exit 1 when none (or not the named one) is up."""
    paths = [path for path in labs(base_directory()) if arguments.name in (None, path.name)]
    for path in paths:
        show_lab(path)
    if not paths:
        print("no lab is up")
    return 0 if any(read_state(path).get("ready") and has_owner(path) for path in paths) else 1


def show_lab(path: Path) -> None:
    """Print one lab and its hosts."""
    state = read_state(path)
    if not has_owner(path):
        print(f"{path.name}: stale, the next `up` or `down` removes it")
        return
    word = READY if state.get("ready") else "starting"
    print(f"{path.name}: {word}, owner {state['owner']}, directory {path}")
    for name, host in state.get("hosts", {}).items():
        what = "salt-minion" if host["kind"] == SALT else "sshd"
        print(f"  {name:12} {host['address']:15} {what:12} pid {host['pid']}")


# -- going in


def command_shell(arguments: argparse.Namespace) -> int:
    """Become a shell, or a command, on a host."""
    state = find_lab(arguments.name)
    host = state["hosts"].get(arguments.host)
    if host is None:
        mend = f"there are: {' '.join(state['hosts'])}"
        raise LabError(Problem(arguments.host, "no such host", mend))
    argv = without_dashes(arguments.argv) or ["/bin/bash"]
    become(host["pid"], ["-a"], argv, state["host_environ"])


def command_run(arguments: argparse.Namespace) -> int:
    """Become a command where the master runs, in the caller's directory."""
    state = find_lab(arguments.name)
    argv = without_dashes(arguments.argv) or ["/bin/bash"]
    script = 'cd "$1" && shift && exec "$@"'
    inside = ["sh", "-c", script, "sh", str(Path.cwd()), *argv]
    become(state["hub"], KINDS, inside, state["environ"])


def without_dashes(argv: Sequence[str]) -> list[str]:
    """What stands after the `--`."""
    return list(argv[1:] if argv[:1] == ["--"] else argv)


def become(
    pid: int, kinds: Sequence[str], argv: Sequence[str], environ: Mapping[str, str]
) -> NoReturn:
    """Replace this process by a command inside."""
    terminal = {"TERM": os.environ.get("TERM", "dumb")}
    command = [*Namespace(pid, kinds, {}).prefix(), *argv]
    os.execvpe(command[0], command, {**environ, **terminal})
