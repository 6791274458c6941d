"""Looking at and accepting the host keys of hosts reached by ssh.

Invariant: looking accepts nothing; a key that differs from a known one needs `replace`, too.
"""

from __future__ import annotations

from typing import Any

from cpacman.commands.context import Context
from cpacman.commands.fleet import Selection, named_hosts
from cpacman.errors import EXIT_OTHER, Problem, UsageError
from cpacman.transport.hostkeys import CHANGED, NEW, Shown, accept, accepted_file, look


def hostkeys(
    context: Context,
    selection: Selection,
    *,
    accepted: bool = False,
    replace: bool = False,
    reason: str | None = None,
    ticket: str | None = None,
) -> dict[str, Any]:
    """Show the keys of the selected hosts of the roster, and how they stand.

    Args:
        context: the outside world.
        selection: which hosts; they must be named.
        accepted: write down the keys of hosts that had none.
        replace: with it, also of hosts that show another one than before.
        reason: for the journal.
        ticket: for the journal.
    """
    names = named_hosts(context, selection)
    ssh = context.transport.ssh
    known = ssh.hosts()
    listed = [known[name] for name in names if name in known]
    hosts = [host for host in listed if not host.problem]
    if not hosts:
        why = [host.problem for host in listed] or ["none of these hosts is in Salt's roster"]
        raise UsageError([Problem("hostkeys", words) for words in why])
    for host in listed:
        if host.problem:
            context.reporter.line(host.problem)
    found = look(hosts, ssh.known_hosts)
    wanted = {NEW, CHANGED} if replace else {NEW}
    chosen = [one for one in found if accepted and one.state in wanted]
    if chosen:
        _accept(context, chosen, reason, ticket)
    rows = {one.host.id: _row(one, one in chosen) for one in found}
    missed = any(not row["ok"] for row in rows.values())
    return {"hostkeys": {"hosts": rows}, "retcode": EXIT_OTHER if missed else 0}


def _accept(context: Context, chosen: list[Shown], reason: str | None, ticket: str | None) -> None:
    accept(chosen, accepted_file(context.settings.state_dir))
    for one in chosen:
        context.store.record(
            "hostkey", one.host.id, at=context.clock(), who=context.who, host=one.host.id,
            reason=reason, ticket=ticket, detail={"keys": one.fingerprints, "was": one.state},
        )  # fmt: skip


def _row(one: Shown, accepted: bool) -> dict[str, Any]:
    state = "accepted" if accepted else one.state
    return {
        "address": one.host.host, "state": state, "keys": one.fingerprints,
        "ok": state in {"accepted", "known"},
    }  # fmt: skip
