"""Tokenizers are saved, loaded by name or path, and refused with a reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizer_samples import KINDS, TRAINING_TEXT, tokenizer

from tokenloom.data.tokenizers import load_tokenizer, make_tokenizer
from tokenloom.errors import TokenizerError


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_tokenizer_is_loaded_as_the_same_kind(kind: str, tmp_path: Path) -> None:
    it = tokenizer(kind)
    it.save(tmp_path / "saved")
    loaded = load_tokenizer(tmp_path / "saved")
    assert type(loaded) is type(it)
    assert (loaded.kind, loaded.fingerprint, loaded.eot_id) == (it.kind, it.fingerprint, it.eot_id)
    assert loaded.token_bytes == it.token_bytes
    text = f"A fine day, {it.eot_text} Ångström \x00 中\r\n"
    assert loaded.encode(text) == it.encode(text)
    loaded.save(tmp_path / "again")
    assert load_tokenizer(tmp_path / "again").fingerprint == it.fingerprint


@pytest.mark.parametrize("model_type", [None, "gpt2"])
@pytest.mark.parametrize("kind", KINDS)
def test_transformers_loads_a_saved_tokenizer_with_the_same_ids(
    kind: str, model_type: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from transformers import AutoTokenizer

    it = tokenizer(kind)
    it.save(tmp_path)
    if model_type:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.eos_token_id == it.eot_id
    texts = ["", " a  b\t\n\n c", "Ångström 中文 👩\u200d🚀", "\x00\x01\r\n\x7f", f"x {it.eot_text} y", TRAINING_TEXT]
    texts += ["it 's do n't , . ! \ufeff", "".join(map(chr, range(1, 600)))]
    for text in texts:
        ids = loaded.encode(text, add_special_tokens=False)
        assert ids == it.encode(text), text
        assert loaded.decode(ids) == text


def test_transformers_gpt2_folder_is_recognised_as_gpt2(tmp_path: Path) -> None:
    gpt2 = load_tokenizer("gpt2")
    gpt2.save(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    assert load_tokenizer(tmp_path) is gpt2
    assert load_tokenizer(tmp_path / "tokenizer.json") is gpt2


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("bpe:10", "bpe:10 is too small: the 256 bytes and <|endoftext|> are 257 tokens. Try bpe:2048."),
        ("bpe:256", "too small"),
        ("bpe", 'tokenizer "bpe" needs a number of tokens. Write it as bpe:2048.'),
        ("bpe:many", "needs a number"),
        ("bpe:-5", "needs a number"),
        ("gtp2", "Did you mean gpt2?"),
        ("GPT-4", 'there is no tokenizer "GPT-4"'),
        ("", 'there is no tokenizer ""'),
        ("no/such/tokenizer.json", "there is no tokenizer"),
    ],
)
def test_an_invalid_spec_is_refused_with_a_suggestion(spec: str, message: str) -> None:
    with pytest.raises(TokenizerError) as caught:
        make_tokenizer(spec, ["text"])
    assert message in str(caught.value)


def test_a_tokenizer_that_needs_training_is_not_loaded_by_name() -> None:
    for name in ("char", "bpe:2048"):
        with pytest.raises(TokenizerError, match="is trained on text"):
            load_tokenizer(name)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"has no tokenizer\.json"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"{}", b'{"model": 1}', b'{"model": {"type": "BPE"}}'])
@pytest.mark.parametrize("kind", [None, "bpe", "char", "json", "other", 7])
def test_a_corrupt_tokenizer_file_is_refused(content: bytes, kind: str | None, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    if kind:
        config = {"tokenloom": {"kind": kind, "fingerprint": "0"}}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)


def test_a_modified_tokenizer_file_is_refused(tmp_path: Path) -> None:
    tokenizer("bpe:400").save(tmp_path)
    file = tmp_path / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["model"]["merges"].pop()
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(TokenizerError, match="fingerprint differs"):
        load_tokenizer(tmp_path)
