"""Every kind of tokenizer gives any text back, and the ids that others give."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tokenloom.data.tokenizers import ENDOFTEXT, Tokenizer, load_tokenizer, make_tokenizer
from tokenloom.data.tokenizers.bpe import BYTE_TO_CHARACTER, GPT2_BYTE_ORDER, GPT2_PATTERN
from tokenloom.data.tokenizers.chunking import CHUNK_CHARACTERS, MAX_CHUNK_CHARACTERS, split_into_chunks
from tokenloom.errors import TokenizerError

LEARNT_FROM = "It's a fine day, isn't it? Schöne Grüße aus Köln!\r\n\tdef f(x):\n\t\treturn x  # 1,234\n" * 20 + str(
    json.__doc__
)
KINDS = ["gpt2", "byte", "char", "bpe:400", "json"]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
# What tells tokenizers apart: white space, contractions, digits, scripts, controls, the end of text.
TRICKY = st.lists(
    st.sampled_from([
        " ", "  ", "\n", "\r\n", "\t", "\x00", "\u3000", "\x85", "'s", "'ll", "’", "1", "23", "a", "The", "é",
        "e\u0301", "中", "。", ".", ",", ")", "👩\u200d🚀", "!?", "<|", ENDOFTEXT, "endoftext|>", "²",
        "İ", "ſ", "\ufeff", "\ufffd",
    ]),
    max_size=20,
).map("".join)  # fmt: skip


@cache
def tokenizer(kind: str) -> Tokenizer:
    if kind == "json":
        with tempfile.TemporaryDirectory() as folder:
            return _foreign_tokenizer(Path(folder))
    return make_tokenizer(kind, [LEARNT_FROM])


def _bytes_only() -> dict:
    model = make_tokenizer("byte").to_json()["model"]
    return {**model, "vocab": {written: i for written, i in model["vocab"].items() if i < 256}}


def _foreign_tokenizer(folder: Path, **parts: object) -> Tokenizer:
    """A byte-level tokenizer.json of another make: other ids, another end, other special tokens."""
    content = make_tokenizer("bpe:300", [LEARNT_FROM]).to_json()
    vocabulary = [written for written in content["model"]["vocab"] if written != ENDOFTEXT]
    content["model"]["vocab"] = {written: i for i, written in enumerate(["<s>", "</s>", *reversed(vocabulary)])}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    content["added_tokens"] = [{"id": 0, "content": "<s>", **plain}, {"id": 1, "content": "</s>", **plain}]
    content.update(parts)
    file = folder / "tokenizer.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    return load_tokenizer(file)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150, deadline=None)
@given(text=TEXT | TRICKY)
@example(text="")
@example(text=ENDOFTEXT)
@example(text=f"{ENDOFTEXT}{ENDOFTEXT} a{ENDOFTEXT}\n")
@example(text="\x00\r\n\r \ufeff\u2028")
@example(text="<s></s><0x0A><unk>")
def test_any_text_comes_back_exactly(kind: str, text: str) -> None:
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
def test_arbitrary_bytes_come_back_exactly(kind: str, data: bytes) -> None:
    it = tokenizer(kind)
    assert it.decode_bytes(it.encode_bytes(data)) == data


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=50, deadline=None)
@given(text=TEXT | TRICKY)
def test_byte_lengths_count_the_text_without_its_ends(kind: str, text: str) -> None:
    it = tokenizer(kind)
    assert it.byte_lengths.shape == (it.vocab_size,)
    assert it.byte_lengths[it.encode(text)].sum() == len(text.replace(it.eot_text, "").encode())
    assert it.byte_lengths[it.eot_id] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_written_end_of_text_is_what_the_user_chose(kind: str) -> None:
    it = tokenizer(kind)
    text = f"a{it.eot_text}b"
    assert it.encode(text) == [*it.encode("a"), it.eot_id, *it.encode("b")]
    assert it.encode(text, "text") != it.encode(text)
    with pytest.raises(TokenizerError, match="at character 1"):
        it.encode(text, "refuse")
    assert it.encode("a < b | c", "refuse") == it.encode("a < b | c")


@pytest.mark.parametrize("kind", KINDS)
def test_a_lone_surrogate_is_refused_in_words(kind: str) -> None:
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


def test_known_ids_of_gpt2(verdict: str) -> None:
    gpt2 = load_tokenizer("gpt2")
    assert (gpt2.kind, gpt2.vocab_size, gpt2.eot_id) == ("gpt2", 50257, 50256)
    assert gpt2.encode("Every effort moves you") == [6109, 3626, 6100, 345]
    assert gpt2.encode(ENDOFTEXT) == [50256]
    assert (len(verdict), len(gpt2.encode(verdict))) == (20_479, 5_145)
    assert [len(gpt2.encode(part)) for part in (verdict[:18_431], verdict[18_431:])] == [4_612, 534]


@cache
def _references() -> tuple:
    """GPT-2 out of the merge list alone, in transformers' way and in tiktoken's, read by none of our code."""
    import gzip
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
    published = r"""'s|'t|'re|'ve|'m|'ll|'d| ?[\p{L}]+| ?[\p{N}]+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
    encoding = tiktoken.Encoding(
        "reference", pat_str=published, mergeable_ranks=ranks, special_tokens={ENDOFTEXT: 50256}, explicit_n_vocab=50257
    )
    return core, encoding


@settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=TEXT | TRICKY)
def test_gpt2_ids_equal_independent_references(text: str) -> None:
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


def test_tiktokens_published_pattern_is_the_one_in_use() -> None:
    from tiktoken_ext import openai_public

    assert openai_public.r50k_pat_str == GPT2_PATTERN


def test_the_byte_alphabet_is_the_one_of_the_tokenizers_library() -> None:
    from tokenizers import pre_tokenizers

    assert set(BYTE_TO_CHARACTER.values()) == set(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(GPT2_BYTE_ORDER) == list(range(256))


def test_byte_ids_are_the_bytes() -> None:
    it = tokenizer("byte")
    assert it.encode("Aé\x00") == [65, 195, 169, 0]
    assert (it.vocab_size, it.eot_id) == (257, 256)


def test_char_has_the_characters_then_bytes_then_the_end(shakespeare: str) -> None:
    it = make_tokenizer("char", [shakespeare[:500_000], ENDOFTEXT, shakespeare[500_000:]])
    assert (it.vocab_size, it.eot_id) == (65 + 256 + 1, 65 + 256)
    assert it.encode("\n !") == [0, 1, 2]
    assert it.encode("é") == [65 + 0xC3, 65 + 0xA9]
    assert len(it.encode(shakespeare)) == len(shakespeare)


def test_bpe_counts_bytes_and_end_and_puts_them_first_and_last() -> None:
    it = tokenizer("bpe:400")
    assert (it.vocab_size, it.eot_id) == (400, 399)
    assert it.token_bytes[:256] == [bytes([byte]) for byte in range(256)]
    assert make_tokenizer("bpe:257", ["no merges at all"]).encode("no") == [110, 111]
    assert make_tokenizer("bpe:2048", ["too short for so many"]).vocab_size < 2048


def test_bpe_learns_the_same_in_every_process() -> None:
    program = (
        "import sys; from tokenloom.data.tokenizers import make_tokenizer;"
        "print(make_tokenizer('bpe:400', [sys.stdin.buffer.read().decode()]).fingerprint)"
    )
    command = [sys.executable, "-c", program]
    child = subprocess.run(command, input=LEARNT_FROM.encode(), capture_output=True, check=True)
    assert child.stdout.decode().strip() == tokenizer("bpe:400").fingerprint


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_tokenizer_is_loaded_as_the_same_kind(kind: str, tmp_path: Path) -> None:
    it = tokenizer(kind)
    it.save(tmp_path / "saved")
    again = load_tokenizer(tmp_path / "saved")
    assert type(again) is type(it)
    assert (again.kind, again.fingerprint, again.eot_id) == (it.kind, it.fingerprint, it.eot_id)
    assert again.token_bytes == it.token_bytes
    text = f"A fine day, {it.eot_text} Ångström \x00 中\r\n"
    assert again.encode(text) == it.encode(text)
    again.save(tmp_path / "again")
    assert load_tokenizer(tmp_path / "again").fingerprint == it.fingerprint


@pytest.mark.parametrize("model_type", [None, "gpt2"])
@pytest.mark.parametrize("kind", KINDS)
def test_transformers_opens_a_saved_tokenizer_with_the_same_ids(
    kind: str, model_type: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from transformers import AutoTokenizer

    it = tokenizer(kind)
    it.save(tmp_path)
    if model_type:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.eos_token_id == it.eot_id
    texts = ["", " a  b\t\n\n c", "Ångström 中文 👩\u200d🚀", "\x00\x01\r\n\x7f", f"x {it.eot_text} y", LEARNT_FROM]
    texts += ["it 's do n't , . ! \ufeff", "".join(map(chr, range(1, 600)))]
    for text in texts:
        ids = theirs.encode(text, add_special_tokens=False)
        assert ids == it.encode(text), text
        assert theirs.decode(ids) == text


def test_transformers_gpt2_folder_is_recognised_as_gpt2(tmp_path: Path) -> None:
    gpt2 = load_tokenizer("gpt2")
    gpt2.save(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    assert load_tokenizer(tmp_path) is gpt2
    assert load_tokenizer(tmp_path / "tokenizer.json") is gpt2


def test_fingerprints_differ_where_ids_would() -> None:
    fingerprints = {tokenizer(kind).fingerprint for kind in KINDS}
    fingerprints |= {make_tokenizer(kind, ["other text"]).fingerprint for kind in ("char", "bpe:400")}
    assert len(fingerprints) == len(KINDS) + 2
    assert make_tokenizer("char", ["ba"]).fingerprint == make_tokenizer("char", ["ab", "a"]).fingerprint


@pytest.mark.parametrize(
    ("spec", "says"),
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
def test_a_bad_spec_is_refused_in_words(spec: str, says: str) -> None:
    with pytest.raises(TokenizerError) as caught:
        make_tokenizer(spec, ["text"])
    assert says in str(caught.value)


def test_what_learns_from_text_is_not_loaded_by_name() -> None:
    for name in ("char", "bpe:2048"):
        with pytest.raises(TokenizerError, match="is trained on text"):
            load_tokenizer(name)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"has no tokenizer\.json"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"{}", b'{"model": 1}', b'{"model": {"type": "BPE"}}'])
@pytest.mark.parametrize("kind", [None, "bpe", "char", "json", "other", 7])
def test_a_damaged_tokenizer_file_is_refused(content: bytes, kind: str | None, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    if kind:
        ours = {"tokenloom": {"kind": kind, "fingerprint": "0"}}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(ours))
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)


def test_a_saved_tokenizer_that_was_changed_is_refused(tmp_path: Path) -> None:
    tokenizer("bpe:400").save(tmp_path)
    file = tmp_path / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["model"]["merges"].pop()
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(TokenizerError, match="fingerprint differs"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"normalizer": {"type": "NFC"}}, "normalizer NFC"),
        ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "Lowercase"}]}}, "normalizer Lowercase"),
        ({"pre_tokenizer": None}, "it has no pre-tokenizer"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "its pre-tokenizer is Whitespace"),
        (
            {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}},
            "add_prefix_space",
        ),
        (
            {
                "pre_tokenizer": {
                    "type": "Sequence",
                    "pretokenizers": [
                        {"type": "WhitespaceSplit"},
                        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
                    ],
                }
            },
            "is decoded as",
        ),
        ({"added_tokens": [], "model": _bytes_only()}, "no token that ends a document"),
        ({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}, "no token for 255 of the 256 bytes"),
    ],
)
def test_a_tokenizer_that_loses_text_is_refused_by_the_part_that_does(parts: dict, says: str, tmp_path: Path) -> None:
    with pytest.raises(TokenizerError) as caught:
        _foreign_tokenizer(tmp_path, **parts)
    assert says in str(caught.value)


@settings(max_examples=300, deadline=None)
@given(parts=st.lists(TRICKY, min_size=1, max_size=8), size=st.integers(4, 40))
def test_stretches_encoded_apart_give_the_ids_of_the_whole(parts: list[str], size: int) -> None:
    from tokenloom.data.tokenizers import chunking

    text = "".join(parts) * 3
    usual = chunking.CHUNK_CHARACTERS
    chunking.CHUNK_CHARACTERS = size
    try:
        pieces = list(split_into_chunks(parts * 3, [ENDOFTEXT]))
    finally:
        chunking.CHUNK_CHARACTERS = usual
    assert "".join(pieces) == text
    for kind in ("gpt2", "bpe:400", "byte", "char"):
        it = tokenizer(kind)
        assert [i for piece in pieces for i in it.encode(piece)] == it.encode(text), kind


def test_stretches_stay_short_wherever_the_text_allows(shakespeare: str) -> None:
    line = shakespeare.replace("\n", " ").replace("  ", " ") * 2
    words = line.replace(" ", "\n")
    chinese = shakespeare.replace(" ", "中").replace("\n", "。")
    for text in (shakespeare * 2, line, words, chinese):
        pieces = list(split_into_chunks((text[i : i + 99_999] for i in range(0, len(text), 99_999)), [ENDOFTEXT]))
        assert "".join(pieces) == text
        assert max(map(len, pieces)) < CHUNK_CHARACTERS + 100_000
        gpt2 = load_tokenizer("gpt2")
        assert np.array_equal(np.concatenate([gpt2.encode_array(p) for p in pieces]), gpt2.encode_array(text))


def test_text_without_a_place_to_cut_is_cut_outside_of_a_written_end() -> None:
    before = "x" * (MAX_CHUNK_CHARACTERS - 5)
    pieces = list(split_into_chunks([before, ENDOFTEXT, "y" * 100], [ENDOFTEXT]))
    assert "".join(pieces) == before + ENDOFTEXT + "y" * 100
    assert any(ENDOFTEXT in piece for piece in pieces)
    assert all(len(piece) <= MAX_CHUNK_CHARACTERS for piece in pieces)


def test_importing_the_data_floor_loads_nothing_heavy() -> None:
    program = (
        "import sys, tokenloom.data.prepare, tokenloom.data.tokenizers as t; t.load_tokenizer('byte').encode('x');"
        "print([m for m in ('torch', 'tiktoken', 'tokenizers', 'pyarrow', 'requests') if m in sys.modules])"
    )
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == "[]"
