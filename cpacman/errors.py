"""The errors CPacMan raises on purpose, split by who must act.

Invariant: every error that reaches a user is a `CpacmanError`; it carries at least one
`Problem`, and each problem names a place (a path into a file, an option, a host) and what to do
about it. Anything else that escapes is a bug and is reported as one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

EXIT_OK = 0
EXIT_OTHER = 1
EXIT_USAGE = 2
EXIT_NOT_PLANNED = 3
EXIT_NOT_THERE = 4


MAX_TEXT = 1000
"""Characters of one part of a problem that are shown: names in bad input may be of any length."""


class Problem(NamedTuple):
    """One thing that is wrong: where it is, what it is, and the mend (which may be empty)."""

    path: str
    message: str
    mend: str = ""

    def __str__(self) -> str:
        text = f"{self.path}: {self.message}" if self.path else self.message
        return f"{text}; {self.mend}" if self.mend else text

    def shortened(self) -> Problem:
        """Return it with what is longer than anybody reads cut."""
        parts = (p if len(p) <= MAX_TEXT else f"{p[: MAX_TEXT - 3]}..." for p in self)
        return Problem(*parts)


class CpacmanError(Exception):
    """The root of the tree. `exit_code` is the console's exit code and the runner's retcode.

    Args:
        problems: one `Problem`, several, or a plain message.
    """

    exit_code = EXIT_OTHER

    def __init__(self, problems: Problem | Iterable[Problem] | str) -> None:
        if isinstance(problems, str):
            problems = Problem("", problems)
        if isinstance(problems, Problem):
            problems = (problems,)
        self.problems: tuple[Problem, ...] = tuple(one.shortened() for one in problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class UserError(CpacmanError):
    """Whoever typed the command must act: usage, configuration or input."""

    exit_code = EXIT_USAGE


class UsageError(UserError):
    """A command line that does not say what it must, or says what it must not."""


class ConfigError(UserError):
    """The `cpacman:` section or a file it names is wrong; carries every problem at once."""


class InputError(UserError):
    """A document given as input (an inventory, a plan id, a manifest) is unusable."""


class RepositoryError(UserError):
    """Whoever fills the repository must act: metadata or files are missing, altered or damaged."""


class HostError(CpacmanError):
    """Whoever looks after the host must act: it does not answer, or answers nonsense."""


class ConflictError(CpacmanError):
    """Somebody else is at it: a lock, a lease, a pointer that moved meanwhile. Try again later."""


class SafetyError(CpacmanError):
    """CPacMan refused because going on would break an invariant. Nothing was changed."""
