"""One text gives the same bytes, tokens and words, however it reaches a command."""

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tokenloom import api
from tokenloom.cli.main import main
from tokenloom.data.shards import shards_of_run

TEXT = "one\u00a0two\nthree\u3000fou\nr\n"
CONTENT = b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n", 2).replace("r\n", "r\r").encode()
SMALL = {
    "model": {"n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 8},
    "train": {"max_steps": 1, "batch_size": 1},
    "sample": {"max_new_tokens": 0},
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    workspace = tmp_path_factory.mktemp("doors")
    (workspace / "text.txt").write_bytes(CONTENT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKENLOOM_CACHE", str(workspace / "cache"))
        patch.chdir(workspace)
        settings = SMALL | {"data": {"val_fraction": 0.5}}
        Path("long.txt").write_text("all work and no play " * 20)
        api.train("long.txt", out="run", tokenizer="byte", settings=settings, quiet=True)
        Path("twice.txt").write_bytes(CONTENT * 40)
    return workspace


@pytest.fixture
def run(workspace, monkeypatch, capfd):
    """Runs a command and returns the object that it prints."""
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("TOKENLOOM_CACHE", str(workspace / "cache"))

    def run_command(*argv: str, stdin: bytes = CONTENT) -> dict:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(stdin), isatty=lambda: False))
        with pytest.raises(SystemExit) as exit_info:
            main([*argv, "--json"])
        captured = capfd.readouterr()
        assert exit_info.value.code == 0, captured.err
        return json.loads(captured.out)

    return run_command


def test_every_command_counts_the_same_bytes(run, tmp_path):
    length = len(TEXT.encode())
    for source in ("text.txt", "-"):
        prepared = run("prepare", source, "--tokenizer", "byte", "--val-fraction", "0", "--out", str(tmp_path / source))
        assert prepared["train"]["bytes"] == length
        assert run("evaluate", "run", source)["baselines"]["val_bytes"] == length
        assert run("inspect", "run", source)["scored_bytes"] == length - 1
        assert run("compare", "run", "run", source)["models"][0]["scored_bytes"] == length - 1
    assert run("inspect", "run", "--text", CONTENT.decode())["scored_bytes"] == length - 1
    assert run("generate", "run", "--prompt", "-", "--max-new-tokens", "1")["prompt"] == TEXT
    assert run("generate", "run", "--prompt", CONTENT.decode(), "--max-new-tokens", "1")["prompt"] == TEXT


def test_word_perplexity_is_the_same_for_a_file_standard_input_and_the_validation_text(run, workspace, tmp_path):
    out = tmp_path / "run"
    settings = {**SMALL, "data": {"val_fraction": 0.5}}
    parts = [workspace / f"{number}.txt" for number in range(12)]  # documents that end without white space
    for number, part in enumerate(parts):
        part.write_text(f"zero one\u00a0{number}\u3000three")
    api.train(*parts, out=out, tokenizer="byte", settings=settings, quiet=True)
    shards = shards_of_run(api.RunFolder(out))
    assert shards is not None
    texts = shards.tokenizer.decode_bytes(shards.val.read(0, len(shards.val))).decode().split("<|endoftext|>")
    held_out = [part for part in parts if part.read_text() in texts]
    by_name = run("evaluate", str(out), *map(str, held_out))
    assert run("evaluate", str(out))["word_perplexity"] == pytest.approx(by_name["word_perplexity"])
    [only] = held_out[:1]
    assert (
        run("evaluate", str(out), str(only))["word_perplexity"]
        == run("evaluate", str(out), "-", stdin=only.read_bytes())["word_perplexity"]
    )


def test_compare_cuts_words_where_word_perplexity_counts_them(run):
    words = [word["word"] for word in run("compare", "run", "run", "--text", "a b\u00a0c\u3000d", stdin=b"")["words"]]
    assert sorted(words) == ["b", "c", "d"]  # the first token, a, is not predicted


@pytest.mark.parametrize("value", ["-", "- item", "--- title"])
def test_a_dash_is_a_text_where_standard_input_has_no_meaning(run, value):
    stopped = run("generate", "run", "--prompt", "x", "--stop", value, "--max-new-tokens", "1", "--seed", "1")
    assert stopped["prompt"] == "x"
    scored = run("inspect", "run", "--text", f"{value}!")
    assert scored["first"]["text"] == "-"
    if value != "-":
        assert run("generate", "run", "--prompt", value, "--max-new-tokens", "1")["prompt"] == value


def test_a_folder_after_an_equals_sign_is_in_the_home_folder(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    run("prepare", "long.txt", "--tokenizer", "byte", "--out=~/shards")
    run("export", "run", "~/model.pth")
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".")) == ["model.pth", "shards"]
    assert not Path("~").exists()
