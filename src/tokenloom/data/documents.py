"""Documents, the parts they are read in, and the state of a pass over the sources."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

from tokenloom.errors import DataError

_MAX_KEYS_IN_ERROR = 8


@dataclass(frozen=True, slots=True)
class Document:
    """The text of a document, and the name of the source it was read from."""

    text: str
    source: str


@dataclass(frozen=True, slots=True)
class DocumentPart:
    """A part of a document. Parts are in order; a long document has several, the last one with `ends_document`."""

    text: str
    source: str
    ends_document: bool


@dataclass(frozen=True)
class ReadOptions:
    """How text is extracted from the sources."""

    text_key: str = "text"
    """Key (JSONL) or column (Parquet, datasets) of the text."""
    encoding_errors: Literal["strict", "replace"] = "strict"
    """Raise for invalid UTF-8, or replace it with U+FFFD."""


@dataclass
class ReadState:
    """One pass over the sources: its options, and what it has read so far."""

    options: ReadOptions = field(default_factory=ReadOptions)
    bytes_read: int = 0
    """Bytes read from files, before decompression."""
    replacements: int = 0
    """Invalid UTF-8 sequences and lone surrogates that were replaced with U+FFFD."""
    advice: str = "Re-encode it, or pass --data.encoding-errors replace."
    """The end of the message about invalid UTF-8."""
    sha256: dict[str, str] = field(default_factory=dict[str, str])
    """The sha256 of each source that was read to its end: of the file, or of the texts if there is no file."""


def decode_utf8(data: bytes, name: str, offset: int, state: ReadState, *, final: bool) -> tuple[str, int]:
    """The text of `data`, which starts at `offset` in the file `name`, and the number of bytes decoded.

    An incomplete character at the end is left undecoded unless `final`. Raises `DataError`, naming the byte and its
    offset, for invalid UTF-8 unless the options say to replace it.
    """
    try:
        text, size = codecs.utf_8_decode(data, state.options.encoding_errors, final)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name} is not UTF-8: byte 0x{data[error.start]:02x} at offset {offset + error.start:,}. {state.advice}",
            topic="encoding",
        ) from None
    if state.options.encoding_errors == "replace":
        # Occurrences of U+FFFD that the file itself contains are not replacements.
        state.replacements += text.count("\ufffd") - data.count("\ufffd".encode(), 0, size)
    return text, size


def record_text(record: object, location: str, state: ReadState) -> str:
    """The text of a record, "" if it is null; raises `DataError` if it is missing, not a string, or not valid."""
    key = state.options.text_key
    if not isinstance(record, Mapping):
        raise DataError(
            f'{location}: expected an object with "{key}", got {type(record).__name__}. Write one JSON object per line.'
        )
    fields = cast("Mapping[str, object]", record)
    if key not in fields:
        raise DataError(f'{location} has no "{key}".{other_keys_hint(fields, key)}')
    text = "" if fields[key] is None else fields[key]
    if not isinstance(text, str):
        raise DataError(f'"{key}" of {location} is {type(text).__name__}, not text.{other_keys_hint(fields, key)}')
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        if state.options.encoding_errors == "strict":
            raise DataError(
                f"{location} contains the lone surrogate {error.object[error.start]!a}, which is not valid text. "
                "Fix it, or pass --data.encoding-errors replace."
            ) from None
        state.replacements += sum(map(_is_surrogate, text))
        text = "".join(["\ufffd" if _is_surrogate(character) else character for character in text])
    return text


def other_keys_hint(keys: Iterable[str], key: str) -> str:
    """The end of an error message about `key`, naming the keys or columns that could be used instead."""
    others = [str(other) for other in keys if other != key]
    if not others:
        return " Pass a file that has it."
    return f" It has: {', '.join(others[:_MAX_KEYS_IN_ERROR])}. Choose one with --data.text-key."


def _is_surrogate(character: str) -> bool:
    return "\ud800" <= character <= "\udfff"
