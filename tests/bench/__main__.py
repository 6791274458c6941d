"""`make bench`: run the benchmarks, print a table, write `build/bench.json`.

Each `bench_*.py` beside this file has `rows()`, which returns `{name, value, unit, baseline,
command}` dicts: `baseline` is what the same run measured of the thing compared with (or the
figure to reach), `command` repeats the row. One that takes long has `PARTS`, which `rows` takes;
rows of a part take the place of what the file had under their names.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TARGET = HERE.parents[1] / "build" / "bench.json"
FIELDS = ("name", "value", "unit", "baseline", "command")


def main() -> int:
    """Run all benchmarks, or the one that is named, or parts of it."""
    known = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--only", choices=known, help="run this one")
    parser.add_argument("--parts", help="run these parts of it")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in [options.only] if options.only else known:
        print(f"bench: {name}", file=sys.stderr)
        module = importlib.import_module(f"tests.bench.bench_{name}")
        parts = [chosen(parser, module, options.parts)] if options.parts else []
        rows += [{field: row[field] for field in FIELDS} for row in module.rows(*parts)]
    show(rows)
    write(rows, keep=bool(options.parts))
    print(f"written: {TARGET.relative_to(HERE.parents[1])}")
    return 0


def chosen(parser: argparse.ArgumentParser, module: Any, text: str) -> list[str]:
    """Return the parts that are named, or end with the mend."""
    known = getattr(module, "PARTS", ())
    parts = text.split(",")
    if not set(parts) <= set(known):
        parser.error(f"--parts is for one benchmark (--only), which has {', '.join(known) or None}")
    return parts


def write(rows: list[dict[str, Any]], *, keep: bool) -> None:
    """Write the rows, or put them in the place of those of the same name."""
    TARGET.parent.mkdir(exist_ok=True)
    names = {row["name"] for row in rows}
    if keep and TARGET.exists():
        before = json.loads(TARGET.read_text(encoding="utf-8"))
        rows = [*(row for row in before if row["name"] not in names), *rows]
    TARGET.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def show(rows: list[dict[str, Any]]) -> None:
    """Print the rows as columns."""
    cells = [("name", "value", "unit", "baseline")]
    cells += [(r["name"], number(r["value"]), r["unit"], number(r["baseline"])) for r in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(4)]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))


def number(value: Any) -> str:
    """A figure with three digits that count."""
    return f"{value:.3g}" if isinstance(value, float) else str(value if value is not None else "-")


if __name__ == "__main__":
    sys.exit(main())
