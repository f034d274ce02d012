"""Builds the site of the documentation: `sphinx-build -W -c docs . site`.

The source directory is the root of the repository, so that a page has the same links here and on a forge.
"""

import pathlib
import sys

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "igpt_jax"
sys.path.insert(0, str(ROOT))

import igpt_jax  # noqa: E402 - this checkout, and not an installed one

project = "igpt_jax"
author = "the igpt_jax authors"
copyright = "the igpt_jax authors, Apache-2.0"
version = release = igpt_jax.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.apidoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinxcontrib.mermaid",
]
root_doc = "docs/index"
include_patterns = ["docs/**", "experiments/README.md", "experiments/results/**.md", "tpu/*.md", "C*.md"]

html_theme = "furo"
html_title = "igpt_jax"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_additional_pages = {"index": "redirect.html"}
exclude_patterns = ["docs/modules/modules.rst", "experiments/results/claims.md", "experiments/results/*/claims.md"]
templates_path = ["_templates"]

myst_heading_anchors = 3
myst_fence_as_directive = ["mermaid"]  # a forge draws these fences too
nb_execution_mode = "off"  # the tests execute the notebooks; the site shows the committed outputs

apidoc_modules = [
    {
        "path": str(ROOT / "igpt_jax"),
        "destination": "docs/modules",
        "separate_modules": True,
        "module_first": True,
        "automodule_options": {"members"},
    }
]
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # signatures without types; the docstrings say more than types can
default_role = "py:obj"  # `name` in a docstring links to that name, if there is one
add_module_names = False


class LinkToSource(SphinxPostTransform):
    """Links files of the package to their highlighted source, and its directories to the pages of its packages.

    Files elsewhere stay downloads, and directories elsewhere become plain text.
    """

    default_priority = 8  # before MyST, which warns of directories

    def run(self, **kwargs: object) -> None:
        """Replaces the links of one page."""
        for link in list(self.document.findall(addnodes.download_reference)):
            path = self._path(link)
            if path.suffix == ".py" and path.is_relative_to(PACKAGE):
                parts = path.relative_to(ROOT).with_suffix("").parts
                highlighted = ".".join(parts) in self.env._viewcode_modules
                self._link(link, "_modules/" + "/".join(parts) if highlighted else _page(parts))
        for link in list(self.document.findall(addnodes.pending_xref)):
            path = self._path(link)
            if not link.get("refdomain") and path.is_dir():
                if path.is_relative_to(PACKAGE):
                    self._link(link, _page(path.relative_to(ROOT).parts))
                else:
                    link.replace_self(link.children)

    def _path(self, link: nodes.Element) -> pathlib.Path:
        return (ROOT / pathlib.PurePath(self.env.docname).parent / link["reftarget"]).resolve()

    def _link(self, link: nodes.Element, target: str) -> None:
        uri = self.app.builder.get_relative_uri(self.env.docname, target)
        link.replace_self(nodes.reference("", "", *link.children, internal=True, refuri=uri))


def _page(parts: tuple[str, ...]) -> str:
    return "docs/modules/" + ".".join(part for part in parts if part != "__init__")


def skip_public_names(app: Sphinx, what: str, name: str, member: object, skip: bool, options: object) -> bool | None:
    """Leaves the public names out of the pages of the modules, since the API reference has them."""
    return True if what == "module" and getattr(igpt_jax, name, None) is member else None


def check_public_names(app: Sphinx, env: BuildEnvironment) -> None:
    """Warns of every public name that the API reference lacks; -W turns the warning into an error."""
    documented = {name for name, *_ in env.get_domain("py").get_objects()}
    for name in igpt_jax.__all__:
        if f"igpt_jax.{name}" not in documented:
            logging.getLogger(__name__).warning("ig.%s is not in the API reference, docs/api.md", name)


def setup(app: Sphinx) -> None:
    """Registers what this file adds to Sphinx."""
    app.add_post_transform(LinkToSource)
    app.connect("autodoc-skip-member", skip_public_names)
    app.connect("env-check-consistency", check_public_names)
