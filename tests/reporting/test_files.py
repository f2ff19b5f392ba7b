"""Files: whole, or as they were."""

import pytest

from tokenloom.reporting.files import write_whole


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path):
    for content in (b"first", b"second"):
        write_whole(tmp_path / "page.html", content)
    assert (tmp_path / "page.html").read_bytes() == b"second"
    assert len(list(tmp_path.iterdir())) == 1


def test_where_it_cannot_be_written_nothing_is_left(tmp_path):
    (tmp_path / "page.html").mkdir()
    with pytest.raises(OSError, match=r"page\.html"):
        write_whole(tmp_path / "page.html", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
