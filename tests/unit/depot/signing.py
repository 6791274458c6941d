"""Real keys and real signatures for the tests, made by gpg and rpmsign."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path


class Signer:
    """A GnuPG home of its own, and packages signed with its keys."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir(mode=0o700)

    def gpg(self, *arguments: str, at: str = "", data: bytes = b"") -> bytes:
        """Run gpg, at another time if one is given (`20200101T000000`)."""
        faked = ["--faked-system-time", f"{at}!"] if at else []
        command = ["gpg", "--homedir", str(self.home), "--batch", "--quiet", "--yes", *faked]
        done = subprocess.run([*command, *arguments], input=data, capture_output=True, timeout=600)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def key(self, name: str, *, at: str = "") -> str:
        """Make a key that signs and never expires; return its fingerprint."""
        words = ["--passphrase", "", "--quick-gen-key", f"{name} <{name}@test>"]
        self.gpg(*words, "rsa2048", "sign", "never", at=at)
        listing = self.gpg("--list-keys", "--with-colons", f"<{name}@test>").decode()
        return next(line.split(":")[9] for line in listing.splitlines() if line[:4] == "fpr:")

    def expire(self, fingerprint: str, *, at: str, after: str) -> None:
        """Let a key expire so long after a day in the past."""
        self.gpg("--quick-set-expire", fingerprint, after, at=at)

    def revoke(self, fingerprint: str) -> None:
        """Revoke a key, with the certificate that gpg made beside it."""
        text = (self.home / "openpgp-revocs.d" / f"{fingerprint}.rev").read_text()
        self.gpg("--import", data=text.replace(":-----BEGIN", "-----BEGIN").encode())

    def export(self, fingerprint: str, path: Path) -> Path:
        """Write a public key as it is now."""
        path.write_bytes(self.gpg("--armor", "--export", fingerprint))
        return path

    def sign(self, package: Path, fingerprint: str, *, at: str = "") -> Path:
        """Sign a package in its place."""
        faked = f"--faked-system-time {at}!" if at else ""
        define = [
            f"__gpg {shutil.which('gpg')}",
            f"_gpg_name {fingerprint}",
            f"_gpg_path {self.home}",
            f"_gpg_sign_cmd_extra_args --batch {faked}",
        ]
        options = [word for one in define for word in ("--define", one)]
        environment = {**os.environ, "GNUPGHOME": str(self.home), "HOME": str(self.home)}
        command = ["rpmsign", *options, "--addsign", str(package)]
        done = subprocess.run(command, env=environment, capture_output=True, timeout=600)
        assert done.returncode == 0, done.stderr
        return package

    def detach(self, file: Path, fingerprint: str) -> Path:
        """Write a detached signature beside a file."""
        target = Path(f"{file}.asc")
        words = ["--local-user", fingerprint, "--armor", "--detach-sign", "--output", str(target)]
        self.gpg(*words, str(file))
        return target

    def end(self) -> None:
        """Stop the agent that gpg started, and remove the home."""
        environment = {**os.environ, "GNUPGHOME": str(self.home)}
        subprocess.run(["gpgconf", "--kill", "all"], env=environment, timeout=600, check=False)
        shutil.rmtree(self.home, ignore_errors=True)
