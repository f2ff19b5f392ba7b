"""Links between pages lead somewhere: files, anchors, pictures, and pages that the navigation contains."""

import posixpath
import re
from typing import get_args

import pytest
from documentation_pages import FENCE, ROOT, all_pages, slugs

from tokenloom.errors import Topic, see_page

LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]*))?\)")
DOCUMENTS = {path.name: path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("*.md"))}


def broken(page: str, markdown: str, root: str) -> list[str]:
    """The links of a document that lead nowhere; `page` is its path from the folder `root` of the repository."""
    problems: list[str] = []
    for target, anchor in LINK.findall(FENCE.sub("", markdown)):
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page), target)) if target else page
        known = all_pages().get(
            posixpath.normpath(posixpath.join(root, path)).removeprefix("docs/").removesuffix(".md")
        )
        if not target:
            text = markdown
        elif path.endswith(".md") and known is not None:
            text = known
        elif (ROOT / root / path).exists():
            text = (ROOT / root / path).read_text(encoding="utf-8") if path.endswith(".md") else ""
        else:
            problems.append(f"{page}: there is no {target}")
            continue
        if anchor and anchor not in slugs(text):
            problems.append(f"{page}: {target} has no #{anchor}")
    return problems


@pytest.mark.parametrize("name", all_pages())
def test_the_links_of_a_page_lead_somewhere(name):
    assert broken(f"{name}.md", all_pages()[name], "docs") == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_links_of_a_document_lead_somewhere(name):
    assert broken(name, DOCUMENTS[name], ".") == []


def test_broken_links_are_found():
    text = "[a](quickstart.md#nothing) [b](nothing.md) ![c](images/nothing.png) [d](quickstart.md#train) [e](#here)"
    assert len(broken("index.md", f"{text}\n# Here", "docs")) == 3


def test_twenty_questions_are_answered_one_link_from_the_page_of_questions():
    questions = all_pages()["questions"]
    assert "(questions.md)" in all_pages()["index"]
    numbered = re.findall(r"^(\d+)\. \*\*(.+?)\*\*(.*)$", questions, flags=re.MULTILINE)
    assert [int(number) for number, _, _ in numbered] == list(range(1, 21))
    assert [title for _, title, answer in numbered if not LINK.search(answer)] == []


def test_pictures_have_a_description():
    images = re.findall(r"!\[([^]]*)\]\(", "".join(all_pages().values()))
    assert images
    assert all(len(text) > 10 for text in images)


@pytest.mark.parametrize("topic", get_args(Topic))
def test_the_page_that_an_error_names_exists(topic):
    sentence = see_page(topic)
    (name,) = re.findall(r"^ See (\S+)\.$", sentence)
    assert broken("README.md", f"[page]({name})", ".") == []
