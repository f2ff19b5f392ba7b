"""The files of the page: types, caching, what is served, and the libraries among them."""

import hashlib
import re
import tomllib
from pathlib import Path

import httpx2
import pytest

import tokenloom.reporting
from tokenloom.serving.page_files import FOLDER, read_page_files

REPORT = Path(tokenloom.reporting.__file__).parent / "page"
ROOT = Path(__file__).parent.parent.parent
VENDOR = FOLDER / "vendor"
PACKAGES = tomllib.loads((VENDOR / "VENDORED.toml").read_text())["packages"]
OWN = [path for path in sorted(FOLDER.rglob("*")) if path.is_file() and VENDOR not in path.parents]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/page/index.html", "text/html; charset=utf-8"),
        ("/page/main.js", "text/javascript; charset=utf-8"),
        ("/page/style.css", "text/css; charset=utf-8"),
        ("/page/icon.svg", "image/svg+xml"),
        ("/page/vendor/uplot-1.6.32/LICENSE", "text/plain; charset=utf-8"),
    ],
)
def test_files_have_their_types_on_every_machine(http, path, kind):
    reply = http.get(path)
    assert (reply.status_code, reply.headers["content-type"]) == (200, kind)
    assert http.head(path).headers["content-length"] == str(len(reply.content))


def test_a_file_that_the_browser_has_is_not_sent_again(http):
    reply = http.get("/page/main.js")
    assert reply.headers["cache-control"] == "no-cache"
    for tags in (reply.headers["etag"], f'"other", W/{reply.headers["etag"]}', "*"):
        again = http.get("/page/main.js", headers={"if-none-match": tags})
        assert (again.status_code, again.content) == (304, b"")
    assert http.get("/page/main.js", headers={"if-none-match": '"other"'}).status_code == 200
    assert "immutable" in http.get("/page/vendor/uplot-1.6.32/uPlot.esm.js").headers["cache-control"]


@pytest.mark.parametrize("name", ["nothing.js", "vendor", "vendor/VENDORED.toml", "../app.py", "..%2Fapp.py", ""])
def test_only_files_of_the_page_are_served(http, name):
    assert http.get(f"/page/{name}").status_code == 404


def test_the_page_needs_no_key_but_its_data_does(runs, server_of):
    with server_of(runs, api_key="secret") as server, httpx2.Client(base_url=server.url, timeout=30) as http:
        assert all(http.get(f"/page/{name}").status_code == 200 for name in read_page_files())
        assert http.get("/api/runs").status_code == 401


def test_the_colors_of_the_page_and_of_the_report_are_in_one_file():
    files = {name: file.content.decode() for name, file in read_page_files().items() if "vendor" not in name}
    theme = files.pop("theme.css")
    report = {path.name: path.read_text(encoding="utf-8") for path in REPORT.iterdir()}
    assert report.pop("theme.css") == theme
    scripts = "".join(text for name, text in files.items() if name.endswith(".js"))
    light, dark = theme.split("@media")
    assert set(re.findall(r"(--[\w-]+): #", light)) == set(re.findall(r"(--[\w-]+): #", dark))
    for name, text in (files | report).items():
        if name.endswith(".css"):
            assert not re.search(r"#[0-9a-f]{3,8}\b|\brgba?\(|\bhsla?\(", text), name
            used = set(re.findall(r"var\((--[\w-]+)", text))
            assert used <= set(re.findall(r"(--[\w-]+):", theme + text + scripts)), name


@pytest.mark.parametrize("path", [path for path in OWN if path.suffix == ".js"], ids=lambda path: path.name)
def test_modules_import_what_is_there_and_stay_short(path):
    text = path.read_text(encoding="utf-8")
    for name in re.findall(r'^import .* from "(.+)";$|^} from "(.+)";$', text, flags=re.MULTILINE):
        assert (path.parent / "".join(name)).is_file()
    assert len(text.splitlines()) < 350
    assert text.startswith("// "), "the first line says what the module is"


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_own_files_name_no_other_site_and_evaluate_no_text(path):
    text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|\beval\(|new Function|innerHTML|unsafeHTML| style=\"| on\w+=\"", text)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package["name"])
def test_libraries_are_the_files_of_their_packages(package):
    folder = VENDOR / f"{package['name']}-{package['version']}"
    hashes = {file.get("path", Path(file["source"]).name): file["sha256"] for file in package["files"]}
    files = [path for path in folder.rglob("*") if path.is_file()]
    found = {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    assert found == hashes
    assert "LICENSE" in found


def test_licenses_of_libraries_are_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {path for pattern in project["license-files"] for path in ROOT.glob(pattern)}
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    for package in PACKAGES:
        assert VENDOR / f"{package['name']}-{package['version']}" / "LICENSE" in declared
        assert package["license"] in project["license"].split(" AND ")
        assert f"{package['name']} {package['version']}" in notice
