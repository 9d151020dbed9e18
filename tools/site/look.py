"""Opens every page of the built site in a headless Chromium and says what is wrong with it.

python -m tools.site.look [--shots FOLDER] [--only TEXT] [--widths 400 1400]

Each page is opened at each width. Reported are: an element that sticks out on the right, a picture
that is missing, a link or an anchor that leads nowhere, a formula that MathJax could not set, a
message on the console, and a request to another host.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from playwright.sync_api import Browser, Page, sync_playwright

SITE = Path(__file__).parents[2] / "build/site"

#: Elements whose right end is beyond the window, and that no box with a scrollbar contains.
STICKING_OUT = """() => {
  const wide = document.documentElement.clientWidth, found = [];
  const boxes = ["auto", "scroll", "hidden", "clip"];
  const scrolls = (x) => boxes.includes(getComputedStyle(x).overflowX);
  for (const each of document.querySelectorAll(".bd-main *, .bd-header *, footer *")) {
    const box = each.getBoundingClientRect();
    if (!box.width || !box.height || box.right <= wide + 1) continue;
    let up = each.parentElement;
    while (up && !scrolls(up)) up = up.parentElement;
    if (up && up !== document.body && up !== document.documentElement) continue;
    if (getComputedStyle(each).position === "fixed") continue;
    found.push(`${each.tagName.toLowerCase()}.${each.className} ends at ${Math.round(box.right)}`);
  }
  const page = document.documentElement.scrollWidth;
  if (page > wide) found.unshift(`the page is ${page} wide`);
  return found.slice(0, 3);
}"""
MISSING = """() => [...document.images].filter((x) => x.complete && !x.naturalWidth && x.src)
  .map((x) => x.src)"""
MATH_ERRORS = """() => [...document.querySelectorAll("mjx-merror, .MathJax_Error")]
  .map((x) => x.textContent)"""


def main() -> int:
    """Print the faults; the exit code is 1 if there are any."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shots", type=Path, help="a folder for screenshots")
    parser.add_argument("--only", default="", help="only pages whose path has this text")
    parser.add_argument("--widths", type=int, nargs="+", default=[400, 1400])
    arguments = parser.parse_args()
    pages = [page for page in _pages() if arguments.only in str(page)]
    faults = broken_links(pages)
    with served(SITE) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_chromium())
        for width in arguments.widths:
            faults += looked_at(browser, pages, address, width, arguments.shots)
    print("\n".join(faults))
    print(f"{len(pages)} pages, {len(faults)} faults")
    return int(bool(faults))


def _pages() -> list[Path]:
    return sorted(page for page in SITE.rglob("*.html") if "_static" not in page.parts)


def _chromium() -> str | None:
    """The system's browser; None for playwright's own."""
    return shutil.which("chromium") or shutil.which("google-chrome")


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on a free port of this machine."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


# --- in the browser -----------------------------------------------------------------------------


def looked_at(
    browser: Browser, pages: list[Path], address: str, width: int, shots: Path | None
) -> list[str]:
    """The faults of all pages at one width."""
    window = browser.new_page(viewport={"width": width, "height": 900})
    told: list[str] = []
    window.on(
        "console", lambda x: told.append(f"console: {x.text}") if x.type == "error" else None
    )
    window.on("pageerror", lambda error: told.append(f"script: {error}"))
    # the browser gives up what it still loads when it goes on to the next page
    window.on(
        "requestfailed",
        lambda x: None if x.failure == "net::ERR_ABORTED" else told.append(f"not loaded: {x.url}"),
    )
    window.on(
        "request",
        lambda x: None if x.url.startswith((address, "data:")) else told.append(f"host: {x.url}"),
    )
    faults = []
    for page in pages:
        name = page.relative_to(SITE).as_posix()
        told.clear()
        window.goto(f"{address}/{name}", wait_until="load")
        _settle(window)
        told += [f"sticks out: {x}" for x in window.evaluate(STICKING_OUT)]
        told += [f"missing picture: {x}" for x in window.evaluate(MISSING)]
        told += [f"formula: {x}" for x in window.evaluate(MATH_ERRORS)]
        faults += [f"{name} at {width}: {x}" for x in dict.fromkeys(told)]
        if shots:
            shot = shots / f"{width}" / f"{name.removesuffix('.html').replace('/', '.')}.png"
            shot.parent.mkdir(parents=True, exist_ok=True)
            window.screenshot(path=shot, full_page=True)
    window.close()
    return faults


def _settle(window: Page) -> None:
    """Wait until the formulas are set and lazy pictures are asked for."""
    window.evaluate(
        """async () => {
          document.querySelectorAll("img[loading=lazy]").forEach((x) => { x.loading = "eager"; });
          if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
          await Promise.all([...document.images].filter((x) => !x.complete).map(
            (x) => new Promise((done) => { x.onload = x.onerror = done; })));
        }"""
    )


# --- in the files -------------------------------------------------------------------------------


class Links(HTMLParser):
    """The places that a page links to and has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.to: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("id"):
            self.anchors.add(str(given["id"]))
        place = given.get("href" if tag in ("a", "link") else "src")
        if place:
            self.to.append(place)


def broken_links(pages: list[Path]) -> list[str]:
    """Links within the site that lead nowhere; a page's sources on other hosts are faults too."""
    every = {page: Links(page.read_text()) for page in _pages()}
    faults = []
    for page in pages:
        name = page.relative_to(SITE).as_posix()
        for place in dict.fromkeys(every[page].to):
            parts = urlsplit(urljoin(f"/{name}", place))
            if parts.scheme or parts.netloc:
                continue
            target = SITE / unquote(parts.path).lstrip("/")
            anchor = unquote(parts.fragment)
            if not target.is_file():
                faults.append(f"{name}: broken link {place}")
            elif anchor and target in every and anchor not in every[target].anchors:
                faults.append(f"{name}: no anchor {place}")
    return faults


if __name__ == "__main__":
    sys.exit(main())
