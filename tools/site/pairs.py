"""The searchable table of all pairs: a page, and its rows as JavaScript."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from pyro_kl import registered

from .classes_of_pairs import error_of, page_of
from .pages import write_page

PAGE = """\
# Pairs

{count:,} ordered pairs: {methods}. *Finite if* is the condition under which the KL is finite.
*Error* is the largest relative error against reference values made from the densities alone,
rounded up; an integral's error is also estimated for each value (`pyro_kl.kl(p, q).error`).
`pyro-kl explain P Q` shows the formula of a pair.

```{{raw}} html
<div id="pairs">
  <form class="pairs-filter" role="search" onsubmit="return false">
    <label>p <select name="p"><option value="">any</option></select></label>
    <label>q <select name="q"><option value="">any</option></select></label>
    <label>method <select name="method"><option value="">any</option></select></label>
    <label>text <input name="text" type="search" placeholder="finite if, reference, ..."></label>
    <button type="reset">clear</button>
  </form>
  <p class="pairs-count" role="status" aria-live="polite"></p>
  <table class="table pairs-table">
    <thead><tr></tr></thead>
    <tbody></tbody>
  </table>
  <p><button type="button" class="pairs-more" hidden>show all</button></p>
  <noscript>This table needs JavaScript. The pages of the families have the same rows.</noscript>
</div>
<script src="../_static/pairs_data.js"></script>
<script src="../_static/pairs.js"></script>
```
"""


def write_pairs(root: Path) -> None:
    """docs/reference/pairs.md and docs/_static/pairs_data.js."""
    pairs = registered()
    counts = Counter(pair.method for pair in pairs)
    methods = ", ".join(f"{count} {method}" for method, count in counts.most_common())
    write_page(root / "docs/reference/pairs.md", PAGE.format(count=len(pairs), methods=methods))
    links = {
        cls.__name__: page_of(cls, depth=0).replace(".md", ".html")
        for pair in pairs
        for cls in (pair.p, pair.q)
    }
    rows = [
        [
            pair.p.__name__,
            pair.q.__name__,
            pair.method,
            pair.finite,
            error_of(pair),
            pair.reference,
        ]
        for pair in pairs
    ]
    data = f"window.PAIRS = {json.dumps({'links': links, 'rows': rows}, indent=0)};\n"
    write_page(root / "docs/_static/pairs_data.js", data)
