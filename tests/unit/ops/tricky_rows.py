"""Rows with corners, and the parameters that operators meet them with; both sides of the comparison read this file."""

from __future__ import annotations

import ast
import random
from pathlib import Path
from typing import Any

from tricky_markup import ARCHIVES, html, papers

Row = dict[str, Any]

_META: list[Any] = [
    {"v": 1, "s": "a", "l": ["a", "b"]},
    {"v": 1.0, "s": "1", "l": []},
    {"v": "1", "s": "é", "l": ["a"]},
    {"v": True, "s": "", "l": "a"},
    {"v": 0, "s": None, "l": [1, "1"]},
    {"v": "0", "s": "A", "l": [None]},
    {"v": "", "s": "中", "l": [["a"]]},
    {"v": None, "s": " a", "l": None},
    {"v": " 7.5 ", "s": "x", "l": ["b", "a", "a"]},
    {"v": "1e3", "s": "nan", "l": [1.0]},
    {"v": "nan", "s": "inf", "l": [True]},
    {"v": "-inf", "s": "b", "l": [0]},
    {"v": "no number", "s": "😀", "l": {"a": 1}},
    {"v": 2**60, "s": "10", "l": ["é"]},
    {"v": [5], "s": "a", "l": ["c"]},
    {"v": -3, "s": "0", "l": [""]},
    {"v": "inf", "s": "c", "l": ["a", "c"]},
    {"s": "a"},
    None,
    "not an object",
]
FIELDS: list[Row] = [
    {"text": f"text {n}", "images": [], "n": n % 4, "name": "ab"[n % 2], "meta": meta, "__dj__suffix__": suffix}
    for n, (meta, suffix) in enumerate(zip(_META, [".txt", "txt", ".md", ".TXT", ""] * 4, strict=True))
]

_LINES = [
    *(
        "Copyright 2020, All rights reserved.",
        "copyright 2021 all rights reserved",
        "Home | About | Contact",
        "# Title",
    ),
    *("{ }", "});", "[];", "}", "\\begin{figure}", "  \\end{figure}", "<br>", "</div>", "<p class='a'>", "<b open"),
    *(
        "a",
        "ab",
        " a ",
        "",
        "   ",
        "12 34",
        "!!!",
        "\u4f60\u597d",
        "\u00c9t\u00e9",
        "\u00e9t\u00e9",
        "tab\tsep",
        "<3 love",
        "< b>",
    ),
    *(
        "\\beginning",
        "x \\begin{a}",
        "##",
        " # spaced",
        "\u2028",
        "a\u2028b",
        "a\rb",
        "<a>text</a>",
        "<A HREF=x>",
        "1. item",
    ),
]


def _pages() -> list[Row]:
    """Sixty pages of shared and own lines, many of them repeated inside a page."""
    draw = random.Random(11)
    pages = []
    for number in range(60):
        lines = [draw.choice(_LINES) for _ in range(draw.randint(0, 12))]
        lines += [f"own line {number}"] * draw.randint(0, 2)
        draw.shuffle(lines)
        pages.append({"text": "\n".join(lines)})
    return pages


_PERSONAL = [
    *("see /home/me/a b.txt", "/tmp", "x=/etc/passwd", "(/var/log/x)", "a/home/b", "/Users/é/中.txt, /User", "/opt]"),
    *(
        "C:\\Users\\me\\x",
        "c:\\",
        "aC:\\x",
        "\\\\server\\share\\f",
        "'D:\\a b'",
        "me@x.org",
        "a.b+c@sub.x-y.co.uk",
        "é@x.org",
    ),
    *(
        "@x.org",
        "a@b",
        "a@b.c1",
        "a@b.co1",
        "a@b.c_d",
        "A9@x.中文",
        "token: abc",
        'password="p w"',
        "Api-Key : 'x1'",
        "auth:a,b",
    ),
    *(
        "secretary: no",
        "authorization: Bearer abc.def",
        "TOKEN:",
        "session_id: 12-3",
        "userid=ou_1",
        'trace-id : "a.b"',
    ),
    *(
        "channel: feishu",
        "Channel='DingTalk'",
        "当前的channel：飞书",
        "当前的 channel: 邮箱x",
        "channel= emailx",
        "channel:mail",
    ),
    *("ou_" + "0f" * 16, "ou_" + "0f" * 16 + "g", "uid_" + "aB3-" * 5, "u_short", "xu_" + "a" * 20, "OU_" + "A" * 32),
    *(
        "13800138000",
        "138001380001",
        "23800138000",
        "+86 13800138000",
        "+1-5551234567",
        "+12345 123456",
        "a13800138000",
    ),
    *(
        "110101199003071234",
        "11010119900307123X",
        "11010119901307123x",
        "eyJhbGci.eyJz.sig-_=",
        "eyJ.a.b",
        "eyJa.b.c.d",
    ),
    *(
        "-----BEGIN RSA KEY-----\nabc\n-----END RSA KEY-----",
        "-----BEGIN x-----",
        "http://a.b/?token=x",
        "https://u:p@h/x",
    ),
    *(
        "1.2.3.4",
        "1.2.3.4.5",
        "01.002.3.4",
        "256.1.1.1",
        "x1.2.3.4y",
        "1.2.3.45678",
        "[::1]",
        "[fe80::1]:8080",
        "[1.2]x",
        "[ab]",
    ),
    *(
        "00:1A:2b:3c:4D:5e",
        "00-1a-2b-3c-4d-5e",
        "00:1a:2b:3c:4d:5e:6f",
        "g00:1a:2b:3c:4d:5e",
        "\u0661\u0662\u0663",
        "1\u0663800138000",
    ),
    *("", " ", "plain words", "a:b=c/d@e", "[PATH_REDACTED]", "token: [REDACTED]", "note: x\n\n/tmp/y", "\u00a0/tmp/z"),
]


def _private() -> list[Row]:
    """Texts, dialogues and nested values with personal data, and what only looks like it."""
    draw = random.Random(12)
    some = lambda: " ".join(draw.choices(_PERSONAL, k=draw.randint(1, 3)))  # noqa: E731
    rows: list[Row] = [{"text": text} for text in _PERSONAL]
    rows += [
        {"text": draw.choice(["", " ", "\n", '"', "(", "，"]).join(draw.choices(_PERSONAL, k=5))} for _ in range(120)
    ]
    for _ in range(30):
        message: Row = {"role": "user", "content": draw.choice([some(), None, [some(), {"text": some(), "n": 1}, 5]])}
        call = {"function": {"name": "/tmp/f", "arguments": draw.choice([some(), {"path": some(), "q": [some()]}])}}
        message["tool_calls"] = draw.choice([None, [call, "x", {"arguments": some()}], "/tmp/a"])
        rows.append(
            {
                "text": some(),
                "query": some(),
                "response": [some(), some()],
                "dialog_history": [[some(), some()], [some()], some(), [some(), 1, some()], {"path": some()}],
                "messages": [message, "no message", {"tool_use": [{"function_call": {"arguments": some()}}]}],
                "path": some(),
                "other": some(),
                "deep": {
                    "file": some(),
                    "other": some(),
                    "list": [some(), [some()], {"file_path": some(), "a": some()}],
                },
                "pair": ["/tmp/a", "token: x"],
            }
        )
    return rows


PUNKT: Row = {
    "abbreviations": ["dr", "e.g", "u.s", "etc", "p.m", "vs", "jan", "ca"],
    "together": [["##number##", "jan"], ["s", "bach"], ["st", "louis"]],
    "starters": ["the", "it", "however", "in", "most"],
    "cases": dict(
        zip(
            ["the", "it", "dog", "paris", "louis", "said", "and", "bach", "a", "i"],
            [98, 2, 96, 4, 14, 32, 48, 4, 126, 2],
            strict=True,
        )
    ),
}


def built_in_abbreviations() -> list[str]:
    """What our splitter knows of English, read without importing the package."""
    path = Path(__file__).parents[3] / "src" / "bettersynth" / "ops" / "_sentences.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    values = [n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "ABBREVIATIONS"]
    return str(ast.literal_eval(values[0])["en"]).split()


def write_punkt(folder: Path) -> None:
    """The parameters as files, in the form of NLTK's punkt_tab."""
    files = {
        "abbrev_types.txt": PUNKT["abbreviations"],
        "sent_starters.txt": PUNKT["starters"],
        "collocations.tab": ["\t".join(pair) for pair in PUNKT["together"]],
        "ortho_context.tab": [f"{word}\t{bits}" for word, bits in PUNKT["cases"].items()],
    }
    for name, lines in files.items():
        (folder / name).write_text("\n".join(lines), encoding="utf-8")


_SENTENCES = [
    *(
        "The",
        "It",
        "it",
        "dog",
        "Dog",
        "Paris",
        "said",
        "and",
        "And",
        "a",
        "A",
        "I",
        "However",
        "Louis",
        "Bach",
        "most",
    ),
    *(
        "Dr.",
        "dr.",
        "e.g.",
        "U.S.",
        "etc.",
        "p.m.",
        "vs.",
        "Jan.",
        "ca.",
        "St.",
        "J.",
        "S.",
        "x.",
        "B.",
        "no.",
        "co-ed.",
    ),
    *(
        "3.",
        "3.5",
        "-2.",
        "1,000.",
        "$5.",
        "end.",
        "end!",
        "what?",
        "yes!!",
        "no?!",
        "wait...",
        "..",
        "...",
        ". . .",
        "…",
    ),
    *('"Hi."', "(Sent.)", "'ok.'", "“Yes.”", "«Non.»", "end.)", 'end."', "end.'--", "a.b", "x.com.", "end.[1]", "[a.]"),
    *(
        "--",
        "-",
        ";",
        ":",
        ",",
        "!",
        ".",
        "?",
        "&",
        "#tag",
        "中文。",
        "句子.",
        "Été.",
        "ß.",
        "été",
        "١.",
        "\u00a0",
        "\n",
    ),
    *(
        "\t",
        "\u2028",
        "mother-in-law.",
        "non-dr.",
        "word,",
        "(a",
        "b)",
        "*",
        "@me.",
        "e.g.,",
        "i.e.;",
        "Mr.Smith",
        "U.S.A.",
    ),
    *("<__dj__image>", "<|__dj__eoc|>", "\n\n"),
]


def _prose() -> list[Row]:
    """Hand-made corners and drawn word sequences."""
    draw = random.Random(13)
    texts = [
        "",
        " ",
        "\n",
        ".",
        "!",
        "...",
        "One. Two.",
        " lead. Trail. ",
        "a.\n\nb. C",
        "Very bad!!! I promise.",
        "x" * 500,
    ]
    texts += ["(Sent1.) Sent2.", 'He said "no." Then left.', "He came at 5 p.m. The dog slept.", "J. S. Bach. The end."]
    for number in range(400):
        pieces = draw.choices(_SENTENCES, k=draw.randint(1, 14))
        texts.append(draw.choice([" ", " ", " ", "", "  ", "\n"]).join(pieces) if number % 5 else "".join(pieces[:6]))
    return [{"text": text} for text in texts]


CHINESE: list[Row] = [
    {"text": text}
    for text in (
        *(
            "",
            "plain English",
            "汉字转换",
            "鼠标里面的硅二极管坏了，导致光标分辨率降低。",
            "後來皇后說：頭髮乾了",
            "软件和网络",
            "鯨魚與鯰魚",
        ),
        *(
            "一个人干了一杯",
            "干燥的面条，里程和里面",
            "臺灣的計程車",
            "香港的士",
            "広辞苑",
            "經濟學",
            "😀 国 <__dj__image> 国",
            "龙\n龍\t竜",
        ),
    )
]

ROWS: dict[str, list[Row]] = {
    "private": _private(),
    "prose": _prose(),
    "archives": [{"text": "", "compressed_file": name} for name in ARCHIVES],
    "html": html(),
    "chinese": CHINESE,
    "papers": papers(),
    "fields": FIELDS,
    "pages": _pages(),
    "one page": [{"text": "a b\na b"}],
}

_CONDITIONS = (
    *("", "n > 1", "1 <= n < 3", "3 > n >= 1 and name == 'a'", "not name == 'a'", "n", "name in ['b', 'c'] or n == 0"),
    *("n not in [0, 1]", "meta.v > 0", "meta.s == 'a'", "meta.none == 1", "meta.none not in [1]", "meta.none in [1]"),
    *("none", "not none", "'te' in text", "n != 1", "-n < -1", "+n == 2", "n in (1, 2)", "n in {3}", "meta.l != 'a'"),
    *("1 < n < none", "0 < n not in [2]", "meta.v == meta.s", "name < 'b' < text", "True", "'' or n", "'a' in meta.l"),
    *("__dj__meta__.x == 1", "__dj__stats__.x not in [1]", "n > 'a'"),
)
CASES: dict[str, list[tuple[dict[str, Any], str]]] = {
    "specified_field_filter": [
        *(
            ({"field_key": key, "target_value": values}, "fields")
            for key in ("meta.v", "meta.s", "meta.l", "name", "meta", "gone")
            for values in (["a", "b"], [1, "é"], ["1", None], [0, ""])
        ),
        ({"field_key": "meta.s", "target_value": []}, "fields"),
        ({"field_key": "meta.l", "target_value": ["a"], "reversed_range": True}, "fields"),
    ],
    "specified_numeric_field_filter": [
        ({"field_key": "meta.v"}, "fields"),
        ({"field_key": "meta.s"}, "fields"),
        ({"field_key": "n", "min_value": 1, "max_value": 2}, "fields"),
        ({"field_key": "meta.v", "min_value": 1, "max_value": 1000}, "fields"),
        ({"field_key": "meta.v", "min_value": 1, "max_value": 7.5, "min_closed_interval": False}, "fields"),
        ({"field_key": "meta.v", "min_value": 1, "max_value": 7.5, "reversed_range": True}, "fields"),
        ({"field_key": "meta.s", "min_value": None, "max_value": None}, "fields"),
        ({"field_key": "meta.s", "min_value": None, "max_value": None, "reversed_range": True}, "fields"),
        ({"field_key": "meta.v", "min_value": None, "max_value": 0, "max_closed_interval": False}, "fields"),
    ],
    "suffix_filter": [
        *(({"suffixes": value}, "fields") for value in (".txt", [".txt", "txt", ""], [], None)),
        ({"suffixes": ".md", "reversed_range": True}, "fields"),
    ],
    "document_line_deduplicator": [
        ({}, "pages"),
        ({"frequency_threshold": 0}, "one page"),
        ({"frequency_threshold": 8, "lowercase": True}, "pages"),
        ({"frequency_threshold": 3, "ignore_special_character": True, "min_line_length": 0}, "pages"),
        ({"skip_brackets": False, "skip_markdown_headers": False, "min_line_length": 1}, "pages"),
        ({"skip_latex_env": False, "skip_html_tags": False, "frequency_threshold": 0}, "pages"),
    ],
    "pii_redaction_mapper": [
        ({}, "private"),
        ({"mask_urls": True, "email_replacement": "", "ip_replacement": "IP", "phone_replacement": "1"}, "private"),
        ({"mask_paths": False, "mask_ids": False, "mask_secrets": False, "mask_pem": False}, "private"),
        ({"mask_jwt": False, "mask_ips": False, "mask_macs": False, "mask_platform_open_ids": False}, "private"),
        ({"redact_keys": ["text", "pair"], "mask_phones": False, "mask_emails": False}, "private"),
        ({"redact_keys": ["response"], "mask_channel_ids": False, "mask_id_cards": False}, "private"),
        ({"extra_patterns": [["(n)o", r"\1O"], ["[0-9]+", "#"]], "messages_key": "deep"}, "private"),
    ],
    "latex_figure_context_extractor_mapper": [
        ({}, "papers"),
        ({"citation_commands": ["\\ref", "eqref"], "paragraph_separator": "\n", "caption_key": "c"}, "papers"),
    ],
    "chinese_convert_mapper": [
        ({"mode": mode}, "chinese")
        for mode in (
            *("s2t", "t2s", "s2tw", "tw2s", "s2hk", "hk2s", "s2twp", "tw2sp", "t2tw", "tw2t", "hk2t", "t2hk", "t2jp"),
            "jp2t",
        )
    ],
    "extract_tables_from_html_mapper": [
        ({}, "html"),
        ({"include_header": False, "tables_field_name": "t"}, "html"),
        ({"retain_html_tags": True}, "html"),
    ],
    "latex_merge_tex_mapper": [
        ({}, "archives"),
        ({"separator": "|", "max_file_size": 2000}, "archives"),
        ({"max_total_size": 3010}, "archives"),
        ({"max_total_size": 25, "max_file_size": 0}, "archives"),
    ],
    "sentence_split_mapper": [({"lang": "en"}, "prose"), ({"lang": "en", "punkt": "PUNKT"}, "prose")],
    "general_field_filter": [({"filter_condition": condition}, "fields") for condition in _CONDITIONS],
}
