"""Runs the agent on an rpm as EL7 has it, as far as that shows: a program for tests.

What rpm 4.11 does not have is hidden from the agent: tags, flags, callbacks, methods. Run under
the system's Python: `old_rpm.py AGENT VERB ...`.
"""

import importlib.util
import sys

HIDDEN = (
    "RPMTAG_SHA256HEADER", "RPMTAG_RECOMMENDNAME", "RPMTAG_SUGGESTNAME", "RPMTAG_SUPPLEMENTNAME",
    "RPMTAG_ENHANCENAME", "RPMVSF_MASK_NOSIGNATURES", "RPMVSF_MASK_NODIGESTS",
    "RPMCALLBACK_SCRIPT_START", "RPMCALLBACK_SCRIPT_STOP", "RPMCALLBACK_ELEM_PROGRESS",
    "RPMCALLBACK_VERIFY_START", "RPMTAG_TRANSFILETRIGGERSCRIPTS", "RPMTAG_FILETRIGGERSCRIPTS",
)  # fmt: skip


class OldRpm:
    """The rpm module without what came later."""

    def __init__(self, rpm):
        self._rpm = rpm

        class TransactionSet(rpm.TransactionSet):
            """A transaction set that can't reinstall by itself."""

            @property
            def addReinstall(self):
                """Was not there."""
                raise AttributeError("addReinstall")

        self.TransactionSet = TransactionSet

    def __getattr__(self, name):
        if name in HIDDEN:
            raise AttributeError(name)
        return getattr(self._rpm, name)


def main(program, *arguments):
    """Run a verb of the agent."""
    spec = importlib.util.spec_from_file_location("cpacman_agent", program)
    agent = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(agent)
    load = agent.load_bindings
    agent.load_bindings = lambda wanted=True: OldRpm(load()) if wanted else None
    return agent.main(list(arguments))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
