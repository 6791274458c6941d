"""What the Salt master knows of its hosts: keys, targets, grains, pillar.

Invariant: nothing here asks a host. Pillar is compiled on the master for the host's id; grains are
the master's cache of what the host once said, and count as such.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cpacman.errors import HostError, Problem, UsageError
from cpacman.transport.pillars import Pillars
from cpacman.transport.roster import SaltRoster

TARGET_TYPES = (
    "glob", "pcre", "list", "grain", "grain_pcre", "pillar", "pillar_pcre", "pillar_exact",
    "nodegroup", "range", "compound", "ipcidr",
)  # fmt: skip


class SaltDirectory:
    """The `Directory` of a Salt master: hosts with an accepted key, and those of its roster.

    Args:
        opts: the master's options.
    """

    def __init__(self, opts: Mapping[str, Any]) -> None:
        self._opts = dict(opts)
        self.roster = SaltRoster(opts)
        self._pillars = Pillars(opts)

    def accepted(self) -> list[str]:
        """See `Directory.accepted`."""
        return sorted({*self.minions(), *self.roster.hosts})

    def minions(self) -> list[str]:
        """Return the ids of all hosts whose key the master accepted, sorted."""
        return self._minions("*", "glob")

    def transport_of(self, host: str) -> str:
        """See `Directory.transport_of`."""
        if self._key_path(host).exists() or host not in self.roster.hosts:
            return "publish"
        return "ssh"

    def match(self, target: str | Sequence[str], target_type: str) -> list[str]:
        """See `Directory.match`.

        Raises:
            UsageError: no such type of target.
        """
        if target_type not in TARGET_TYPES:
            known = ", ".join(TARGET_TYPES)
            raise UsageError(Problem("tgt_type", f"{target_type!r} is none of: {known}"))
        by_ssh = self.roster.match(target, target_type)
        return sorted({*self._minions(target, target_type), *by_ssh})

    def _minions(self, target: str | Sequence[str], target_type: str) -> list[str]:
        import salt.utils.minions

        found = salt.utils.minions.CkMinions(self._opts).check_minions(target, target_type)
        return sorted(found["minions"])

    def _key_path(self, host: str) -> Path:
        return Path(self._opts["pki_dir"]) / "minions" / Path(host).name

    def grains(self, hosts: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """See `Directory.grains`."""
        if not hosts:
            return {}
        import salt.utils.master

        cached = salt.utils.master.MasterPillarUtil(
            list(hosts), "list", use_cached_grains=True, grains_fallback=False, opts=self._opts
        ).get_minion_grains()
        return {host: cached.get(host) or {} for host in hosts}

    def pillars(
        self, hosts: Sequence[str], grains: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, Mapping[str, Any] | HostError]:
        """See `Directory.pillars`."""
        return {
            host: self._unrendered(host, wrong) if wrong else mapping
            for host, (mapping, wrong) in self._pillars.compile(hosts, grains).items()
        }

    def _unrendered(self, host: str, wrong: str) -> HostError:
        mend = f"look: salt-run pillar.show_pillar {host}"
        return HostError(Problem(host, f"its pillar does not render: {wrong}", mend))

    def fingerprints(self, hosts: Sequence[str]) -> dict[str, str]:
        """See `Directory.fingerprints`."""
        return {host: self._fingerprint(host) for host in hosts}

    def _fingerprint(self, host: str) -> str:
        try:
            text = self.public_key(host)
        except HostError:
            return ""
        # Salt writes the same key with and without a newline at its end.
        return hashlib.sha256(b"\n".join(text.split())).hexdigest()

    def public_key(self, host: str) -> bytes:
        """See `Directory.public_key`."""
        try:
            return self._key_path(host).read_bytes()
        except OSError as error:
            problem = Problem(host, f"the master accepted no key for it ({error.strerror})")
            raise HostError(problem) from error
