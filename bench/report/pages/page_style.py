"""How the page looks."""

STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 62rem; padding: 1rem; background: #fff; color: #1a1a1a;
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; }
h2 { font-size: 1.3rem; margin-top: 2.5rem; border-bottom: 1px solid #bbb; }
h3 { font-size: 1.05rem; margin: 2rem 0 .4rem; }
h1, h2, h3, p, li, dd, figcaption { overflow-wrap: anywhere; }
a { color: #0b4f8a; }
sup { line-height: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .55rem; text-align: right; white-space: nowrap; }
th { font-weight: 600; }
th:first-child, td:first-child { text-align: left; }
.numbers th:first-child { position: sticky; left: 0; background: #fff; }
thead th { border-top: 2px solid #1a1a1a; border-bottom: 1px solid #1a1a1a; }
tbody tr:last-child > * { border-bottom: 2px solid #1a1a1a; }
tbody th { font-weight: 400; }
.floor > * { border-top: 1px solid #999; color: #444; font-style: italic; }
.group > * { border-top: 1px solid #999; font-weight: 600; }
.aside > * { color: #444; font-size: .8rem; }
small { color: #444; font-size: .75rem; }
.numbers small { display: block; line-height: 1; }
.numbers td { vertical-align: top; }
.numbers tbody th { vertical-align: top; }
details { margin: .6rem 0; font-size: .95rem; }
.words td, .words th { text-align: left; white-space: normal; vertical-align: top; }
.words code { word-break: break-all; }
.notes { font-size: .85rem; color: #333; margin: .4rem 0; padding: 0; list-style: none; }
figure { margin: 1rem 0; max-width: 46rem; }
figure img { max-width: 100%; height: auto; }
figcaption { font-size: .875rem; color: #333; max-width: 42rem; }
.problem { border-left: 4px solid #b00020; padding: .3rem .8rem; background: #fdf1f2; }
dt { font-weight: 600; }
dd { margin: 0 0 .4rem; }
"""
