"""lm-evaluation-harness through the server equals it on the exported model, and `tokenloom evaluate` on one window.

It is not among the development dependencies, because it needs forty packages: `pip install "lm_eval[api,hf]"`, then
`pytest -m slow tests/serving/test_lm_eval.py`.
"""

import json
import math
from pathlib import Path

import pytest
from small_runs import CONTEXT, random_model, save_run

import tokenloom as tl
from tokenloom.weights.load import load

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TEXTS = [
    "The sea was calm.",
    "née, naïve, 🚢 and other words " * 9,
    "A",
    "".join(f"line {number}\n" for number in range(60)),
    "It was the best of times, it was the worst of times, it was the age of wisdom.",
]
QUESTIONS = [
    {
        "question": f"{text[:50]} and then",
        "choices": [" the end", " more", " nothing at all <|endoftext|>"],
        "answer": 0,
    }
    for text in TEXTS
]
TASKS = {
    "texts": """
task: texts
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list:
  - metric: word_perplexity
""",
    "questions": """
task: questions
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
doc_to_choice: "{{choices}}"
target_delimiter: ""
metric_list:
  - metric: acc
""",
}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory) -> Path:
    """Two tasks made from local files: the likelihood of whole texts, and of answers to questions."""
    folder = tmp_path_factory.mktemp("tasks")
    for name, rows in (("texts", [{"text": text} for text in TEXTS]), ("questions", QUESTIONS)):
        data = folder / f"{name}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        dataset = f"dataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {data}\ntest_split: test\n"
        (folder / f"{name}.yaml").write_text(dataset + TASKS[name])
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return save_run(tmp_path_factory.mktemp("lm-eval") / "story", random_model())


def log_likelihoods(backend: str, arguments: dict[str, object], tasks: Path) -> dict[str, list[float]]:
    """The log-likelihoods of every text and every answer, in the order of the files."""
    lm_eval = pytest.importorskip("lm_eval", reason="lm_eval is not installed")
    from lm_eval.tasks import TaskManager

    results = lm_eval.simple_evaluate(
        model=backend,
        model_args=arguments,
        tasks=list(TASKS),
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        log_samples=True,
        bootstrap_iters=0,
        device="cpu",
    )
    values: dict[str, list[float]] = {}
    for task, samples in results["samples"].items():
        samples = sorted(samples, key=lambda sample: sample["doc_id"])
        values[task] = [value for sample in samples for value in numbers(sample["resps"])]
    return values


def numbers(responses: object) -> list[float]:
    """Log-likelihoods from nested lists; in a pair with whether the answer is greedy, that is left out."""
    if isinstance(responses, list | tuple):
        return [value for response in responses for value in numbers(response)]
    return [] if isinstance(responses, bool) else [float(responses)]


@pytest.mark.filterwarnings("default")
def test_log_likelihoods_equal_those_of_the_exported_model_and_of_evaluate(run, tasks, server_of, tmp_path):
    tl.export(run, tmp_path / "hf")
    with server_of(run.parent) as server:
        arguments = {
            "base_url": f"{server.url}/v1/completions",
            "model": "story",
            "tokenizer_backend": "remote",
            "max_length": CONTEXT + 1,
            "num_concurrent": 4,
        }
        served = log_likelihoods("local-completions", arguments, tasks)
    exported = log_likelihoods(
        "hf", {"pretrained": str(tmp_path / "hf"), "max_length": CONTEXT - 1, "dtype": "float32"}, tasks
    )
    assert {task: len(values) for task, values in served.items()} == {"texts": len(TEXTS), "questions": 3 * len(TEXTS)}
    for task in TASKS:
        assert served[task] == pytest.approx(exported[task], abs=1e-3)
    # Text that fits in one window; lm-eval also scores the first token, after the end-of-text token.
    text = "<|endoftext|>" + TEXTS[0]
    (tmp_path / "text.txt").write_text(text)
    evaluation = tl.evaluate(load(run), tmp_path / "text.txt", quiet=True)
    assert evaluation.tokens == len(TEXTS[0])
    assert served["texts"][0] == pytest.approx(-evaluation.nats, abs=1e-3)
    assert math.isfinite(sum(served["texts"]))
