"""The split into training and validation text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenloom.data import splitting
from tokenloom.data.documents import DocumentPart
from tokenloom.data.splitting import CharacterSplit, HashSplit, choose_rule, share_notice


def pieces(documents: Sequence[str], size: int = 1 << 20) -> Iterator[DocumentPart]:
    for number, text in enumerate(documents):
        starts = range(0, max(1, len(text)), size)
        for start in starts:
            yield DocumentPart(text[start : start + size], f"document {number}", start == starts[-1])


def split_documents(documents: Sequence[str], val_fraction: float, size: int = 1 << 20) -> dict[str, list[str]]:
    rule = choose_rule(pieces(documents, size), val_fraction)
    splits: dict[str, list[str]] = {"train": [], "val": []}
    for part in rule.assign(pieces(documents, size)):
        splits[part.split].append("".join(part.texts))
    return splits


@given(
    text=st.text(min_size=1, max_size=50),
    val_fraction=st.floats(0, 1, exclude_max=True),
    size=st.integers(1, 60),
    empty=st.booleans(),
)
def test_a_single_text_is_split_by_characters_as_the_book_does(
    text: str, val_fraction: float, size: int, empty: bool
) -> None:
    documents = ["", text, ""] if empty else [text]
    splits = split_documents(documents, val_fraction, size)
    boundary = int(len(text) * (1 - val_fraction))
    assert ("".join(splits["train"]), "".join(splits["val"])) == (text[:boundary], text[boundary:])


def test_the_verdict_is_split_where_the_book_splits_it(verdict: str) -> None:
    splits = split_documents([verdict], 0.1, 1_000)
    assert splits == {"train": [verdict[:18_431]], "val": [verdict[18_431:]]}


def test_many_documents_are_split_whole_and_in_order() -> None:
    documents = [f"document {i} " * (i % 5) for i in range(1_000)]
    splits = split_documents(documents, 0.1, 7)
    assert 40 < len(splits["val"]) < 130
    order = {text: i for i, text in enumerate(documents)}
    for split in splits.values():
        assert [order[text] for text in split] == sorted(order[text] for text in split)
    assert sorted(splits["train"] + splits["val"]) == sorted(filter(None, documents))


def test_documents_keep_their_split_when_others_are_added() -> None:
    documents = [f"document {i}" for i in range(1, 500)]
    few, many = split_documents(documents[100:300], 0.2), split_documents(documents, 0.2)
    assert set(few["val"]) == set(many["val"]) & set(documents[100:300])
    assert set(split_documents(documents, 0.3)["val"]) > set(many["val"])


def test_the_split_of_a_document_does_not_depend_on_its_parts() -> None:
    documents = [f"{i} " * 40_000 for i in range(20)]
    assert split_documents(documents, 0.5, 1_000) == split_documents(documents, 0.5)


@given(st.lists(st.text(min_size=1, max_size=5), min_size=2, max_size=6, unique=True), st.floats(0.001, 0.999))
def test_two_different_documents_never_leave_a_split_empty(documents: list[str], val_fraction: float) -> None:
    splits = split_documents(documents, val_fraction)
    assert splits["train"]
    assert splits["val"]


@given(
    sizes=st.lists(st.integers(1, 5_000), min_size=2, max_size=8),
    val_fraction=st.floats(0.001, 0.999),
    piece=st.integers(1, 3_000),
)
def test_validation_text_is_never_larger_than_training_text_unless_requested(
    sizes: list[int], val_fraction: float, piece: int
) -> None:
    documents = [f"{i:02d}" + "x" * size for i, size in enumerate(sizes)]
    rule = choose_rule(pieces(documents), val_fraction)
    splits = split_documents(documents, val_fraction, piece)
    train, val = ("".join(splits[name]) for name in ("train", "val"))
    assert train
    assert 0 < len(val) <= max(0.5, 1.5 * val_fraction) * len(train + val)
    if isinstance(rule, HashSplit):  # whole documents
        assert sorted(splits["train"] + splits["val"]) == documents
        assert rule.notice is None
    else:  # the end of the text
        assert train + val == "".join(documents)
        assert abs(len(train) - len(train + val) * (1 - val_fraction)) <= 1


def test_one_large_and_one_small_document_are_split_at_the_end_of_the_text() -> None:
    """Whichever of the two is selected by its hash: it was the large one for half of all pairs."""
    for i in range(30):
        large, small = f"large {i} " * 10_000, f"small {i}"
        splits = split_documents([large, small], 0.1)
        rule = choose_rule(pieces([large, small]), 0.1)
        if isinstance(rule, HashSplit):
            assert splits == {"train": [large], "val": [small]}
            continue
        assert len("".join(splits["val"])) == pytest.approx(0.1 * len(large + small), abs=1)
        assert rule.notice == (
            "holding out whole documents would make 100.0% of the text validation text, because they differ so much "
            "in size: the last 10.0% of the text is held out instead."
        )


def test_a_share_far_from_the_requested_one_gives_a_notice() -> None:
    assert share_notice(90, 10, 0.1) is None
    assert share_notice(75, 25, 0.1) is None
    assert share_notice(97, 3, 0.1) is None
    assert share_notice(100, 0, 0.0) is None
    assert "2.00% of the text is validation text, not 10.00% as requested" in str(share_notice(98, 2, 0.1))
    assert "40.00% of the text is validation text" in str(share_notice(60, 40, 0.1))
    assert "0.00% of the text is validation text" in str(share_notice(100, 0, 0.1))


def test_copies_of_one_document_are_all_training_text() -> None:
    assert split_documents(["same", "same"], 0.5) == {"train": ["same", "same"], "val": []}


def test_a_val_fraction_of_zero_gives_no_validation_text() -> None:
    for documents in (["one"], ["one", "two", "three"]):
        assert split_documents(documents, 0)["val"] == []


def test_empty_documents_give_no_text() -> None:
    assert split_documents(["", ""], 0.1) in ({"train": [], "val": []}, {"train": [""], "val": [""]})


def test_choosing_a_rule_stops_reading_when_the_sizes_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitting, "_MEASURED_CHARACTERS", 20_000)

    def endless() -> Iterator[DocumentPart]:
        for number in range(10_000):
            assert number < 5_000, "still reading"
            yield DocumentPart(f"document {number}", "source", True)

    assert choose_rule(endless(), 0.1) == HashSplit(0.1)


def test_a_long_document_is_hashed_by_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitting, "_HASHED_CHARACTERS", 10)
    rule = HashSplit(0.5)
    splits = {
        ending: [text.split for text in rule.assign(pieces([f"beginning {i} and {ending}" for i in range(20)], 3))]
        for ending in ("one", "another")
    }
    assert splits["one"] == splits["another"]


def test_a_boundary_at_either_end_loses_no_text() -> None:
    for boundary in (0, 3):
        rule = CharacterSplit(boundary)
        assert "".join(text for part in rule.assign(pieces(["abc"])) for text in part.texts) == "abc"
