"""Applies a session as the agent does, and dies at the point it was told: a program for tests.

Run under the system's Python: `dying.py AGENT SESSION_DIR PHASE NUMBER DELAY GROUP`. The NUMBER-th
callback of rpm in that PHASE is the point; with a DELAY the kill comes so many seconds later, from
a process of its own. With GROUP the whole process group dies, scriptlets and all.
"""

import importlib.util
import os
import signal
import sys
import time

CALLBACKS = {
    "unpack": ("INST_START", "INST_PROGRESS"),
    "scriptlets": ("SCRIPT_START",),
    "erase": ("UNINST_START", "UNINST_PROGRESS"),
    "between": ("INST_OPEN_FILE", "INST_STOP", "INST_CLOSE_FILE", "UNINST_STOP", "SCRIPT_STOP",
                "TRANS_START", "TRANS_STOP", "ELEM_PROGRESS"),
}  # fmt: skip


def load(path):
    """Load the agent as a library."""
    spec = importlib.util.spec_from_file_location("cpacman_agent", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def die(delay, group):
    """Kill this process or its group, at once or in a while."""
    target = os.getpid()
    if delay and os.fork():
        return
    if delay:
        os.closerange(3, 1024)  # not to hold the locks of who is to die
    time.sleep(delay)
    (os.killpg if group else os.kill)(target, signal.SIGKILL)
    os._exit(0)


def main(program, session, phase, number, delay, group):
    """Apply the session, and die on the way."""
    agent = load(program)
    rpm = agent.load_bindings()
    wanted = {getattr(rpm, "RPMCALLBACK_" + name) for name in CALLBACKS[phase]}
    seen = [0]
    react, run = agent.ByBindings.react, agent.ByBindings.run

    def counting(self, what, amount, key):
        if self.let_go and what in wanted:
            seen[0] += 1
            if seen[0] == int(number):
                die(float(delay), group == "group")
        return react(self, what, amount, key)

    def running(self):
        self.let_go = True
        return run(self)

    agent.ByBindings.let_go = False
    agent.ByBindings.react, agent.ByBindings.run = counting, running
    os.environ["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
    return agent.main(["apply", session])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
