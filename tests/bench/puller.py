"""One pull of Salt's own, where the master runs: `puller.py CONF FILE HOSTS` prints its seconds."""

from __future__ import annotations

import sys
import time

import salt.client
import salt.config


def main() -> int:
    """Have hosts fetch a file by `cp.get_file`, all at once."""
    opts = salt.config.master_config(sys.argv[1])
    hosts = sys.argv[3].split(",")
    with salt.client.LocalClient(mopts=opts) as client:
        start = time.monotonic()
        found = client.cmd(
            hosts, "cp.get_file", [f"salt://{sys.argv[2]}", f"/var/tmp/{sys.argv[2]}"],
            tgt_type="list", timeout=300,
        )  # fmt: skip
        took = time.monotonic() - start
    if sorted(host for host, path in found.items() if path) != sorted(hosts):
        raise SystemExit(f"puller: {found}")
    print(took)
    return 0


if __name__ == "__main__":
    sys.exit(main())
