"""Every kind of tokenizer is lossless for any text."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizer_samples import KINDS, TEXT, TRICKY, tokenizer

from tokenloom.data.tokenizers import ENDOFTEXT, make_tokenizer
from tokenloom.errors import TokenizerError


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150, deadline=None)
@given(text=TEXT | TRICKY)
@example(text="")
@example(text=ENDOFTEXT)
@example(text=f"{ENDOFTEXT}{ENDOFTEXT} a{ENDOFTEXT}\n")
@example(text="\x00\r\n\r \ufeff\u2028")
@example(text="<s></s><0x0A><unk>")
def test_any_text_is_decoded_exactly(kind: str, text: str) -> None:
    it = tokenizer(kind)
    for mode in ("token", "text"):
        ids = it.encode(text, mode)
        assert it.decode(ids) == text
        assert it.decode_bytes(ids) == text.encode("utf-8")
        array = it.encode_array(text, mode)
        assert array.dtype == np.uint32
        assert array.tolist() == ids
    assert it.eot_id not in it.encode(text, "text")


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=80))
@example(data=bytes(range(256)))
def test_arbitrary_bytes_are_decoded_exactly(kind: str, data: bytes) -> None:
    it = tokenizer(kind)
    assert it.decode_bytes(it.encode_bytes(data)) == data


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=50, deadline=None)
@given(text=TEXT | TRICKY)
def test_byte_lengths_count_text_without_end_of_text_tokens(kind: str, text: str) -> None:
    it = tokenizer(kind)
    assert it.byte_lengths.shape == (it.vocab_size,)
    assert it.byte_lengths[it.encode(text)].sum() == len(text.replace(it.eot_text, "").encode())
    assert it.byte_lengths[it.eot_id] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_end_of_text_inside_a_text_is_handled_as_requested(kind: str) -> None:
    it = tokenizer(kind)
    text = f"a{it.eot_text}b"
    assert it.encode(text) == [*it.encode("a"), it.eot_id, *it.encode("b")]
    assert it.encode(text, "text") != it.encode(text)
    with pytest.raises(TokenizerError, match="at character 1"):
        it.encode(text, "refuse")
    assert it.encode("a < b | c", "refuse") == it.encode("a < b | c")


@pytest.mark.parametrize("kind", KINDS)
def test_a_lone_surrogate_is_refused_with_its_position(kind: str) -> None:
    for mode in ("token", "text"):
        with pytest.raises(TokenizerError, match=r"lone surrogate '\\ud800' at character 2"):
            tokenizer(kind).encode("ab\ud800c", mode)


@pytest.mark.parametrize("kind", KINDS)
def test_ids_outside_the_vocabulary_are_refused(kind: str) -> None:
    it = tokenizer(kind)
    for invalid in (-1, it.vocab_size):
        with pytest.raises(TokenizerError, match=f"token {invalid} is outside"):
            it.decode([it.eot_id, invalid])


@pytest.mark.parametrize("kind", KINDS)
def test_documents_are_encoded_in_order(kind: str) -> None:
    it = tokenizer(kind)
    texts = [f"document {i} " * (i % 7) for i in range(600)]
    assert [ids.tolist() for ids in it.encode_documents(iter(texts))] == [it.encode(text) for text in texts]


def test_half_a_character_decodes_to_the_replacement_character() -> None:
    it = tokenizer("byte")
    assert it.decode(it.encode("é")[:1]) == "\ufffd"
    assert it.decode(np.array(it.encode("é"))) == "é"


def test_fingerprints_differ_if_ids_can_differ() -> None:
    fingerprints = {tokenizer(kind).fingerprint for kind in KINDS}
    fingerprints |= {make_tokenizer(kind, ["other text"]).fingerprint for kind in ("char", "bpe:400")}
    assert len(fingerprints) == len(KINDS) + 2
    assert make_tokenizer("char", ["ba"]).fingerprint == make_tokenizer("char", ["ab", "a"]).fingerprint


def test_importing_data_modules_loads_no_large_library() -> None:
    program = (
        "import sys, tokenloom.data.prepare, tokenloom.data.tokenizers as t; t.load_tokenizer('byte').encode('x');"
        "print([m for m in ('torch', 'tiktoken', 'tokenizers', 'pyarrow', 'requests') if m in sys.modules])"
    )
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == "[]"
