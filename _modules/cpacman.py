"""The door of a host: what the CPacMan master may call on a minion.

Invariants:

* Only a manifest that the pinned plan key signed, for this host, in time and in sequence, is
  taken in. No function makes the host fetch anything.
* A report is signed with the minion's own key, over what the host's disk says at that moment.
* Every function answers with a plain dict. A refusal is ``{"error": {"code", "message"}}``.

The work is done by ``cpacman_agent.py`` beside this file: loaded here for all that needs no rpm,
started under the system's own Python for the rest.
"""

import base64
import hashlib
import importlib.util
import json
import logging
import os
import re
import subprocess
import zlib

log = logging.getLogger(__name__)

__virtualname__ = "cpacman"

PYTHONS = (
    "/usr/libexec/platform-python",
    "/usr/bin/python3",
    "/usr/bin/python2",
    "/usr/bin/python",
)
DIGEST = re.compile(r"(sha256:[0-9a-f]{64}|sha1:[0-9a-f]{40}|md5:[0-9a-f]{32})\Z")
QUERY_SECONDS = 600
_LOADED = []


def __virtual__():
    if not os.path.isfile(_agent_path()):
        return (False, "cpacman: cpacman_agent.py is not beside cpacman.py; sync modules again")
    return __virtualname__


def _agent_path():
    """The agent lies beside this file, whether that runs from source or from a cached copy."""
    folder = os.path.dirname(os.path.abspath(__file__))
    if os.path.basename(folder) == "__pycache__":
        folder = os.path.dirname(folder)
    return os.path.join(folder, "cpacman_agent.py")


def _agent():
    """Load the agent as a library: by path, since the modules' folder is no package."""
    if not _LOADED:
        spec = importlib.util.spec_from_file_location("cpacman_agent", _agent_path())
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        _LOADED.append(module)
    return _LOADED[0]


def _config():
    """The ``cpacman:`` section of the minion's configuration."""
    section = __opts__.get("cpacman")
    return section if isinstance(section, dict) else {}


def _settings():
    """What the agent must know of this host."""
    agent, config = _agent(), _config()
    return {
        "host": __opts__["id"],
        "state_dir": config.get("state_dir") or agent.STATE_DIR,
        "cache_dir": config.get("cache_dir") or agent.CACHE_DIR,
        "root": config.get("root") or "",
        "restart": config.get("restart") or None,
        "reboot": config.get("reboot") or None,
    }


def _answer(function, *args):
    """Call a function; a refusal, and whatever the system says no to, becomes an answer."""
    agent = _agent()
    try:
        return function(agent, *args)
    except agent.Refused as no:
        return {"error": {"code": no.code, "message": no.message}}
    except (OSError, subprocess.SubprocessError) as problem:
        log.exception("cpacman: %s failed", function.__name__)
        return {"error": {"code": "system", "message": str(problem)}}


# --- the system's Python --------------------------------------------------------------------------


def _runs(python, statement):
    """Whether a Python exists and a statement runs in it."""
    if not os.access(python, os.X_OK):
        return False
    command = [python, "-Es", "-c", statement]
    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return not subprocess.call(
        command, env=_agent().clean_environment(), cwd="/", timeout=60, **options
    )


def _python(agent):
    """The first system Python that has rpm's bindings; without any, the first that runs."""
    configured = _config().get("python")
    if configured:
        return configured
    for statement in ("import rpm", "import json"):
        for python in PYTHONS:
            if _runs(python, statement):
                return python
    raise agent.Refused("python", "no usable Python among " + ", ".join(PYTHONS))


def _run_agent(agent, arguments, document=None):
    """Run the agent as a program and return its document."""
    root = _settings()["root"]
    command = [_python(agent), "-Es", _agent_path()] + arguments
    command += ["--root", root] if root else []
    process = subprocess.run(
        command,
        input=json.dumps(document).encode("utf-8") + b"\n",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_agent().clean_environment(),
        cwd="/",
        timeout=QUERY_SECONDS,
        check=False,
    )
    if process.returncode:
        raise _refusal(agent, process)
    return json.loads(process.stdout.decode("utf-8"))


def _refusal(agent, process):
    """The agent's error line, ``code: message``, as the refusal that it was."""
    text = process.stderr.decode("utf-8", "replace").strip()
    code, colon, message = text.partition(": ")
    if process.returncode == 2 and colon and code.replace("-", "").isalpha():
        return agent.Refused(code, message)
    return agent.Refused("agent", text or "the agent ended with %d" % process.returncode)


# --- the inventory --------------------------------------------------------------------------------


def inventory(cookie=None, paths=None):
    """
    Return what is installed, without the details that the master may know already.

    cookie
        The cookie the master has; if it still holds, the answer is just that.

    paths
        Files whose owners the master wants to know, besides those primary metadata lists.

    CLI Example:

    .. code-block:: bash

        salt '*' cpacman.inventory
    """
    return _answer(_inventory, cookie, paths)


def _inventory(agent, cookie, paths):
    arguments = ["inventory", "--thin", "--host", __opts__["id"]]
    arguments.append("--state=%s" % _settings()["state_dir"])
    if cookie:
        arguments.append("--cookie=%s" % cookie)
    if paths:
        arguments.append("--paths")
    answer = _run_agent(agent, arguments, paths)
    pinned = _pinned(_settings())
    answer["pinned"] = _fingerprint(agent, pinned) if pinned else ""
    if "head" in answer:
        answer["head"]["facts"]["salt"] = _salt_version()
        answer["head"]["facts"]["zmq_filtering"] = bool(__opts__.get("zmq_filtering"))
    return answer


def _salt_version():
    """The minion's version of Salt."""
    from salt.version import __version__ as version

    return str(version)


def details(digests):
    """
    Return the details of installed packages.

    digests
        Digests as ``cpacman.inventory`` names them.

    CLI Example:

    .. code-block:: bash

        salt web1 cpacman.details '["sha256:..."]'
    """
    return _answer(_details, digests)


def _details(agent, digests):
    if not isinstance(digests, (list, tuple)) or not all(
        isinstance(digest, str) and DIGEST.match(digest) for digest in digests
    ):
        raise agent.Refused("usage", "digests: a list of sha256:, sha1: or md5: digests")
    answer = _run_agent(agent, ["details"], list(digests))
    # The event bus cuts what is larger than a mebibyte; this text shrinks to a tenth.
    packed = zlib.compress(json.dumps(answer["packages"]).encode("utf-8"))
    return {"packed": base64.b64encode(packed).decode("ascii"), "missing": answer["missing"]}


# --- the plan key and the manifest ----------------------------------------------------------------


def _raw_key(agent, text):
    """The 32 bytes of a public key in base64."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (TypeError, ValueError):
        raw = b""
    if len(raw) != 32:
        raise agent.Refused("key", "not a public Ed25519 key: base64 of 32 bytes")
    return raw


def _pinned(settings):
    """The pinned key's text, or ""."""
    return _agent().read_text(os.path.join(settings["state_dir"], "pin")).strip()


def pin(key, rotations=None):
    """
    Pin the public half of the master's plan key, unless another one is pinned.

    key
        The raw public key in base64, as the master's runner sends it.

    rotations
        ``[text, signature]`` pairs by which each key named the one after it: where the pinned key
        named this one, over whatever steps, this one takes its place.

    CLI Example:

    .. code-block:: bash

        salt web1 cpacman.pin 'base64...'
    """
    return _answer(_pin, key, rotations or ())


def _pin(agent, key, rotations):
    raw, settings = _raw_key(agent, key), _settings()
    agent.make_private(settings["state_dir"])
    with agent.locked(os.path.join(settings["state_dir"], "begin.lock"), 30) as mine:
        if not mine:
            raise agent.Refused("busy", "another call holds the lock")
        pinned = _pinned(settings)
        if pinned and _follow(agent, pinned, rotations) != raw:
            raise agent.Refused("pin", "another key is pinned: %s" % _fingerprint(agent, pinned))
        if not pinned or _raw_key(agent, pinned) != raw:
            place = os.path.join(settings["state_dir"], "pin")
            if pinned:
                # What it signed lies here in sessions that are still to be started or recovered.
                agent.write_atomically(place + ".previous", pinned + "\n")
            agent.write_atomically(place, base64.b64encode(raw).decode("ascii") + "\n")
    return {"pinned": _fingerprint(agent, key)}


def _follow(agent, pinned, rotations):
    """The key that the pinned one leads to: each step signed by the key before it."""
    raw = _raw_key(agent, pinned)
    for pair in rotations:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise agent.Refused("pin", "a rotation is a text and a signature")
        try:
            said = json.loads(pair[0])
            mine = said["kind"] == "rotation" and _raw_key(agent, said["from"]) == raw
        except (KeyError, TypeError, ValueError):
            raise agent.Refused("pin", "a rotation that can't be read")
        if mine:
            _verify(agent, raw, pair[0], pair[1])
            raw = _raw_key(agent, said["to"])
    return raw


def _fingerprint(agent, key):
    """How a key is shown and compared by people."""
    return "sha256:" + hashlib.sha256(_raw_key(agent, key)).hexdigest()


def _check_signature(agent, settings, text, signature, kept=False):
    """Refuse a manifest or an order that the pinned key did not sign, to the byte.

    What is kept here, taken in before the key was rotated, may be signed by the one before.
    """
    pinned = _pinned(settings)
    if not pinned:
        raise agent.Refused("pin", "no plan key is pinned on this host")
    previous = agent.read_text(os.path.join(settings["state_dir"], "pin.previous")).strip()
    if kept and previous:
        try:
            return _verify(agent, _raw_key(agent, previous), text, signature)
        except agent.Refused:
            pass
    return _verify(agent, _raw_key(agent, pinned), text, signature)


def _verify(agent, raw, text, signature):
    """Refuse a text that a key did not sign."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if not isinstance(text, str) or not isinstance(signature, str):
        raise agent.Refused("signature", "what is signed, and the signature, are texts")
    try:
        Ed25519PublicKey.from_public_bytes(raw).verify(
            base64.b64decode(signature, validate=True), text.encode("utf-8")
        )
    except (InvalidSignature, ValueError):
        raise agent.Refused("signature", "the pinned plan key did not sign this")


def begin(manifest=None, signature=None, **kwargs):
    """
    Take in a signed manifest; the same one again resumes its session.

    manifest
        The exact JSON text that was signed.

    signature
        Its Ed25519 signature in base64.

    CLI Example:

    .. code-block:: bash

        salt web1 cpacman.begin '{...}' 'base64...'
    """
    # The runner sends both beside the job's arguments: those would come back with the return.
    extra = kwargs.get("__pub_cpacman")
    if manifest is None and isinstance(extra, dict):
        manifest, signature = extra.get("manifest"), extra.get("signature")
    return _answer(_begin, manifest, signature)


def _begin(agent, manifest, signature):
    settings = _settings()
    _check_signature(agent, settings, manifest, signature)
    return agent.begin(settings, manifest, {"manifest.sig": signature + "\n"})


# --- files ----------------------------------------------------------------------------------------


def receive(session, **kwargs):
    """
    Write a chunk that came with the job itself, under the extra key ``cpacman`` of its load.

    session
        The session that the chunk is for; the chunk must name the same.

    CLI Example:

    .. code-block:: bash

        salt web1 cpacman.receive r-1122a    # refused: only the master's runner can add a chunk
    """
    return _answer(_receive, session, kwargs.get("__pub_cpacman"))


def _receive(agent, session, chunk):
    data = chunk.get("data") if isinstance(chunk, dict) else None
    if isinstance(data, str):
        data = data.encode("utf-8")  # Salt takes whatever can be read as UTF-8 for text
    if not isinstance(data, bytes):
        raise agent.Refused("segment", "the job carries no chunk")
    if chunk.get("session") != session:
        raise agent.Refused("session", "the chunk is for another session")
    return agent.receive(_settings(), session, chunk.get("segments"), data)


def staged(session):
    """
    Hash what is complete and return what is missing of a session's files.

    CLI Example:

    .. code-block:: bash

        salt web1 cpacman.staged r-1122a
    """
    return _answer(lambda agent: agent.staged(_settings(), session))


# --- the transaction ------------------------------------------------------------------------------


def apply(session, order=None, signature=None):
    """
    Start a staged transaction in a process of its own, which outlives the minion.

    session
        The session that is staged.

    order
        The exact JSON text of the master's order to start now; it runs out within minutes, so
        that a job that was held up on its way starts nothing later.

    signature
        The order's Ed25519 signature in base64.

    CLI Example:

    .. code-block:: bash

        salt web1 cpacman.apply r-1122a    # refused: only the master's runner can sign the order
    """
    return _answer(_apply, session, order, signature)


def _apply(agent, session, order, signature):
    settings = _settings()
    path, _ = agent.load_session(settings, session)
    _check_signature(agent, settings, order, signature)
    agent.check_order(order, session, settings["host"])
    manifest, signed = (
        agent.read_text(os.path.join(path, name)) for name in ("manifest.json", "manifest.sig")
    )
    _check_signature(agent, settings, manifest, signed.strip(), kept=True)
    program = agent.read_text(_agent_path())
    agent.start_session(settings, session, program, lambda: _python(agent))
    return {"started": True}


def restart(session, order=None, signature=None):
    """
    Restart the services that still use files which a session's transaction replaced.

    session
        The session that was applied.

    order
        The exact JSON text of the master's order: for this host, with the services it means.

    signature
        The order's Ed25519 signature in base64.

    CLI Example:

    .. code-block:: bash

        salt web1 cpacman.restart r-1122a    # refused: only the master's runner can sign the order
    """
    return _answer(_follow_up, "order_restart", session, order, signature)


def reboot(session, order=None, signature=None):
    """
    Reboot the host after a session's transaction, from a process that outlives the minion.

    session
        The session that was applied.

    order
        The exact JSON text of the master's order: for this host, and the boot it is in.

    signature
        The order's Ed25519 signature in base64.

    CLI Example:

    .. code-block:: bash

        salt web1 cpacman.reboot r-1122a    # refused: only the master's runner can sign the order
    """
    return _answer(_follow_up, "order_reboot", session, order, signature)


def _follow_up(agent, verb, session, order, signature):
    settings = _settings()
    agent.load_session(settings, session)
    _check_signature(agent, settings, order, signature)
    program = agent.read_text(_agent_path())
    return getattr(agent, verb)(settings, session, order, program, lambda: _python(agent))


def result(session, nonce):
    """
    Return the signed report of a session: how far it is, or how it ended.

    nonce
        A text of the master's that the report repeats, so that it cannot be an old one.

    CLI Example:

    .. code-block:: bash

        salt web1 cpacman.result r-1122a 5f1c...
    """
    return _answer(_result, session, nonce)


def _result(agent, session, nonce):
    report = agent.report_of(_settings(), session, nonce, lambda: _run_agent(agent, ["state"]))
    if report["findings"].get("salt"):
        report["findings"]["salt"].append("running %s" % _salt_version())
    text = agent.canonical(report)
    return {"report": text, "signature": _sign(agent, text)}


def compliance():
    """
    Tell whether the packages are those that the last transaction of CPacMan left here.

    CLI Example:

    .. code-block:: bash

        salt '*' cpacman.compliance
    """
    return _answer(
        lambda agent: agent.compliance(_settings(), lambda: _run_agent(agent, ["state"]))
    )


def _sign(agent, text):
    """Sign a text with the minion's Salt key, whose public half the master has accepted."""
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import padding

    path = os.path.join(__opts__["pki_dir"], "minion.pem")
    try:
        with open(path, "rb") as stream:
            key = serialization.load_pem_private_key(stream.read(), password=None)
    except (OSError, TypeError, ValueError) as problem:
        raise agent.Refused("key", "%s: %s" % (path, problem))
    signature = key.sign(text.encode("utf-8"), padding.PKCS1v15(), hashes.SHA256())
    return base64.b64encode(signature).decode("ascii")
