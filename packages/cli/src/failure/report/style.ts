/** The style of the page (html.ts). Colours have a contrast of 4.5 and more on their ground, light and dark. */
export const STYLE = `
:root { color-scheme: light dark; --ground: #ffffff; --ink: #1a1a1a; --soft: #5a5a5a; --line: #d9d9d9; --band: #f4f5f7; --link: #0057a3; --bad: #b00020; --bad-ground: #fdecee; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #14161a; --ink: #e8e8e8; --soft: #a6abb3; --line: #363b44; --band: #1d2026; --link: #7ab8ff; --bad: #ff8a96; --bad-ground: #3a1a1f; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 76rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { margin: 0 0 .75rem; font-size: 1.8rem; line-height: 1.2; }
h2 { margin: 2.5rem 0 .75rem; font-size: 1.3rem; border-bottom: 1px solid var(--line); padding-bottom: .25rem; }
h3 { margin: 1.75rem 0 .5rem; font-size: 1.05rem; }
h4 { margin: 1.25rem 0 .4rem; font-size: .95rem; }
h1, h2, h3, p, dd, li, summary, td, th { overflow-wrap: anywhere; }
p, ul { max-width: 46rem; }
a { color: var(--link); }
code { font: .875em ui-monospace, monospace; background: var(--band); padding: .1em .3em; border-radius: 3px; }
dl { display: grid; gap: .3rem; margin: 1rem 0; }
dl > div { display: grid; grid-template-columns: 11rem 1fr; gap: 1rem; }
dt { color: var(--soft); }
dd { margin: 0; }
nav ul { max-width: none; columns: 26rem; padding-left: 1.2rem; }
.note { color: var(--soft); font-size: .875rem; }
.alert { border-left: 5px solid var(--bad); background: var(--bad-ground); color: var(--bad); font-weight: 600; padding: .1rem 1rem; margin: 1rem 0; }
.bad { color: var(--bad); }
.scroll { overflow-x: auto; max-width: 100%; }
.scroll:focus-visible, summary:focus-visible, a:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
section .scroll + .scroll { margin-top: .9rem; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
thead th { background: var(--band); white-space: nowrap; }
.figures td, .figures thead th:not(:first-child) { text-align: right; white-space: nowrap; }
.figures th[scope=row] { position: sticky; left: 0; background: var(--ground); font-weight: 600; white-space: nowrap; overflow-wrap: normal; }
.words th[scope=row] { font-weight: 600; min-width: 12rem; }
.words td { overflow-wrap: normal; min-width: 9rem; }
.words td:last-child { min-width: 14rem; overflow-wrap: anywhere; }
.plots { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }
figure { margin: 1rem 0 0; background: #ffffff; border: 1px solid var(--line); border-radius: 6px; padding: .25rem; }
figure svg { display: block; }
details { border: 1px solid var(--line); border-radius: 6px; padding: 0 1rem; margin: .6rem 0; }
details[open] { padding-bottom: 1rem; }
summary { cursor: pointer; padding: .6rem 0; }
summary h3 { display: inline; margin: 0 .6rem 0 0; }
summary span { color: var(--soft); font-size: .875rem; }
@media (max-width: 40rem) { dl > div { grid-template-columns: 1fr; gap: 0; } h1 { font-size: 1.45rem; } .figures th[scope=row] { max-width: 40vw; white-space: normal; } }
@media print { .scroll { overflow: visible; } details { break-inside: avoid; } }
`;
