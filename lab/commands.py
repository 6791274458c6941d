"""What tests, demo and benchmarks run where the master runs: any command, and Salt's own.

Invariant: Salt's commands are pytest-salt-factories' wrappers, entered by nsenter; they are
imported when the first one is used, since they bring all of Salt with them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lab.hub import Hub
from lab.namespace import PATIENCE, Result, Running

if TYPE_CHECKING:
    from lab.master import Master


class Commands(ABC):
    """The commands of a lab; `Lab` says where they run."""

    @property
    @abstractmethod
    def hub(self) -> Hub:
        """The outer namespaces."""

    @property
    @abstractmethod
    def master(self) -> Master:
        """The Salt master."""

    def run(self, argv: Sequence[str], *, timeout: float = PATIENCE) -> Result:
        """Run any command where the master runs."""
        return self.hub.run(argv, timeout=timeout)

    def start(self, argv: Sequence[str]) -> Running:
        """Start any command where the master runs, to be watched, killed or waited for."""
        return self.hub.start(argv)

    def salt_run(
        self, function: str, *args: str, timeout: float = PATIENCE, **keywords: Any
    ) -> Any:
        """`salt-run FUNCTION ARGS KEY=VALUE`, as a person sees it (our outputter).

        Returns:
            An object with `returncode`, `stdout`, `stderr`, and, with `--out=json`, `data`.
        """
        from lab.master import PlainSaltRun

        return self.master.cli(PlainSaltRun).run(function, *args, _timeout=timeout, **keywords)

    def salt_run_argv(self, function: str, *args: str, **keywords: Any) -> list[str]:
        """The command line of `salt_run`, for `start`."""
        from lab.master import PlainSaltRun

        cli = self.master.cli(PlainSaltRun)
        argv: list[str] = cli.cmdline(function, *args, **keywords)
        return argv[len(self.hub.prefix()) :]

    def salt(
        self,
        target: str | Sequence[str],
        function: str,
        *args: str,
        timeout: float = 120,
        **keywords: Any,
    ) -> Any:
        """`salt TARGET FUNCTION ...`; a target that is not text is a list of ids (`-L`).

        Returns:
            An object with `returncode`, `stdout`, `stderr` and `data`: the answer of one id that
            was given as text, else answers by id.
        """
        import attr
        from saltfactories.cli.salt import Salt

        listed = not isinstance(target, str)
        flags = ["--static", "-L"] if listed else ["--static"]
        text = ",".join(target) if listed else target
        found = self.master.cli(Salt).run(
            *flags, function, *args, minion_tgt=text, _timeout=timeout, **keywords
        )
        # Factories take a list of one for a single id, and unwrap its answer.
        return attr.evolve(found, data={text: found.data}) if listed and len(target) == 1 else found

    def salt_key(self, *args: str) -> Any:
        """`salt-key ARGS`."""
        from saltfactories.cli.key import SaltKey

        return self.master.cli(SaltKey).run(*args)

    def salt_ssh(self, target: str, *args: str, timeout: float = PATIENCE) -> Any:
        """`salt-ssh TARGET ARGS`, with the lab's roster and key."""
        from saltfactories.cli.ssh import SaltSsh

        return self.master.cli(SaltSsh).run(*args, minion_tgt=target, _timeout=timeout)
