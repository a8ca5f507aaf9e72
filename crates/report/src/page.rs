//! The page around the sections.

use std::fmt::Write;

use crate::Section;
use crate::text::escape;

/// What marks in an SVG look like; `:root` decides the colours.
pub(crate) const SVG_STYLE: &str = "
.grid{stroke:var(--grid);stroke-width:1}
.axis{stroke:var(--muted);stroke-width:1}
.span{stroke:var(--muted);stroke-width:1.5;opacity:.55}
.tick{fill:var(--muted);font:12px var(--sans)}
.label{fill:var(--ink);font:13px var(--sans)}
.line{fill:none;stroke-width:2.2;stroke-linejoin:round}
.band{stroke:none;opacity:.18}
.bar{opacity:.55}
.heat{fill:var(--s0)}
.cell{fill:var(--ink);font:12px var(--sans)}
.over{fill:var(--paper)!important}
.even{stroke:var(--muted);stroke-width:1;stroke-dasharray:4 4}
.dot{stroke:var(--paper);stroke-width:1.2}
.s0{fill:var(--s0)}.s1{fill:var(--s1)}.s2{fill:var(--s2)}.s3{fill:var(--s3)}.s4{fill:var(--s4)}
.line.s0{stroke:var(--s0)}.line.s1{stroke:var(--s1)}.line.s2{stroke:var(--s2)}.line.s3{stroke:var(--s3)}.line.s4{stroke:var(--s4)}
.line{fill:none!important}
";

/// Colours and fonts. The series colours are told apart with the common kinds of colour blindness (after Okabe and Ito).
pub(crate) const COLOURS: &str = "
:root{--paper:#fdfdfb;--card:#fff;--ink:#1d2329;--muted:#68707a;--grid:#e6e7e4;--rule:#dcddd8;
--s0:#0072b2;--s1:#d55e00;--s2:#009e73;--s3:#a64d8c;--s4:#8a6d00;
--sans:system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif;
--mono:ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace}
@media(prefers-color-scheme:dark){:root{--paper:#14171a;--card:#1b1f23;--ink:#e4e6e3;--muted:#98a0a8;--grid:#2b3035;--rule:#31363c;
--s0:#56b4e9;--s1:#f0883e;--s2:#3cc79c;--s3:#d58bbd;--s4:#d6b73c}}
";

const STYLE: &str = "
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 var(--sans)}
main{max-width:820px;margin:0 auto;padding:3rem 1.25rem 5rem}
h1{font-size:2rem;overflow-wrap:anywhere;line-height:1.2;margin:0 0 .5rem;letter-spacing:-.01em}
h2{font-size:1.25rem;margin:3.2rem 0 .6rem;padding-top:1.1rem;border-top:1px solid var(--rule)}
h3{font-size:1rem;margin:1.8rem 0 .4rem}
p{margin:.5rem 0;max-width:68ch}
.lead{font-size:1.1rem;color:var(--muted)}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:1px;background:var(--card);
border:1px solid var(--rule);border-radius:8px;overflow:hidden;margin:1.1rem 0}
.facts div{padding:.7rem .9rem;box-shadow:0 0 0 1px var(--rule)}
.facts b{display:block;font-size:1.35rem;font-weight:600;font-variant-numeric:tabular-nums;line-height:1.25;overflow-wrap:anywhere}
.facts span{font-size:.82rem;color:var(--muted)}
figure{margin:1.4rem 0;padding:1rem 1rem .8rem;background:var(--card);border:1px solid var(--rule);border-radius:8px}
figure svg{display:block;width:100%;height:auto}
.sheets{display:grid;grid-template-columns:repeat(auto-fit,minmax(340px,1fr));gap:1.1rem;margin:.8rem 0}
.sheets span{display:block;font-size:.84rem;color:var(--muted);margin-bottom:.25rem}
img.tiles{display:block;max-width:100%;height:auto;image-rendering:pixelated}
figcaption{margin-top:.6rem;font-size:.9rem;color:var(--muted)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.92rem;font-variant-numeric:tabular-nums;margin:.8rem 0}
th,td{padding:.35rem .9rem .35rem 0;text-align:left;border-bottom:1px solid var(--rule);vertical-align:top}
th{font-weight:600;color:var(--muted);font-size:.84rem}
td.n,th.n{text-align:right}
code{font:.88em var(--mono);overflow-wrap:anywhere}
.time{display:grid;grid-template-columns:max-content max-content 1fr;gap:.25rem .9rem;font-size:.92rem;align-items:center;
font-variant-numeric:tabular-nums;margin:.6rem 0}
.time i{display:block;height:.7rem;background:var(--s0);border-radius:2px;opacity:.75;min-width:1px}
.warn{border-left:3px solid var(--s1);padding-left:.8rem}
footer{margin-top:4rem;color:var(--muted);font-size:.85rem}
@media print{body{background:#fff}figure,h2{break-inside:avoid}}
";

/// The whole document.
pub(crate) fn render(title: &str, lead: &str, sections: &[Section]) -> String {
    let mut out = String::from("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    out.push_str("<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n");
    out.push_str("<meta name=\"color-scheme\" content=\"light dark\">\n");
    let title = escape(title);
    let _ =
        write!(out, "<title>{title}</title>\n<style>{COLOURS}{STYLE}{SVG_STYLE}</style>\n</head>\n<body>\n<main>\n");
    let _ = writeln!(out, "<h1>{title}</h1>");
    if !lead.is_empty() {
        let _ = writeln!(out, "<p class=\"lead\">{}</p>", escape(lead));
    }
    for section in sections {
        let _ = write!(out, "<section>\n<h2>{}</h2>\n{}</section>\n", escape(&section.title), section.body);
    }
    let _ = write!(out, "<footer>subspan {}</footer>\n</main>\n</body>\n</html>\n", env!("CARGO_PKG_VERSION"));
    out
}

/// A strip of headline figures: value and what it is.
pub(crate) fn facts(facts: &[(String, &str)]) -> String {
    let mut out = String::from("<div class=\"facts\">");
    for (value, what) in facts {
        let _ = write!(out, "<div><b>{}</b><span>{}</span></div>", escape(value), escape(what));
    }
    out.push_str("</div>\n");
    out
}

/// A figure with its caption.
pub(crate) fn figure(svg: &str, caption: &str) -> String {
    format!("<figure>{svg}<figcaption>{}</figcaption></figure>\n", escape(caption))
}

/// A table; columns after the first `left` ones are numbers.
pub(crate) fn table(head: &[&str], left: usize, rows: &[Vec<String>]) -> String {
    let class = |i: usize| if i < left { "" } else { " class=\"n\"" };
    let mut out = String::from("<div class=\"scroll\"><table><thead><tr>");
    for (i, h) in head.iter().enumerate() {
        let _ = write!(out, "<th{}>{}</th>", class(i), escape(h));
    }
    out.push_str("</tr></thead><tbody>\n");
    for row in rows {
        out.push_str("<tr>");
        for (i, cell) in row.iter().enumerate() {
            let _ = write!(out, "<td{}>{}</td>", class(i), escape(cell));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
    out
}

/// Paragraphs.
pub(crate) fn paragraphs<'a>(texts: impl IntoIterator<Item = &'a str>, class: &str) -> String {
    let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
    texts.into_iter().map(|t| format!("<p{class}>{}</p>\n", escape(t))).collect()
}
