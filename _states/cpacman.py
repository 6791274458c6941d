"""
Declare what a class holds and has, for ``salt-run state.orchestrate`` on the master; and, on
hosts, where they belong and whether they are as they were left.

The states of the master (``snapshot_present``, ``promoted``, ``deployed``, ``blocked``) need the
``cpacman`` library in the Python that Salt runs in. The file always loads, as hosts lack it.

.. versionadded:: 0.1.0
"""

__virtualname__ = "cpacman"


def __virtual__():
    return __virtualname__


def _on_master(function, name, arguments):
    """Run a state of the master; hosts, and masters without the library, are told so."""
    try:
        import salt.utils.user

        from cpacman.commands.states import run_state
    except ImportError as error:
        words = "is for the master, by salt-run state.orchestrate, with the cpacman library"
        comment = "cpacman.%s %s: salt-pip install cpacman (%s)" % (function, words, error)
        return {"name": name, "result": False, "changes": {}, "comment": comment}
    who = salt.utils.user.get_specific_user()
    return run_state(function, name, arguments, __opts__, who)


def snapshot_present(name, **kwargs):
    """
    The first class points at what the repositories hold now.

    channel
        only these channels

    verify
        hash every package file, too

    .. code-block:: yaml

        freeze the mirrors:
          cpacman.snapshot_present:
            - channel: el9-x86_64
    """
    return _on_master("snapshot_present", name, kwargs)


def promoted(name, **kwargs):
    """
    A class holds what the class before it holds. It fails where ``cpacman.promote`` refuses, with
    the proof and what evidence is missing.

    to
        the class that receives; left out, the name of the state

    wait
        how long to wait for evidence that time alone brings (``30m``). When it comes later than
        that the state fails at once: ``soaking, met at TIME``

    channel, snapshot, packages, advisory, cve, repository, exclude, until, force, reason, ticket
        as for ``cpacman.promote``

    .. code-block:: yaml

        to production:
          cpacman.promoted:
            - to: production
            - ticket: CHG0012345
    """
    return _on_master("promoted", name, kwargs)


def deployed(name, **kwargs):
    """
    Every host of a class has what the class holds. Changes are told by host.

    class
        the class; left out, the name of the state

    levels
        only the hosts of these levels

    gate
        the gate of those levels that have none of their own

    max_failures, max_unreachable
        how many hosts of all levels together may fail, or be out of reach, at most, as a number or
        a share; what is configured holds beside

    profile
        as for ``cpacman.deploy``

    wait
        how long to wait in all, for soaks, windows and a rollout that is another's. When it is not
        over by then the state fails, and says what it waits for; run it again later

    reason, ticket
        kept in the journal

    After a halt nothing is begun anew, until somebody said how that rollout goes on.

    .. code-block:: yaml

        testing:
          cpacman.deployed:
            - class: testing
            - levels: [canary, rest]
            - max_failures: 2%
            - wait: 2h
    """
    return _on_master("deployed", name, kwargs)


def blocked(name, **kwargs):
    """
    NEVRAs, advisories or snapshots stand on the block list.

    specs
        what is bad; left out, the name of the state

    until
        the last day

    reason
        why; it is shown wherever the block holds

    force
        also globs that fit a large part of all packages

    ticket
        kept in the journal

    .. code-block:: yaml

        httpd-2.4.57-11:
          cpacman.blocked:
            - reason: crashes under load
    """
    return _on_master("blocked", name, kwargs)


# --- on hosts -------------------------------------------------------------------------------------


def member(name, **kwargs):
    """
    Declare in the grains of this host where it belongs. That counts on masters whose
    ``membership.sources`` have ``grains``, after the sources named before it, once the master has
    cached the grains anew; a new class has to be accepted there.

    class, level
        its class and level

    meta
        free fields, for the matches of levels and policy

    .. code-block:: yaml

        where this host belongs:
          cpacman.member:
            - class: testing
            - meta: {role: web}
    """
    ret = {"name": name, "result": True, "changes": {}, "comment": ""}
    surplus = sorted(set(kwargs) - {"class", "level", "meta"})
    if surplus or not kwargs:
        words = "there is no argument %s" % ", ".join(surplus) if surplus else "nothing is declared"
        ret.update(result=False, comment="%s; known are class, level and meta" % words)
        return ret
    new = dict(kwargs)
    old = __grains__.get("cpacman")
    if old == new:
        ret["comment"] = "declared already"
        return ret
    ret["changes"] = {"old": old, "new": new}
    if __opts__["test"]:
        ret.update(result=None, comment="would be declared in the grain cpacman")
        return ret
    __salt__["grains.setval"]("cpacman", new, destructive=True)
    ret["comment"] = "declared in the grain cpacman"
    return ret


def compliant(name):
    """
    Tell whether this host has exactly the packages that CPacMan last left on it. Changes nothing.
    A host does not know whether its class has moved on since: ``salt-run cpacman.hosts`` does.

    .. code-block:: yaml

        as CPacMan left it:
          cpacman.compliant: []
    """
    ret = {"name": name, "result": False, "changes": {}, "comment": ""}
    if "cpacman.compliance" not in __salt__:
        ret["comment"] = "the execution module cpacman is not here: saltutil.sync_modules"
        return ret
    found = __salt__["cpacman.compliance"]()
    if "error" in found:
        ret["comment"] = "%(code)s: %(message)s" % found["error"]
        return ret
    ret["result"] = found["state"] == "equal"
    ret["comment"] = {
        "equal": "its packages are those that %(plan)s left here",
        "differs": "its packages are not those that %(plan)s left here",
        "unknown": "nothing was carried out here yet that its packages could be compared with",
    }[found["state"]] % found
    return ret
