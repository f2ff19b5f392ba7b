"""Texts made of what distributions contain."""

import io
import tarfile

import pytest
import texts


@pytest.fixture
def archive(tmp_path):
    files = {
        "pkg-1/docs/b.txt": b"second\n",
        "pkg-1/docs/a/z.txt": b"first\n",
        "pkg-1/docs/conf.py": b"code",
        "pkg-1/README.txt": b"elsewhere",
        "pkg-1/tests/docs/c.txt": b"elsewhere",
    }
    with tarfile.open(tmp_path / "pkg-1.tar.gz", "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return tmp_path / "pkg-1.tar.gz"


def test_documents_are_joined_in_order_of_their_paths(archive):
    assert texts.documents(archive, "docs", ".txt") == b"first\n\n\nsecond\n"


def test_a_text_is_made_once_and_only_with_the_expected_content(tmp_path, monkeypatch):
    monkeypatch.setenv("TOKENLOOM_CACHE", str(tmp_path))
    calls = []
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

    def nothing(folder):
        calls.append(folder)
        return b""

    monkeypatch.setitem(texts.TEXTS, "empty", texts.Text(nothing, empty))
    assert texts.make("empty") == texts.make("empty") == tmp_path / "texts" / "empty.txt"
    assert len(calls) == 1
    monkeypatch.setitem(texts.TEXTS, "other", texts.Text(nothing, empty[::-1]))
    with pytest.raises(ValueError, match="other has the sha256"):
        texts.make("other")
    assert not (tmp_path / "texts" / "other.txt").exists()


def test_a_text_that_cannot_be_made_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TOKENLOOM_CACHE", str(tmp_path))

    def unavailable(folder):
        raise FileNotFoundError(2, "No such file or directory", "apt-get")

    made = texts.Text(lambda folder: b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    monkeypatch.setattr(texts, "TEXTS", {"first": texts.Text(unavailable, "0"), "second": made})
    assert texts.main([]) == 1
    output = capsys.readouterr()
    assert output.out == f"{tmp_path / 'texts' / 'second.txt'}\n"
    assert "first: [Errno 2] No such file or directory: 'apt-get'" in output.err
