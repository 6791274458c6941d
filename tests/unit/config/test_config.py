"""The configuration: what is read, and everything that is wrong said at once."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest

from cpacman.config import (
    Amount,
    PolicyLine,
    Settings,
    load_settings,
    parse_match,
    read_settings,
    read_yaml,
    restarts_of,
    settings_from_opts,
)
from cpacman.errors import ConfigError, Problem

# The example of the interface, word for word.
EXAMPLE = """\
cpacman:                                   # in the master's config, or a file of its own
  membership: {sources: [files, pillar, grains], hosts_d: /etc/salt/cpacman/hosts.d, max_moves: 20, on_move: hold}
  channels:
    el9-x86_64:
      match: {id_like: rhel, major: 9, arch: x86_64}
      keys: [/etc/pki/rpm-gpg/redhat]
      repositories:
        baseos: {path: /srv/mirror/el9/baseos}
        jpackage: {path: /srv/mirror/jpackage, autoupdate: false}
        edr: {path: /srv/mirror/edr, autoupdate: false, classes: [production], only: "agent:edr"}
  classes:                                 # in order; leave out and everything is one class
    - development: {}
    - testing: {}
    - production: {evidence: {min_hosts: 3, soak: 48h, max_failures: 0}, approvers: 1, ticket: "CHG[0-9]{7}", windows: prod}
  levels:
    - canary: {match: "ring:0", concurrency: 1, max_failures: 0, soak: 30m, gate: web}
    - early: {match: "ring:1", concurrency: 10%, spread: rack, max_failures: 3}
    - rest: {concurrency: 200, max_failures: 1%}
  policy:
    - {lock: "java-11*", scope: "role:sap", reason: "SAP note 42", owner: sap, until: 2027-03-31}
    - {together: [kernel-core, kmod-lpfc], scope: "role:san"}
  budget: {max_failures: 1%, max_unreachable: 5%}
  profiles:
    emergency: {soak: 10m, evidence: {min_hosts: 1, soak: 10m}, windows: ignore, approvers: 2}
  access: {deploy: {production: [ops]}, approve: {production: [change-board]}, read: [audit]}
"""  # noqa: E501


def load(raw: Any) -> Settings:
    """Load a section as the tests write it."""
    return load_settings(raw, source="test", base=Path("/etc/salt"))


def problems(raw: Any) -> dict[str, Problem]:
    """Return the problems of a section that must be refused, by path."""
    with pytest.raises(ConfigError) as caught:
        load(raw)
    return {problem.path: problem for problem in caught.value.problems}


@pytest.fixture
def example(tmp_path: Path) -> Settings:
    """The example of the interface, read from a file."""
    path = tmp_path / "cpacman.yaml"
    path.write_text(EXAMPLE)
    return read_settings(path)


def test_whole_example_validates(example: Settings) -> None:
    """Every line of the documented example has the meaning it shows."""
    channel = example.channels["el9-x86_64"]
    assert channel.match.major == ("9",)
    assert channel.repositories["jpackage"].autoupdate is False
    assert channel.repositories["edr"].only == parse_match("agent:edr")
    assert example.class_names == ("development", "testing", "production")
    evidence = example.classes[2].evidence
    assert evidence is not None and evidence.soak == 48 * 3600
    assert example.level_names == ("canary", "early", "rest")
    assert example.levels[0].soak == 1800
    assert example.levels[1].concurrency == Amount(10, percent=True)
    assert example.levels[2].max_failures == Amount(1, percent=True)
    assert example.policy[0].until == datetime.date(2027, 3, 31)
    assert example.policy[1].words == ("kernel-core", "kmod-lpfc")
    assert example.budget.max_unreachable.of(200) == 10
    assert example.access.read == ("audit",)


def test_nothing_configured_is_one_class_and_one_level() -> None:
    """Staging is allowed, not forced: without classes there is one, and so with levels."""
    settings = load({})
    assert (settings.class_names, settings.level_names) == (("all",), ("all",))
    assert settings.depot == Path("/var/lib/cpacman/depot")
    assert settings.transport.chunk == 16 * 2**20 and settings.transport.window == 2


def test_directories_follow_the_state_directory() -> None:
    """Depot and cache lie below the state directory unless they are named."""
    settings = load({"state_dir": "/srv/c", "cache_dir": "/tmp/c"})
    assert (settings.depot, settings.cache_dir) == (Path("/srv/c/depot"), Path("/tmp/c"))


def test_relative_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    """A configuration that moves with its mirrors needs no absolute path."""
    path = tmp_path / "cpacman.yaml"
    path.write_text("channels: {a: {repositories: {b: {path: mirror/b}}}}\ndepot: depot")
    settings = read_settings(path)
    assert settings.channels["a"].repositories["b"].path == tmp_path / "mirror/b"
    assert settings.depot == tmp_path / "depot"


def test_all_problems_at_once_with_their_paths() -> None:
    """One run names everything that is wrong, wherever it is."""
    found = problems(
        {
            "levels": [{"a": {}}, {"b": {}}, {"c": {"match": "ring", "soak": 30}}],
            "classes": [{"x": {"evidnce": {}}}, {"y": None}, {"x": {}}],
            "channels": {
                "e": {"match": {"majr": 9}, "repositories": {"r": {"path": "", "classes": ["z"]}}}
            },
            "membership": {"sources": ["files", "pillr"]},
            "state_dir": 7,
            "polcy": [],
        }
    )
    assert set(found) == {
        "levels[2].match", "levels[2].soak", "classes[0].evidnce", "classes[2]",
        "channels.e.match.majr", "channels.e.repositories.r.path",
        "channels.e.repositories.r.classes[0]", "membership.sources[1]", "state_dir", "polcy",
    }  # fmt: skip
    assert all("(test)" in problem.message for problem in found.values())


@pytest.mark.parametrize(
    ("raw", "path", "mend"),
    [
        ({"chanels": {}}, "chanels", "channels"),
        ({"channels": {"e": {"match": {"majr": 9}}}}, "channels.e.match.majr", "major"),
        ({"levels": [{"a": {"concurency": 1}}]}, "levels[0].concurency", "concurrency"),
        ({"policy": [{"lok": "a"}]}, "policy[0].lok", "lock"),
        ({"profiles": {"p": {"evidence": {"min_host": 1}}}},
         "profiles.p.evidence.min_host", "min_hosts"),
        ({"membership": {"sources": ["pillr"]}}, "membership.sources[0]", "pillar"),
        ({"classes": ["production"], "access": {"deploy": {"prodution": ["a"]}}},
         "access.deploy.prodution", "production"),
        ({"classes": ["production"], "access": {"plan": {"prodution": ["a"]}}},
         "access.plan.prodution", "production"),
        ({"classes": ["production"], "access": {"promote": {"prodution": ["a"]}}},
         "access.promote.prodution", "production"),
        ({"channels": {"e": {"repositories": {"r": {"path": "/a", "classes": "al"}}}}},
         "channels.e.repositories.r.classes[0]", "all"),
    ],
)  # fmt: skip
def test_misspelt_names_get_the_nearest(raw: Any, path: str, mend: str) -> None:
    """Whatever is misspelt is refused with what was probably meant."""
    assert mend in problems(raw)[path].mend


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ([], "test"),
        ({"classes": {"a": {}, "b": {}}}, "classes"),
        ({"classes": []}, "classes"),
        ({"classes": [3]}, "classes[0]"),
        ({"classes": [{"a": {}, "b": {}}]}, "classes[0]"),
        ({"classes": [{"a": {"name": "b"}}]}, "classes[0]"),
        ({"classes": [{False: {}}]}, "classes[0].name"),
        ({"classes": ["no"]}, "classes[0].name"),
        ({"classes": ["a b"]}, "classes[0].name"),
        ({"classes": [{"a": {"ticket": "("}}]}, "classes[0].ticket"),
        ({"levels": ["a", {"a": {}}]}, "levels[1]"),
        ({"levels": [{"a": {"match": "ring:0 or ring:1"}}]}, "levels[0].match"),
        ({"levels": [{"a": {"match": []}}]}, "levels[0].match"),
        ({"levels": [{"a": {"concurrency": "110%"}}]}, "levels[0].concurrency"),
        ({"levels": [{"a": {"concurrency": -1}}]}, "levels[0].concurrency"),
        ({"levels": [{"a": {"concurrency": True}}]}, "levels[0].concurrency"),
        ({"levels": [{"a": {"soak": "2 moons"}}]}, "levels[0].soak"),
        ({"policy": [{"lock": "a", "exclude": "b"}]}, "policy[0]"),
        ({"policy": [{"reason": "because"}]}, "policy[0]"),
        ({"policy": [{"together": "a"}]}, "policy[0]"),
        ({"policy": [{"lock": "a", "until": 20270331}]}, "policy[0].until"),
        ({"policy": [{"lock": "a", "until": "2027-13-31"}]}, "policy[0].until"),
        ({"policy": [{"lock": []}]}, "policy[0].lock"),
        ({"policy": [{"lock": "httpd == 2"}]}, "policy[0]"),
        ({"policy": [{"lock": ["httpd", "httpd < < 2"]}]}, "policy[0]"),
        ({"channels": {"e": {}}}, "channels.e.repositories"),
        ({"channels": {"e": {"repositories": {}}}}, "channels.e.repositories"),
        ({"channels": {"e": {"repositories": {"r": {}}}}}, "channels.e.repositories.r.path"),
        ({"channels": {"e": {"repositories": {"r": {"path": "/a", "autoupdate": "no"}}}}},
         "channels.e.repositories.r.autoupdate"),
        ({"channels": {"e": {"match": {"version_id": 9.1}, "repositories": {"r": {"path": "/a"}}}}},
         "channels.e.match.version_id"),
        ({"channels": {"e/f": {"repositories": {"r": {"path": "/a"}}}}}, "channels.e/f"),
        ({"membership": {"sources": []}}, "membership.sources"),
        ({"membership": {"sources": ["files", "files"]}}, "membership.sources"),
        ({"transport": {"chunk": "16X"}}, "transport.chunk"),
        ({"transport": {"chunk": 1}}, "transport.chunk"),
        ({"depot": "a\0b"}, "depot"),
    ],
)  # fmt: skip
def test_nonsense_is_refused_where_it_stands(raw: Any, path: str) -> None:
    """Each kind of nonsense is a problem at its own path."""
    assert path in problems(raw)


def test_duplicate_names_name_both_places() -> None:
    """A class that is given twice points at the first."""
    assert "classes[0]" in problems({"classes": ["a", "b", {"a": {}}]})["classes[2]"].message


def test_duplicate_yaml_keys_are_refused(tmp_path: Path) -> None:
    """YAML's last-one-wins must not drop a repository in silence; all duplicates are named."""
    path = tmp_path / "c.yaml"
    path.write_text("a: 1\nb:\n  c: 1\n  c: 2\na: 3\n")
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    assert {one.path for one in caught.value.problems} == {f"{path}:4:3", f"{path}:5:1"}


def test_merged_yaml_keys_are_no_duplicates(tmp_path: Path) -> None:
    """A YAML merge may be overridden: that is what it is for."""
    path = tmp_path / "c.yaml"
    path.write_text("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n")
    assert read_yaml(path)["b"] == {"x": 1, "y": 3}


@pytest.mark.parametrize("text", ["a: [1, 2\nb: 3\n", "a: b: c\n", "\tx: 1\n", "a: 'b\n"])
def test_broken_yaml_names_line_and_column(tmp_path: Path, text: str) -> None:
    """Broken YAML is one error with file:line:column."""
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_settings(path)
    (problem,) = caught.value.problems
    name, line, column = problem.path.rsplit(":", 2)
    assert (name, line.isdigit(), column.isdigit()) == (str(path), True, True)


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"a: \x00", b"- just\n- a list", b"a: &a [*a]"])
def test_files_that_hold_no_settings(tmp_path: Path, data: bytes) -> None:
    """Binary junk, a list, a value that contains itself: refused with the file's name."""
    path = tmp_path / "junk.yaml"
    path.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        read_settings(path)
    assert str(path) in str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    """A file that is not there is an error with its path, never an empty configuration."""
    with pytest.raises(ConfigError, match="nowhere"):
        read_settings(tmp_path / "nowhere.yaml")


def test_times_and_dates_stay_as_written(tmp_path: Path) -> None:
    """YAML 1.1 would make 1320 of 22:00 and an object of a date."""
    path = tmp_path / "t.yaml"
    path.write_text("a: 22:00\nb: 2027-03-31\nc: 2027-99-99\nd: 0o17\ne: 17\n")
    assert read_yaml(path) == {
        "a": "22:00", "b": "2027-03-31", "c": "2027-99-99", "d": "0o17", "e": 17,
    }  # fmt: skip


def test_section_of_the_master(tmp_path: Path) -> None:
    """The master's own section is read, its relative paths beside the master's file."""
    opts = {"conf_file": str(tmp_path / "master"), "cpacman": {"state_dir": "state"}}
    settings = settings_from_opts(opts)
    assert settings.state_dir == tmp_path / "state"
    assert settings.source == f"{tmp_path}/master: cpacman"


def test_master_names_a_file_of_its_own(tmp_path: Path) -> None:
    """`cpacman: {config: PATH}` reads that file, relative to the master's."""
    (tmp_path / "cpacman.yaml").write_text("classes: [a, b]")
    opts = {"conf_file": str(tmp_path / "master"), "cpacman": {"config": "cpacman.yaml"}}
    assert settings_from_opts(opts).class_names == ("a", "b")


@pytest.mark.parametrize("section", [None, {"config": "a", "classes": []}, {"config": 3}, "text"])
def test_masters_without_a_usable_section(section: Any) -> None:
    """No section, a mixed one and a text are refused, with what to write."""
    with pytest.raises(ConfigError):
        settings_from_opts({"conf_file": "/etc/salt/master", "cpacman": section})


def test_explain_says_where_each_value_comes_from(example: Settings) -> None:
    """Each value is shown with its origin, in plain types."""
    shown = {one.path: one for one in example.explain()}
    assert shown["levels[0].match"].value == ["ring:0"]
    assert shown["levels[0].match"].source.endswith("cpacman.yaml")
    assert shown["levels[0].spread"].source == "default"
    assert shown["depot"] == ("depot", "/var/lib/cpacman/depot", "default")
    assert shown["policy[0].until"].value == "2027-03-31"


def test_the_narrowest_place_decides_on_restarts() -> None:
    """Level before class before fleet, key by key."""
    settings = load(
        {
            "restarts": {"services": "needed", "within": "5m"},
            "classes": ["a", {"b": {"restarts": {"reboot": "needed", "timeout": "10s"}}}],
            "levels": [{"x": {"restarts": {"reboot": "always", "services": "never"}}}, "y"],
        }
    )
    found = {
        (c, one): restarts_of(settings, c, one) for c in ("a", "b") for one in ("x", "y", "gone")
    }
    assert {key: (one.services, one.reboot) for key, one in found.items()} == {
        ("a", "x"): ("never", "always"), ("a", "y"): ("needed", "never"),
        ("b", "x"): ("never", "always"), ("b", "y"): ("needed", "needed"),
        ("a", "gone"): ("needed", "never"), ("b", "gone"): ("needed", "needed"),
    }  # fmt: skip
    assert found["b", "x"].within == 300 and found["b", "y"].timeout == 10
    assert load({}).restarts.services == load({}).restarts.reboot == "never"


def test_lists_of_services_must_have_an_effect() -> None:
    """One that is missing, and one that nothing uses, are refused where they stand."""
    levels = ["x", {"y": {"restarts": {"list": "a"}}}]
    wrong = {"restarts": {"services": "listed"}, "levels": levels}
    assert set(problems(wrong)) == {"restarts.services"}
    idle = {"restarts": {"list": ["a"]}, "classes": [{"c": {"restarts": {"list": ["b"]}}}]}
    assert set(problems(idle)) == {"restarts.list", "classes[0].restarts.list"}
    load({"restarts": {"list": ["a"]}, "levels": [{"x": {"restarts": {"services": "listed"}}}]})


def test_policy_lines_honour_scope_and_date() -> None:
    """A line holds for the hosts in its scope, to its last day and no longer."""
    line = PolicyLine.model_validate({"arch_change": "c", "scope": "role:x", "until": "2026-01-31"})
    last, after = datetime.date(2026, 1, 31), datetime.date(2026, 2, 1)
    assert line.applies({"role": "x"}, last)
    assert not line.applies({"role": "x"}, after)
    assert not line.applies({"role": "y"}, last)
    assert PolicyLine.model_validate({"lock": "c"}).applies({}, after)


@pytest.mark.parametrize(
    ("text", "meta", "rank"),
    [
        ("ring:0", {"ring": 0}, 0),
        ("ring:0", {"ring": "0"}, 0),
        ("ring:0", {"ring": 10}, None),
        ("ring:0", {}, None),
        ("role:web*", {"role": "web-fra"}, 1),
        ("role:db", {"role": ["web", "db"]}, 0),
        ("live:true", {"live": True}, 0),
        ("role:web and ring:1", {"role": "web", "ring": 1}, 0),
        ("role:web and ring:1", {"role": "web", "ring": 2}, None),
        (["role:x*", "ring:1"], {"role": "xy", "ring": 1}, 0),
        ("x:*", {"x": None}, None),
    ],
)
def test_matches(text: Any, meta: dict[str, Any], rank: int | None) -> None:
    """A match looks at metadata as text, any of a list, and knows exact from glob."""
    assert parse_match(text).rank(meta) == rank


def test_amounts_of_hosts() -> None:
    """A share is rounded down and can be kept from becoming none."""
    settings = load({"levels": [{"a": {"concurrency": "10%", "max_failures": "2.5%"}}]})
    level = settings.levels[0]
    assert (level.concurrency.of(5), level.concurrency.of(5, least=1)) == (0, 1)
    assert level.max_failures is not None and level.max_failures.of(200) == 5
    assert [str(level.concurrency), str(Amount(3))] == ["10%", "3"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"vendors": ["CentOS"]}, "vendors needs two or more"),
        ({"lock": "a", "packages": "b"}, "packages belongs to vendors"),
        ({"vendors": ["A", "B"], "protect": "c"}, "vendors and protect in one"),
    ],
)
def test_policy_lines_that_contradict_themselves(line: dict[str, Any], words: str) -> None:
    """A line that can't mean anything is an error at its path, wherever lines may stand."""
    places = {
        "policy[0]": {"policy": [line]},
        "channels.c.policy[0]": {
            "channels": {"c": {"repositories": {"r": {"path": "/r"}}, "policy": [line]}}
        },
        "classes[0].policy[0]": {"classes": [{"all": {"policy": [line]}}]},
        "levels[0].policy[0]": {"levels": [{"all": {"policy": [line]}}]},
    }
    for path, section in places.items():
        with pytest.raises(ConfigError) as caught:
            load(section)
        (problem,) = caught.value.problems
        assert problem.path == path and words in problem.message
