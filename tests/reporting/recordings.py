"""Invented records of a run, and run folders that hold them."""

import json
import math
from dataclasses import asdict

from tokenloom.config import Config
from tokenloom.metrics import MetricsRecord
from tokenloom.run_folder import RunFolder
from tokenloom.run_records import Baselines, SampleRecord

BASELINES = Baselines(unigram_nats_per_token=7.18, xz_bits_per_byte=1.80, zstd_bits_per_byte=1.82)
RECORDS = [
    MetricsRecord(step=1, tokens=512, epoch=0.1, seconds=1.0, train_loss=9.781, lr=4e-4, grad_norm=2.5),
    MetricsRecord(step=1, tokens=512, epoch=0.1, seconds=1.2, val_loss=9.933, val_perplexity=20599.1),
    MetricsRecord(step=56, tokens=28672, epoch=6.2, seconds=60.0, train_loss=2.1, val_loss=6.134),
    MetricsRecord(step=86, tokens=44032, epoch=9.6, seconds=90.0, train_loss=0.391, val_loss=6.452),
]


def record(step, **values):
    return MetricsRecord(step=step, tokens=step * 512, epoch=step / 9, seconds=step / 10, **values)


def records_of(steps, every=1, validation=True):
    records = []
    for step in range(every, steps + 1, every):
        loss = 2 + 8 / step
        records.append(record(step, train_loss=loss, lr=1e-3, grad_norm=1.0, tokens_per_sec=900))
        if validation and step % (5 * every) == 0:
            bits = (loss + 1) / 3
            records.append(record(step, val_loss=loss + 1, val_perplexity=math.exp(loss), val_bits_per_byte=bits))
    return records


def make_run(path, *, records=RECORDS, samples=(), tail="", summary=None, baselines=None, config=None):
    """A run folder; `tail` is appended to its metrics file."""
    path.mkdir(exist_ok=True)
    run = RunFolder(path)
    run.write_config(config or Config())
    run.metrics_file.write_text("".join(json.dumps(r.to_json()) + "\n" for r in records) + tail, encoding="utf-8")
    run.samples_file.write_text("".join(json.dumps(asdict(s)) + "\n" for s in samples), encoding="utf-8")
    if summary:
        run.write_summary(summary)
    if baselines:
        run.write_baselines(baselines)
    return path


def sample(step, text, prompt="Every effort", seed=1):
    return SampleRecord(step=step, tokens=step * 512, prompt=prompt, text=text, seed=seed)
