"""How much memory it takes to load a model, over the size of its weights: GPT-2's shapes, random weights.

python benchmarks/loading.py --preset gpt2-774m
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MEASURE = """
import sys, time, torch
from pathlib import Path
from tokenloom.weights.folder import read_folder
def peak():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) * 1024
before, started = peak(), time.perf_counter()
model = read_folder(Path(sys.argv[1])).read(getattr(torch, sys.argv[2]))
seconds = time.perf_counter() - started
weights = sum(p.numel() * p.element_size() for p in model.parameters())
print(f"{sys.argv[2]:9} weights {weights / 1e9:.3f} GB  peak {peak() / 1e9:.3f} GB ({peak() / weights:.3f}), "
      f"above the interpreter {(peak() - before) / weights:.3f}  in {seconds:.1f} s")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="gpt2-774m")
    preset = parser.parse_args().preset
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), preset)
        for dtype in ("float32", "bfloat16"):
            subprocess.run([sys.executable, "-c", MEASURE, folder, dtype], check=True)


def write(folder: Path, preset: str) -> None:
    from tokenloom.config import Config
    from tokenloom.config_files import read_preset
    from tokenloom.model.gpt2 import GPT2
    from tokenloom.weights.folder import write_folder

    started = time.perf_counter()
    config = Config.of(read_preset(preset)).model
    write_folder(folder, GPT2(config.model_copy(update={"vocab_size": config.vocab_size or 50257})), eot_id=0)
    print(f"{preset} written in {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
