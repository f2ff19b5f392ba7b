"""Links between pages lead somewhere: files, anchors, pictures, answers, and pages that errors name."""

import functools
import posixpath
import re
from typing import get_args

import pytest
from documentation_pages import FENCE, ROOT, all_pages, part_of, slugs

from tokenloom.errors import Topic, see_page

LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]*))?\)")
DOCUMENTS = {path.name: path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("*.md"))}
# What the page that each of the twenty questions links to says about it, in their order.
ANSWERS = (
    "`train` takes two minutes",
    "no connection to the internet is needed",
    "tokenloom train book.txt",
    "at least a few hundred kilobytes",
    "the **size of the model**: as large as can still be trained",
    "models of GPT-2's size",
    "Four levels to compare it with",
    "What helps, most first: more text",
    "A model that overfits recites its training text",
    "Resume with a smaller learning rate",
    "The run continues from its newest valid checkpoint",
    "| number of steps, batch size, learning rate, schedule, weight decay | accepted",
    "**Smaller micro-batches.**",
    "starts one process for each GPU",
    "`--init-from` starts from its weights",
    "Two figures compare only if these are equal",
    "| bits per byte | sum / ln 2 / bytes | no |",
    "tokenloom compare runs/book@best runs/book",
    "llama.cpp reads GGUF files",
    "tokenloom serve gpt2 runs/book",
)


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


def test_the_answers_to_twenty_questions_are_two_links_from_the_start_page():
    assert "(questions.md)" in all_pages()["index"]
    numbered = re.findall(r"^(\d+)\. \*\*(.+?)\*\*(.*)$", all_pages()["questions"], flags=re.MULTILINE)
    assert [int(number) for number, _, _ in numbered] == list(range(1, 21))
    for (_, question, line), answer in zip(numbered, ANSWERS, strict=True):
        [(target, anchor)] = LINK.findall(line)
        page = all_pages()[target.removesuffix(".md")]
        assert answer in (part_of(page, anchor) if anchor else " ".join(page.split())), question


def test_statements_of_the_comparison_have_a_command_or_a_link():
    parts = re.split(r"^### ", all_pages()["comparison"].partition("## Figures")[0], flags=re.MULTILINE)[1:]
    assert len(parts) >= 8
    for part in parts:
        ours, _, others = part.partition("**Others.** ")
        assert "```sh\ntokenloom " in ours
        assert "](https://" in others


def test_pictures_have_a_description():
    images = re.findall(r"!\[([^]]*)\]\(", "".join(all_pages().values()))
    assert images
    assert all(len(text) > 10 for text in images)


@pytest.mark.parametrize("topic", get_args(Topic))
def test_the_page_that_an_error_names_exists(topic):
    sentence = see_page(topic)
    (name,) = re.findall(r"^ See (\S+)\.$", sentence)
    assert broken("README.md", f"[page]({name})", ".") == []


def test_every_topic_is_that_of_an_error():
    assert [topic for topic in get_args(Topic) if f'topic="{topic}"' not in source_code()] == []


def test_messages_on_the_pages_are_those_of_the_program():
    pages = all_pages()["how-to/errors"] + all_pages()["how-to/resume"].partition("## If it cannot be resumed")[2]
    messages = re.findall(r"^\| `([^`]+)` \|", pages, flags=re.MULTILINE)
    assert len(messages) > 15
    fragments = {fragment.strip() for message in messages for fragment in message.split("…")}
    assert [fragment for fragment in fragments if fragment not in source_code()] == []


@functools.cache
def source_code() -> str:
    return "".join(file.read_text(encoding="utf-8") for file in (ROOT / "src").rglob("*.py"))
