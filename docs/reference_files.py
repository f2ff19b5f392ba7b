"""The page of the file formats: the folder of a run, its records, checkpoints, and token shards."""

from __future__ import annotations

import inspect
import re
from types import ModuleType

from reference_text import code, field_docs, fields_table, plain, table, types_of

from tokenloom import run_folder
from tokenloom.data import shards
from tokenloom.data.shards_meta import ShardRecord, ShardsMeta, SourceMeta, SplitMeta, TokenizerMeta
from tokenloom.metrics import METRICS, MetricsRecord
from tokenloom.run_records import Baselines, RunIdentity, RunPlan, RunSummary, SampleRecord
from tokenloom.tuning import folder as search_folder
from tokenloom.weights import checkpoint

INTRODUCTION = """\
# File formats

All of them are text, JSON, safetensors or arrays of integers; none is a pickle. A file that would be useless if half of
it were missing is replaced in one step, so that after a crash there is the old version or the new one. In JSON, a
number that is not finite is `null`.

## The folder of a run
"""
RECORDS = {
    "identity.json": RunIdentity,
    "plan.json": RunPlan,
    "baselines.json": Baselines,
    "samples.jsonl": SampleRecord,
    "summary.json": RunSummary,
}
CHECKPOINT_FILES = (
    ("config.json", "shape of the model, as transformers reads it"),
    ("model.safetensors", "weights in fp32, under the names of transformers"),
    ("tokenizer.json and others", "the tokenizer, in the format of Hugging Face"),
    (
        checkpoint.OPTIMIZER,
        "optimizer state; not in the checkpoints best-…, from which no run is resumed",
    ),
    (checkpoint.STATE, "step and counters, and the environment: versions, device, precision, threads, processes"),
    (checkpoint.MANIFEST, "size and sha256 of every other file; written last"),
)


def page() -> str:
    parts = [INTRODUCTION, f"```text\n{_layout(run_folder)}\n```\n"]
    parts.append("`config.toml` has the settings of the [configuration](configuration.md).\n")
    parts += ["### metrics.jsonl\n", _text(MetricsRecord), _metrics_table() + "\n"]
    for file, kind in RECORDS.items():
        parts += [f"### {file}\n", _text(kind), fields_table(kind) + "\n"]
    parts += ["## Checkpoints\n", _introduction(checkpoint)]
    parts.append(table(("file", "content"), [(code(name), text) for name, text in CHECKPOINT_FILES]) + "\n")
    parts.append("A checkpoint is also a folder that `transformers.AutoModelForCausalLM.from_pretrained` opens.\n")
    parts += ["## The folder of a search\n", f"```text\n{_layout(search_folder)}\n```\n"]
    parts += ["## Token shards\n", f"```text\n{_layout(shards)}\n```\n"]
    for kind in (ShardsMeta, SourceMeta, TokenizerMeta, SplitMeta, ShardRecord):
        parts += [f"### {kind.__name__}\n", _text(kind), fields_table(kind) + "\n"]
    return "\n".join(parts)


def _metrics_table() -> str:
    docs, types = field_docs(MetricsRecord), types_of(MetricsRecord)
    rows = [
        (
            code(metric.key),
            code(types[metric.field].partition(" ")[0]),
            metric.label,
            metric.unit,
            plain(docs[metric.field]),
        )
        for metric in METRICS.values()
    ]
    return table(("key", "type", "quantity", "unit", "meaning"), rows)


def _layout(module: ModuleType) -> str:
    """The lines of a module's docstring that show files."""
    lines = inspect.cleandoc(module.__doc__ or "").splitlines()
    return "\n".join(line.strip() for line in lines if re.match(r"\s*[A-Z]+/", line))


def _introduction(module: ModuleType) -> str:
    return f"{plain(inspect.cleandoc(module.__doc__ or ''))}\n"


def _text(kind: type) -> str:
    return f"{plain(inspect.getdoc(kind) or '')}\n"
