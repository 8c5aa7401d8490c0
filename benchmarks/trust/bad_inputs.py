"""Give every command bad input, of every kind that its options and files allow.

    python benchmarks/trust/bad_inputs.py --out results/bad-inputs
    python benchmarks/trust/bad_inputs.py --out /tmp/some --every 10 --command train-classifier

tests/campaigns/bad_inputs.py has the cases and says what is right. The report is bad-inputs.json
with every case, and a table for people beside it, as .md.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.progress import track

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from release.results.result import environment  # noqa: E402 - run as a script, its tests are beside it
from tests.campaigns.bad_inputs import GOOD, VERDICTS_RIGHT, cases, try_case  # noqa: E402
from tests.command_server import CommandServer  # noqa: E402
from tests.sets.miniature import make_miniature  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="Folder of the report.")
    parser.add_argument("--every", type=int, default=1, help="Only each so many-th case.")
    parser.add_argument("--command", choices=GOOD, action="append", help="Only this one.")
    arguments = parser.parse_args()
    with CommandServer() as server, tempfile.TemporaryDirectory() as name:
        whole = Path(name) / "whole"
        make_miniature(server, whole)
        chosen = [c for c in cases(whole) if c.command in (arguments.command or GOOD)]
        chosen = chosen[:: arguments.every]
        rows = [try_case(server, whole, case) for case in track(chosen, "trying")]
    write_report(arguments.out, rows)
    wrong = [row for row in rows if row["verdict"] not in VERDICTS_RIGHT]
    print(json.dumps({"cases": len(rows), "wrong": len(wrong)}))
    raise SystemExit(1 if wrong else 0)


def write_report(out: Path, rows: Sequence[dict[str, Any]]) -> None:
    """bad-inputs.json with every case that ended wrong, and a table a person reads."""
    out.mkdir(parents=True, exist_ok=True)
    wrong = [row for row in rows if row["verdict"] not in VERDICTS_RIGHT]
    content = {"cases": len(rows), "wrong": wrong, "environment": environment(), "all": rows}
    (out / "bad-inputs.json").write_text(json.dumps(content, indent=1) + "\n")
    lines = [
        "# Bad input, given to the commands below",
        "",
        "Each case is a good command line with one option or one file wrong. Right is one line and",
        "exit code 2 (*one line*), the right result (*right*), or a fault named by a command that",
        "looks for faults (*found*), with every other file of the releases unchanged. Made by",
        "`benchmarks/trust/bad_inputs.py`; every case is in `bad-inputs.json`.",
        "",
        "| command | cases | one line | right | found | wrong |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for command in [*GOOD, None]:
        counts = Counter(r["verdict"] for r in rows if command in (r["command"], None))
        right = [counts[verdict] for verdict in VERDICTS_RIGHT]
        total = counts.total()
        cells = [command or "**all**", total, *right, total - sum(right)]
        lines += ["| " + " | ".join(map(str, cells)) + " |"] if total else []
    (out / "bad-inputs.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
