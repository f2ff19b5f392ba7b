"""How many tokens per second several processes train on, compared with one process that uses the same cores.

    python benchmarks/ranks.py book.txt --processes 2 --rounds 5

Each round trains the same steps with one process of several threads, and with several processes of one thread each, in
turn, through torchrun. Prints the medians, and the median of the ratios. The machine should do nothing else.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tokenloom.run_folder import RunFolder


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--processes", type=int, default=2, help="each with one thread")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--preset", default="modern-xs")
    parser.add_argument("--strategy", default="ddp")
    options = parser.parse_args(arguments)
    rounds = [
        (trained(options, processes=1), trained(options, processes=options.processes)) for _ in range(options.rounds)
    ]
    single, several = (statistics.median(rates) for rates in zip(*rounds, strict=True))
    ratio = statistics.median(after / before for before, after in rounds)
    print(f"1 process with {options.processes} threads: {single:,.0f} tokens/s")
    print(f"{options.processes} processes ({options.strategy}): {several:,.0f} tokens/s, {ratio:.2f} times as many")


def trained(options: argparse.Namespace, processes: int) -> float:
    """Tokens per second of a run, the median of its records."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        steps = ["--train.max-steps", str(options.steps), "--train.log-interval", "5"]
        steps += ["--train.eval-interval", str(options.steps), "--sample.max-new-tokens", "0", "--no-compile"]
        subprocess.run(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)),
                *("-m", "tokenloom", "train", str(options.text), "--out", str(out), "--preset", options.preset),
                *("--device", "cpu", "--strategy", options.strategy, *steps),
            ],
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": str(options.processes // processes)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        summary = RunFolder(out).summary()
    assert summary is not None
    assert summary.tokens_per_sec is not None
    return summary.tokens_per_sec


if __name__ == "__main__":
    main()
