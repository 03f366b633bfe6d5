"""Write each tutorial as a Jupyter notebook beside its page, and link it there.

The page is the only source: blocks of Python and Bash become cells, everything else text.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from sphinx.application import Sphinx

FOLDER = "tutorials"
HEADER = """---
jupyter:
  kernelspec: {display_name: Python 3, language: python, name: python3}
---
"""
LINK = '<p><a class="reference download" download href="{file}">Download this page as a Jupyter notebook</a></p>'


def notebook_of(page: str) -> nbformat.NotebookNode:
    r"""Return the notebook of a page in Markdown. A cell of Bash fails with its first command that fails.

    >>> cells = notebook_of("# Title\n\nSee [units](../units.md).\n\n```bash\nls\n```\n\n```python\nx = 1\n```\n").cells
    >>> [(cell.cell_type, cell.source) for cell in cells]
    [('markdown', '# Title\n\nSee units.'), ('code', '%%bash -e\nls'), ('code', 'x = 1')]
    """
    notebook = jupytext.reads(HEADER + without_local_links(page), fmt="md")
    for cell in notebook.cells:
        cell.source = re.sub(r"^%%bash$", "%%bash -e", cell.source, count=1, flags=re.MULTILINE)
    del notebook.metadata["jupytext"]
    nbformat.validate(notebook)
    return notebook


def without_local_links(page: str) -> str:
    """Return a page with the text of links to other pages, and without figures, neither of which a download has.

    >>> without_local_links("[a](b.md#c), [d](https://e), ![f](g.svg)")
    'a, [d](https://e), '
    """
    page = re.sub(r"!\[[^\]]*\]\((?!https?:)[^)]*\)", "", page)
    return re.sub(r"\[([^\]]*)\]\((?!https?:)[^)]*\)", r"\1", page)


def write_notebooks(app: Sphinx, error: Exception | None) -> None:
    """Write the notebooks of all tutorials when the pages are written."""
    if error is not None or app.builder.format != "html":
        return
    for page in sorted((Path(app.srcdir) / FOLDER).glob("*.md")):
        target = Path(app.outdir) / FOLDER / f"{page.stem}.ipynb"
        target.write_text(nbformat.writes(notebook_of(page.read_text(encoding="utf-8"))), encoding="utf-8")


def add_link(_: Sphinx, page: str, __: str, context: dict[str, Any], ___: Any) -> None:
    """Add the link to the notebook below the title of a tutorial."""
    if page.startswith(f"{FOLDER}/"):
        link = LINK.format(file=f"{Path(page).name}.ipynb")
        context["body"] = context["body"].replace("</h1>", f"</h1>\n{link}", 1)


def setup(app: Sphinx) -> dict[str, Any]:
    """Link and write notebooks with the pages."""
    app.connect("html-page-context", add_link)
    app.connect("build-finished", write_notebooks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
