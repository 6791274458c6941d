"""What Salt's master says of its hosts: pillar is compiled anew, and keys are told apart."""

from __future__ import annotations

import logging
import re
import time
from pathlib import Path
from typing import Any

import pytest
import salt.config
import salt.pillar

from cpacman.errors import HostError
from cpacman.transport.master import SaltDirectory

logging.raiseExceptions = False  # Salt flushes kept records to a closed stderr when it ends


@pytest.fixture
def opts(tmp_path: Path) -> dict[str, Any]:
    """A master with a pillar of its own, which caches compiled ones."""
    found = salt.config.apply_master_config({"root_dir": str(tmp_path / "m")})
    (tmp_path / "pillar").mkdir()
    found.update(
        pillar_roots={"base": [str(tmp_path / "pillar")]},
        file_roots={"base": [str(tmp_path / "roots")]},
        pki_dir=str(tmp_path / "pki"),
        pillar_cache=True,
        pillar_cache_backend="disk",
        cachedir=str(tmp_path / "cache"),
    )
    (tmp_path / "pki" / "minions").mkdir(parents=True)
    Path(found["cachedir"]).mkdir()
    write(tmp_path, "production")
    return found


def write(base: Path, class_: str) -> None:
    """Write the pillar of every host."""
    (base / "pillar" / "top.sls").write_text("base: {'*': [place]}\n")
    (base / "pillar" / "place.sls").write_text(f"cpacman: {{class: {class_}}}\n")


def test_pillar_is_compiled_anew(opts: dict[str, Any], tmp_path: Path) -> None:
    """What somebody had compiled with other grains, or before, is not what counts."""
    cached = salt.pillar.get_pillar(opts, {}, "web1", "base").compile_pillar()
    assert cached["cpacman"] == {"class": "production"}
    write(tmp_path, "testing")
    still = salt.pillar.get_pillar(opts, {}, "web1", "base").compile_pillar()
    assert still["cpacman"] == {"class": "production"}, "Salt's cache is at work here"
    (found,) = SaltDirectory(opts).pillars(["web1"], {}).values()
    assert found == {"cpacman": {"class": "testing"}}


def test_a_pillar_that_does_not_render_is_an_error(opts: dict[str, Any], tmp_path: Path) -> None:
    """It is told as such: an empty one would let the next source speak in its place."""
    (tmp_path / "pillar" / "place.sls").write_text("cpacman: {class: {{ nothing.at.all }}}\n")
    (found,) = SaltDirectory(opts).pillars(["web1"], {}).values()
    assert isinstance(found, HostError)
    assert re.search(r"web1: its pillar does not render.*show_pillar web1", str(found))


def test_many_pillars_are_compiled_each_for_its_host(
    opts: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In several processes as in one: by id and by grain; again within a minute, or anew after."""
    text = "cpacman: {meta: {id: {{ grains['id'] }}, ring: {{ grains.get('ring', 'none') }} }}\n"
    (tmp_path / "pillar" / "place.sls").write_text(text)
    hosts = [f"web{n}" for n in range(20)]
    directory = SaltDirectory(opts)
    found = directory.pillars(hosts, {"web7": {"ring": 3}})
    assert found["web7"] == {"cpacman": {"meta": {"id": "web7", "ring": 3}}}
    assert found["web9"] == {"cpacman": {"meta": {"id": "web9", "ring": "none"}}}
    write(tmp_path, "testing")
    again = directory.pillars(["web7", "web9"], {})
    assert again["web7"] == {"cpacman": {"class": "testing"}}, "it told something else of itself"
    assert again["web9"] == found["web9"]
    monkeypatch.setattr("cpacman.transport.pillars.KEPT", 0.0)
    assert directory.pillars(["web9"], {})["web9"] == {"cpacman": {"class": "testing"}}


def test_no_pillar_is_compiled_where_there_is_none(opts: dict[str, Any], tmp_path: Path) -> None:
    """Without a top file nobody waits for it; with something external it is asked."""
    (tmp_path / "pillar" / "top.sls").unlink()
    started = time.process_time()
    found = SaltDirectory(opts).pillars([f"web{n}" for n in range(5000)], {})
    assert set(map(str, found.values())) == {"{}"} and time.process_time() - started < 1
    external = {**opts, "ext_pillar": [{"cmd_json": 'echo \'{"cpacman": {"class": "x"}}\''}]}
    (one,) = SaltDirectory(external).pillars(["web1"], {}).values()
    assert one == {"cpacman": {"class": "x"}}


def test_keys_are_told_apart(opts: dict[str, Any], tmp_path: Path) -> None:
    """The same key is the same with other ends of lines; another is another; none is empty."""
    keys = tmp_path / "pki" / "minions"
    (keys / "a").write_text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    (keys / "b").write_text("-----BEGIN PUBLIC KEY-----\r\nAAAA\r\n-----END PUBLIC KEY-----")
    (keys / "c").write_text("-----BEGIN PUBLIC KEY-----\nAAAB\n-----END PUBLIC KEY-----\n")
    found = SaltDirectory(opts).fingerprints(["a", "b", "c", "d"])
    assert found["a"] == found["b"] != found["c"]
    assert len(found["a"]) == 64 and found["d"] == ""
