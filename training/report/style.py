"""How the page of a run looks: light and dark, from a phone's width on, and printable."""

STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --soft: #5b6470; --paper: #fbfbfa; --card: #fff; --line: #e3e5e8;
  --bad: #c0392b; --bad-paper: #fdecea; --good: #1a7f4b; --busy: #2866c4; --resume: #8a8f98;
  --c0: #2866c4; --c1: #d9822b; --c2: #1a8f6b; --c3: #b8479b; --c4: #7a5fd0; --c5: #a8882a; --c6: #2a96b5;
  --c7: #8d6a52; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --soft: #9aa3ad; --paper: #14161a; --card: #1c1f24;
  --line: #30353d; --bad: #ff8a7a; --bad-paper: #3a1f1c; --good: #5fce95; --busy: #7fb0ff; --resume: #7d8590;
  --c0: #7fb0ff; --c1: #f2ab63; --c2: #55cda6; --c3: #ec8fd3; --c4: #b09bff; --c5: #dcc062; --c6: #6fd0ea;
  --c7: #c9a489; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0; }
main { max-width: 84rem; margin: 0 auto; padding: 1.5rem clamp(.75rem, 3vw, 2rem) 4rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.25rem 0 .6rem; } h3 { font-size: .9rem; margin: 0; overflow-wrap: anywhere; }
p { margin: .25rem 0 .75rem; } .soft { color: var(--soft); }
nav { margin: .75rem 0 0; display: flex; flex-wrap: wrap; gap: .25rem 1rem; font-size: .9rem; }
a { color: var(--busy); text-decoration: none; } a:hover { text-decoration: underline; }
.state { display: inline-block; padding: .05rem .6rem; border-radius: 1rem; border: 1px solid currentColor;
  font-size: .8rem; vertical-align: middle; color: var(--busy); margin-left: .5rem; }
.state.good { color: var(--good); } .state.bad { color: var(--bad); }
.oddities { margin: .9rem 0 0; }
.bar { height: .5rem; background: var(--line); border-radius: .25rem; overflow: hidden; margin: .9rem 0 .3rem; }
.bar div { height: 100%; background: var(--busy); }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .6rem; margin: 1rem 0 0;
  padding: 0; }
.facts div { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .5rem .75rem; }
.facts dt { color: var(--soft); font-size: .78rem; } .facts dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; }
.warning { background: var(--bad-paper); border-left: .25rem solid var(--bad); padding: .6rem .9rem;
  border-radius: .25rem; margin: .75rem 0; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(22rem, 100%), 1fr)); gap: .75rem; }
.plot { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .65rem .75rem;
  margin: 0; min-width: 0; }
.plot svg { display: block; width: 100%; height: auto; }
.legend { display: flex; flex-wrap: wrap; gap: .1rem .9rem; font-size: .8rem; padding: 0; margin: .2rem 0 0;
  list-style: none; } .legend b { font-variant-numeric: tabular-nums; } .legend li { overflow-wrap: anywhere; }
.legend i { display: inline-block; width: .9rem; height: .2rem; border-radius: .1rem; margin-right: .35rem;
  vertical-align: middle; }
.grid { stroke: var(--line); stroke-width: 1; } .tick { font: 10.5px system-ui, sans-serif; fill: var(--soft); }
.line { fill: none; stroke-width: 1.7; stroke-linejoin: round; } .faint { opacity: .28; stroke-width: 1; }
.dot { stroke: none; }
.reference { stroke: var(--soft); stroke-dasharray: 5 4; } .resume { stroke: var(--resume); stroke-dasharray: 2 3; }
.incident { stroke: var(--bad); stroke-width: 1.6; }
.c0 { stroke: var(--c0); } .c1 { stroke: var(--c1); } .c2 { stroke: var(--c2); } .c3 { stroke: var(--c3); }
.c4 { stroke: var(--c4); } .c5 { stroke: var(--c5); } .c6 { stroke: var(--c6); } .c7 { stroke: var(--c7); }
circle.c0 { fill: var(--c0); } circle.c1 { fill: var(--c1); } circle.c2 { fill: var(--c2); }
circle.c3 { fill: var(--c3); } circle.c4 { fill: var(--c4); } circle.c5 { fill: var(--c5); }
circle.c6 { fill: var(--c6); } circle.c7 { fill: var(--c7); }
.sheets { display: grid; gap: 1rem; } figure { margin: 0; } figure img { max-width: 100%; height: auto; display: block;
  border-radius: .35rem; } figcaption { color: var(--soft); font-size: .85rem; margin: .3rem 0 0; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .87rem; min-width: min(30rem, 100%); }
th, td { text-align: left; vertical-align: top; border-top: 1px solid var(--line); padding: .3rem 1rem .3rem 0; }
th { font-weight: 600; } td { overflow-wrap: anywhere; } code { font-size: .85rem; }
thead th { color: var(--soft); border-top: 0; font-weight: 500; }
details { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .5rem .9rem;
  margin: .5rem 0; } summary { cursor: pointer; font-weight: 600; }
@media print { details { break-inside: avoid; } .plot { break-inside: avoid; } }
"""
