"""A foreign tokenizer.json is accepted only if it is lossless."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizer_samples import bytes_only, foreign_tokenizer

from tokenloom.errors import TokenizerError


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"normalizer": {"type": "NFKC"}}, "normalizer NFKC"),
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
        ({"added_tokens": [], "model": bytes_only()}, "no token that ends a document"),
        ({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}, "no token for 255 of the 256 bytes"),
    ],
)
def test_a_lossy_tokenizer_is_refused_naming_the_lossy_component(parts: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(TokenizerError) as caught:
        foreign_tokenizer(tmp_path, **parts)
    assert message in str(caught.value)
