"""A self-contained HTML page of headings, notes, figures and tables."""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np
from matplotlib.figure import Figure

from degrain.imaging.codecs import encode_png

_DPI = 130
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 1040px; margin: 2em auto;
  padding: 0 1em; }
h1 { font-size: 1.6em; }
h2 { font-size: 1.2em; margin-top: 2.2em; border-bottom: 1px solid #ddd; padding-bottom: .2em; }
img.figure { width: 100%; }
table { border-collapse: collapse; font-size: 14px; }
p.note { color: #555; max-width: 46em; }
th, td { padding: .25em .9em .25em 0; text-align: left; border-bottom: 1px solid #eee;
  vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
nav a { margin-right: 1em; }
td img { height: 96px; image-rendering: auto; }
code { overflow-wrap: anywhere; }
"""


@dataclass
class Report:
    """A page being written, and its figures by name."""

    title: str
    figures: dict[str, bytes] = field(default_factory=dict)
    """PNG files."""
    _parts: list[str] = field(default_factory=list)
    _headings: list[str] = field(default_factory=list)

    def heading(self, text: str) -> None:
        """Add the heading of a section."""
        self._headings.append(text)
        self._parts.append(f'<h2 id="{_anchor(text)}">{escape(text)}</h2>')

    def note(self, text: str) -> None:
        """Add a paragraph."""
        self._parts.append(f'<p class="note">{escape(text)}</p>')

    def figure(self, name: str, figure: Figure, description: str) -> None:
        """Add a figure; `description` is its alternative text."""
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=_DPI)
        self.figures[name] = buffer.getvalue()
        self._parts.append(
            f'<img class="figure" alt="{escape(description)}" '
            f'src="{_data_uri(self.figures[name])}">'
        )

    def table(self, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Add a table; numbers are right-aligned, photos become images."""
        head = "".join(f"<th>{escape(h)}</th>" for h in header)
        body = "".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in rows)
        self._parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")

    def files(self) -> dict[str, bytes]:
        """The page, report.html, and its figures as PNG, by file name."""
        figures = {f"{name}.png": png for name, png in self.figures.items()}
        return {**figures, "report.html": self.html()}

    def html(self) -> bytes:
        """Return the page."""
        links = "".join(f'<a href="#{_anchor(h)}">{escape(h)}</a>' for h in self._headings)
        head = f'<meta charset="utf-8"><title>{escape(self.title)}</title><style>{_STYLE}</style>'
        body = f"<h1>{escape(self.title)}</h1><nav>{links}</nav>{''.join(self._parts)}"
        page = f'<html lang="en"><head>{head}</head><body>{body}</body></html>'
        return f"<!DOCTYPE html>{page}\n".encode()


def _anchor(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text.lower())


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _cell(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f'<td><img alt="" src="{_data_uri(encode_png(value))}"></td>'
    if isinstance(value, int | float):
        text = f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"
        return f'<td class="number">{text}</td>'
    return f"<td>{escape(str(value))}</td>"
