"""The style sheet of the report: light and dark, for screen, phone and paper.

The chart colours are Okabe and Ito's, which colour-blind readers tell apart.
"""

STYLE = """
:root { color-scheme: light dark; --paper: #fcfcfb; --ink: #1d2126; --quiet: #646b75;
  --rule: #e3e5e8; --sans: "Inter", system-ui, -apple-system, "Segoe UI", "Roboto",
  "Noto Sans", "DejaVu Sans", sans-serif; }
@media (prefers-color-scheme: dark) { :root { --paper: #15181c; --ink: #e6e8eb;
  --quiet: #9aa1ac; --rule: #2b3037; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1120px; padding: 2.5rem 1.25rem 3rem; background: var(--paper);
  color: var(--ink); font: 15px/1.5 var(--sans); -webkit-text-size-adjust: 100%; }
h1 { margin: 0; font-size: 1.75rem; font-weight: 650; line-height: 1.2; letter-spacing: -0.015em;
  overflow-wrap: anywhere; }
h2 { margin: 2.75rem 0 0.75rem; font-size: 1.05rem; font-weight: 650; }
.about { margin: 0.35rem 0 0; color: var(--quiet); overflow-wrap: anywhere; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(6.6rem, 1fr));
  gap: 1.1rem 1.5rem; margin: 1.75rem 0 2.25rem; padding: 1.1rem 0;
  border-top: 1px solid var(--rule); border-bottom: 1px solid var(--rule); }
.figures div { display: flex; flex-direction: column-reverse; justify-content: flex-end; }
.figures dt { color: var(--quiet); font-size: 0.8rem; line-height: 1.35; }
.figures dd { margin: 0; font-size: 1.5rem; font-weight: 600; line-height: 1.25;
  letter-spacing: -0.01em; font-variant-numeric: tabular-nums; white-space: nowrap; }
.figures small { font-size: 0.62em; font-weight: 400; letter-spacing: 0; color: var(--quiet); }
.figures .also { order: -1; margin-top: 0.2rem; font-size: 0.85rem; letter-spacing: 0; }
.columns { display: grid; gap: 0 2.5rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
.columns > * { min-width: 0; }
figure { margin: 0 0 1.75rem; }
figcaption { margin-bottom: 0.5rem; font-size: 0.85rem; line-height: 1.45; color: var(--quiet); }
figcaption b { display: block; color: var(--ink); font-size: 0.95rem; font-weight: 600; }
.key { white-space: nowrap; margin-right: 0.9em; }
.key i { display: inline-block; width: 1.1em; height: 0.55em; margin-right: 0.4em;
  border-radius: 2px; background: currentColor; }
.key.c-keyframe i, .key.c-landmark i { width: 0.5em; height: 0.5em; border-radius: 50%; }
.key span { color: var(--quiet); }
.scroll { overflow-x: auto; }
.scroll + .scroll { margin-top: 1.25rem; }
table { width: 100%; table-layout: fixed; border-collapse: collapse; font-size: 0.875rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: 0.38rem 0 0.38rem 1rem; text-align: right; font-weight: 400;
  border-bottom: 1px solid var(--rule); white-space: nowrap; }
th:first-child { width: 40%; padding-left: 0; text-align: left; white-space: normal;
  overflow-wrap: anywhere; }
.pairs th:first-child { width: 76%; }
.triples th:first-child { width: 58%; }
thead th { color: var(--quiet); font-size: 0.8rem; line-height: 1.3; white-space: normal;
  vertical-align: bottom; }
td.text { white-space: normal; overflow-wrap: anywhere; }
.note { margin: 0.6rem 0 0; font-size: 0.85rem; color: var(--quiet); max-width: 65ch; }
details { margin-top: 2.75rem; }
summary { cursor: pointer; font-size: 1.05rem; font-weight: 650; }
@media print { body { max-width: none; padding: 0; } figure { break-inside: avoid; } }
:root { --est: #0072b2; --refined: #d55e00; --true: #8a8f98; --landmark: #9aa0a8;
  --tracking: #009e73; --degraded: #e69f00;
  --lost: #d55e00; --initializing: #56b4e9; --refused: #cc79a7; --standing: #b5b9c0; }
@media (prefers-color-scheme: dark) { :root { --est: #56b4e9; --refined: #f08a3c; --true: #9aa1ac;
  --landmark: #6a717b;  --tracking: #12a67d; --initializing: #2f7fb5; --standing: #5d636d; } }
.chart { display: block; width: 100%; height: auto; font: 12.5px/1 var(--sans); }
.chart text { fill: var(--quiet); font-variant-numeric: tabular-nums; }
.chart .name { fill: var(--ink); }
.chart .mark { fill: var(--ink); paint-order: stroke; stroke: var(--paper); stroke-width: 4px;
  stroke-linejoin: round; }
.chart .grid { stroke: var(--rule); stroke-width: 1; shape-rendering: crispEdges; }
.chart .axis { stroke: var(--quiet); stroke-width: 1; shape-rendering: crispEdges; }
.chart .line { fill: none; stroke: currentColor; stroke-width: 1.75; stroke-linejoin: round;
  stroke-linecap: round; }
.chart .c-true.line { stroke-width: 3.5; }
.chart .c-refined.line { stroke-width: 1.4; }
.chart .bar { fill: currentColor; }
.chart .dot { stroke: var(--paper); stroke-width: 1.5; fill: currentColor; }
.chart .ring { stroke: currentColor; stroke-width: 2; fill: var(--paper); }
.chart .dots { fill: none; stroke: currentColor; stroke-linecap: round; }
.chart .c-landmark.dots { stroke-width: 1.8; opacity: 0.55; }
.chart .c-keyframe.dots { stroke-width: 4.5; }
.chart .level { stroke: var(--ink); stroke-width: 1; stroke-dasharray: 3 3; }
.c-est { color: var(--est); } .c-refined, .c-keyframe { color: var(--refined); }
.c-landmark { color: var(--landmark); } .c-true { color: var(--true); }
.c-tracking { color: var(--tracking); } .c-degraded { color: var(--degraded); }
.c-lost { color: var(--lost); } .c-initializing { color: var(--initializing); }
.c-refused { color: var(--refused); } .c-standing { color: var(--standing); }
@media (max-width: 560px) { .chart { font-size: 18px; } }
"""
