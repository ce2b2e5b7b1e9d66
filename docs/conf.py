"""How the documentation is built."""

from flightlog.version import __version__

project = "Flightlog"
author = "The Flightlog authors"
copyright = "The Flightlog authors"
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"Flightlog {__version__}"
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_google_docstring = True
default_role = "code"
napoleon_use_rtype = False
nitpick_ignore_regex = [
    ("py:class", r"collections\.abc\..*"),
    ("py:.*", r"flightlog\..*"),
    ("py:exc", r"NoKey|NotRecordable"),  # the engine's own
]
suppress_warnings = ["myst.xref_missing"]
