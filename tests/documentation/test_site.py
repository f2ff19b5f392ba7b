"""The site is built without a warning, its links lead somewhere, and it loads nothing from the network."""

import json
import re
import runpy
import shutil
import subprocess
import sys
import warnings
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from documentation_pages import COPIES, DOCS, REFERENCE, ROOT, all_pages


class Links(HTMLParser):
    """The addresses and anchors of a page, and what it loads."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.ids: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids.add(values.get("id", ""))
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag in ("img", "script", "source", "iframe") and "src" in values:
            self.loaded.append(values["src"])
        elif tag == "link" and values.get("rel") != "canonical":
            self.loaded.append(values.get("href", ""))


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> dict[Path, Links]:
    sphinx = pytest.importorskip("sphinx.cmd.build")
    copy = tmp_path_factory.mktemp("repository").resolve()  # the build writes pages into its folder
    generated = {name.split("/")[0] for name in (*REFERENCE, *COPIES.values())}
    shutil.copytree(DOCS, copy / "docs", ignore=shutil.ignore_patterns("_build", "__pycache__", *generated))
    for name in COPIES:
        (copy / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    # In this process, because a start takes seconds. What Sphinx and its extensions warn of in Python is not ours.
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(sys, "path", [*sys.path])  # the configuration adds to it
        code = sphinx.build_main(
            ["--fail-on-warning", "--keep-going", "--quiet", str(copy / "docs"), str(copy / "site")]
        )
    assert code == 0
    return {page: Links(page) for page in (copy / "site").rglob("*.html")}


def test_links_lead_to_pages_and_anchors_that_exist(site):
    assert len(site) > 40
    problems: list[str] = []
    for page, links in site.items():
        for link in links.links:
            path, _, anchor = link.partition("#")
            if re.match(r"\w+:", path):
                continue
            target = (page.parent / unquote(path)).resolve() if path else page
            anchors = site[target].ids if target in site else set()
            if not target.exists() or (anchor and unquote(anchor) not in anchors):
                problems.append(f"{page.name}: {link}")
    assert problems == []


def test_the_answers_to_twenty_questions_are_two_clicks_from_the_start_page(site):
    root = min((page.parent for page in site), key=lambda folder: len(folder.parts))
    pages = {page.name: links for page, links in site.items() if page.parent == root}
    answers = re.findall(r"^\d+\. \*\*.*\]\(([^)]+)\)", all_pages()["questions"], flags=re.MULTILINE)
    assert len(answers) == 20
    assert "questions.html" in pages["index.html"].links
    clicks = {answer.partition("#")[0].replace(".md", ".html") for answer in answers}
    assert clicks <= set(pages["questions.html"].links)


def test_it_loads_nothing_from_the_network(site):
    assert [address for links in site.values() for address in links.loaded if re.match(r"(\w+:)?//", address)] == []
    styles = {style for page in site for style in (page.parent / "_static").rglob("*.css")}
    assert styles
    network = re.compile(r"url\([\"']?https?:|@import")
    assert [style for style in styles if network.search(style.read_text(encoding="utf-8"))] == []


def test_the_search_index_has_english_stems(site):
    (index,) = filter(Path.is_file, {page.with_name("searchindex.js") for page in site})
    assert re.search(r"\bperplex\b", index.read_text(encoding="utf-8"))


def test_words_of_japanese_text_are_in_the_search_index_in_any_context():
    pytest.importorskip("sphinx")
    conf = runpy.run_path(str(DOCS / "conf.py"))
    split = conf["SearchEnglishAndJapanese"]({}).split
    for word in ("過剰適合", "埋め込み", "データ", "窓"):
        assert set(split(word)) <= set(split(f"これは{word}である。"))
        assert not set(split(word)) <= set(split("損失関数は小さい loss"))
    assert "loss" in split("損失関数は小さい loss")
    assert conf["language_of"]("chapter/ja/training") == "ja"
    assert conf["language_of"]("chapter/en/training") == "en"


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
def test_a_japanese_query_is_divided_as_the_index_is():
    pytest.importorskip("sphinx")
    search = runpy.run_path(str(DOCS / "conf.py"))["SearchEnglishAndJapanese"]({})
    for query in ("過剰適合 loss", "GPT2の重み", "窓"):
        script = f"{search.js_splitter_code} console.log(JSON.stringify(splitQuery({json.dumps(query)})))"
        result = subprocess.run(["node", "-e", script], capture_output=True, text=True, encoding="utf-8", timeout=60)
        words = json.loads(result.stdout)
        assert words
        assert set(words) <= set(search.split(query))
