"""The files of the page, read from the package once: nothing else on disk can be asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

FOLDER = Path(__file__).parent / "page"
INDEX = "index.html"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    "": "text/plain; charset=utf-8",  # licenses
}
# Of a library the version is in the path; other files change with the version of Tokenloom.
_LIBRARY, _FOREVER, _ASK_AGAIN = "vendor/", "public, max-age=31536000, immutable", "no-cache"


@dataclass(frozen=True)
class PageFile:
    """A file as it is sent."""

    content: bytes
    media_type: str
    etag: str
    cache_control: str


class PageFiles:
    """The files of the page by their paths, and the replies to requests for them."""

    def __init__(self, files: Mapping[str, PageFile] | None = None) -> None:
        self._files = read_page_files() if files is None else files

    async def index(self, request: Request) -> Response:
        """The page itself."""
        return self._reply(request, INDEX)

    async def file(self, request: Request) -> Response:
        """The file that the route's `path` names."""
        return self._reply(request, request.path_params["path"])

    def _reply(self, request: Request, path: str) -> Response:
        if path not in self._files:
            raise HTTPException(404)
        file = self._files[path]
        headers = {"etag": file.etag, "cache-control": file.cache_control}
        if _matches(request.headers.get("if-none-match", ""), file.etag):
            return Response(status_code=304, headers=headers)
        return Response(file.content, headers=headers, media_type=file.media_type)


def read_page_files() -> dict[str, PageFile]:
    """Every file of the page whose type is known, under its path; the colors are those of the report."""
    paths = {path.relative_to(FOLDER).as_posix(): path for path in FOLDER.rglob("*") if path.is_file()}
    contents = {name: path.read_bytes() for name, path in paths.items() if path.suffix in _TYPES}
    contents["theme.css"] = resources.files("tokenloom.reporting").joinpath("page", "theme.css").read_bytes()
    return {name: _page_file(name, content) for name, content in sorted(contents.items())}


def _page_file(name: str, content: bytes) -> PageFile:
    return PageFile(
        content=content,
        media_type=_TYPES[Path(name).suffix],
        etag=f'"{hashlib.sha256(content).hexdigest()[:32]}"',
        cache_control=_FOREVER if name.startswith(_LIBRARY) else _ASK_AGAIN,
    )


def _matches(if_none_match: str, etag: str) -> bool:
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in tags or "*" in tags
