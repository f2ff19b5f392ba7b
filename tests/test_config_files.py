"""Configuration files: presets of the package, and TOML files of the user."""

import pytest

from tokenloom.config import Config
from tokenloom.config_files import preset_names, read_preset, read_toml
from tokenloom.errors import ConfigError

PRESETS = {
    "book-124m",
    *(f"gpt2-{size}" for size in ("124m", "355m", "774m", "1558m")),
    *(f"modern-{size}" for size in ("xs", "s", "m", "124m")),
}


def test_all_presets_are_available():
    assert set(preset_names()) == PRESETS


def test_an_unknown_preset_is_answered_with_the_most_similar_name():
    with pytest.raises(ConfigError, match='no preset "gpt2-124"') as refused:
        read_preset("gpt2-124")
    assert "Did you mean gpt2-124m?" in str(refused.value)
    with pytest.raises(ConfigError, match="Available: book-124m, .*modern-xs"):
        read_preset("xyzzy")


def test_a_toml_file_can_be_read(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('[train]\nmax_steps = 5\ngrad_clip = "none"\n[sample]\nprompts = ["é"]\n', encoding="utf-8")
    config = Config.of(read_toml(file))
    assert (config.train.max_steps, config.train.grad_clip, config.sample.prompts) == (5, None, ("é",))


def test_a_toml_file_from_windows_can_be_read(tmp_path):
    file = tmp_path / "run.toml"
    file.write_bytes(b"\xef\xbb\xbf[train]\r\nmax_steps = 5\r\n")
    assert read_toml(file) == {"train": {"max_steps": 5}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b"[train\nmax_steps = 5", "not valid TOML"),
        (b"max_steps = \xff", r"not UTF-8: byte 0xff at offset 12. Save it as UTF-8."),
        ("max_steps = 5".encode("utf-16"), r"not UTF-8: byte 0xff at offset 0. Save it as UTF-8."),
        (b"max_steps = " + b"9" * 5_000, "not valid TOML"),
        (b"max_steps = " + b"[" * 100_000, "not valid TOML"),
    ],
)
def test_an_unreadable_file_is_named(tmp_path, content, message):
    file = tmp_path / "run.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as refused:
        read_toml(file)
    assert str(file) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_folder_is_not_a_configuration(tmp_path):
    with pytest.raises(ConfigError, match="is a folder"):
        read_toml(tmp_path)
