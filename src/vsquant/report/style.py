"""How the HTML report looks: light and dark, laptop and phone, screen and print."""

from __future__ import annotations

from typing import Final

CSS: Final = """
:root {
  color-scheme: light dark;
  --paper: #fbfbfa; --card: #ffffff; --ink: #1c2024; --soft: #5d6670; --line: #dfe3e7; --accent: #1f6fb2;
  --kept: #0b6e4f; --slight: #8a5a00; --lost: #b03a00; --heat: 213 94 0; --heat-strength: 0.62; --hover: #f0f4f8;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171a; --card: #1b1f24; --ink: #e6e9ec; --soft: #9aa4ae; --line: #2e353c; --accent: #74b3e8;
    --kept: #5fcfa4; --slight: #e8b64c; --lost: #ff9a66; --heat: 226 106 26; --heat-strength: 0.55; --hover: #232a31;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main { max-width: 1120px; margin: 0 auto; padding: 2.2rem 1.4rem 4rem; }
.eyebrow { margin: 0; color: var(--accent); font-size: .82rem; font-weight: 650; letter-spacing: .06em; }
h1 { margin: .25rem 0 .6rem; font-size: clamp(1.45rem, 4vw, 2.15rem); line-height: 1.2; letter-spacing: -.015em;
  text-wrap: balance; }
h2 { margin: 3rem 0 .3rem; font-size: 1.3rem; letter-spacing: -.01em; }
h3 { margin: 2rem 0 .6rem; font-size: 1.02rem; }
p { margin: .4rem 0; max-width: 76ch; }
.soft { color: var(--soft); font-size: .92rem; }
.caveat { border-left: 3px solid var(--lost); padding: .1rem 0 .1rem .8rem; }
.facts { display: flex; flex-wrap: wrap; gap: .7rem; margin: 1.2rem 0 1.4rem; padding: 0; list-style: none; }
.facts li { flex: 1 1 11rem; background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: .7rem .95rem; }
.facts b { display: block; font-size: 1.65rem; line-height: 1.25; font-weight: 650; }
.facts small { color: var(--soft); font-size: .84rem; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .5rem .75rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
thead th { color: var(--soft); font-size: .84rem; font-weight: 600; }
tbody tr:last-child > * { border-bottom: 0; }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--card); z-index: 1; }
.cells td { background: rgb(var(--heat) / calc(var(--loss, 0) * var(--heat-strength))); }
.cells .value { font-weight: 650; font-size: 1.05rem; }
.cells .published { color: var(--soft); font-weight: 400; font-size: .84rem; }
.cells small { display: block; font-size: .84rem; }
.cells .calibrator { color: var(--soft); }
.cells .edge { border-left: 1px solid var(--line); }
.cells .hot small, .cells .hot .published { color: inherit; }
.kept { color: var(--kept); } .slight { color: var(--slight); } .lost { color: var(--lost); font-weight: 600; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 430px), 1fr)); gap: 1rem; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .8rem; }
figure svg { display: block; width: 100%; height: auto; }
details { margin: .6rem 0; background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
summary { padding: .6rem .95rem; cursor: pointer; font-weight: 600; }
summary:hover { background: var(--hover); border-radius: 10px; }
details .scroll { border: 0; border-top: 1px solid var(--line); border-radius: 0 0 10px 10px; max-height: 30rem;
  overflow-y: auto; }
.layers { font-size: .86rem; }
.layers th, .layers td { text-align: left; padding: .32rem .75rem; }
.layers thead th { position: sticky; top: 0; background: var(--card); z-index: 2; }
.layers .number { text-align: right; }
.layers .note { white-space: normal; min-width: 14rem; }
.fallback { color: var(--slight); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .45rem 1.2rem; margin: .8rem 0; max-width: 90ch; }
dt { font-weight: 650; } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 560px) {
  main { padding: 1.3rem .9rem 3rem; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin: 0 0 .7rem; }
  th, td { padding: .45rem .55rem; }
}
@media print { details > :not(summary) { display: block; } .scroll { overflow: visible; max-height: none; } }
"""
