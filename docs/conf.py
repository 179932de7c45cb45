"""Configuration of the documentation site; `make docs` builds it."""

from importlib.metadata import version as installed_version

project = "Degrain"
author = "The Degrain developers"
project_copyright = "Degrain, Apache-2.0"
version = release = installed_version("degrain")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_enable_extensions = ["attrs_block", "colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "conf.py"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True

html_theme = "furo"
html_title = f"Degrain {version}"
html_show_sphinx = False
html_copy_source = False
