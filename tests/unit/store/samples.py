"""What the tests of the store put into it."""

from __future__ import annotations

from cpacman.model import InstalledPackage, Inventory, Plan, Request, Transaction
from cpacman.store import Chain, Step, Store


def package(name: str, version: str = "1", **values: object) -> InstalledPackage:
    """An installed package whose digest follows from its name and version."""
    return InstalledPackage(
        name=name, version=version, release="1", arch="noarch", digest=f"sha256:{name}{version}",
        requires=(("/bin/sh", "", ""),), **values,
    )  # fmt: skip


def inventory(host: str, *packages: InstalledPackage) -> Inventory:
    """An inventory of one host."""
    return Inventory(host=host, cookie=f"c-{host}", arch="x86_64", packages=packages)


def rollout(number: str = "r-1") -> dict[str, str]:
    """The header of a rollout."""
    return {"id": number, "plan": "p-1", "class": "all", "state": "running", "who": "me",
            "owner": "here"}  # fmt: skip


def fill(store: Store) -> None:
    """Put a little of everything into a store that is new."""
    change = {
        "action": "upgrade",
        "name": "a",
        "nevra": "a-2-1.noarch",
        "from": "a-1-1.noarch",
        "repository": "base",
    }
    plan = Plan(plan_id="p-123", request=Request(), policy="x", snapshots={"el9": "s-1"},
                hosts={"web1": "t-1"}, inventories={}, transactions={"t-1": Transaction()},
                failed={})  # fmt: skip
    store.add_snapshot("s-1", channel="el9", packages=2, at=1.0, who="me")
    store.point("testing", "el9", "s-1", expected=None, action="promote", at=2.0, who="me")
    store.put_inventory(inventory("web1", package("a", reason="user"), package("b")), at=3.0)
    store.put_plan(plan, class_="testing", at=4.0, who="me")
    store.pin("web1", "key", at=5.0, who="me")
    for number in ("r-1", "r-2"):
        store.start_rollout(rollout(number), [(f"web{number[2]}", "all", "t-1")], at=6.0)
    store.next_sequence("web1", at=7.0)
    store.end_host("r-1", "web1", expected="waiting", outcome="applied", at=8.0, who="me",
                   ticket="CHG1", changes=[change])  # fmt: skip
    begun = Step(class_="testing", rollout="r-1", at=6.0)
    chain = Chain(id="c-1", classes=("testing", "production"), steps=(begun,), who="me")
    store.start_chain(chain, at=9.0)
