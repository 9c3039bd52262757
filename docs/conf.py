"""The documentation site: ``python -m sphinx -W -b html docs runs/site``.

Notebooks are executed by MyST-NB, once as long as they do not change (``runs/site-cache``), in
plain sessions of float32 unless they say otherwise; that takes a few minutes.
"""

import inspect
import os
import pathlib
import re
import sys
from typing import Any

from docutils import nodes

import jgmm

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent

project = "jgmm"
author = "the jgmm authors"
version = release = jgmm.__version__
copyright = author

sys.path.insert(0, str(HERE))  # where formulas.py is
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "formulas"]
html_math_renderer = "drawn"
exclude_patterns = ["_static", "**.py"]
html_theme = "furo"
html_title = f"jgmm {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False

# Pages: Markdown, with formulas between dollars, and addresses for headings.
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

# Notebooks. Kernels import the package from this checkout, and draw figures that stay sharp.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])
)
os.environ["MATPLOTLIBRC"] = str(HERE / "_static" / "matplotlibrc")
nb_execution_mode = "cache"
nb_execution_cache_path = str(ROOT / "runs" / "site-cache")
nb_execution_in_temp = True  # some notebooks save files
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_merge_streams = True

# Reference, from docstrings.
autodoc_default_options = {"member-order": "bysource", "ignore-module-all": True}
autodoc_typehints = "none"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
LONGEST_SHORT = 12  # signs in an entry of a table that stays on one line
SECTION = re.compile(r"\s*(Args|Attributes|Returns|Raises|Reference|References|Example):\s*$")


def setup(app: Any) -> None:
    """Register the functions that turn docstrings into reStructuredText."""
    app.connect("autodoc-process-docstring", _as_markup, priority=1)
    app.connect("autodoc-process-docstring", _without_any, priority=900)
    app.connect("autodoc-process-signature", _without_arguments)
    app.connect("autodoc-skip-member", _skip)
    app.connect("doctree-read", _mark_short_entries)


def _mark_short_entries(app: Any, doctree: Any) -> None:
    """Mark short entries of tables (numbers, shapes, names), which site.css keeps on one line."""
    del app
    for row in doctree.findall(nodes.row):
        for entry in row.findall(nodes.entry):
            if len(entry.astext()) <= LONGEST_SHORT and not isinstance(row.parent, nodes.thead):
                entry["classes"].append("short")


def _skip(app: Any, what: str, name: str, value: Any, skip: bool, options: Any) -> bool | None:
    """Leave out fields of named tuples, which docstrings describe, and methods of scikit-learn."""
    del app, what, options
    is_field = type(value).__name__ == "_tuplegetter"
    return True if is_field or re.fullmatch(r"set_\w+_request", name) else None


def _without_arguments(
    app: Any, what: str, name: str, value: Any, options: Any, signature: str | None, returns: Any
) -> tuple[str, Any] | None:
    """Leave out the signature of protocols, which are not made by calling them."""
    del app, name, value, options
    return ("", returns) if what == "class" and signature == "(*args, **kwargs)" else None


def _without_any(
    app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]
) -> None:
    """Leave out the type Any of the leaves of pytrees, which docstrings describe."""
    del app, what, name, value, options
    lines[:] = [line for line in lines if not re.fullmatch(r"\s*:vartype \w+: Any", line)]


def _as_markup(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Turn a plain-text docstring into reStructuredText: indented formulas become literal blocks,
    and characters that would be markup are escaped.
    """
    del app, name, value, options
    text = inspect.cleandoc("\n".join(lines))
    if what == "property":  # text before a colon would be its type
        text = text.replace(": ", " – ", 1)
    text = re.sub(r"^(  [\w, ]+,)\n +", r"\1 ", text, flags=re.MULTILINE)  # names on two lines
    # Several names before a colon are not a type and a name.
    several = r"^  \w+(, (\*\*)?\w+)+:"
    text = re.sub(several, lambda names: "  " + names[0].replace(" ", ""), text, flags=re.MULTILINE)
    lines[:] = []
    in_section = literal = False
    given = text.splitlines()
    for number, line in enumerate(given):
        before = given[number - 1] if number else ""
        indent = len(line) - len(line.lstrip())
        if line and not indent:
            in_section, literal = bool(SECTION.match(line)), False
        if indent >= 4 and not in_section and not literal and not before.strip():
            lines += ["::", ""]
            literal = True
        if literal or line.lstrip().startswith((">>>", "...")):
            lines.append(line)
        else:
            lines.append(_plain(line))


def _plain(line: str) -> str:
    """Escape stars, bars and final underscores outside of code; keep the stars of lists."""
    line = re.sub(r"``\s*(.*?)\s*``", r"``\1``", line)  # code may not end with a space
    line = re.sub(r"(^|: )( *[A-Za-z])\.$", r"\1\2\\.", line)  # "K." is no list
    parts = re.split(r"(``.*?``|^ *\*\*\w+:|^ *\* )", line)
    return "".join(
        part
        if part.lstrip().startswith(("``", "**", "* "))
        else re.sub(r"([*|])|(?<=\w)_(?=\W|$)", r"\\\g<0>", part)
        for part in parts
    )
