"""Folders of tokenizer files from Hugging Face give the ids of `AutoTokenizer`, or are refused."""

import json
import os

import pytest
from tokenizer_samples import TRAINING_TEXT

from tokenloom.data.tokenizers import load_tokenizer
from tokenloom.data.tokenizers.bpe import gpt2_tokenizer, to_byte_level, train_bpe
from tokenloom.data.tokenizers.chunking import split_into_chunks
from tokenloom.errors import TokenizerError

os.environ["HF_HUB_OFFLINE"] = "1"  # transformers reads only local files
transformers = pytest.importorskip("transformers")

BASE = train_bpe(300, [TRAINING_TEXT])
EOT = "<|endoftext|>"
TEXTS = (
    "It's a <|user|> question<|user|><|bot|>\n  and <tool> 1,234 more <|endoftext|> thefunction fun functions\r\n",
    "<|user|>the<|user|> the fun! (fun) x_fun <|bot|>s <|use|r|> <tool>> a<tool>b Ġthe 世界 👋",
    "  <|bot|>  <|endoftext|><|endoftext|>   <pad><|user|",
)


def added(token_id: int, text: str, **flags: bool) -> dict:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    return {"id": token_id, "content": text, **plain, **flags}


def special(token_id: int, text: str, **flags: bool) -> dict:
    return added(token_id, text, special=True, **flags)


def without_id(token: dict) -> dict:
    return {key: value for key, value in token.items() if key != "id"}


class Folder:
    """A folder of GPT-2's tokenizer files, as transformers and older scripts write them."""

    def __init__(self, path, base=BASE):
        self.path, self.base, self.end = path, base, base.vocab_size
        self.write("config.json", {"model_type": "gpt2"})

    def write(self, name, content):
        (self.path / name).write_text(json.dumps(content), encoding="utf-8")

    def tokenizer_json(self, *tokens):
        self.write("tokenizer.json", self.base.to_json() | {"added_tokens": list(tokens)})

    def vocabulary(self):
        content = self.base.to_json()["model"]
        self.write("vocab.json", content["vocab"])
        lines = ["#version: 0.2", *(" ".join(pair) for pair in content["merges"]), ""]
        (self.path / "merges.txt").write_text("\n".join(lines), encoding="utf-8")


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def assert_same_ids(folder):
    """Ids, the end of a document and the size are those of `AutoTokenizer`; the ids decode to the text."""
    theirs = transformers.AutoTokenizer.from_pretrained(folder.path)
    ours = load_tokenizer(folder.path)
    for text in TEXTS:
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False), text
        assert ours.decode(ours.encode(text)) == text
    assert (ours.eot_id, ours.vocab_size) == (theirs.eos_token_id, len(theirs))
    ours.save(folder.path / "saved")
    again = load_tokenizer(folder.path / "saved")
    assert again.fingerprint == ours.fingerprint
    assert [again.encode(text) for text in TEXTS] == [ours.encode(text) for text in TEXTS]
    return ours


@pytest.mark.parametrize("flags", [{"special": True}, {}, {"normalized": True}, {"single_word": True}])
def test_added_tokens_of_tokenizer_json_are_matched(folder, flags):
    end, base = folder.end, folder.end - 1
    tokens = [added(end, "<|user|>", **flags), added(end + 1, "<|bot|>", **flags), added(end + 2, "fun", **flags)]
    folder.tokenizer_json(special(base, EOT), *tokens)
    ours = assert_same_ids(folder)
    assert ours.encode("<|user|>") == [end]
    assert ours.byte_lengths[end] == (0 if flags.get("special") else 8)


def test_overlapping_added_tokens_are_matched_in_the_librarys_order(folder):
    tokens = [added(folder.end, "<|user|>"), added(folder.end + 1, "user|><|bot|>", normalized=True)]
    tokens += [special(folder.end + 2, "<|user|><|bot|>"), added(folder.end + 3, "<|use")]
    folder.tokenizer_json(special(folder.end - 1, EOT), *tokens)
    assert_same_ids(folder)


def test_an_added_token_may_be_one_of_the_vocabulary(folder):
    vocabulary = [to_byte_level(token) for token in BASE.token_bytes]
    word = max((token for token in vocabulary[:-1] if token.isalpha() and token.isascii()), key=len)
    folder.tokenizer_json(special(vocabulary.index(word), word), special(folder.end - 1, EOT))
    assert_same_ids(folder)
    spaced = next(token for token in vocabulary if token.startswith("Ġ") and len(token) > 1)
    folder.tokenizer_json(special(vocabulary.index(spaced), spaced), special(folder.end - 1, EOT))
    with pytest.raises(TokenizerError, match=f"added token '{spaced}' is also a token of the vocabulary"):
        load_tokenizer(folder.path)


def test_added_tokens_beside_a_vocabulary_and_merges_are_matched(folder):
    folder.vocabulary()
    assert_same_ids(folder)
    folder.write("added_tokens.json", {"<|user|>": folder.end, "<tool>": folder.end + 1})
    folder.write("special_tokens_map.json", {"additional_special_tokens": ["<|user|>"], "eos_token": EOT})
    ours = assert_same_ids(folder)
    assert ours.byte_lengths[-2:].tolist() == [0, 6]


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize("has_tokenizer_json", [True, False])
def test_tokens_with_a_role_are_added(folder, name, has_tokenizer_json):
    folder.tokenizer_json(special(folder.end - 1, EOT)) if has_tokenizer_json else folder.vocabulary()
    bot = without_id(special(0, "<|bot|>")) if name == "special_tokens_map.json" else "<|bot|>"
    folder.write(name, {"eos_token": bot, "pad_token": "<pad>", "additional_special_tokens": ["<|user|>"]})
    ours = assert_same_ids(folder)
    assert ours.eot_text == "<|bot|>"
    assert {"<|bot|>", "<|user|>", "<pad>", EOT} <= set(ours.matched_tokens) | {EOT}


@pytest.mark.parametrize("has_tokenizer_json", [True, False])
def test_added_tokens_of_the_configuration_are_matched(folder, has_tokenizer_json):
    tokens = [special(folder.end - 1, EOT), special(folder.end, "<|user|>"), added(folder.end + 1, "<tool>")]
    folder.tokenizer_json(*tokens) if has_tokenizer_json else folder.vocabulary()
    decoder = {str(token["id"]): without_id(token) for token in tokens}
    folder.write("tokenizer_config.json", {"tokenizer_class": "GPT2Tokenizer", "added_tokens_decoder": decoder})
    assert_same_ids(folder)


def test_special_tokens_after_gpt2s_vocabulary_keep_the_built_in_implementation(tmp_path):
    folder = Folder(tmp_path, gpt2_tokenizer())
    folder.tokenizer_json(special(50256, EOT), special(50257, "<|user|>"), special(50258, "<|bot|>"))
    ours = assert_same_ids(folder)
    assert (ours.kind, ours.added) == ("gpt2", ("<|user|>", "<|bot|>"))
    folder.tokenizer_json(special(50256, EOT), added(50257, "<|user|>"))
    assert assert_same_ids(folder).kind == "json"
    (tmp_path / "tokenizer.json").unlink()
    folder.vocabulary()
    folder.write("added_tokens.json", {"<|bot|>": 50257})
    assert_same_ids(folder)
    (tmp_path / "added_tokens.json").unlink()
    assert load_tokenizer(tmp_path) is gpt2_tokenizer()


def test_a_folder_saved_by_transformers_keeps_its_added_tokens(tmp_path):
    folder = Folder(tmp_path)
    BASE.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    theirs.add_tokens(["<tool>", transformers.AddedToken("fun", single_word=True)])
    theirs.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|bot|>"]})
    theirs.save_pretrained(tmp_path)
    assert_same_ids(folder)


def test_long_text_is_not_split_inside_an_added_token(folder):
    folder.tokenizer_json(special(folder.end - 1, EOT), added(folder.end, "[very: long token]"))
    ours = load_tokenizer(folder.path)
    text = "word [very: long token]" * 40_000
    chunks = [ours.encode_array(chunk) for chunk in split_into_chunks([text], ours.matched_tokens)]
    assert len(chunks) > 1
    assert [i for ids in chunks for i in ids].count(folder.end) == 40_000


@pytest.mark.parametrize(
    ("tokens", "problem"),
    [
        ([special(299, "<|endoftext|>", single_word=True)], "'<|endoftext|>' ends a document, but is matched between"),
        ([special(301, "<|user|>")], "'<|user|>' has the id 301, but the tokenizers library assigns 300"),
        ([special(300, "<mask>", lstrip=True)], "'<mask>' removes the spaces beside it (lstrip)"),
        ([added(300, "<mask>", rstrip=True)], "'<mask>' removes the spaces beside it (rstrip)"),
        ([added(300, "endoftext")], "'endoftext' overlaps with <|endoftext|>"),
    ],
)
def test_an_added_token_that_cannot_be_used_is_named(folder, tokens, problem):
    ends = [] if tokens[0]["content"] == EOT else [special(folder.end - 1, EOT)]
    folder.tokenizer_json(*ends, *tokens)
    with pytest.raises(TokenizerError) as refused:
        load_tokenizer(folder.path)
    assert problem in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"add_prefix_space": True}, "sets add_prefix_space"),
        ({"split_special_tokens": True}, "sets split_special_tokens"),
        ({"added_tokens_decoder": {"300": {"content": EOT, "special": True}}}, "differ in the added token"),
    ],
)
def test_a_configuration_that_changes_the_ids_is_refused(folder, config, problem):
    folder.tokenizer_json(special(folder.end - 1, EOT))
    folder.write("tokenizer_config.json", config)
    with pytest.raises(TokenizerError, match=problem):
        load_tokenizer(folder.path)
