"""The chapter's training loop, ours and the book's own code in turn, each in a process of its own.

python benchmarks/chapter5.py --epochs 2 --rounds 1
Needs the book's package: pip install --no-deps llms-from-scratch==1.0.19
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

RUN = """
import sys, time, torch
from tokenloom import book
from tokenloom.data.corpora import corpus_file
from tokenloom.book.figures import SETTINGS, START
encoding = book.get_encoding("gpt2")
if sys.argv[1] == "book":
    import tiktoken
    tiktoken.get_encoding = lambda name: encoding  # without a download
    from llms_from_scratch.ch02 import create_dataloader_v1
    from llms_from_scratch.ch04 import GPTModel
    from llms_from_scratch.ch05 import train_model_simple
else:
    from tokenloom.book import GPTModel, create_dataloader_v1, train_model_simple
text = corpus_file("the-verdict").read_text(encoding="utf-8")
cut = int(0.9 * len(text))
sizes = {"batch_size": 2, "max_length": 256, "stride": 256, "num_workers": 0}
torch.manual_seed(123)
train = create_dataloader_v1(text[:cut], drop_last=True, shuffle=True, **sizes)
val = create_dataloader_v1(text[cut:], drop_last=False, shuffle=False, **sizes)
torch.manual_seed(123)
model = GPTModel(SETTINGS)
optimizer = torch.optim.AdamW(model.parameters(), lr=4e-4, weight_decay=0.1)
started = time.perf_counter()
train_model_simple(model, train, val, optimizer, "cpu", int(sys.argv[2]), 5, 5, START, encoding)
print(time.perf_counter() - started)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {"tokenloom": [], "book": []}
    for _ in range(options.rounds):
        printed = {who: run(who, options.epochs) for who in seconds}
        assert printed["tokenloom"][:-1] == printed["book"][:-1], "the two print different lines"
        for who, lines in printed.items():
            seconds[who].append(float(lines[-1]))
            print(f"{who:10} {seconds[who][-1]:.0f} s", flush=True)
    ours, theirs = (statistics.median(times) for times in seconds.values())
    print(f"medians {ours:.0f} s and {theirs:.0f} s: {ours / theirs:.2f} of the book's time, the same lines printed")


def run(who: str, epochs: int) -> list[str]:
    done = subprocess.run([sys.executable, "-c", RUN, who, str(epochs)], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


if __name__ == "__main__":
    main()
