"""
Central, push-only package management: plan, deploy, promote.

Each function needs the ``cpacman`` library in the Python that Salt runs in
(``salt-pip install cpacman``). SEL stands for the hosts that a command means:
``[tgt] tgt_type= class= level= channel= meta=role:web``.

.. versionadded:: 0.1.0
"""

from __future__ import annotations

from contextlib import contextmanager

try:
    from cpacman.arguments import Asked, Names, Sel, listed
    from cpacman.commands import (
        adopting,
        blocking,
        board,
        collecting,
        comparing,
        controlling,
        drifting,
        explaining,
        helping,
        keys,
        looking,
        membership,
        planning,
        pointing,
        prestaging,
        promoting,
        retention,
        steering,
        ticking,
        verifying,
    )
    from cpacman.commands import compliance as complying
    from cpacman.commands import hostkeys as hostkeying
    from cpacman.commands import hosts as listing
    from cpacman.commands import refresh as refreshing
    from cpacman.commands import rollback as rolling_back
    from cpacman.commands import snapshots as snapshotting
    from cpacman.commands.context import Bandwidth, open_context
    from cpacman.commands.pointing import From
    from cpacman.depot.partial import Wanted
    from cpacman.doors import SaltReporter, runner, signals_watched

    MISSING = ""
except ImportError as error:
    MISSING = str(error)

    def runner(function):
        """Stand in for the decorator, so that this file can say what is missing."""
        return function


__virtualname__ = "cpacman"


def __virtual__():
    if MISSING:
        return (False, f"the cpacman library is missing, run: salt-pip install cpacman ({MISSING})")
    return __virtualname__


@contextmanager
def _context(watch=False, **more):
    """Open settings and state for one command; with ``watch`` a Ctrl-C is asked for politely."""
    import salt.utils.user

    who = salt.utils.user.get_specific_user()
    reporter = SaltReporter.of(__opts__)
    with (
        signals_watched(reporter, watch) as stopping,
        open_context(__opts__, who=who, reporter=reporter, stopping=stopping, **more) as context,
    ):
        yield context


@runner
def plan(
    sel: Sel,
    *,
    owed: bool = False,
    asked: Asked,
    reasons: bool = True,
    refresh: str = "stale",
):
    """
    Work out exactly what each host would get, freeze it as a plan, and show it. Changes nothing.

    SEL
        which hosts; none given means all of them
    owed
        only those of them that were out of reach in their last rollout
    upgrade
        only these installed packages; without any name everything is upgraded. Beside sync or
        security and the like: what those are to be about
    install
        these packages, and what they need
    remove
        these packages; what needs them must be named, too
    sync
        make the hosts equal to the snapshot, downgrades included
    exclude, lock
        rules for this plan only, as those of policy
    exclude_repos
        repositories of which nothing is taken by this plan
    advisory, cve, security, severity
        only what these advisories fix
    minimal
        with those: no further than the newest version that they name
    strict
        fail a host instead of holding what can't be upgraded
    reasons
        ``False`` spares most of the time that a large plan takes: what the solver holds back is
        still told, but not why
    refresh
        ``stale`` asks hosts whose inventory is missing or old, ``all`` asks every host,
        ``none`` asks nobody

    CLI Example:

    .. code-block:: bash

        salt-run cpacman.plan class=production
        salt-run cpacman.plan 'web*' upgrade=openssl,httpd
        salt-run cpacman.plan class=production security=True
    """
    with _context() as context:
        request = asked.request(reasons=reasons)
        return planning.plan(context, sel.selection(owed=owed), request=request, refresh=refresh)


@runner
def deploy(
    sel: Sel,
    *,
    owed: bool = False,
    plan: str | None = None,
    classes: Names = None,
    levels: Names = None,
    asked: Asked,
    reasons: bool = True,
    now: bool = False,
    test: bool = False,
    background: bool = False,
    profile: str | None = None,
    reason: str | None = None,
    ticket: str | None = None,
    caps: Bandwidth,
):
    """
    Carry out a plan, level by level: push the bytes, install them, prove that they are there.

    Without ``plan=`` the named hosts (SEL) are planned, the plan is shown, and nothing else
    happens, unless ``now=True``.

    SEL
        which hosts, instead of a plan
    plan
        the id of a plan, or a unique prefix of it
    classes
        these classes, one after the other, or ``all``: what the first one holds is deployed there,
        promoted, deployed, and so on, as proof and evidence allow; with ``now=True``
    owed
        with SEL: only those of them that were out of reach in their last rollout
    levels
        only these levels of the plan's hosts; ``all`` is every one
    upgrade, install, remove, sync, exclude, exclude_repos, lock, advisory, cve, security, severity,
    minimal, strict, reasons
        with SEL: as for ``plan``
    now
        with SEL: carry the plan out at once
    test
        run every check and change nothing
    background
        create the rollout and leave it to the engine
    profile
        make the exceptions of this profile; wants a reason
    bandwidth, bandwidth_per_host
        bytes a second, such as ``50M``, instead of those configured
    reason, ticket
        kept in the journal

    CLI Example:

    .. code-block:: bash

        salt-run cpacman.deploy plan=p-7c41e9
        salt-run cpacman.deploy plan=p-7c41e9 levels=canary
        salt-run cpacman.deploy class=development now=True
        salt-run cpacman.deploy classes=all levels=all now=True background=True
    """
    with _context(watch=True, bandwidth=caps) as context:
        return steering.deploy(
            context, sel.selection(owed=owed), classes=listed(classes), plan=plan,
            levels=listed(levels), request=asked.request(reasons=reasons), now=now, test=test,
            background=background, profile=profile, reason=reason, ticket=ticket,
        )  # fmt: skip


@runner
def stage(
    plan: str | None = None,
    *,
    levels: Names = None,
    test: bool = False,
    profile: str | None = None,
    reason: str | None = None,
    ticket: str | None = None,
    caps: Bandwidth,
):
    """
    Push the bytes of a plan to its hosts ahead of time. Nothing is installed.

    plan
        the id of a plan, or a unique prefix of it
    levels
        only these levels of the plan's hosts
    test
        run every check and send nothing
    profile
        the windows of this profile; wants a reason
    bandwidth, bandwidth_per_host
        bytes a second, such as ``50M``, instead of those configured
    reason, ticket
        kept in the journal

    CLI Example:

    .. code-block:: bash

        salt-run cpacman.stage plan=p-7c41e9 bandwidth=50M
    """
    with _context(bandwidth=caps) as context:
        return prestaging.stage(
            context, plan=plan, levels=listed(levels), test=test, profile=profile, reason=reason,
            ticket=ticket,
        )  # fmt: skip


@runner
def rollouts(active: bool = False):
    """
    List the rollouts and chains, the newest first.

    active
        only those that have not ended

    CLI Example:

    .. code-block:: bash

        salt-run cpacman.rollouts active=True
    """
    with _context() as context:
        return steering.rollouts(context, active=active)


@runner
def rollout(id: str, outcome: str | None = None, host: str | None = None):
    """
    Show a rollout: its levels, its gates, its hosts; or a chain and its classes.

    id
        its id, or a unique prefix of it
    outcome, host
        only hosts that ended like this, or only this host

    CLI Example:

    .. code-block:: bash

        salt-run cpacman.rollout r-1122a outcome=failed
    """
    with _context() as context:
        return steering.rollout(context, id, outcome=outcome, host=host)


@runner
def halt(id: str | None = None, all: bool = False, reason: str | None = None):
    """
    Let no more hosts start. Those in flight are collected; the rollout can be resumed.

    id
        the rollout, or the chain (``c-...``): its rollout is halted with it
    all
        every rollout and chain that is open, instead
    reason
        kept in the journal

    CLI Example:

    .. code-block:: bash

        salt-run cpacman.halt r-1122a
        salt-run cpacman.halt all=True
    """
    with _context(watch=True) as context:
        return steering.halt(context, id, everything=all, reason=reason)


@runner
def cancel(id: str, reason: str | None = None):
    """
    End a rollout for good. Hosts that have not started are skipped.

    id
        the rollout, or the chain (``c-...``): its rollout ends with it
    reason
        kept in the journal

    CLI Example:

    .. code-block:: bash

        salt-run cpacman.cancel r-1122a
    """
    with _context(watch=True) as context:
        return steering.cancel(context, id, reason=reason)


@runner
def resume(id: str, force: bool = False, background: bool = False, reason: str | None = None):
    """
    Go on with a rollout that was halted, paused, waits, or lost its process.

    id
        the rollout, or the chain (``c-...``): its rollout goes on with it
    force
        pass the gate, or the refused promotion of a chain, at which it stands; wants a reason
    background
        leave the rest to the engine
    reason
        kept in the journal

    CLI Example:

    .. code-block:: bash

        salt-run cpacman.resume r-1122a
    """
    with _context(watch=True) as context:
        return steering.resume(context, id, force=force, background=background, reason=reason)


@runner
def retry(id: str, host: Names = None, reason: str | None = None):
    """
    Try hosts of a rollout again that did not end where they should.

    id
        the rollout
    host
        only these; without any, all that were refused, failed, silent or skipped
    reason
        kept in the journal

    CLI Example:

    .. code-block:: bash

        salt-run cpacman.retry r-1122a host=db3
    """
    with _context(watch=True) as context:
        return steering.retry(context, id, host=listed(host), reason=reason)


@runner
def skip(id: str, host: Names, reason: str | None = None):
    """
    Leave hosts of a rollout out before their turn comes.

    id
        the rollout
    host
        the hosts
    reason
        kept in the journal

    CLI Example:

    .. code-block:: bash

        salt-run cpacman.skip r-1122a host=db3
    """
    with _context() as context:
        return controlling.skip(context, id, listed(host), reason=reason)


@runner
def approve(id: str, reason: str | None = None, ticket: str | None = None):
    """
    Approve of a rollout that waits for it, as somebody else than who started it.

    id
        the rollout, the chain that stands at one, or what a refused promotion tells (``a-...``)
    reason, ticket
        kept in the journal

    CLI Example:

    .. code-block:: bash

        salt-run cpacman.approve r-1122a
    """
    with _context() as context:
        return steering.approve(context, id, reason=reason, ticket=ticket)


@runner
def refresh(
    sel: Sel,
    *,
    full: bool = False,
):
    """
    Ask hosts what they have installed. An unchanged host sends a few bytes.

    SEL
        which hosts; they must be named
    full
        ask for everything again

    CLI Example:

    .. code-block:: bash

        salt-run cpacman.refresh '*'
    """
    with _context() as context:
        return refreshing.refresh(context, sel.selection(), full=full)


@runner
def compliance(
    sel: Sel,
):
    """
    Ask hosts whether their packages are still those that CPacMan last left there.

    SEL
        which hosts; they must be named

    CLI Example:

    .. code-block:: bash

        salt-run cpacman.compliance '*'
    """
    with _context() as context:
        return complying.compliance(context, sel.selection())


@runner
def drift(
    sel: Sel,
):
    """
    Tell what hosts have that CPacMan did not put there, or lack of what it did.

    SEL
        which hosts; they must be named, and are asked for their inventory

    CLI Example:

    .. code-block:: bash

        salt-run cpacman.drift class=production
    """
    with _context() as context:
        return drifting.drift(context, sel.selection())


@runner
def key(
    do: str = "show",
    test: bool = False,
    reason: str | None = None,
    ticket: str | None = None,
):
    """
    Show the key that signs what hosts carry out and which hosts have it, or change it.

    do
        ``show``, or ``rotate``: make a new key; hosts learn it by a message that the old one
        signed, when they are asked for their inventory the next time
    test
        check whether it could be rotated, and change nothing
    reason, ticket
        kept in the journal

    CLI Example:

    .. code-block:: bash

        salt-run cpacman.key show
        salt-run cpacman.key rotate ticket=CHG1
    """
    with _context() as context:
        return keys.key(context, do, test=test, reason=reason, ticket=ticket)


@runner
def rollback(
    rollout: str | None = None,
    host: str | None = None,
    at: str = "before",
    now: bool = False,
    test: bool = False,
    reason: str | None = None,
    ticket: str | None = None,
):
    """
    Plan the way back of a rollout, or of the last rollout of one host, and show it.

    It refuses when a host has changed since, or when a package that a host had before is not in
    the depot any more: all of them are named, and nothing is planned.

    rollout
        the rollout, by id or a unique prefix
    host
        only this host; alone, it is about the last rollout that changed it
    at
        ``before`` the rollout is the only moment
    now
        carry it out at once
    test
        with ``now``: run every check and change nothing
    reason, ticket
        kept in the journal

    CLI Example:

    .. code-block:: bash

        salt-run cpacman.rollback rollout=r-1122a
        salt-run cpacman.rollback host=web1 now=True
    """
    with _context(watch=True) as context:
        return rolling_back.rollback(
            context, rollout=rollout, host=host, at=at, now=now, test=test, reason=reason,
            ticket=ticket,
        )  # fmt: skip


@runner
def recover(
    sel: Sel,
    *,
    rollout: str | None = None,
    test: bool = False,
    reason: str | None = None,
    ticket: str | None = None,
):
    """
    Collect hosts that fell silent, and bring those whose transaction was cut off to their plan.

    Something must be named: hosts (SEL) or a rollout. It is about the last rollout that told a
    host to start.

    SEL
        which hosts
    rollout
        only hosts of this rollout, by id or a unique prefix
    test
        show which hosts it is about, do nothing
    reason, ticket
        kept in the journal

    CLI Example:

    .. code-block:: bash

        salt-run cpacman.recover '*'
        salt-run cpacman.recover rollout=r-1122a
    """
    with _context() as context:
        return collecting.recover(
            context, sel.selection(), rollout=rollout, test=test, reason=reason, ticket=ticket
        )


@runner
def hostkeys(
    sel: Sel,
    *,
    accept: bool = False,
    replace: bool = False,
    reason: str | None = None,
    ticket: str | None = None,
):
    """
    Show the ssh host keys of hosts of Salt's roster, and accept them. Looking accepts nothing.

    SEL
        which hosts; they must be named
    accept
        from now on, take the keys that are shown of hosts that had none
    replace
        with it, also of hosts that show another key than the accepted one
    reason, ticket
        kept in the journal

    CLI Example:

    .. code-block:: bash

        salt-run cpacman.hostkeys 'old*'
        salt-run cpacman.hostkeys 'old*' accept=True
    """
    with _context() as context:
        return hostkeying.hostkeys(
            context, sel.selection(), accepted=accept, replace=replace, reason=reason, ticket=ticket
        )


@runner
def snapshot(channel: Names = None, verify: bool = False, test: bool = False):
    """
    Freeze what the repositories of a channel hold now, for the first class.

    channel
        only these channels
    verify
        hash every package file instead of comparing sizes
    test
        run every check and change nothing

    CLI Example:

    .. code-block:: bash

        salt-run cpacman.snapshot
        salt-run cpacman.snapshot channel=el9-x86_64 verify=True
    """
    with _context() as context:
        return snapshotting.snapshot(context, listed(channel), verify=verify, test=test)


@runner
def snapshots(channel: Names = None):
    """
    List the snapshots in the depot: who took them, when, and why each stays.

    channel
        only these channels

    CLI Example:

    .. code-block:: bash

        salt-run cpacman.snapshots
    """
    with _context() as context:
        return retention.snapshots(context, listed(channel))


@runner
def verify(repair: bool = False):
    """
    Hash every file that a snapshot needs, and check what classes hold against today's keys.

    repair
        read damaged files again from any repository that has the same bytes

    CLI Example:

    .. code-block:: bash

        salt-run cpacman.verify
        salt-run cpacman.verify repair=True
    """
    with _context() as context:
        return verifying.verify(context, repair=repair)


@runner
def prune(test: bool = False, reason: str | None = None, ticket: str | None = None):
    """
    Remove snapshots that nothing needs, and the files that no other snapshot needs.

    test
        show what would go and what that frees, and remove nothing

    reason, ticket
        kept in the journal

    CLI Example:

    .. code-block:: bash

        salt-run cpacman.prune test=True
    """
    with _context() as context:
        return retention.prune(context, test=test, reason=reason, ticket=ticket)


@runner
def promote(
    to: str,
    channel: Names = None,
    *,
    snapshot: str | None = None,
    packages: Names = None,
    advisory: Names = None,
    cve: Names = None,
    repository: Names = None,
    exclude: Names = None,
    until: str | None = None,
    force: bool = False,
    test: bool = False,
    profile: str | None = None,
    reason: str | None = None,
    ticket: str | None = None,
):
    """
    Point a class at what the class before it holds or held, proved on its hosts first.

    to
        the class that receives
    channel
        only these channels
    snapshot, until
        one that the class before held, or what it held by then, instead of what it holds
    packages, advisory, cve, repository
        only these, with what they need
    exclude
        everything but these
    force
        go on though something refuses; needs ``reason=``
    test
        show the proof, the evidence and what refuses, and change nothing
    profile
        demand the evidence of this profile instead; needs ``reason=``

    reason, ticket
        kept in the journal

    CLI Example:

    .. code-block:: bash

        salt-run cpacman.promote to=production test=True
        salt-run cpacman.promote to=production advisory=RHSA-2026:1234
    """
    wanted = Wanted(
        listed(packages), listed(advisory), listed(cve), listed(repository), listed(exclude)
    )
    with _context() as context:
        return promoting.promote(
            context, to, listed(channel), snapshot=snapshot, wanted=wanted, until=until,
            force=force, test=test, profile=profile, reason=reason, ticket=ticket,
        )  # fmt: skip


@runner
def revert(
    class_: str,
    channel: Names = None,
    *,
    snapshot: str | None = None,
    test: bool = False,
    reason: str | None = None,
    ticket: str | None = None,
):
    """
    Point a class back to what it held before, or to a named one that it held.

    class
        the class
    channel
        only these channels; left out, those that moved last
    snapshot
        one that it held earlier

    test
        show what would change
    reason, ticket
        kept in the journal

    CLI Example:

    .. code-block:: bash

        salt-run cpacman.revert class=production test=True
    """
    with _context() as context:
        return pointing.revert(
            context, class_, listed(channel), snapshot=snapshot, test=test, reason=reason,
            ticket=ticket,
        )  # fmt: skip


@runner
def seed(
    class_: str,
    channel: Names = None,
    *,
    from_class: str | None = None,
    snapshot: str | None = None,
    until: str | None = None,
    force: bool = False,
    test: bool = False,
    reason: str | None = None,
    ticket: str | None = None,
):
    """
    Fill a class that holds nothing yet: from another class, a snapshot, or a date.

    class
        the class
    channel
        only these channels
    from_class, snapshot, until
        exactly one of them
    force
        go on though a class before it never held that; needs ``reason=``

    test
        show what would change
    reason, ticket
        kept in the journal

    CLI Example:

    .. code-block:: bash

        salt-run cpacman.seed class=staging from_class=production
    """
    source = From(from_class, snapshot, until)
    with _context() as context:
        return pointing.seed(
            context, class_, listed(channel), source=source, force=force, test=test, reason=reason,
            ticket=ticket,
        )  # fmt: skip


@runner
def block(
    *specs: str,
    until: str | None = None,
    reason: str | None = None,
    ticket: str | None = None,
    force: bool = False,
    test: bool = False,
):
    """
    Block what turned out bad, everywhere, and name the hosts that have it.

    SPEC...
        ``name-version-release`` or a glob of it, an advisory, a snapshot
    until
        the last day it holds (2027-03-31)
    reason
        why; it is shown wherever it holds
    force
        also globs that fit a large part of all packages

    ticket
        kept in the journal
    test
        name the hosts, and block nothing

    CLI Example:

    .. code-block:: bash

        salt-run cpacman.block httpd-2.4.57-11 reason='db module crashes'
    """
    with _context() as context:
        return blocking.block(
            context, specs, until=until, reason=reason, ticket=ticket, force=force, test=test
        )


@runner
def unblock(*specs: str, reason: str | None = None, ticket: str | None = None, test: bool = False):
    """
    Take something off the block list.

    SPEC...
        as for ``block``
    reason, ticket
        kept in the journal
    test
        change nothing

    CLI Example:

    .. code-block:: bash

        salt-run cpacman.unblock httpd-2.4.57-11 reason='it was the module'
    """
    with _context() as context:
        return blocking.unblock(context, specs, reason=reason, ticket=ticket, test=test)


@runner
def blocks():
    """
    Show the block list, and which hosts have what stands on it.

    CLI Example:

    .. code-block:: bash

        salt-run cpacman.blocks
    """
    with _context() as context:
        return blocking.blocks(context)


@runner
def show(id: str, host: str | None = None, group: str | None = None):
    """
    Show a plan, a snapshot or a rollout in full.

    id
        an id, or a unique prefix of it: p- plan, s- snapshot, r- rollout
    host, group
        only this host, or this group of equal hosts

    CLI Example:

    .. code-block:: bash

        salt-run cpacman.show p-7c41e9 group=A
    """
    with _context() as context:
        return looking.show(context, id, host=host, group=group)


@runner
def why(
    host: str,
    package: str,
    *,
    asked: Asked,
    dump: str | None = None,
):
    """
    Tell why a package is, or is not, in the plan of a host.

    host
        a host that was asked for its inventory before
    package
        as one names it for ``plan``: a name, ``name.arch``, a version, a glob, a path
    upgrade, install, remove, sync, exclude, exclude_repos, lock, advisory, cve, security, severity,
    minimal, strict
        what the plan would be asked for, as for ``plan``; none given: everything is upgraded
    dump
        a file on the master that gets all of it as one case, for ``cpacman replay``

    CLI Example:

    .. code-block:: bash

        salt-run cpacman.why host=web1 package=httpd
        salt-run cpacman.why host=web1 package=httpd upgrade=httpd-2.4.62 dump=/root/httpd.case
    """
    with _context() as context:
        return explaining.why(context, host, package, request=asked.request(), dump=dump)


@runner
def diff(a: str, b: str | None = None):
    """
    Tell how two hosts, two snapshots, two classes or two plans differ.

    a, b
        ids of hosts, names of classes, or ids of snapshots or plans. A class or a plan alone:
        which of its hosts are equal, and how the odd ones differ

    CLI Example:

    .. code-block:: bash

        salt-run cpacman.diff web1 web2
        salt-run cpacman.diff testing production
    """
    with _context() as context:
        return comparing.diff(context, a, b)


@runner
def advisories(
    sel: Sel,
    *,
    host: Names = None,
    severity: Names = None,
    cve: Names = None,
    older_than: str | int | None = None,
):
    """
    Tell which advisories hosts lack of what their class holds, with how many hosts lack each.

    SEL
        which hosts; none given means all of them
    host
        only these
    severity
        only these: critical, important, moderate, low
    cve
        only advisories about these
    older_than
        only those that were issued so long ago (14d), or do not tell when

    CLI Example:

    .. code-block:: bash

        salt-run cpacman.advisories class=production severity=critical,important older_than=14d
        salt-run cpacman.advisories cve=CVE-2026-1234
    """
    with _context() as context:
        return explaining.advisories(
            context, sel.selection(), hosts=listed(host), severity=listed(severity),
            cve=listed(cve), older_than=older_than,
        )  # fmt: skip


updates = advisories
"""The same by another name."""


@runner
def status(class_: Names = None, channel: Names = None):
    """
    Show the board: classes and channels, their snapshots, and how the hosts stand.

    class, channel
        only these

    CLI Example:

    .. code-block:: bash

        salt-run cpacman.status
    """
    with _context() as context:
        return board.status(context, listed(class_), listed(channel))


@runner
def hosts(
    sel: Sel,
    *,
    state: Names = None,
):
    """
    List hosts: where each belongs, how it stands, and what about it nobody accepted yet.

    SEL
        which hosts; none given means all of them
    state
        only those that stand so: current, behind, ahead, unknown; new, rebuilt, moved (these wait
        for ``accept``); unplaced; retired; or drifted, besides

    CLI Example:

    .. code-block:: bash

        salt-run cpacman.hosts state=new,rebuilt,moved
        salt-run cpacman.hosts class=production state=behind
    """
    with _context() as context:
        return listing.hosts(context, sel.selection(), states=listed(state))


@runner
def accept(
    hosts: Names,
    test: bool = False,
    reason: str | None = None,
    ticket: str | None = None,
):
    """
    Accept hosts that are new, rebuilt, moved to another class, or come back from retirement.

    hosts
        ids, or globs of them. More moved hosts than ``membership.max_moves``, and retired ones,
        have to be named one by one
    test
        show what would be accepted, and change nothing
    reason, ticket
        kept in the journal

    CLI Example:

    .. code-block:: bash

        salt-run cpacman.accept hosts=web9
        salt-run cpacman.accept hosts='web*,db1' ticket=CHG0012345
    """
    with _context() as context:
        return membership.accept(context, listed(hosts), test=test, reason=reason, ticket=ticket)


@runner
def adopt(
    sel: Sel,
    *,
    now: bool = False,
    test: bool = False,
    reason: str | None = None,
    ticket: str | None = None,
):
    """
    Look at hosts before they are managed: what no snapshot knows, what is broken, what has no
    way back. Changes nothing, unless ``now=True``.

    SEL
        which hosts; they must be named
    now
        accept them, too
    test
        with ``now``: show, and change nothing
    reason, ticket
        kept in the journal

    CLI Example:

    .. code-block:: bash

        salt-run cpacman.adopt 'web*'
        salt-run cpacman.adopt class=production now=True
    """
    with _context() as context:
        return adopting.adopt(
            context, sel.selection(), now=now, test=test, reason=reason, ticket=ticket
        )


@runner
def retire(
    hosts: Names,
    test: bool = False,
    reason: str | None = None,
    ticket: str | None = None,
    force: bool = False,
):
    """
    Take hosts out of every count and selection. What was recorded of them stays.

    hosts
        ids, or globs of them
    test
        show who would be retired, and change nothing
    reason, ticket
        kept in the journal
    force
        also more hosts than ``membership.max_moves`` by a glob, or all; needs ``reason=``

    CLI Example:

    .. code-block:: bash

        salt-run cpacman.retire hosts=web7 reason="scrapped"
    """
    with _context() as context:
        return membership.retire(
            context, listed(hosts), force=force, test=test, reason=reason, ticket=ticket
        )


@runner
def history(
    *,
    host: str | None = None,
    package: str | None = None,
    by: str | None = None,
    ticket: str | None = None,
    since: str | None = None,
    until: str | None = None,
):
    """
    Show who put what where, and when.

    host, package
        of this host; that changed this package, by its name or NEVRA
    by, ticket
        of this user, as the journal has it (``sudo_alice``); with this ticket
    since, until
        a day (2026-11-22), or how long ago (36h, 14d)

    CLI Example:

    .. code-block:: bash

        salt-run cpacman.history package=openssl-libs since=14d
    """
    with _context() as context:
        return looking.history(
            context, host=host, package=package, by=by, ticket=ticket, since=since, until=until
        )


@runner
def config(host: str | None = None):
    """
    Show each value of the configuration, or of a host's membership, and where it comes from.

    host
        a host whose key is accepted; left out, the configuration

    CLI Example:

    .. code-block:: bash

        salt-run cpacman.config host=web1
    """
    with _context() as context:
        return looking.config(context, host)


@runner
def wake(hosts: bool = False):
    """
    Tell the engine that mirrors may have changed; it looks at them once they are quiet.

    Made for reactors: it takes nothing from an event, and many calls are one look.

    hosts
        instead: hosts may have come back; it asks those that were out of reach in open rollouts

    CLI Example:

    .. code-block:: bash

        salt-run cpacman.wake
    """
    with _context() as context:
        return ticking.wake(context, hosts=hosts)


@runner
def help(command: str | None = None):
    """
    List the commands, or tell all of one of them.

    command
        its name

    CLI Example:

    .. code-block:: bash

        salt-run cpacman.help
        salt-run cpacman.help promote
    """
    return helping.show_help(globals(), command)


@runner
def version():
    """
    Show the versions of CPacMan and of what it stands on.

    CLI Example:

    .. code-block:: bash

        salt-run cpacman.version
    """
    return looking.version()
