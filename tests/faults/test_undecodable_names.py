"""Files and folders whose names are not UTF-8 work in every command."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from commands import TEXT
from hypothesis import example, given
from hypothesis import strategies as st

from tokenloom.cli.main import main
from tokenloom.config import Config
from tokenloom.config_files import dump_toml, read_toml
from tokenloom.data.shards import open_shards
from tokenloom.run_folder import RunFolder

SHORT = ["--train.max-steps", "2", "--model.family", "gpt2", "--model.n-layer", "1", "--model.n-head", "2",
         "--model.n-embd", "16", "--model.block-size", "8", "--train.batch-size", "2", "--tokenizer", "bpe:300",
         "--sample.max-new-tokens", "0"]  # fmt: skip
NAME = os.fsdecode(b"caf\xe9")


def run(*arguments: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 0


@pytest.mark.skipif(sys.platform != "linux", reason="names are UTF-8 on this platform")
def test_every_command_accepts_undecodable_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOKENLOOM_CACHE", str(tmp_path / "cache"))
    text, shards, model = f"{NAME}.txt", f"shards {NAME}", f"run {NAME}"
    Path(text).write_text(TEXT)
    for _ in range(2):
        run("prepare", text, "--out", shards, "--tokenizer", "byte")
    assert "already prepared" in capsys.readouterr().out
    assert [source.name for source in open_shards(shards).meta.sources] == [text]

    run("train", text, *SHORT, "--out", model)
    assert RunFolder(Path(model)).config().data.sources == (text,)
    run("train", "--resume", model, "--train.max-steps", "4")
    run("prepare", text, "--out", f"more {NAME}", "--tokenizer", f"{shards}/tokenizer")
    run("evaluate", model, text)
    run("inspect", model, text)
    run("compare", model, f"{model}@best", text)
    run("generate", model, "--prompt", "all", "--max-new-tokens", "3")
    for kind, suffix in (("hf", ""), ("gguf", ".gguf"), ("pth", ".pth"), ("book", ".pth")):
        run("export", model, f"{kind} {NAME}{suffix}", "--format", kind)
    capsys.readouterr()
    losses = []
    for reference in (model, f"hf {NAME}", f"gguf {NAME}.gguf"):
        run("evaluate", reference, text, "--json")
        losses.append(json.loads(capsys.readouterr().out)["loss"])
    assert losses == pytest.approx([losses[0]] * 3)
    assert "caf\\udce9.txt" in Path(f"hf {NAME}", "README.md").read_text(encoding="utf-8")


@given(st.text(st.sampled_from("\udc80\udce9\udcffé\\u05cdé9 dc"), max_size=12))
@example("\udce9\\udce9\\u005c\\\udcff")
def test_a_configuration_restores_every_file_name(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    file = tmp_path_factory.getbasetemp() / "config.toml"
    sections = {"data": {"sources": [name], "tokenizer": name}}
    file.write_text(dump_toml(sections), encoding="utf-8")
    assert read_toml(file) == sections


def test_a_configuration_with_an_undecodable_name_is_valid_toml() -> None:
    text = Config.of({"data": {"sources": (f"{NAME}.txt", r"C:\users\udc")}}).to_toml()
    assert r"'caf\udce9.txt'" in text or r'"caf\\udce9.txt"' in text
    assert text.encode("utf-8")
