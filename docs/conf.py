"""How the documentation becomes a site: `make docs-site` builds it into build/docs/html.

Offline and without any asset of another host; a warning is an error. The pages are the same files
that a code forge shows; `docs/README.md` is the index there, `docs/index.md` here.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils.nodes import SkipNode, math, math_block  # type: ignore[import-untyped]
from docutils.utils.math.latex2mathml import tex2mathml  # type: ignore[import-untyped]
from myst_parser.parsers.sphinx_ import MystParser

if TYPE_CHECKING:
    from docutils.nodes import document
    from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parents[1]))
import fedcac

project = "fedcac"
version = release = fedcac.__version__
copyright = "the fedcac authors, Apache-2.0"
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["README.md", "tutorials/files/**"]
default_role = "code"

myst_heading_anchors = 4
myst_enable_extensions = ["dollarmath"]

autodoc_typehints = "description"
autodoc_typehints_format = "short"
napoleon_google_docstring = False
napoleon_use_ivar = True

html_math_renderer = "mathml"
html_theme = "basic"
html_title = "fedcac"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_sidebars = {"**": ["searchbox.html", "globaltoc.html"]}
html_copy_source = False
html_show_sphinx = False
html_use_index = False
html_domain_indices = False
html_baseurl = ""
pygments_style = "friendly"


class NotebookParser(MystParser):
    """Show a notebook as a page: its text, and its code as it is stored, without outputs."""

    supported = ("notebook",)

    def parse(self, inputstring: str, document: document) -> None:
        """Parse the cells, one after another, as Markdown."""
        parts = []
        for cell in json.loads(inputstring)["cells"]:
            text = "".join(cell["source"]).strip()
            if cell["cell_type"] == "code":
                text = f"```python\n{text}\n```"
            parts.append(text)
        super().parse("\n\n".join(parts) + "\n", document)


def _math(writer: Any, node: math | math_block) -> None:
    """Write a formula as MathML, which browsers draw by themselves: no script, no font."""
    formula = tex2mathml(node.astext(), as_block=isinstance(node, math_block))
    writer.body.append(formula)
    raise SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the notebooks' parser."""
    app.add_source_suffix(".ipynb", "notebook")
    app.add_source_parser(NotebookParser)
    app.add_html_math_renderer("mathml", (_math, None), (_math, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
