"""What a run leaves behind, made up."""

import json
import math

from tokenloom.config import Config

BASELINES = {
    "unigram_nats_per_token": 7.18,
    "xz_bits_per_byte": 1.80,
    "zstd_bits_per_byte": 1.82,
    "unigram_bits_per_byte": None,
}
RECORDS = [
    {"step": 1, "tokens": 512, "epoch": 0.1, "seconds": 1.0, "train/loss": 9.781, "lr": 4e-4, "grad_norm": 2.5},
    {"step": 1, "tokens": 512, "epoch": 0.1, "seconds": 1.2, "val/loss": 9.933, "val/perplexity": 20599.1},
    {"step": 56, "tokens": 28672, "epoch": 6.2, "seconds": 60.0, "train/loss": 2.1, "val/loss": 6.134},
    {"step": 86, "tokens": 44032, "epoch": 9.6, "seconds": 90.0, "train/loss": 0.391, "val/loss": 6.452},
]


def records_of(steps, every=1, validation=True):
    records = []
    for step in range(every, steps + 1, every):
        seen = {"step": step, "tokens": step * 512, "epoch": step / 9, "seconds": step / 10}
        loss = 2 + 8 / step
        records.append({**seen, "train/loss": loss, "lr": 1e-3, "grad_norm": 1.0, "tokens_per_sec": 900, "mfu": None})
        if validation and step % (5 * every) == 0:
            bits = (loss + 1) / 3
            records.append({**seen, "val/loss": loss + 1, "val/perplexity": math.exp(loss), "val/bits_per_byte": bits})
    return records


def make_run(folder, *, samples=(), tail="", **files):
    folder.mkdir(exist_ok=True)
    (folder / "config.toml").write_text(Config().to_toml(), encoding="utf-8")
    lines = "".join(json.dumps(record) + "\n" for record in files.pop("records", RECORDS))
    (folder / "metrics.jsonl").write_text(lines + tail, encoding="utf-8")
    (folder / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples), encoding="utf-8")
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def sample(step, text, prompt="Every effort"):
    return {"step": step, "tokens": step * 512, "prompt": prompt, "text": text, "seed": 1}
