"""A self-contained HTML page of headings, notes, figures and tables."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np
from matplotlib.figure import Figure

from degrain.imaging.codecs import encode_png

_DPI = 130
_NUMBER = ' class="number"'
_META = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 1040px; margin: 2em auto;
  padding: 0 1em; }
h1 { font-size: 1.6em; }
h2 { font-size: 1.2em; margin-top: 2.2em; border-bottom: 1px solid #ddd; padding-bottom: .2em; }
div.wide { overflow-x: auto; margin-bottom: 1.4em; }
img.figure { width: 100%; min-width: 680px; }
table { border-collapse: collapse; font-size: 14px; }
p.note, dl.note { color: #444; max-width: 46em; }
dl.note dt { font-weight: 600; float: left; clear: left; margin-right: .6em; }
dl.note dd { margin: 0 0 .3em; }
th, td { padding: .25em 1.4em .25em 0; text-align: left; border-bottom: 1px solid #e5e5e5;
  vertical-align: top; }
th { vertical-align: bottom; max-width: 14em; overflow-wrap: break-word; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number { white-space: nowrap; }
nav { display: flex; flex-wrap: wrap; column-gap: 1em; }
td img { height: 96px; image-rendering: auto; }
code { overflow-wrap: anywhere; }
"""


class Number(str):
    """A number that is formatted already; tables align it like other numbers."""

    __slots__ = ()


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

    def definitions(self, terms: Mapping[str, str]) -> None:
        """Add a list of terms and what they mean."""
        items = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in terms.items())
        self._parts.append(f'<dl class="note">{items}</dl>')

    def figure(self, name: str, figure: Figure, description: str) -> None:
        """Add a figure; `description` is its alternative text."""
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=_DPI)
        self.figures[name] = buffer.getvalue()
        self._parts.append(
            f'<div class="wide"><img class="figure" alt="{escape(description)}" '
            f'src="{_data_uri(self.figures[name])}"></div>'
        )

    def table(self, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Add a table; numbers and their headers are right-aligned, photos become images."""
        listed = [list(row) for row in rows]
        numeric = [any(_is_number(row[i]) for row in listed) for i in range(len(header))]
        head = "".join(
            f"<th{_NUMBER if right else ''}>{escape(text)}</th>"
            for text, right in zip(header, numeric, strict=True)
        )
        body = "".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in listed)
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        self._parts.append(f'<div class="wide">{table}</div>')

    def files(self, page: str) -> dict[str, bytes]:
        """The page, whose file is called `page`, and its figures as PNG, by file name."""
        return {**{f"{name}.png": png for name, png in self.figures.items()}, page: self.html()}

    def html(self) -> bytes:
        """Return the page."""
        links = "".join(f'<a href="#{_anchor(h)}">{escape(h)}</a>' for h in self._headings)
        head = f"{_META}<title>{escape(self.title)}</title><style>{_STYLE}</style>"
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
        value = Number(f"{value:,}" if isinstance(value, int) else f"{value:,.2f}")
    return f"<td{_NUMBER if _is_number(value) else ''}>{escape(str(value))}</td>"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | Number)
