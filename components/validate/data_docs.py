"""Great Expectations' own pages, made so that they read the same without a network.

Its templates take their style, icons and the whole index from a dozen servers, so without a network the status column
is blank and the index empty, and with one every look tells those servers. So the renderer's pages stay, what they would
load is taken out, a small style of our own put in, and the index is a page of ours with plain links.
"""

from __future__ import annotations

import html
import re
import shutil
from pathlib import Path
from typing import Any

SITE = "data_docs"
_REMOTE = re.compile(
    r"<script\b.*?</script>|<link\b[^>]*\bhref=\"https?:[^>]*>|<img\b[^>]*\bsrc=\"https?:[^>]*>|<footer>.*?</footer>"
    r"|url\(['\"]?https?:[^)]*\)",
    re.DOTALL | re.IGNORECASE,
)
STYLE = """<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 75rem; padding: 0 1rem 3rem; color: #212529; }
.navbar nav { padding: .5rem 0; } .breadcrumb { list-style: none; display: flex; gap: .5rem; padding: 0; margin: 0; }
.breadcrumb-item + .breadcrumb-item::before { content: "/ "; }
.col-lg-2 { border-bottom: 1px solid #dee2e6; margin-bottom: 1rem; } .sticky ul { columns: 3; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; }
th, td { border: 1px solid #dee2e6; padding: .35rem .6rem; text-align: left; vertical-align: top; }
th { background: #f1f3f5; } .badge { background: #e9ecef; border-radius: .25rem; padding: .05rem .3rem; }
h4, h5, h6 { font-size: 1.05rem; margin: 1.2rem 0 .4rem; } .alert { background: #f1f3f5; padding: .6rem .8rem; }
.fa-check-circle::before, .fa-check::before { content: "\\2713"; color: #18794e; font-weight: bold; }
.fa-times::before { content: "\\2717"; color: #b42318; font-weight: bold; }
.fa-exclamation-triangle::before { content: "!"; color: #946200; font-weight: bold; }
.ge_info, .btn, input, label, [data-toggle="collapse"] { display: none; }
@media (prefers-color-scheme: dark) {
  body { background: #16181b; color: #e6e6e6; } a { color: #8ab4f8; } th, .alert, .badge { background: #26292d; }
  th, td, .col-lg-2 { border-color: #3a3f44; }
}
</style>
</head>"""


def site(folder: Path) -> dict[str, Any]:
    """The data docs site of a context, in a folder."""
    store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder)}
    return {SITE: {"class_name": "SiteBuilder", "show_how_to_buttons": False, "store_backend": store}}


def build(context: Any, folder: Path, told: str) -> None:
    """Render the site and make it stand alone, `told` on its first page. What an earlier run left there is removed."""
    shutil.rmtree(folder, ignore_errors=True)
    context.build_data_docs(site_names=[SITE], build_index=False)
    pages = sorted(folder.rglob("*.html"))
    for page in pages:
        page.write_text(alone(page.read_text("utf-8")), "utf-8")
    links = "".join(f'<li><a href="{_name(p, folder)}">{_title(p, folder)}</a></li>' for p in reversed(pages))
    told = f"{html.escape(told)} Pages by Great Expectations."
    index = f"<h1>The manifest, held against its suite</h1><p>{told}</p><ul>{links}</ul>"
    head = '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Data Docs</title>'
    (folder / "index.html").write_text(f"{head}{STYLE}<body>{index}</body></html>\n", "utf-8")


def alone(page: str) -> str:
    """A page without anything that it would load from elsewhere, with our style."""
    return _REMOTE.sub("", page).replace("</head>", STYLE, 1)


def _name(page: Path, folder: Path) -> str:
    return html.escape(page.relative_to(folder).as_posix())


def _title(page: Path, folder: Path) -> str:
    return "What was found" if page.relative_to(folder).parts[0] == "validations" else "What is expected"
