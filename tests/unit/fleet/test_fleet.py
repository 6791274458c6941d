"""Where a host belongs: sources, their order, contradictions, channels, selection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cpacman.config import Settings, load_settings
from cpacman.errors import ConfigError, UsageError
from cpacman.fleet.hostfiles import HostsFiles, load_hosts_files
from cpacman.fleet.placing import Facts, Placement, facts_of, lines_for, place_host
from cpacman.fleet.selecting import parse_selector
from cpacman.model import Host, Inventory, OsRelease

ALMA = Facts("almalinux", "rhel centos fedora", "9.4", "x86_64")
EXAMPLES = Path(__file__).parents[3] / "pillar.example"


def settings_of(**changes: Any) -> Settings:
    """Return settings with three classes, three levels, two channels."""
    repositories = {"base": {"path": "/srv/base"}}
    raw: dict[str, Any] = {
        "classes": ["development", "testing", "production"],
        "levels": [{"canary": {"match": "ring:0"}}, {"early": {"match": "ring:1"}}, "rest"],
        "channels": {
            "el9": {"match": {"id_like": "rhel", "major": 9}, "repositories": repositories},
            "el8": {"match": {"id_like": "rhel", "major": [7, 8]}, "repositories": repositories},
        },
    }
    return load_settings({**raw, **changes}, source="test", base=Path("/"))


def hosts_files(folder: Path, settings: Settings | None = None, **files: str) -> HostsFiles:
    """Write host files, named by keyword, and load them."""
    folder = folder / "hosts.d"
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return load_hosts_files(folder, settings or settings_of())


def place(host: str = "web1.fra", **given: Any) -> Placement:
    """Place a host with what is given, the rest empty."""
    defaults: dict[str, Any] = {
        "settings": settings_of(), "hosts_files": HostsFiles(),
        "pillar": {}, "grains": {}, "facts": ALMA,
    }  # fmt: skip
    return place_host(host, **{**defaults, **given})


def test_example_of_the_interface(tmp_path: Path) -> None:
    """The documented host file: the exact id beats the glob, value by value."""
    files = hosts_files(
        tmp_path,
        web='"web*.fra": {class: production, meta: {role: web, rack: r7, ring: 2}}\n'
        "web1.fra: {meta: {ring: 0}, transport: publish,"
        " policy: [{lock: httpd-2.4.57, owner: shop, reason: mod_x, until: 2027-01-31}]}\n",
    )
    placed = place(hosts_files=files)
    assert placed.problems == ()
    assert (placed.host.class_, placed.host.level) == ("production", "canary")
    assert placed.host.meta == {"role": "web", "rack": "r7", "ring": 0}
    assert placed.host.sources == {
        "class": "hosts.d/web.yaml: web*.fra",
        "meta.role": "hosts.d/web.yaml: web*.fra",
        "meta.rack": "hosts.d/web.yaml: web*.fra",
        "meta.ring": "hosts.d/web.yaml: web1.fra",
        "transport": "hosts.d/web.yaml: web1.fra",
        "level": "levels[0].match",
        "channel": "channels.el9.match",
    }
    assert placed.policy[0].line.words == ("httpd-2.4.57",)
    assert placed.policy[0].place == "hosts.d/web.yaml: web1.fra.policy[0]"


def test_sources_are_asked_in_order(tmp_path: Path) -> None:
    """Files, then pillar, then grains; each value from the first that says it."""
    given = {
        "hosts_files": hosts_files(tmp_path, a="web1.fra: {class: testing}"),
        "pillar": {"cpacman": {"class": "production", "level": "rest", "meta": {"ring": 0}}},
        "grains": {"cpacman": {"class": "development", "meta": {"ring": 5, "rack": "r1"}}},
    }
    placed = place(**given).host
    assert (placed.class_, placed.level) == ("testing", "rest")
    assert placed.meta == {"ring": 0, "rack": "r1"}
    assert placed.sources["level"] == "pillar"
    assert placed.sources["meta.rack"] == "grains"
    turned = settings_of(membership={"sources": ["grains", "pillar"]})
    again = place(**given, settings=turned).host
    assert (again.class_, again.meta["ring"]) == ("development", 5)


def test_a_source_that_is_not_configured_says_nothing() -> None:
    """Where grains are not trusted they are not looked at, however wild."""
    settings = settings_of(membership={"sources": ["pillar"]})
    placed = place(settings=settings, grains={"cpacman": ["wild"]})
    assert placed.host.class_ == ""
    assert len(placed.problems) == 1


def test_without_a_class_a_host_is_listed_and_never_planned() -> None:
    """With several classes nobody is put into one by default; the mend names them."""
    placed = place()
    assert placed.host.class_ == ""
    assert "production" in placed.problems[0].mend


def test_with_one_class_everything_is_of_it() -> None:
    """Staging is not forced."""
    placed = place(settings=settings_of(classes=["all"]))
    assert placed.problems == ()
    assert placed.host.sources["class"] == "the only class"


def test_globs_that_disagree_name_both_places(tmp_path: Path) -> None:
    """Two globs of one rank: no choice is made."""
    files = hosts_files(tmp_path, a='"web*": {class: testing}', b='"*.fra": {class: production}')
    (problem,) = place(hosts_files=files).problems
    assert "hosts.d/a.yaml: web*" in problem.message
    assert "hosts.d/b.yaml: *.fra" in problem.message


def test_globs_that_agree_or_are_outranked_are_fine(tmp_path: Path) -> None:
    """The same value twice is no contradiction, nor is one that an exact id overrides."""
    text = '"web*": {class: testing, meta: {ring: 1}}'
    files = hosts_files(
        tmp_path,
        a=text,
        b='"*.fra": {class: testing, meta: {ring: 2}}',
        c="web1.fra: {meta: {ring: 0}}",
    )
    assert place(hosts_files=files).problems == ()
    assert place("web2.fra", hosts_files=files).problems != ()


def test_an_exact_id_in_two_files(tmp_path: Path) -> None:
    """Different values for one id are an error at load; parts that complete each other are not."""
    fine = hosts_files(tmp_path, a="w: {class: testing}", b="w: {meta: {ring: 1}}")
    assert place("w", hosts_files=fine).host.level == "early"
    with pytest.raises(ConfigError) as caught:
        hosts_files(tmp_path, c="w: {class: production}")
    assert "hosts.d/a.yaml: w" in str(caught.value)
    assert "hosts.d/c.yaml: w" in str(caught.value)


def test_levels_by_rank_and_last() -> None:
    """Named on the host, else by exact match, else by glob, else the last level."""
    settings = settings_of(
        classes=["all"],
        levels=[{"a": {"match": "ring:*"}}, {"b": {"match": ["ring:1", "role:x"]}}, "c", "d"],
    )

    def level(**section: Any) -> str:
        return place(settings=settings, pillar={"cpacman": section}).host.level

    assert level(level="c", meta={"ring": 1}) == "c"
    assert level(meta={"ring": 1}) == "b"
    assert level(meta={"ring": 7}) == "a"
    assert level(meta={"role": "y"}) == "d"


def test_levels_that_disagree_name_both_places() -> None:
    """Two exact matches for one host contradict each other."""
    settings = settings_of(
        classes=["all"], levels=[{"a": {"match": "ring:1"}}, {"b": {"match": "role:x"}}]
    )
    pillar = {"cpacman": {"meta": {"ring": 1, "role": "x"}}}
    (problem,) = place(settings=settings, pillar=pillar).problems
    assert "levels[0].match" in problem.message and "levels[1].match" in problem.message


@pytest.mark.parametrize(
    ("facts", "channel"),
    [
        (ALMA, "el9"),
        (Facts("rhel", "fedora", "8.10", "x86_64"), "el8"),
        (Facts("centos", "rhel fedora", "7", "x86_64"), "el8"),
        (Facts("debian", "", "12", "x86_64"), ""),
        (Facts("almalinux", "rhel", "90.1", "x86_64"), ""),
        (Facts(), ""),
    ],
)
def test_channel_by_operating_system(facts: Facts, channel: str) -> None:
    """The matcher looks at the host's os facts; a system counts as like itself."""
    placed = place(settings=settings_of(classes=["all"]), facts=facts)
    assert placed.host.channel == channel
    assert bool(placed.problems) == (not channel)


def test_two_channels_for_one_host() -> None:
    """A host that two channels claim is not planned from either."""
    repositories = {"base": {"path": "/srv/base"}}
    channels = {
        "a": {"match": {"id": "alma*"}, "repositories": repositories},
        "b": {"match": {"arch": ["x86_64", "i686"]}, "repositories": repositories},
    }
    placed = place(settings=settings_of(classes=["all"], channels=channels))
    assert placed.host.channel == ""
    assert "channels.a.match" in placed.problems[0].message
    assert "channels.b.match" in placed.problems[0].message


def test_facts_come_from_the_inventory() -> None:
    """What the matcher looks at is what the host reported with its packages."""
    os = OsRelease(id="almalinux", id_like="rhel centos fedora", version_id="9.4")
    assert facts_of(Inventory(arch="x86_64", os=os)) == ALMA


@pytest.mark.parametrize(
    "section",
    [
        "text",
        {"class": "prodution"},
        {"class": 3},
        {"level": "canry"},
        {"clas": "testing"},
        {"transport": "ssh"},
        {"meta": "web"},
        {"meta": {"a b": 1}},
        {"meta": {"a": 1.1}},
        {"meta": {"a": {"b": 1}}},
        {"meta": {"a": "line\nbreak"}},
        {"meta": {"a": "x" * 300}},
        {"meta": {1: "a"}},
    ],
)
@pytest.mark.parametrize("source", ["pillar", "grains"])
def test_nonsense_of_a_host_is_its_own_problem(source: str, section: Any) -> None:
    """What pillar or grains say is validated; a problem names host and source, nobody else."""
    placed = place(
        settings=settings_of(classes=["all", "testing"]), **{source: {"cpacman": section}}
    )
    assert placed.problems[0].path.startswith(f"web1.fra: {source}.cpacman")


def test_all_problems_of_host_files_at_once(tmp_path: Path) -> None:
    """Every file and key that is wrong is named, with the nearest name."""
    with pytest.raises(ConfigError) as caught:
        hosts_files(
            tmp_path,
            a='"web*": {class: prodution}\n7: {class: testing}\n"b c": {}',
            b="x: {clas: testing}\ny: [1]\nz: {level: canry, transport: pigeon}",
            c="broken: [",
            d="- a list",
            e="w: {class: 3}\nv: {policy: [{lok: a}]}",
        )
    found = {one.path.removeprefix(f"{tmp_path}/hosts.d/"): one for one in caught.value.problems}
    assert set(found) == {
        "a.yaml: web*.class", "a.yaml: 7", "a.yaml: b c", "b.yaml: x.clas", "b.yaml: y",
        "b.yaml: z.transport", "c.yaml:1:10", "d.yaml", "e.yaml: w.class",
        "e.yaml: v.policy[0].lok",
    }  # fmt: skip
    assert "production" in found["a.yaml: web*.class"].mend
    assert "class" in found["b.yaml: x.clas"].mend


def test_an_id_twice_in_one_file(tmp_path: Path) -> None:
    """A key given twice is refused: YAML would drop the first."""
    with pytest.raises(ConfigError, match="twice"):
        hosts_files(tmp_path, a="w: {class: testing}\nw: {class: production}\n")


def test_files_that_would_be_overlooked(tmp_path: Path) -> None:
    """A `.yml` is refused, not skipped in silence; editors' leavings and empty files are fine."""
    folder = tmp_path / "hosts.d"
    folder.mkdir()
    for name in ("a.yaml~", ".b.yaml.swp", "README"):
        (folder / name).write_text("w: {class: nonsense}")
    (folder / "empty.yaml").write_text("# nobody yet\n")
    assert load_hosts_files(folder, settings_of()) == HostsFiles()
    (folder / "web.yml").write_text("w: {class: testing}")
    with pytest.raises(ConfigError, match=r"web\.yml"):
        load_hosts_files(folder, settings_of())


def test_missing_folder_counts_only_when_named(tmp_path: Path) -> None:
    """The default folder may be absent; one that is configured may not."""
    assert load_hosts_files(tmp_path / "no", settings_of()) == HostsFiles()
    named = settings_of(membership={"hosts_d": str(tmp_path / "no")})
    with pytest.raises(ConfigError):
        load_hosts_files(named.membership.hosts_d, named)


def host(name: str, class_: str, level: str = "rest", **meta: Any) -> Host:
    """Return a placed host."""
    return Host(id=name, channel="el9", class_=class_, level=level, meta=meta)


def test_selecting() -> None:
    """Class, level, channel and metadata narrow a selection; several names of one kind widen it."""
    hosts = (
        host("b", "testing", role="web"),
        host("a", "production", "canary", role="web"),
        host("c", "", role="db"),
    )

    def chosen(**given: Any) -> list[str]:
        selector = parse_selector(settings_of(), **given)
        return sorted(one.id for one in hosts if selector.selects(one))

    assert chosen(class_="testing") == ["b"]
    assert chosen(class_="testing,production") == ["a", "b"]
    assert chosen(class_=["production"], level="canary", meta="role:w*") == ["a"]
    assert chosen(channel="el8") == []
    assert chosen(meta=["role:web", "role:db"]) == ["a", "b", "c"]
    assert parse_selector(settings_of()).is_empty


def test_selecting_unknown_names() -> None:
    """Every name that does not exist is refused with the nearest; numbers must be quoted."""
    with pytest.raises(UsageError) as caught:
        parse_selector(
            settings_of(), class_="prodution", level=["canry"], channel=9, meta="role web"
        )
    found = {one.path: one.mend for one in caught.value.problems}
    assert "production" in found["class"] and "canary" in found["level"]
    assert "quote" in found["channel"] and "field" not in found["class"]
    assert "role:web" in found["meta"]
    with pytest.raises(UsageError):
        parse_selector(settings_of(), class_=" , ")


@pytest.mark.parametrize("name", ["web", "db"])
def test_example_pillar_is_understood(name: str) -> None:
    """What a user copies from pillar.example places a host without a problem."""
    pillar = yaml.safe_load((EXAMPLES / "cpacman" / f"{name}.sls").read_text())
    placed = place(pillar=pillar)
    assert placed.problems == ()
    assert placed.host.level == "rest"


def test_lines_come_from_every_place_the_widest_first(tmp_path: Path) -> None:
    """Lines of all six places are there, each with its path and how narrow that is."""
    line = {"exclude": "a"}
    settings = load_settings(
        {
            "channels": {
                "el9": {"repositories": {"r": {"path": "/r"}}, "policy": [line]},
                "other": {
                    "match": {"id": "x"},
                    "repositories": {"r": {"path": "/r"}},
                    "policy": [line],
                },
            },
            "classes": ["testing", {"production": {"policy": [line]}}],
            "levels": [{"canary": {"match": "ring:0", "policy": [line]}}, "rest"],
            "policy": [line, {**line, "scope": "ring:0"}],
        },
        source="test",
        base=tmp_path,
    )
    files = hosts_files(
        tmp_path,
        a="web1: {class: production, meta: {ring: 0}, policy: [{lock: b}]}\n"
        '"web*": {policy: [{lock: b}]}',
    )
    placed = place_host(
        "web1", settings=settings, hosts_files=files, pillar={}, grains={}, facts=Facts(id="el")
    )
    assert [(one.place, one.rank) for one in lines_for(settings, placed)] == [
        ("policy[0]", 0),
        ("policy[1]", 1),
        ("channels.el9.policy[0]", 2),
        ("classes[1].policy[0]", 4),
        ("levels[0].policy[0]", 6),
        ("hosts.d/a.yaml: web*.policy[0]", 8),
        ("hosts.d/a.yaml: web1.policy[0]", 10),
    ]
