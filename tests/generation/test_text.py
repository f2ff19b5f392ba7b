"""Streamed text: whole characters, no stop strings, the same for any split into pieces."""

from itertools import pairwise, zip_longest

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

from tokenloom.config import ModelConfig
from tokenloom.data.tokenizers import load_tokenizer
from tokenloom.errors import UsageError
from tokenloom.generation.engine import Engine
from tokenloom.generation.text import TextCompletion, TextStream, generate_text, stream_text
from tokenloom.model.gpt2 import GPT2
from tokenloom.model.kv_cache import KVCache
from tokenloom.sampling_params import SamplingParams

GREEDY = SamplingParams(temperature=0)
BYTES = load_tokenizer("byte")  # a token for each byte, and 256 for the end of a text


class FixedOutput(nn.Module):
    """A model with a fixed output: the next token depends only on the position."""

    def __init__(self, tokens: list[int], vocab_size: int = 257) -> None:
        super().__init__()
        self.config = ModelConfig(vocab_size=vocab_size, block_size=256, n_layer=1, n_head=1, n_embd=2)
        self.tokens = nn.Parameter(torch.tensor(tokens, dtype=torch.float32), requires_grad=False)

    def hidden(self, ids: torch.Tensor, cache: KVCache) -> torch.Tensor:
        positions = cache.next_positions(*ids.shape)
        cache.advance(*ids.shape)
        return positions

    def forward(self, ids: torch.Tensor, cache: KVCache) -> torch.Tensor:
        next_ids = self.tokens[self.hidden(ids, cache)].long()
        return nn.functional.one_hot(next_ids, self.config.vocabulary).float()

    def new_cache(self, rows: int) -> KVCache:
        return KVCache(self.config, rows, self.tokens.device, torch.float32)


def model_that_outputs(text: str) -> FixedOutput:
    return FixedOutput([*text.encode(), BYTES.eot_id])


def streamed(pieces: list[bytes], stop: tuple[str, ...] = ()) -> list[str]:
    stream = TextStream(stop)
    return [*(stream.push(piece) for piece in pieces), stream.finish()]


def cut_before_first_stop(text: str, stops: tuple[str, ...]) -> str:
    """The definition: at the first position where a stop string ends, cut before the longest that ends there."""
    for end in range(len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            return text[: end - max(map(len, complete))]
    return text


def split_at(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


any_splits = st.lists(st.integers(0, 1000), max_size=12)
# Few letters, so that stop strings occur, overlap and nearly occur.
short_texts = st.text("abé🧵", max_size=20)
short_stops = st.lists(st.text("abé🧵", min_size=1, max_size=4), max_size=3).map(tuple)


@given(st.binary(max_size=40) | st.text(max_size=20).map(str.encode), any_splits)
@example("🧵".encode()[:3] + b"a", [1, 2, 3])
@example(b"\xf0\x9f\xff\xc3", [1, 2, 3])
def test_pieces_of_any_bytes_join_to_the_text_decoded_at_once(data, places):
    assert "".join(streamed(split_at(data, places))) == data.decode("utf-8", errors="replace")


@given(st.text(max_size=20), any_splits)
def test_valid_text_gets_no_replacement_characters(text, places):
    pieces = streamed(split_at(text.encode(), places))
    assert sum(piece.count("\ufffd") for piece in pieces) == text.count("\ufffd")


def test_a_character_appears_with_its_last_byte():
    assert streamed([b"\xf0", b"\x9f\xa7", b"\xb5", b"!"]) == ["", "", "🧵", "!", ""]


def test_an_incomplete_character_is_replaced_as_soon_as_it_is_invalid():
    assert streamed([b"\xf0\x9f", b"a", b"\xf0"]) == ["", "\ufffda", "", "\ufffd"]


@given(short_texts, short_stops, any_splits)
@example("abcab", ("b", "abc"), [1, 2])
@example("aab", ("ab",), [1, 2])
def test_the_text_ends_before_the_first_complete_stop_string_however_it_is_split(text, stops, places):
    assert "".join(streamed(split_at(text.encode(), places), stops)) == cut_before_first_stop(text, stops)


@given(short_texts, short_stops, any_splits)
def test_text_is_never_retracted(text, stops, places):
    expected, shown = cut_before_first_stop(text, stops), ""
    for piece in streamed(split_at(text.encode(), places), stops):
        shown += piece
        assert expected.startswith(shown)


def test_a_stop_string_split_over_tokens_is_not_partly_shown():
    assert streamed([b"one\n", b"Us", b"er", b": two"], ("\nUser:",)) == ["one", "", "", "", ""]


def test_a_false_start_of_a_stop_string_is_shown_in_the_end():
    assert streamed([b"one\nUs", b"ers", b"\nUse"], ("\nUser:",)) == ["one", "\nUsers", "", "\nUse"]


def test_a_single_stop_string_needs_no_list():
    assert streamed([b"at the END"], "END") == ["at the ", ""]


def test_an_empty_stop_string_is_refused():
    with pytest.raises(UsageError, match="stop string is empty"):
        TextStream(["\n", ""])


def test_a_completion_ends_at_the_end_of_text():
    model = model_that_outputs("-Every effort")
    assert generate_text(model, BYTES, ["x"], sampling=GREEDY) == [
        [TextCompletion("-Every effort", list(b"-Every effort"), "stop")]
    ]


def test_a_completion_ends_at_its_length_with_its_last_character_whole_or_replaced():
    model = model_that_outputs("an 🧵 of text")
    (whole,), (torn,) = (
        generate_text(model, BYTES, ["x"], sampling=GREEDY, max_new_tokens=count)[0] for count in (7, 5)
    )
    assert whole == TextCompletion("an 🧵", list("an 🧵".encode()), "length")
    assert torn == TextCompletion("an \ufffd", list("an 🧵".encode()[:5]), "length")


def test_a_stop_string_ends_a_completion_and_its_tokens():
    model = model_that_outputs("two lines\n\nand more")
    ((completion,),) = generate_text(model, BYTES, ["x"], sampling=GREEDY, stop=["\n\n"])
    assert completion == TextCompletion("two lines", list(b"two lines\n\n"), "stop")


def test_every_token_gives_a_piece_with_its_prompt_and_sample():
    model = model_that_outputs("é!")
    pieces = list(stream_text(model, BYTES, ["x", "y"], sampling=GREEDY, num_samples=2))
    assert [tuple(piece) for piece in pieces if (piece.prompt_index, piece.sample_index) == (1, 0)] == [
        (1, 0, "", 0xC3, None, None),
        (1, 0, "é", 0xA9, None, None),
        (1, 0, "!", ord("!"), None, None),
        (1, 0, "", None, "stop", None),
    ]
    assert len(pieces) == 16


def test_an_empty_prompt_starts_from_the_end_of_text_token():
    config = ModelConfig(family="gpt2", vocab_size=300, block_size=16, n_layer=1, n_head=2, n_embd=16)
    model = GPT2(config, torch.Generator().manual_seed(0))
    seen = []
    model.wte.register_forward_pre_hook(lambda _, args: seen.append(args[0].tolist()))
    generate_text(model, BYTES, [""], max_new_tokens=1)
    assert seen == [[[256]]]


def test_padding_of_the_vocabulary_is_never_sampled():
    model = FixedOutput([299, 298, 97], vocab_size=300)
    ((completion,),) = generate_text(model, BYTES, ["x"], sampling=GREEDY, max_new_tokens=3)
    assert max(completion.token_ids) < BYTES.vocab_size


def test_streaming_and_whole_texts_agree_for_prompts_of_all_lengths():
    config = ModelConfig(family="gpt2", vocab_size=257, block_size=16, n_layer=2, n_head=2, n_embd=16)
    model = GPT2(config, torch.Generator().manual_seed(0))
    prompts = ["", "a", "a longer prompt than the context holds", "é"]
    options = {"max_new_tokens": 30, "seed": 4, "num_samples": 2, "stop": ["e"]}
    whole = generate_text(model, BYTES, prompts, **options)
    texts = [["", ""] for _ in prompts]
    for piece in stream_text(model, BYTES, prompts, **options):
        texts[piece.prompt_index][piece.sample_index] += piece.text
    assert texts == [[completion.text for completion in completions] for completions in whole]
    alone = [generate_text(model, BYTES, [prompt], **options)[0] for prompt in prompts]
    assert whole == alone


def test_invalid_options_raise_before_the_first_piece():
    with pytest.raises(UsageError, match="num_samples"):
        stream_text(model_that_outputs("a"), BYTES, ["x"], num_samples=0)
    with pytest.raises(UsageError, match="stop string"):
        stream_text(model_that_outputs("a"), BYTES, ["x"], stop=[""])
    with pytest.raises(UsageError, match="list"):
        stream_text(model_that_outputs("a"), BYTES, "a single text")


def small_model() -> GPT2:
    config = ModelConfig(family="gpt2", vocab_size=257, block_size=16, n_layer=2, n_head=2, n_embd=16)
    return GPT2(config, torch.Generator().manual_seed(0))


def test_calls_that_share_an_engine_give_the_texts_they_give_alone():
    model = small_model()
    engine = Engine(model, eot_id=BYTES.eot_id, vocab_size=BYTES.vocab_size, max_rows=3, prefill_chunk=4)
    calls = [
        {"prompts": ["ab", "a longer prompt than the context"], "max_new_tokens": 20, "num_samples": 2, "stop": ["e"]},
        {"prompts": [""], "max_new_tokens": 9, "seed": 7, "logprobs": 2},
        {"prompts": ["é"], "max_new_tokens": 3, "sampling": GREEDY},
    ]
    streams = [stream_text(model, BYTES, engine=engine, **call) for call in calls]
    pieces = [[] for _ in calls]
    for in_turn in zip_longest(*streams):  # each call steps the engine for the others too
        for mine, piece in zip(pieces, in_turn, strict=True):
            mine += [piece] if piece is not None else []
    for mine, call in zip(pieces, calls, strict=True):
        alone = list(stream_text(model, BYTES, **call))
        for key in {(piece.prompt_index, piece.sample_index) for piece in alone}:
            shared, expected = ([p for p in some if (p.prompt_index, p.sample_index) == key] for some in (mine, alone))
            assert [piece[:5] for piece in shared] == [piece[:5] for piece in expected]
            assert (shared[0].logprobs is None) == ("logprobs" not in call)
    assert len(engine) == 0


def test_every_token_has_log_probabilities_if_requested_also_the_end_of_text():
    model = model_that_outputs("é!")
    ((completion,),) = generate_text(model, BYTES, ["x"], sampling=GREEDY, logprobs=1)
    assert [entry.token for entry in completion.logprobs] == [*completion.token_ids, BYTES.eot_id]
    assert [entry.top for entry in completion.logprobs] == [
        ((entry.token, entry.logprob),) for entry in completion.logprobs
    ]
    assert generate_text(model, BYTES, ["x"], logprobs=0, max_new_tokens=0)[0][0].logprobs == []
    assert generate_text(model, BYTES, ["x"], sampling=GREEDY)[0][0].logprobs is None
