"""The style sheet of reports: light and dark, for wide and narrow screens, and for paper.

Text has a contrast of 4.5 to 1 at least against what it stands on, bars and lines 3 to 1 where they stand alone; a test
works both out.
"""

from __future__ import annotations

from typing import Dict

#: Variables of the style sheet in light and in dark; those of `svg.STANDS_FOR` are among them.
LIGHT: Dict[str, str] = {
    "page": "#f3f5f8", "card": "#ffffff", "ink": "#18202a", "muted": "#525d6b", "line": "#d6dce4",
    "dense": "#b4bfcc", "slim": "#0b7285", "one": "#b4540a", "two": "#5b3fb5", "three": "#2b6f2f",
    "four": "#a3195b", "bad": "#b3261e", "good": "#146c43", "unsure": "#8a5200",
    "good-back": "#e3f3ea", "bad-back": "#fbe7e5", "unsure-back": "#fbf0dd",
}  # fmt: skip
DARK: Dict[str, str] = {
    "page": "#10151b", "card": "#19212b", "ink": "#e7ecf2", "muted": "#a5b1bf", "line": "#36424f",
    "dense": "#4d5c6c", "slim": "#3cc3d8", "one": "#f0a35a", "two": "#b5a2ff", "three": "#7ccf86",
    "four": "#ff8fbf", "bad": "#ff9389", "good": "#7bd8a4", "unsure": "#f2bd6b",
    "good-back": "#15332a", "bad-back": "#3d1f1e", "unsure-back": "#3a2d17",
}  # fmt: skip


def _variables(values: Dict[str, str]) -> str:
    return "".join(f"--{name}:{value};" for name, value in values.items())


STYLE = (
    f":root{{color-scheme:light dark;{_variables(LIGHT)}}}"
    f"@media (prefers-color-scheme:dark){{:root{{{_variables(DARK)}}}}}"
    """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--page);color:var(--ink);line-height:1.5;
 font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Liberation Sans",sans-serif;overflow-wrap:anywhere}
main,header,footer{max-width:72rem;margin:0 auto;padding:0 1rem}
header{padding-top:1.6rem}footer{padding:1rem 1rem 2rem;color:var(--muted);font-size:.9rem}
h1{font-size:1.55rem;line-height:1.25;margin:0}h2{font-size:1.2rem;margin:2.2rem 0 .6rem}h3{font-size:1rem;margin:0}
p{margin:.4rem 0;max-width:48rem}.muted,.meter{color:var(--muted)}.meter{font-size:.82rem}
.verdict{border-left:.45rem solid;border-radius:.5rem;padding:.9rem 1.1rem;margin:1rem 0}
.verdict strong{display:block;font-size:1.25rem}.verdict p{margin:.2rem 0 0}
.good{color:var(--good)}.bad{color:var(--bad)}.unsure{color:var(--unsure)}
.verdict.good{background:var(--good-back);border-color:var(--good)}
.verdict.bad{background:var(--bad-back);border-color:var(--bad)}
.verdict.unsure{background:var(--unsure-back);border-color:var(--unsure)}
.verdict p{color:var(--ink)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.7rem;margin:1rem 0}
.tiles>div,.card{background:var(--card);border:1px solid var(--line);border-radius:.6rem}
.tiles>div{padding:.7rem .9rem;min-width:0}.tiles dt{font-size:.85rem;color:var(--muted)}.tiles dd{margin:0}
.tiles .big{font-size:1.35rem;font-weight:650;font-variant-numeric:tabular-nums}
.charts,.beside{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,26rem),1fr));gap:.9rem;align-items:start}
.charts{margin:.6rem 0}.beside>*{min-width:0}.beside .box,.beside ul,.beside .charts{margin-top:0}
.card{margin:0;padding:.9rem 1rem;min-width:0}
.card p{font-size:.88rem;color:var(--muted)}.card svg{display:block;width:100%;height:auto;margin-top:.5rem}
.card svg{max-width:34rem}
.tall{max-height:46rem;overflow:auto}
.box{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:.6rem;margin:.6rem 0}
table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums;overflow-wrap:normal}
th,td{text-align:left;vertical-align:top;padding:.42rem .75rem;border-bottom:1px solid var(--line)}
tbody tr:last-child>*{border-bottom:0}thead th{color:var(--muted);font-weight:600;font-size:.82rem;white-space:nowrap}
tbody th{font-weight:500;min-width:8rem;overflow-wrap:anywhere}.n{text-align:right;white-space:nowrap}
td.wide{min-width:15rem}td .meter{display:block;white-space:normal}
ul{padding-left:1.2rem;max-width:52rem}li{margin:.25rem 0}
pre{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:.8rem 1rem;overflow-x:auto;
 font-size:.85rem;margin:.6rem 0;overflow-wrap:normal}
code{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
p code,li code,td code{font-size:.9em}
details{margin:.6rem 0}summary{cursor:pointer;color:var(--ink)}
:focus-visible{outline:3px solid var(--slim);outline-offset:2px}
@media (max-width:30rem){main,header,footer{padding-left:.7rem;padding-right:.7rem}
 h1{font-size:1.3rem}.tiles{grid-template-columns:1fr 1fr}.card{padding:.7rem .5rem}
 .tiles>div{padding:.6rem .7rem}.tiles .big{font-size:1.15rem}th,td{padding:.38rem .55rem}}
"""
    f"@media print{{:root{{color-scheme:light;{_variables(LIGHT)}}}"
    "body{background:#fff}.box,.tall,pre{overflow:visible;max-height:none}pre{white-space:pre-wrap}"
    ".card,.verdict,.tiles>div,tr{break-inside:avoid}h2{break-after:avoid}}"
)
