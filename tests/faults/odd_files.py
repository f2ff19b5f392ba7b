"""A folder of files that commands should refuse or survive, and damage to the files of a model or of token shards."""

import gzip
import json
import os
import random
import shutil
import socket
from pathlib import Path

ESCAPES = "\x1b]0;title\x07\x9b2J\u202e"
JSON_VALUES = (None, True, -1, 0, 2.5, 1e300, float("nan"), 10**30, "", ESCAPES, "\ud800", [], {}, [[]], {"a": {}})


def write_odd_files(folder: Path) -> list[str]:
    """Create the files; their names, relative to the folder."""
    before = set(os.listdir(os.fsencode(folder)))
    contents = {
        "empty.txt": b"",
        "one.txt": b"a",
        "binary.txt": bytes(range(256)) * 40,
        "latin1.txt": b"caf\xe9 au lait " * 50,
        "bom.txt": b"\xef\xbb\xbfall work\r\nand no play\r\n" * 20,
        "nul.txt": b"all\0work\0" * 50,
        "escapes.txt": f"{ESCAPES} and text ".encode() * 30,
        "long_line.txt": b"all work and no play " * 500,
        "spaces.txt": b" " * 10_000 + b"a" * 200,
        f"name{ESCAPES}.txt": b"all work and no play\n" * 20,
        "two\nlines.txt": b"all work and no play\n" * 20,
        "-dash.txt": b"all work and no play\n" * 20,
        "n" * 240 + ".txt": b"all work and no play\n" * 20,
        "good.jsonl": b'{"text": "all work and no play"}\n' * 40,
        "broken.jsonl": b'{"text": "fine"}\n{"text": \n',
        "deep.jsonl": b'{"text": ' + b"[" * 100_000 + b"\n",
        "types.jsonl": b'{"text": 5}\n[1]\nnull\n{"text": null}\n{"\\u001b[31m": "a"}\n',
        "surrogate.jsonl": b'{"text": "\\ud800 and more"}\n' * 20,
        "number.jsonl": b"1" * 10_000 + b"\n",
        "broken.txt.gz": gzip.compress(b"some text " * 1000)[:40],
        "empty.txt.gz": b"",
        "none.txt.zst": b"no zstd",
        "none.parquet": b"PAR1 and no more PAR1",
        "binary.toml": b"\xff\xfe\0",
        "odd.toml": b'[train]\nmax_steps = 1e400\n"\\u001b" = 1\n',
        "types.toml": b"[model]\nn_layer = [1]\nfamily = 3\n[data]\ntokenizer = {a = 1}\n",
        "deep.toml": b"a = " + b"[" * 5_000,
        "deep.json": b"[" * 10_000,  # as a text, it is short enough for a stride of 1
        "null.json": b"null",
        "empty.json": b"{}",
        "empty.pth": b"",
        "empty.gguf": b"",
        "header.gguf": b"GGUF\x03\0\0\0" + b"\xff" * 16,
        "empty.safetensors": b"",
        "length.safetensors": b"\xff" * 8 + b"{}",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    with open(os.fsencode(folder) + b"/caf\xe9.txt", "wb") as file:
        file.write(b"all work and no play\n" * 20)
    (folder / "loop.txt").symlink_to("loop.txt")
    (folder / "dangling.txt").symlink_to("nowhere.txt")
    (folder / "tree" / "inner").mkdir(parents=True)
    (folder / "tree" / "text.txt").write_text("all work and no play\n" * 20)
    (folder / "tree" / "inner" / "up").symlink_to("..")
    (folder / "folder.txt").mkdir()
    (folder / "nothing").mkdir()
    os.mkfifo(folder / "fifo.txt")
    (folder / "fifos").mkdir()
    os.mkfifo(folder / "fifos" / "fifo.txt")
    (folder / "fifos" / "text.txt").write_text("all work and no play\n" * 20)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(folder / "socket.txt"))  # the length of the path is limited
    unreadable = folder / "unreadable.txt"
    unreadable.write_text("all work and no play\n" * 20)
    unreadable.chmod(0)
    return sorted(os.fsdecode(name) for name in set(os.listdir(os.fsencode(folder))) - before)


def damage(path: Path, choices: random.Random) -> str:
    """Damage a file, or one of the files in a folder; what was done."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    file = choices.choice(files)
    kinds = [_truncate, _garble, _empty, _replace_by_garbage, _flip_byte]
    kinds += [_change_json] * 6 if file.suffix == ".json" else [_change_toml] * 4 if file.suffix == ".toml" else []
    kinds += [_remove, _replace_by_folder, _replace_by_link] if path.is_dir() else []
    kind = choices.choice(kinds)
    try:
        kind(file, choices)
    except ValueError:  # damaged before, so it is no document that could be changed
        _garble(file, choices)
    return f"{kind.__name__.strip('_')} {file.relative_to(path.parent)}"


def _truncate(file: Path, choices: random.Random) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: choices.randrange(len(data) + 1)])


def _garble(file: Path, choices: random.Random) -> None:
    data = file.read_bytes()
    start = choices.randrange(len(data) + 1)
    file.write_bytes(data[:start] + choices.randbytes(8) + data[start + 8 :])


def _flip_byte(file: Path, choices: random.Random) -> None:
    data = bytearray(file.read_bytes() or b"\0")
    data[choices.randrange(min(len(data), 400))] ^= 1 << choices.randrange(8)
    file.write_bytes(data)


def _empty(file: Path, _: random.Random) -> None:
    file.write_bytes(b"")


def _replace_by_garbage(file: Path, choices: random.Random) -> None:
    file.write_bytes(choices.choice([b"null", b"[]", b"{}", b"\xff\xfe", b"[" * 50_000, choices.randbytes(100)]))


def _remove(file: Path, _: random.Random) -> None:
    file.unlink()


def _replace_by_folder(file: Path, _: random.Random) -> None:
    file.unlink()
    file.mkdir()


def _replace_by_link(file: Path, choices: random.Random) -> None:
    file.unlink()
    file.symlink_to(choices.choice([file.name, "nowhere", "..", "/dev/null"]))


def _change_json(file: Path, choices: random.Random) -> None:
    """Replace, remove or add one value anywhere in the document."""
    document = value = json.loads(file.read_text())
    while isinstance(value, dict | list) and value:
        key = choices.choice(list(value) if isinstance(value, dict) else range(len(value)))
        if isinstance(value[key], dict | list) and value[key] and choices.random() < 0.7:
            value = value[key]
            continue
        if choices.random() < 0.2:
            del value[key]
        else:
            value[key] = choices.choice(JSON_VALUES)
        break
    file.write_text(json.dumps(document))


def _change_toml(file: Path, choices: random.Random) -> None:
    lines = file.read_text().splitlines()
    row = choices.randrange(len(lines)) if lines else 0
    values = ["-1", "0", "1e400", "nan", '"\\u001b[31m"', "[]", "true", "99999999999999999999", "{a = 1}"]
    if lines and "=" in lines[row] and choices.random() < 0.8:
        lines[row] = f"{lines[row].partition('=')[0]}= {choices.choice(values)}"
    elif lines:
        del lines[row]
    file.write_text("\n".join(lines))


def copy_of(original: Path, copy: Path) -> Path:
    """A copy of a file or folder."""
    if original.is_dir():
        shutil.copytree(original, copy)
    else:
        shutil.copyfile(original, copy)
    return copy
