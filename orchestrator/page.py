"""One HTML page without any network access: cards, sortable tables, inline figures with values under the pointer, data to download."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --faint: #59636e; --line: #d1d9e0; --page: #f6f8fa; --card: #fff;
  --accent: #0072b2; --warn: #855000; --warn-page: #fff4dc }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --faint: #9198a1; --line: #3d444d; --page: #0d1117; --card: #161b22;
  --accent: #56b4e9; --warn: #f0c274; --warn-page: #332711 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif }
main { max-width: 1160px; margin: 0 auto; padding: 28px 20px 60px }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px }
h2 { font-size: 19px; margin: 38px 0 10px; padding-bottom: 5px; border-bottom: 1px solid var(--line) }
h3 { font-size: 15px; margin: 22px 0 8px }
p { max-width: 90ch; margin: 8px 0 }
.faint { color: var(--faint) }
code { font: 13px/1.5 ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere }
.equations { margin: 12px 0 } .equations code { display: block }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 20px 0 }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 10px 14px }
.card b { display: block; font-size: 20px; font-weight: 600; overflow-wrap: anywhere }
.card span { color: var(--faint); font-size: 13px }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 8px }
table { border-collapse: collapse; width: 100%; font-size: 13px }
th, td { padding: 6px 9px; text-align: left; white-space: nowrap; border-bottom: 1px solid var(--line) }
tr:last-child td { border-bottom: 0 }
td.wrap { white-space: normal; min-width: 22ch }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
th { font-weight: 600 }
th button { all: unset; cursor: pointer }
th button:focus-visible { outline: 2px solid var(--accent) }
th[aria-sort=ascending] button::after { content: " \\2191" }
th[aria-sort=descending] button::after { content: " \\2193" }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 16px }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 12px; break-inside: avoid }
.paper { background: #fff; border-radius: 5px; padding: 6px }
figure svg, figure img { display: block; width: 100%; max-width: 560px; height: auto; margin: 0 auto }
figure.wide { grid-column: 1 / -1 } figure.wide svg, figure.wide img { max-width: 1060px }
figcaption { font-size: 13px; color: var(--faint); padding: 8px 4px 0 }
a { color: var(--accent) }
[data-tip] { outline: 0; cursor: crosshair }
[data-tip]:hover, [data-tip]:focus { stroke: #d55e00; stroke-width: 2.5 }
#tip { position: fixed; display: none; pointer-events: none; background: #1f2328; color: #fff; padding: 4px 9px; border-radius: 5px;
  font-size: 12.5px; max-width: 340px; z-index: 9; border: 1px solid #59636e }
.warnings { list-style: none; margin: 12px 0; padding: 0 }
.warnings li { background: var(--warn-page); color: var(--warn); border-left: 3px solid; padding: 5px 12px; margin: 5px 0;
  border-radius: 3px }
@media print {
  :root { color-scheme: light; --ink: #000; --faint: #444; --line: #bbb; --page: #fff; --card: #fff; --accent: #000; --warn: #000;
    --warn-page: #fff }
  body { font-size: 11px } main { max-width: none; padding: 0 } table { font-size: 9px } th, td { padding: 3px 5px }
  .figures { grid-template-columns: 1fr 1fr } .screen { display: none } h2 { break-after: avoid }
}
"""

_SCRIPT = """
const cellValue = (row, column) => {
  const text = row.cells[column].dataset.value;
  return text === "" || isNaN(text) ? text : +text;
};
const compare = (one, other) => typeof one === "number" && typeof other === "number" ? one - other : String(one).localeCompare(other);
for (const button of document.querySelectorAll("table.sortable th button")) button.addEventListener("click", () => {
  const head = button.parentElement, rows = head.closest("table").tBodies[0], column = head.cellIndex;
  const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
  rows.append(...[...rows.rows].sort((a, b) => sign * compare(cellValue(a, column), cellValue(b, column))));
});
const tip = document.getElementById("tip");
const show = event => {
  const text = event.target.closest?.("[data-tip]")?.dataset.tip;
  tip.style.display = text ? "block" : "none";
  if (!text) return;
  tip.textContent = text;
  const box = event.target.getBoundingClientRect(), x = event.clientX || box.right, y = event.clientY || box.top;
  tip.style.left = Math.min(x + 12, innerWidth - tip.offsetWidth - 8) + "px";
  tip.style.top = Math.max(y - tip.offsetHeight - 10, 6) + "px";
};
document.addEventListener("pointermove", show);
document.addEventListener("focusin", show);
"""


def page(title: str, body: str) -> str:
    """The whole document; its policy forbids every request."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><title>{escape(title)}</title><style>{_STYLE}</style></head>\n'
        f'<body><main>\n{body}\n</main><div id="tip" role="status"></div><script>{_SCRIPT}</script></body></html>\n'
    )


def cards(values: Mapping[str, str]) -> str:
    """One card a number, its meaning below it."""
    return (
        '<div class="cards">'
        + "".join(f'<div class="card"><b>{escape(v)}</b><span>{escape(k)}</span></div>' for k, v in values.items())
        + "</div>"
    )


def table(rows: Sequence[Mapping[str, Any]], *, wrapped: Sequence[str] = ()) -> str:
    """A table that sorts at a click on a heading. A cell is text or a (text, sort value) pair; numbers stand right."""
    if not rows:
        return '<p class="faint">none</p>'
    numeric = {name for name in rows[0] if all(not isinstance(_sort_value(row[name]), str) for row in rows)}
    head = "".join(f'<th scope="col"{_class(name, numeric, ())}><button type="button">{escape(name)}</button></th>' for name in rows[0])
    lines = "".join("<tr>" + "".join(_cell(row[name], _class(name, numeric, wrapped)) for name in rows[0]) + "</tr>\n" for row in rows)
    return f'<div class="scroll"><table class="sortable"><thead><tr>{head}</tr></thead><tbody>\n{lines}</tbody></table></div>'


def figure(drawing: str, caption: str, downloads: str, *, wide: bool = False) -> str:
    """An inline drawing on white paper with its caption; `wide`: over the whole page."""
    kind = ' class="wide"' if wide else ""
    return f'<figure{kind}><div class="paper">{drawing}</div><figcaption>{escape(caption)} {downloads}</figcaption></figure>'


def image(png: bytes, text: str) -> str:
    """A PNG inside the page."""
    return f'<img alt="{escape(text)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def download(name: str, text: str, label: str) -> str:
    """A link that saves `text` as the file `name`, from the page itself."""
    content = base64.b64encode(text.encode()).decode()
    return f'<a class="screen" download="{escape(name)}" href="data:text/csv;base64,{content}">{escape(label)}</a>'


def warnings(texts: Sequence[str]) -> str:
    """A list that is hard to overlook."""
    return '<ul class="warnings">' + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>" if texts else ""


def _cell(value: Any, attributes: str) -> str:
    text, order = value if isinstance(value, tuple) else (value, value)
    return f'<td{attributes} data-value="{escape(str(order))}">{escape(str(text))}</td>'


def _sort_value(value: Any) -> Any:
    return value[1] if isinstance(value, tuple) else value


def _class(name: str, numeric: set[str], wrapped: Sequence[str]) -> str:
    return ' class="n"' if name in numeric else ' class="wrap"' if name in wrapped else ""
