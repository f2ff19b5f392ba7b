"""GPT-2 tokens equal those of independent implementations; trained BPE is deterministic."""

from __future__ import annotations

import gzip
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from tokenizer_samples import TEXT, TRAINING_TEXT, TRICKY, tokenizer

from tokenloom.data.tokenizers import ENDOFTEXT, load_tokenizer, make_tokenizer
from tokenloom.data.tokenizers.bpe import BYTE_TO_CHARACTER, GPT2_BYTE_ORDER, GPT2_PATTERN
from tokenloom.data.tokenizers.chunking import MAX_CHUNK_CHARACTERS


def test_known_ids_of_gpt2(verdict: str) -> None:
    gpt2 = load_tokenizer("gpt2")
    assert (gpt2.kind, gpt2.vocab_size, gpt2.eot_id) == ("gpt2", 50257, 50256)
    assert gpt2.encode("Every effort moves you") == [6109, 3626, 6100, 345]
    assert gpt2.encode(ENDOFTEXT) == [50256]
    assert (len(verdict), len(gpt2.encode(verdict))) == (20_479, 5_145)
    assert [len(gpt2.encode(part)) for part in (verdict[:18_431], verdict[18_431:])] == [4_612, 534]


@cache
def _references() -> tuple:
    """GPT-2 from the merge list, built with `tokenizers` and with tiktoken, without any code of tokenloom."""
    from importlib import resources

    import tiktoken
    from tokenizers import Tokenizer as Core
    from tokenizers import decoders, models, pre_tokenizers

    packed = resources.files("tokenloom.data").joinpath("assets/gpt2-vocab.bpe.gz").read_bytes()
    merges = [tuple(line.split()) for line in gzip.decompress(packed).decode("utf-8").split("\n")[1:-1]]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet(), key=lambda c: (ord(c) >= 256, ord(c)))
    vocabulary = {token: i for i, token in enumerate([*alphabet, *("".join(merge) for merge in merges)])}
    core = Core(models.BPE(vocabulary, merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    core.decoder = decoders.ByteLevel()  # type: ignore[assignment]

    printable = [b for b in range(256) if chr(b).isprintable() and chr(b) != " "]
    byte_of = {chr(b): b for b in printable}
    byte_of |= {chr(256 + i): b for i, b in enumerate(b for b in range(256) if b not in printable)}
    ranks = {bytes(byte_of[c] for c in token): i for token, i in vocabulary.items()}
    published_pattern = r"""'s|'t|'re|'ve|'m|'ll|'d| ?[\p{L}]+| ?[\p{N}]+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
    encoding = tiktoken.Encoding(
        "reference",
        pat_str=published_pattern,
        mergeable_ranks=ranks,
        special_tokens={ENDOFTEXT: 50256},
        explicit_n_vocab=50257,
    )
    return core, encoding


@pytest.mark.parametrize("character", [" ", "\n", "e", "5", "=", "中"])
def test_gpt2_gives_the_reference_ids_of_runs_as_long_as_a_chunk(character: str) -> None:
    core, _ = _references()
    text = character * (MAX_CHUNK_CHARACTERS - 10) + "word"
    expected = core.encode_batch_fast([text], add_special_tokens=False)[0].ids
    assert load_tokenizer("gpt2").encode(text) == expected


@settings(max_examples=1_000, suppress_health_check=list(HealthCheck))
@given(text=TEXT | TRICKY)
def test_gpt2_ids_equal_independent_references(text: str) -> None:
    assert_ids_of_references(text)


@pytest.mark.slow
@settings(max_examples=10_000, suppress_health_check=list(HealthCheck))
@given(text=TEXT | TRICKY)
def test_gpt2_ids_of_many_texts_equal_independent_references(text: str) -> None:
    assert_ids_of_references(text)


def assert_ids_of_references(text: str) -> None:
    core, encoding = _references()
    gpt2 = load_tokenizer("gpt2")
    ids = gpt2.encode(text, "text")
    assert ids == core.encode(text).ids
    assert ids == encoding.encode_ordinary(text)
    assert gpt2.encode(text) == encoding.encode(text, allowed_special={ENDOFTEXT})


def test_gpt2_ids_of_whole_texts_equal_independent_references(texts_folder: Path) -> None:
    core, encoding = _references()
    gpt2 = load_tokenizer("gpt2")
    for file in sorted(texts_folder.iterdir()):
        text = file.read_bytes().decode("utf-8")
        assert gpt2.encode(text) == core.encode(text).ids == encoding.encode_ordinary(text), file.name


def test_the_pattern_is_the_one_that_tiktoken_publishes() -> None:
    from tiktoken_ext import openai_public

    assert openai_public.r50k_pat_str == GPT2_PATTERN


def test_the_byte_level_alphabet_is_that_of_the_tokenizers_library() -> None:
    from tokenizers import pre_tokenizers

    assert set(BYTE_TO_CHARACTER.values()) == set(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(GPT2_BYTE_ORDER) == list(range(256))


def test_byte_ids_are_the_bytes() -> None:
    it = tokenizer("byte")
    assert it.encode("Aé\x00") == [65, 195, 169, 0]
    assert (it.vocab_size, it.eot_id) == (257, 256)


def test_the_bpe_vocabulary_is_bytes_then_merges_then_end_of_text() -> None:
    it = tokenizer("bpe:400")
    assert (it.vocab_size, it.eot_id) == (400, 399)
    assert it.token_bytes[:256] == [bytes([byte]) for byte in range(256)]
    assert make_tokenizer("bpe:257", ["no merges at all"]).encode("no") == [110, 111]
    assert make_tokenizer("bpe:2048", ["too short for so many"]).vocab_size < 2048


def test_bpe_training_is_deterministic_across_processes() -> None:
    program = (
        "import sys; from tokenloom.data.tokenizers import make_tokenizer;"
        "print(make_tokenizer('bpe:400', [sys.stdin.buffer.read().decode()]).fingerprint)"
    )
    command = [sys.executable, "-c", program]
    child = subprocess.run(command, input=TRAINING_TEXT.encode(), capture_output=True, check=True)
    assert child.stdout.decode().strip() == tokenizer("bpe:400").fingerprint
