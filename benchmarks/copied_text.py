"""How much of unseen text counts as copied, by the length of the shortest passage.

    python benchmarks/copied_text.py --tokenizer gpt2
    python benchmarks/copied_text.py python-docs --tokenizer gpt2

The last tenth of a corpus is compared with the rest. Prints a Markdown table.
"""

from __future__ import annotations

import argparse

from tokenloom.data.corpora import CORPUS_NAMES, PYTHON_DOCS, corpus_file, python_docs
from tokenloom.data.token_reader import TokenArray
from tokenloom.data.tokenizers import load_tokenizer
from tokenloom.evaluation.copied_text import TrainingText

LENGTHS = (20, 30, 40, 50)  # bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", nargs="?", default="tinyshakespeare", choices=CORPUS_NAMES)
    parser.add_argument("--tokenizer", default="gpt2", choices=("gpt2", "byte"))
    options = parser.parse_args()
    tokenizer = load_tokenizer(options.tokenizer)
    is_python = options.corpus == PYTHON_DOCS
    text = "\n".join(python_docs()) if is_python else corpus_file(options.corpus).read_text(encoding="utf-8")
    boundary = int(0.9 * len(text))
    seen, unseen = TokenArray(tokenizer.encode_array(text[:boundary])), text[boundary:]
    print("| bytes of the shortest passage | characters in passages |\n|---|---|")
    for length in LENGTHS:
        copied = TrainingText(seen, tokenizer, shortest_bytes=length).find_copied(unseen)
        print(f"| {length} | {copied.characters / len(unseen):.2%} |")


if __name__ == "__main__":
    main()
