"""Papers, tables and archives with corners: the marked-up part of ``tricky_rows``."""

from __future__ import annotations

import io
import random
import tarfile
import zipfile
from pathlib import Path
from typing import Any

Row = dict[str, Any]

_PAPER = r"""\documentclass{a}
\begin{document}
Intro. See \ref{fig:a} and \cref{fig:b, fig:c}.

Only \Cref{fig:ab} here, \autoref{ fig:a} not, \eqref{fig:a} not, \nameref{fig:a} not.

\begin{figure}[t]
  \includegraphics[width=1]{img/a.png}
  \caption[short]{A \textbf{bold \emph{deep}} caption.}
  \label{fig:a}
\end{figure}
\begin{figure*}
  \begin{subfigure}[b]{0.5\textwidth}\includegraphics{b1}\caption{Left}\label{fig:b}\end{subfigure}
  \begin{subfigure}{.4\textwidth}\includegraphics{ b2.pdf }\includegraphics{b3}\subcaption{Right {x}}\end{subfigure}
  \begin{subfigure}{.1\textwidth}no picture\end{subfigure}
  \caption*{Both}\label{fig:ab}
\end{figure*}
Prose with \ref{fig:c,fig:d} stays.

\begin{equation} \ref{fig:c} \end{equation} and \ref{fig:e}, \ref{fig:f}

\begin{wrapfigure}{r}{0.5\textwidth}\includegraphics{c.jpg}\caption{Unclosed {brace}\label{fig:c}\end{wrapfigure}
\begin{figure}\subfloat[Sub d]{\includegraphics{d}\label{fig:d}} \subfigure{\includegraphics{e}\label{fig:e}}
\subfloat [no] {\includegraphics{z}} \subfigure[] {x{y}} \caption{Old style}\end{figure}
\begin{figure}\begin{minipage}{0.5\linewidth}\includegraphics{m1}\caption{M1}\label{fig:f}\end{minipage}
\begin{minipage}[t]{0.5\linewidth}\captionof{table}{T}\includegraphics{m2}\end{minipage}
\begin{minipage}{1cm}\includegraphics{m3}\captionof{figure}[s]{M3}\end{minipage}\end{figure}
\begin{figure}\begin{minipage}{1cm}\includegraphics{one}\end{minipage}\caption{One page}\end{figure}
\begin{figure}\caption{no picture}\label{fig:none}\end{figure}
\end{document}
"""
_SNIPPETS = [
    *(_PAPER[i:j] for i, j in ((0, 500), (300, 900), (700, 1500), (1200, 2300))),
    *(
        "\\begin{figure}",
        "\\end{figure}",
        "\\includegraphics{x y.png}",
        "\\caption{C}",
        "\\caption {no}",
        "\\label{fig:a}",
    ),
    *(
        "\\begin{subfigure}\\includegraphics{s}\\subfloat{\\includegraphics{t}}\\end{subfigure}",
        "\\ref{fig:a}",
        "{",
        "}",
    ),
    *("\\cref{x,  fig:a ,y}", "\\ref{fig:ab,fig:a}", "\n\n", "\n\n", "text", "\\begin{table}\\ref{fig:a}\\end{table}"),
    *(
        "\\subfigure[cap [x]]{\\includegraphics{u}}",
        "\\begin{minipage}a\\end{minipage}",
        "\\captionof{figure}{F}",
        "\\label{a,b}",
    ),
    *("\\begin{minipage}{1cm}\\includegraphics{v}\\end{minipage}", "\\begin{figure*}", "\\end{figure*}", "\\ref{a,b}"),
]


def papers() -> list[Row]:
    """A paper with every kind of figure, and pieces of such papers put together anew."""
    draw = random.Random(14)
    texts = ["", "no figures", _PAPER, _PAPER.replace("\n\n", "\n \n")]
    texts += ["".join(draw.choices(_SNIPPETS, k=draw.randint(2, 10))) for _ in range(200)]
    texts += [
        f"\\begin{{figure}}{''.join(draw.choices(_SNIPPETS[6:], k=6))}\\end{{figure}}\n\nSee \\ref{{fig:a}}."
        for _ in range(150)
    ]
    return [{"text": text, "other": number} for number, text in enumerate(texts)]


_HTML = [
    *(
        "<table>",
        "</table>",
        "<tr>",
        "</tr>",
        "<td>",
        "</td>",
        "<th>",
        "</th>",
        "<tr>",
        "<td>",
        "<TD colspan=2>",
        "</TR>",
    ),
    *(
        "a",
        "b &amp; c",
        " 1 ",
        "\n",
        "\t ",
        "&nbsp;",
        "&eacute;",
        "&foo;",
        "&copy",
        "&#65;",
        "&#x42;",
        "&#128;",
        "&",
        "< d",
        "é",
    ),
    *(
        "<b>x</b>",
        "<br>",
        "<br/>",
        "</br>",
        "<p>one<p>two",
        "<!-- note -->",
        "<script>s<b>1</script>",
        "<style>t</style>",
    ),
    *(
        "<img src='a\"b.png' alt=\"it's\">",
        '<i class=" x  y ">z</i>',
        "<pre> \n </pre>",
        "<a href=a&b>q</a>",
        "<input disabled>",
    ),
    *(
        "<?php x ?>",
        "<!DOCTYPE html>",
        "<ruby>r<rt>t</rt></ruby>",
        "<template>m</template>",
        "<td/>",
    ),
    *(
        "<thead>",
        "</thead>",
        "<tbody>",
        "</div>",
        "<td id=b id=c>",
        "中文",
        "<__dj__image>",
        "<caption>C</caption>",
        "1 > 2",
    ),
]


def html() -> list[Row]:
    """Tables, nested and broken."""
    draw = random.Random(15)
    head, body = "<tr><th>H &lt;1&gt;</th><th>2</th></tr>", "<tr><td> x <b> y </b></td><td></td></tr>"
    table = f"<table class='a b' border=1>{head}{body}</table>"
    texts = [
        "",
        "no markup",
        "a < b",
        table,
        table + "x" + table,
        "<table></table>",
        "<table><tr></tr></table>",
        "<table>text</table>",
    ]
    texts += [
        f"<table><tr><td>{table}</td><td>after</td></tr></table>",
        f"<p>{table}",
        "<table><tr><td>open",
        "</table>x",
    ]
    texts += ["<table>" * draw.randint(0, 1) + "".join(draw.choices(_HTML, k=draw.randint(2, 16))) for _ in range(250)]
    texts += ["<table>" + "".join(f"<tr>{''.join(draw.choices(_HTML[4:], k=5))}" for _ in range(3)) for _ in range(60)]
    return [{"text": text} for text in texts]


ARCHIVES = ("a.zip", "a.tar", "a.TAR.GZ", "a.tgz", "empty.zip", "none.zip", "cut.tar.gz", "a.gz", "text.zip")
BAD_ARCHIVES = ("none.zip", "cut.tar.gz", "a.gz", "text.zip")
_FILES = {
    "main.tex": "\\input{b} é".encode(),
    "sub/b.tex": b"bad \xff\xfe bytes\r\n",
    "notes.txt": b"no",
    "C.TEX": b"no",
    "empty.tex": b"",
    "long.tex": b"x" * 3000,
    "last.tex": b"last",
}


def write_archives(folder: Path) -> None:
    """Archives of every kind, and some that are none."""
    with zipfile.ZipFile(folder / "a.zip", "w") as packed:
        for name, content in _FILES.items():
            packed.writestr(name, content)
    for name, mode in (("a.tar", "w"), ("a.TAR.GZ", "w:gz"), ("a.tgz", "w:gz")):
        with tarfile.open(folder / name, mode) as tar:  # type: ignore[call-overload]
            tar.addfile(_entry("folder.tex", tarfile.DIRTYPE))
            for entry, content in reversed(_FILES.items()):
                tar.addfile(_entry(entry, size=len(content)), io.BytesIO(content))
    zipfile.ZipFile(folder / "empty.zip", "w").close()
    (folder / "cut.tar.gz").write_bytes((folder / "a.tgz").read_bytes()[:60])
    (folder / "a.gz").write_bytes(b"")
    (folder / "text.zip").write_text("no archive")


def _entry(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.size = kind, size
    return entry
