"""How Sphinx builds the site; `make site` runs it. No step needs the network."""

import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ["PYTHONPATH"] = str(ROOT)  # the pages' kernels import this working tree
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("MPLBACKEND", None)  # a kernel shows figures in its page only by its own choice
# tqdm, which Pyro imports, asks every notebook for ipywidgets: no page shows a bar
os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"

import matplotlib  # noqa: E402

import pyro_kl  # noqa: E402
from tools.site import docstrings, generate, notebooks, shell  # noqa: E402

matplotlib.use("Agg")

project = "pyro_kl"
author = "The pyro_kl authors"
version = release = pyro_kl.__version__
copyright = author

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxcontrib.bibtex",
    "sphinx.ext.mathjax",
]
# The sources of the pages in pictures/, and the notebooks that are offered there for download.
exclude_patterns = ["gallery/*", "pictures/*.ipynb"]
only = os.environ.get("ONLY", "")  # pages to look at while one writes them: tutorials/vae
if only:
    include_patterns = ["index.md", *(f"{page}.md" for page in only.split())]
    suppress_warnings = ["toc.*", "myst.xref_missing", "ref.*", "toc.empty_glob", "bibtex.*"]

# --- pages with code ----------------------------------------------------------------------------

nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_execution_timeout = 600  # of a cell, on a machine that does other things too
nb_execution_show_tb = True
notebooks.join_streams()
nb_ipywidgets_js = {}  # nothing is loaded from another host
myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
copybutton_exclude = ".linenos, .gp, .go"

if (ROOT / "docs/gallery").is_dir() and not only:
    extensions.append("sphinx_gallery.gen_gallery")
    sphinx_gallery_conf = {
        "examples_dirs": "gallery",
        "gallery_dirs": "pictures",
        "download_all_examples": False,
        "show_signature": False,
        "write_computation_times": False,  # a page that asks other hosts for scripts
    }

# --- reference ----------------------------------------------------------------------------------

napoleon_use_ivar = True
default_role = "py:obj"  # `name` in a docstring is code, and a link if there is such an object
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
toc_object_entries_show_parents = "hide"
autodoc_member_order = "bysource"
bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "plain"
bibtex_reference_style = "author_year"

# --- look ---------------------------------------------------------------------------------------

html_theme = "pydata_sphinx_theme"
html_title = "pyro_kl"
# The package that has MathJax's files is a Sphinx extension too, which would forbid to read pages
# in parallel: its files are enough.
mathjax = importlib.util.find_spec("sphinx-mathjax-offline")
html_static_path = ["_static", str(Path(mathjax.origin).parent / "static")]
mathjax_path = "mathjax/tex-chtml.js"
html_css_files = ["site.css"]
html_favicon = "_static/favicon.svg"
html_context = {"default_mode": "auto"}
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "show_nav_level": 1,
    "collapse_navigation": True,  # the whole tree in the sidebar of each page costs a minute
    "navigation_with_keys": True,
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}


def setup(app: object) -> None:
    """Write the generated pages before Sphinx looks for sources."""
    if not only:
        generate.write_pages(ROOT)
    app.connect("source-read", notebooks.offer_notebook)
    app.connect("source-read", shell.run_shell_blocks)
    app.connect("autodoc-process-docstring", docstrings.as_rst)
    app.connect("build-finished", generate.finish)
