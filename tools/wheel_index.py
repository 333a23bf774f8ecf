"""Which files a package index has of a package: its simple API, as JSON (PEP 691) or as a page (PEP 503)."""

from __future__ import annotations

import ast
import base64
import http.client
import json
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Dict, List, Optional, Sequence, Tuple
from urllib.parse import unquote, urlsplit, urlunsplit

from packaging.utils import canonicalize_name

#: What is asked for, the first preferred.
_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
#: The longest page that is read. The largest project's pages are below 20 MB.
_MOST_BYTES = 64_000_000
#: For one page.
_TIMEOUT_S = 30.0


class IndexFaultError(Exception):
    """The index cannot be read: what was seen, and what to do."""


@dataclass(frozen=True)
class IndexFile:
    """A file of a release.

    Args:
        filename: of a wheel or a source archive.
        requires_python: its specifier, empty where the index names none.
        yanked: whether its author took it back.
    """

    filename: str
    requires_python: str = ""
    yanked: bool = False


@dataclass(frozen=True)
class Index:
    """The index that pip is configured for.

    Args:
        urls: of the simple API, the first of them the main index.
        cafile: certificates to trust, None for the system's.
        deadline_s: on the clock of `time.perf_counter`; nothing is asked after it.
    """

    urls: Tuple[str, ...]
    cafile: Optional[str]
    deadline_s: float

    def files(self, name: str) -> List[IndexFile]:
        """Return the files of every release of a package, of every configured index that knows it.

        Raises: IndexFaultError when none does, an answer cannot be read, or the time is up.
        """
        found: Dict[str, IndexFile] = {}
        for url in self.urls:
            page = self._page(f"{url.rstrip('/')}/{canonicalize_name(name)}/")
            for file in [] if page is None else parse(*page):
                found.setdefault(file.filename, file)
        if not found:
            raise IndexFaultError(f"no configured index has the package {name}: is it misspelt?")
        return list(found.values())

    def _page(self, url: str) -> Optional[Tuple[bytes, str]]:
        """Return an answer and its content type, or None where the index does not know the package."""
        left_s = self.deadline_s - time.perf_counter()
        host = urlsplit(url).hostname or url
        if left_s <= 0:
            raise IndexFaultError(
                "the time for the index is up: give more with --seconds, or use --offline"
            )
        if urlsplit(url).scheme != "https":
            return None  # folders of wheels and plain http have no word in what others will find
        request = _request(url)
        context = ssl.create_default_context(cafile=self.cafile)
        try:
            with urllib.request.urlopen(  # noqa: S310  # https, see above
                request, timeout=min(left_s, _TIMEOUT_S), context=context
            ) as answer:
                body = answer.read(_MOST_BYTES + 1)
                content_type = str(answer.headers.get_content_type())
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise IndexFaultError(
                f"{host} answered {error.code} for {url.rsplit('/', 2)[1]}"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise IndexFaultError(
                f"{host} cannot be read ({type(error).__name__}): use --offline"
            ) from None
        if len(body) > _MOST_BYTES:
            raise IndexFaultError(f"{host} answered with more than {_MOST_BYTES} bytes")
        return body, content_type


def _request(url: str) -> urllib.request.Request:
    """Return a request with what the URL has of a name and password in its header, where servers look for it."""
    parts = urlsplit(url)
    headers = {"Accept": _ACCEPT}
    if parts.username:
        secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        headers["Authorization"] = f"Basic {base64.b64encode(secret).decode()}"
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    return urllib.request.Request(bare, headers=headers)  # noqa: S310  # the caller lets https through alone


def configured(seconds: float) -> Index:
    """Return the index that pip is configured for: `index-url`, `extra-index-url` and `cert`.

    Args:
        seconds: for everything that is asked of it, > 0.
    Raises: IndexFaultError when pip does not say.
    """
    settings = _pip_settings()
    main = settings.get("index-url") or _pip_default()
    urls = (main, *settings.get("extra-index-url", "").split())
    return Index(urls, settings.get("cert") or None, time.perf_counter() + seconds)


def parse(body: bytes, content_type: str) -> List[IndexFile]:
    """Return the files that a page of the simple API lists.

    Raises: IndexFaultError when it is not such a page.
    """
    text = body.decode("utf-8", errors="replace")
    if content_type.endswith("json"):
        return _of_json(text)
    page = _Anchors()
    page.feed(text)
    return page.files


def _of_json(text: str) -> List[IndexFile]:
    try:
        return [
            IndexFile(
                str(entry["filename"]),
                str(entry.get("requires-python") or ""),
                bool(entry.get("yanked")),
            )
            for entry in json.loads(text)["files"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IndexFaultError(f"the index's JSON has no list of files ({error!r})") from None


class _Anchors(HTMLParser):
    """Reads the links of a PEP 503 page."""

    def __init__(self) -> None:
        super().__init__()
        self.files: List[IndexFile] = []

    def handle_starttag(self, tag: str, attrs: Sequence[Tuple[str, Optional[str]]]) -> None:
        """Take the file that a link names."""
        values = dict(attrs)
        href = values.get("href")
        if tag == "a" and href:
            name = unquote(urlsplit(href).path.rsplit("/", 1)[-1])
            requires = values.get("data-requires-python") or ""
            self.files.append(IndexFile(name, requires, "data-yanked" in values))


def _pip_settings() -> Dict[str, str]:
    """Return pip's settings; of one that is set in several places, the one that pip takes for `install`."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    try:
        done = subprocess.run(  # noqa: S603  # our own interpreter, constant arguments
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise IndexFaultError(f"pip does not say its configuration ({error})") from None
    found: Dict[str, str] = {}
    for scope in ("global", "install", ":env:"):
        for line in done.stdout.splitlines():
            key, _, value = line.partition("=")
            if key.startswith(f"{scope}."):
                found[key[len(scope) + 1 :]] = _unquoted(value)
    return found


def _unquoted(value: str) -> str:
    """Return a value as pip lists it, which is in Python's quotes."""
    try:
        return str(ast.literal_eval(value))
    except (ValueError, SyntaxError):
        return value


def _pip_default() -> str:
    """Return the index that pip asks where none is configured."""
    try:
        from pip._internal.models.index import PyPI
    except ImportError:
        raise IndexFaultError(
            "this pip does not say its default index: set one with `pip config set global.index-url`"
        ) from None
    return str(PyPI.simple_url)
