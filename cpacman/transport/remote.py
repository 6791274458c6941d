"""What answers on a host that is reached by ssh: the agent's verbs over one open connection.

The master streams this text and then the agent's into the system's Python of the host; nothing of
them is written to its disk before a transaction starts. One flat text, standard library only, for
Python 2.7 and 3.4 and later.

Invariants:

* Every request gets exactly one answer, a line of JSON; nothing else is written to the stream,
  whatever rpm or a library prints.
* Whoever holds the other end logged in as root and proved the host's key to itself: the channel
  stands for the signature of the plan key, which the system's Python can't check. What a manifest
  and an order say is checked as everywhere.
* No function makes the host fetch anything.
"""

from __future__ import absolute_import, division, print_function, unicode_literals

import base64
import json
import os
import sys
import types
import zlib


class Server(object):
    """One connection: requests come from a stream, answers go to a file descriptor."""

    def __init__(self, stream, output, agent, program, hello):
        self.stream = stream
        self.output = output
        self.agent = agent
        self.program = program
        self.pin = hello["pin"]
        self.settings = {
            "host": hello["host"],
            "state_dir": hello.get("state_dir") or agent.STATE_DIR,
            "cache_dir": hello.get("cache_dir") or agent.CACHE_DIR,
            "root": hello.get("root") or "",
        }

    def serve(self):
        """Answer requests until the master hangs up."""
        while True:
            line = self.stream.readline()
            if not line.endswith(b"\n"):
                return
            request = json.loads(line.decode("utf-8"))
            size = request["size"]
            data = self.stream.read(size) if size else b""
            if len(data) != size:
                return
            self.say({"id": request["id"], "answer": self.answer(request, data)})

    def say(self, document):
        """Write one line of JSON."""
        line = self.agent.canonical(document) + "\n"
        self.agent.write_all(self.output, line.encode("utf-8"))

    def answer(self, request, data):
        """Return what a verb answers; whatever goes wrong is an answer, too."""
        agent = self.agent
        try:
            verb = getattr(self, "verb_" + request["verb"], None)
            if verb is None:
                raise agent.Refused("usage", "there is no verb %r" % request["verb"])
            arguments = dict((str(key), value) for key, value in request["arguments"].items())
            if request["verb"] == "receive":
                arguments["data"] = data
            return verb(**arguments)
        except agent.Refused as no:
            return error_of(no.code, no.message)
        except (IOError, OSError) as problem:
            return error_of("system", str(problem))
        except Exception as problem:
            return error_of("internal", "%s: %s" % (type(problem).__name__, problem))

    # -- the verbs, named and answering as the functions of the door do

    def verb_inventory(self, cookie=None, paths=None):
        """What is installed, without details."""
        answer = self.apart(
            lambda rpm: self.agent.thin_answer(self.settings, paths or (), cookie or "", rpm)
        )
        # Nothing is pinned where the channel binds: it takes the plans of whoever holds it.
        answer["pinned"] = self.pin
        cut_off = self.agent.interrupted_session(self.settings["state_dir"])
        if cut_off:
            answer["head"]["facts"]["interrupted"] = cut_off
        return answer

    def verb_details(self, digests):
        """The details of installed packages."""
        root = self.settings["root"] or None
        answer = self.apart(lambda rpm: self.agent.details(digests, root, rpm))
        packed = zlib.compress(json.dumps(answer["packages"]).encode("utf-8"))
        text = base64.b64encode(packed).decode("ascii")
        return {"packed": text, "missing": answer["missing"]}

    def verb_begin(self, manifest, signature):
        """Take in a manifest; its signature is kept beside it."""
        return self.agent.begin(self.settings, manifest, {"manifest.sig": signature + "\n"})

    def verb_receive(self, session, segments, data):
        """Write a chunk."""
        return self.agent.receive(self.settings, session, segments, data)

    def verb_staged(self, session):
        """Hash what is complete."""
        return self.agent.staged(self.settings, session)

    def verb_apply(self, session, order, signature):
        """Start a staged session; the order's signature is the channel's business."""
        self.agent.check_order(order, session, self.settings["host"])
        self.agent.start_session(self.settings, session, self.program, lambda: sys.executable)
        return {"started": True}

    def verb_restart(self, session, order, signature):
        """Restart services; the order's signature is the channel's business."""
        return self.agent.order_restart(
            self.settings, session, order, self.program, lambda: sys.executable
        )

    def verb_reboot(self, session, order, signature):
        """Reboot; the order's signature is the channel's business."""
        return self.agent.order_reboot(
            self.settings, session, order, self.program, lambda: sys.executable
        )

    def verb_result(self, session, nonce):
        """The report of a session; the channel says whose it is."""
        report = self.agent.report_of(self.settings, session, nonce, self.current_state)
        return {"report": self.agent.canonical(report), "signature": ""}

    def verb_compliance(self):
        """Whether the packages are those that the last transaction left."""
        return self.agent.compliance(self.settings, self.current_state)

    def current_state(self):
        """Cookie and digest of the packages, as they are now."""
        root = self.settings["root"] or None
        return self.apart(lambda rpm: self.agent.current_state(root, rpm))

    def apart(self, query):
        """Run a query of rpm's database in a child: no lock, handle or memory of rpm's stays."""
        agent = self.agent
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            code = 1
            try:
                os.close(reading)
                try:
                    said = {"answer": query(agent.load_bindings())}
                except agent.Refused as no:
                    said = {"refused": [no.code, no.message]}
                agent.write_all(writing, json.dumps(said).encode("utf-8"))
                code = 0
            finally:
                os._exit(code)
        os.close(writing)
        with os.fdopen(reading, "rb") as stream:
            text = stream.read()
        os.waitpid(child, 0)
        if not text:
            raise agent.Refused("agent", "the query of the package database died")
        said = json.loads(text.decode("utf-8"))
        if "refused" in said:
            raise agent.Refused(*said["refused"])
        return said["answer"]


def error_of(code, message):
    """Return an error as the door answers it."""
    return {"error": {"code": code, "message": message}}


def load_agent(source):
    """Make a module of the agent's text."""
    module = types.ModuleType(str("cpacman_agent"))
    exec(compile(source, "cpacman_agent.py", "exec", 0, 1), module.__dict__)
    return module


def own_output():
    """Return the stream that answers go to, with stdout itself turned to stderr."""
    kept = os.dup(1)
    os.dup2(2, 1)
    return kept


def main():
    """Read the greeting and the agent, say that all is well, and serve."""
    stream = getattr(sys.stdin, "buffer", sys.stdin)
    output = own_output()
    hello = json.loads(stream.readline().decode("utf-8"))
    source = stream.read(hello["agent"])
    agent = load_agent(source)
    server = Server(stream, output, agent, source.decode("utf-8"), hello)
    # Whatever a login shell printed comes before this line.
    agent.write_all(output, ("cpacman %s\n" % hello["nonce"]).encode("ascii"))
    server.say({"uid": os.geteuid(), "python": list(sys.version_info[:3])})
    server.serve()


if __name__ == "__main__":
    main()
