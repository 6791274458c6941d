"""`make bench`: run the benchmarks, print a table, write `build/bench.json`.

Each `bench_*.py` beside this file has `rows()`, which returns `{name, value, unit, baseline,
command}` dicts: `baseline` is what the same run measured of the thing compared with (or the
figure to reach), `command` repeats the row.
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
    """Run all parts, or the one that is named."""
    parts = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--only", choices=parts, help="run this part")
    only = parser.parse_args().only
    rows: list[dict[str, Any]] = []
    for part in [only] if only else parts:
        print(f"bench: {part}", file=sys.stderr)
        module = importlib.import_module(f"tests.bench.bench_{part}")
        rows += [{field: row[field] for field in FIELDS} for row in module.rows()]
    show(rows)
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(f"written: {TARGET.relative_to(HERE.parents[1])}")
    return 0


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
