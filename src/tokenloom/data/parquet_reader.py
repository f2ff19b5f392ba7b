"""Reader of Parquet files: one document per row."""

# pyarrow has no type information.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownParameterType=false

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO

from tokenloom.data import decompression
from tokenloom.data.documents import DocumentPart, ReadState, decode_utf8, other_keys_hint
from tokenloom.errors import DataError, MissingExtraError

if TYPE_CHECKING:
    import pyarrow

_READ_BYTES = 1 << 20
_BATCH_ROWS = 64


def read_parquet(file: BinaryIO, name: str, state: ReadState, path: Path) -> Iterator[DocumentPart]:
    """The rows of the text column; `file` is the decompressed content of the file at `path`.

    Raises `DataError` if the file is invalid or has no such column of text, `MissingExtraError` without pyarrow.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise MissingExtraError("pyarrow", "data", f"reading {name}") from None
    key = state.options.text_key
    number = 0
    with tempfile.TemporaryFile() as temporary:
        try:
            # With a buffer size, pages are read as they are needed instead of whole columns at once.
            table = parquet.ParquetFile(_seekable(file, path, temporary), buffer_size=_READ_BYTES)
            _check_text_column(table.schema_arrow, name, key)
            for batch in table.iter_batches(_BATCH_ROWS, columns=[key]):
                # As bytes, because Parquet does not guarantee that a string column is valid UTF-8.
                # By name: besides a column named a.b, a column b within a is selected.
                for value in batch.column(batch.schema.get_field_index(key)).cast(pyarrow.large_binary()):
                    number += 1
                    text, _ = decode_utf8(value.as_py() or b"", f"{name} row {number:,}", 0, state, final=True)
                    yield DocumentPart(text, name, True)
        except (pyarrow.ArrowException, OSError) as error:
            reason = str(error).strip().splitlines()[0].rstrip(".")
            raise DataError(f"{name} is not a valid Parquet file: {reason}. Write or download it again.") from None


def _seekable(file: BinaryIO, path: Path, temporary: IO[bytes]) -> IO[bytes] | Path:
    """A seekable version of the content, because Parquet is read from its end; `file` is read once for its sha256."""
    if path.suffix.lower() in decompression.SUFFIXES:
        shutil.copyfileobj(file, temporary, _READ_BYTES)
        temporary.seek(0)
        return temporary
    while file.read(_READ_BYTES):
        pass
    return path


def _check_text_column(schema: pyarrow.Schema, name: str, key: str) -> None:
    from pyarrow import types

    if key not in schema.names:
        raise DataError(f'{name} has no column "{key}".{other_keys_hint(schema.names, key)}')
    if schema.names.count(key) > 1:
        raise DataError(f'{name} has several columns "{key}".{other_keys_hint(schema.names, key)}')
    column = schema.field(key).type
    column = column.value_type if types.is_dictionary(column) else column
    texts = types.is_string, types.is_large_string, types.is_string_view
    bytes_of_text = types.is_binary, types.is_large_binary, types.is_binary_view
    # A column without any value has no other type than null.
    if not any(check(column) for check in (*texts, *bytes_of_text, types.is_null)):
        raise DataError(f'column "{key}" of {name} has type {column}, not text.{other_keys_hint(schema.names, key)}')
