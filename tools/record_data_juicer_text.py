"""Record what Data-Juicer's own text operators give for tricky texts; the parity test compares ours with it.

Run it with a Python that has py-data-juicer 1.6.1 (and ftfy, selectolax, regex, simhash-pybind); `make test` needs only
the file it writes:

    python tools/record_data_juicer_text.py tests/unit/ops/data_juicer_text.json
"""

from __future__ import annotations

import importlib
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

WORDS = [
    "a",
    "the",
    "red",
    "dog",
    "sign",
    "under",
    "tree",
    "STOP",
    "house",
    "near",
    "big,",
    "says",
    "10",
    "Blue",
    "bus.",
    "with",
    "car!",
    "it's",
    "e.g.",
    "3,000",
    "of",
    "and",
    "is",
]
ODD = [
    *("\u00e9t\u00e9", "\u4f60\u597d\u3002", "\u4e16\u754c\uff01", "\ud55c\uad6d\uc5b4", "\u05e9\u05dc\u05d5\u05dd"),
    *(
        "\u0645\u0631\u062d\u0628\u0627",
        "\U0001f600",
        "\u2764\ufe0f",
        "\u200b",
        "\u3000",
        "\u00a0",
        "\t",
        "\u201cq\u201d",
    ),
    *("\u2026", "\uff11\uff12", "\u25c6", "\u2193", "\u30c6\u30b9\u30c8", "Stra\u00dfe", "\u0130stanbul", "na\u00efve"),
    *(
        "http://x.example/a?b=1",
        "www.foo.org/bar",
        "mailto:a@b.co",
        "me.x+y@foo-bar.com",
        "A.B@Example.COM",
        "note:this",
    ),
    *(
        "192.168.1.300",
        "10.0.0.1",
        "1.2.3.4567",
        "2001:0db8:85a3:0000:0000:8a2e:0370:7334",
        "fe80::1",
        "href=x",
        "a//b",
    ),
    *(
        "<b>bold</b>",
        "<li>one</li>",
        "&amp;",
        "&lt;tag&gt;",
        "<br>",
        "<__dj__image>",
        "<|__dj__eoc|>",
        "###",
        "$$$",
        "--",
    ),
    *("\n", "\n", "\n\n", "\r\n", "\u2028", "x" * 40, "anti-dis-establish", "word" * 9, "C++", "..", "!?", "% note"),
]
CODE = [
    "/* Copyright 2020 Foo\n * All rights reserved */\nint main() {}\n",
    "/* nothing to see */\nint x;\n",
    "# one\n# two\n\ncode = 1\n# three\n",
    "// a\n// b\nfunc() // c\n",
    "-- sql\nselect 1;\n",
    "\n\n  // x\ny\n",
    "text first\n# later\n",
    "/* a copyright */ x /* b */\n# c\nz",
    "x = 1 /* Copyright me */ y\n# q",
    "#only",
    "#a\n#b",
    "-x\ny",
    "/** COPYRIGHT **/\n\nclass A {}\n",
    "/*\n * copyright\n */\n// more\nz\n",
]
LATEX = [
    "% c\n\\documentclass{a}\n\\newcommand{\\foo}{bar}\n\\begin{document}\n\\foo is \\foobar and \\foo1 \\foo.\n",
    "\\def\\x{y}\n\\x \\x{} \\xx a\\x b\n",
    "\\newcommand\\R{\\mathbb{R}}\n$\\R$ and \\R_1\n",
    "\\newcommand{\\two}[2]{#1 and #2}\n\\two{a}{b}\n",
    "\\newcommand*{\\s}{star} \\s\n\\renewcommand{\\t}{x} \\t\n",
    "intro\n\\section{One}\ntext % inline\n50\\% off\n%whole line\nend\n",
    "no head here % c\n",
    "pre \\chapter{C} body \\appendix more\n",
    "\\section*{Star} x\n\\bibliography{refs}\ntail\n",
    "a\\begin{thebibliography}{9}\\bibitem{x}\\end{thebibliography}",
    "\\paragraph{P} q \\begin{references} r",
    "\\subsection[short]{long} z\n\\begin{REFERENCES} y",
    "  \\part{I}\n\\subsubsection{s}\\subparagraph{t}",
    "\\Bibliography{x} \\appendices y \\appendix",
    "%\n%%\n% a\n\\% b % c\n d%e\n",
    "a%\n%b",
    "\\newcommand{\\a}{x{y}z}\n\\newcommand{\\a}{c}\n\\def \\b {\\a}\n\\a\\a \\b1 \\b_ \\a",
    "\\newcommand{\\a}{b}{c}\n\\newcommand{\\d}{b} \n\\def\\e#1{f}\n\\a x \\d \\e \\1",
    "\\section [s] {a}b",
    "x\\section*[s]{a}b",
    "x\\sectionmark{a}",
    "\\\\% kept?\nline \\\\ % gone\n",
]
TABLES = [
    "a b c\nd e f\ng h i\n",
    "intro text\nName  Age  City\nAnn   30   Rome\nBob   41   Oslo\nend of the text here.\n",
    "1 2\n3 4\n5 6\n\nafter\n",
    "\na|b\nc|d\n\n\nz",
    "\na b\nc d\ne f g\nh i j\nz",
    "\n" + "a b c d e f g h i j k l m n o p q r s t\n" * 2 + "z",
    "| a | b |\n| - | - |\n| 1 | 2 |\n| 3 | 4 |\n",
    "x\ty\tz\n1\t2\t3\n4\t5\t6\n7\t8\t9\n",
    "one line only of words\n",
    "a b\nc d\n",
    "This is a sentence with words.\nAnd one more sentence follows here.\nA third is here too, my friend.\n",
]
TRICKY = [
    *("", " ", "a", "\n", "\n\n\n", "...", "$$$ 100% !!! ???", "\u200b\u200b", "\ufeffbom", "\U0001f600\U0001f601"),
    *("hello hello hello hello hello", "abcabcabcabcabcabcabcabc", "STOP STOP. STOP! Go?", "word " * 40, "x" * 3000),
    *(
        "line one\nline two\nline one\n\nline one. line one.",
        "G... H! H! \u201cYes.\u201d \u2019No\u2019 ok",
        "\u4f60\u597d\u4f60\u597d\u3002",
    ),
    *("A sentence. Another sentence. A sentence.", "mail me@foo.bar or A.B+c@Example.COM now", "1.5MB foo-bar_baz"),
    *(
        "call 255.255.255.255 or 256.1.1.1 or 1.1.1",
        "a:b:c:d:e:f:1:2 x",
        "0:0:0:0:0:0:0:1",
        "Paragraph one.\n\nParagraph two.",
    ),
    *(
        "\u00ff\u0178\u03a3\u03c2\u03c3 \u01c5 \u2160 \u00bd",
        "tab\tsep\tline\nnext\r\nlast\x0bv\x0cf\x1cs\x85n\u2028l",
        "e\u0301 \u00e9 \ufb01",
    ),
    *(
        "\u25c6\u25cf\u25a0\u25ba\u25bc\u25b2\u25b4\u2206\u25bb\u25b7\u2756\u2661\u25a1 x",
        "chapter 1: intro",
        "\u4e2d\u6587abc123\uff0c\u3002!?",
    ),
    "the bad word and the BAD, words of a bad. day",
]
LISTS = {"en": ["the", "a", "of", "and", "is", "bad", "it's", "big"], "zh": ["\u4f60", "\u597d", "\u4f60\u597d"]}
WORD_AUG = {"use_words_aug": True, "words_aug_group_sizes": [2, 3], "words_aug_join_char": ""}
CASES: dict[str, list[dict[str, Any]]] = {
    "alphanumeric_filter": [{}],
    "average_line_length_filter": [{}],
    "character_repetition_filter": [{}, {"rep_len": 2}, {"rep_len": 1}],
    "clean_copyright_mapper": [{}],
    "clean_email_mapper": [{}, {"repl": "<EMAIL>"}, {"pattern": r"r'(\w+)@(\w+)'", "repl": r"\2"}],
    "clean_html_mapper": [{}],
    "clean_ip_mapper": [{}, {"repl": "<IP>"}, {"pattern": r"\d+\.\d+", "repl": "N"}],
    "clean_links_mapper": [{}, {"repl": "<LINK>"}, {"pattern": "https?://[a-z]+"}],
    "document_deduplicator": [{}, {"lowercase": True}, {"lowercase": True, "ignore_non_character": True}],
    "document_minhash_deduplicator": [
        {},
        {"tokenization": "character"},
        {"tokenization": "punctuation", "window_size": 2},
    ],
    "document_simhash_deduplicator": [{}, {"tokenization": "character", "window_size": 4}, {"hamming_distance": 3}],
    "expand_macro_mapper": [{}],
    "fix_unicode_mapper": [{}, {"normalization": "NFKC"}],
    "flagged_words_filter": [{}, {"lang": "all"}, {"lang": "zh", **WORD_AUG}],
    "maximum_line_length_filter": [{}],
    "punctuation_normalization_mapper": [{}],
    "remove_bibliography_mapper": [{}],
    "remove_comments_mapper": [{}, {"inline": False}, {"multiline": False}],
    "remove_header_mapper": [{}, {"drop_no_head": False}],
    "remove_long_words_mapper": [{}, {"max_len": 8}, {"min_len": 3, "max_len": 15}],
    "remove_non_chinese_character_mapper": [{}, {"keep_alphabet": False, "keep_number": False}, {"keep_punc": False}],
    "remove_repeat_sentences_mapper": [{}, {"lowercase": True}, {"ignore_special_character": False}],
    "remove_specific_chars_mapper": [{}, {"chars_to_remove": "ae-z\\]"}, {"chars_to_remove": ["\u4f60", ".", "^"]}],
    "remove_table_text_mapper": [{}, {"min_col": 3}, {"max_col": 3}],
    "remove_words_with_incorrect_substrings_mapper": [{}, {"substrings": ["o", "\u597d"]}],
    "replace_content_mapper": [{"pattern": "o+", "repl": "0"}, {"pattern": ["a", r"r'(\d)'"], "repl": ["A", r"<\1>"]}],
    "special_characters_filter": [{}],
    "stopwords_filter": [{}, {"lang": "all"}, {"lang": "zh", **WORD_AUG}],
    "text_length_filter": [{}],
    "whitespace_normalization_mapper": [{}],
    "word_repetition_filter": [{}, {"rep_len": 2}, {"rep_len": 1}],
    "words_num_filter": [{}],
    "text_chunk_mapper": [
        {},
        {"max_len": 20, "split_pattern": None},
        {"max_len": 20, "split_pattern": r"\n", "overlap_len": 5},
    ],
}


def make_texts() -> list[str]:
    """Hand-made corners and 300 drawn texts; every ninth repeats an earlier one with a small change."""
    draw = random.Random(20)
    texts = [*TRICKY, *CODE, *LATEX, *TABLES]
    for number in range(300):
        pieces = [draw.choice(ODD if draw.random() < 0.3 else WORDS) for _ in range(draw.randint(1, 26))]
        if number % 9 == 8:
            pieces = draw.choice(texts).split(" ")
            pieces[draw.randrange(len(pieces))] = draw.choice(WORDS)
        texts.append(draw.choice([" ", " ", " ", "", "\n"]).join(pieces))
    return texts


def record(name: str, params: dict[str, Any], texts: list[str], folder: str) -> Any:
    """Results of one operator: changed texts by row, values by row, or the rows that stay."""
    kind = name.rpartition("_")[2]
    module = importlib.import_module(f"data_juicer.ops.{kind}.{name}")
    del module
    from data_juicer.ops.base_op import OPERATORS

    extra = (
        {f"{name.removesuffix('_filter')}_dir": folder} if name in ("flagged_words_filter", "stopwords_filter") else {}
    )
    operator = OPERATORS.modules[name](**params, **extra)
    if kind == "mapper":
        out = [operator.process_batched({"text": [text]})["text"] for text in texts]
        one = {row: got[0] for row, got in enumerate(out) if len(got) == 1 and got[0] != texts[row]}
        return one | {row: got for row, got in enumerate(out) if len(got) != 1}
    if kind == "filter":
        rows = operator.compute_stats_batched({"text": list(texts), "__dj__stats__": [{} for _ in texts]})
        (key,) = rows["__dj__stats__"][0]
        return [stats[key] for stats in rows["__dj__stats__"]]
    import datasets

    rows = [operator.compute_hash({"text": text, "row": row}) for row, text in enumerate(texts)]
    kept, _ = operator.process(datasets.Dataset.from_list(rows), show_num=0)
    return kept["row"][:]


def main() -> None:
    """Write the file named on the command line."""
    texts = make_texts()
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("flagged_words", "stopwords"):
            (Path(folder) / f"{kind}.json").write_text(json.dumps(LISTS), encoding="utf-8")
        found = []
        for name, several in CASES.items():
            for params in several:
                try:
                    found.append({"operator": name, "params": params, "results": record(name, params, texts, folder)})
                except Exception as error:  # noqa: BLE001 - an operator that cannot run is left out and named
                    print(f"left out: {name} {params}: {type(error).__name__}: {error}", file=sys.stderr)
    about = (
        "What the operators of py-data-juicer 1.6.1 give for these texts; written by tools/record_data_juicer_text.py."
    )
    data = {"about": about, "lists": LISTS, "texts": texts, "cases": found}
    lines = [f"{json.dumps(key)}: {json.dumps(data[key])}" for key in ("about", "lists", "texts")]
    cases = ",\n".join(json.dumps(case, separators=(",", ":")) for case in found)
    Path(sys.argv[1]).write_text("{" + ",\n".join(lines) + ',\n"cases": [\n' + cases + "\n]}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
