"""The quality table: every strategy on several data sets, few samples and many, over several seeds.

    python tests/quality/table.py --sets digits,mnist,emoji,spam --seeds 5 --shots 5,16,50,all --strategies all \\
        --out quality.jsonl
    python tests/quality/table.py --report quality.jsonl

Each cell (set, seed, shots, strategy) becomes one line of the file and is skipped where it stands there with the same
options: stop it when you like, and start it again. A strategy with other options is another row of the table:
`--strategies full@backbone_learning_rate=5e-4`. `--again lora,ewc` measures strategies anew whose code has changed.
`--part 1/2` and `--part 2/2` share the work between two processes, which may write the same file.

What is compared, and what is not: see plans.py (options, equal budgets) and sets.py (data, sizes, splits). Rates are
the strategies' own defaults, for MiniLM a tenth of them: nothing is tuned for a set, for none of them. The row
`default` is what a user gets who names nothing: section finetune of params.yaml with what `python -m pipelines new`
plans for so many samples; its policy (section augment) is not in it.
A line bears a digest of all that decides it beside the code; where that has changed, the cell is measured anew.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

SETS, SHOTS, ALL = "digits,mnist,emoji,spam", "5,16,50,all", "all"


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default=SETS, help=f"of {SETS}")
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 0")
    parser.add_argument("--shots", default=SHOTS, help="training samples a label; all: what there is, with a cap")
    parser.add_argument("--strategies", default=ALL, help="names with commas, or all; NAME@OPTION=VALUE")
    parser.add_argument("--out", type=Path, help="file of lines that is read and added to")
    parser.add_argument("--again", default="", help="strategies that are measured though they stand there")
    parser.add_argument("--part", default="1/1", help="which share of the cells, as 1/2")
    parser.add_argument("--place", type=Path, default=Path(".graftline/quality"), help="folder for data and caches")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument("--report", type=Path, metavar="FILE", help="print the table of a file instead")
    given = parser.parse_args()
    if given.report:
        from quality import figures

        if not given.report.is_file():
            parser.error(f"--report: {given.report} is not there")
        print(figures.page(given.report))
        return 0
    if given.threads < 1:
        parser.error(f"--threads: give 1 or more, not {given.threads}")
    if not given.out:
        parser.error("--out FILE.jsonl says where the lines are kept")
    return run(given)


def run(given: argparse.Namespace) -> int:
    """Measure."""
    from components.params import Run
    from pipelines.stage import pin

    pin(Run(name="quality", seed=0, task="image_classification", decision="single_label", device="cpu",
            threads=given.threads, instruction_set="native"))  # fmt: skip
    from quality import cells, plans

    from components import plugins

    names, shots, again = (text.split(",") for text in (given.sets, given.shots, given.again))
    strategies = given.strategies.split(",")
    if given.strategies == ALL:
        strategies = [plans.DEFAULT, *plugins.names("finetune.strategies")]
    again = [one for one in again if one]
    wrong = plans.mistakes(names, given.seeds, shots, strategies, again)
    try:
        number, of = plans.part(given.part)
    except ValueError as problem:
        wrong.append(str(problem))
    if wrong:
        print("\n".join(wrong), file=sys.stderr)
        return 2
    todo = plans.planned(names, given.seeds, shots, strategies)[number - 1 :: of]
    bench = cells.Bench(given.place.resolve(), given.threads)
    return int(cells.run_all(bench, todo, given.out, again) > 0)


if __name__ == "__main__":
    sys.exit(main())
