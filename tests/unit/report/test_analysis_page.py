"""The page of an analysis: whole, escaped, in both languages, with pictures."""

from __future__ import annotations

import ast
import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

from PIL import Image

import bettersynth
from bettersynth.core.analysis import Agreement, Analysis, ChangedQuestion, Group, ProtocolAnalysis
from bettersynth.core.artifact import Artifact
from bettersynth.core.lang import catalogue, set_language
from bettersynth.core.record import Interval
from bettersynth.eval import error_types, question_types
from bettersynth.media.thumbnail import thumbnail
from bettersynth.report.analysis_page import _COMPARED, GROUP_TITLES, build_analysis, render_analysis, sentences

HOSTILE = "<script>alert('x')</script>\"&"
WIDE = Interval(10.0, -5.0, 25.0)


def sample(picture: str = "") -> Analysis:
    groups = tuple(
        Group(kind, HOSTILE if kind == "category" else "1 word", 7, Interval(40.0, 30.0, 50.0), WIDE, WIDE, 0.3)
        for kind in GROUP_TITLES
    )
    errors = (Group("error", "misspelt", 7, Interval(20.0, 10.0, 30.0), WIDE, Interval(-9.0, -12.0, -4.0), 0.001),)
    change = ChangedQuestion(HOSTILE, HOSTILE, HOSTILE, HOSTILE, "", "misspelt", "right", 1.0, "category/a", picture)
    share = Interval(25.0, 20.0, 30.0)
    both = Agreement(share, share, share, share, share, None, Interval(-0.1, -0.2, 0.3), 90.0, None, 0.5)
    one = ProtocolAnalysis(
        HOSTILE, 7, Interval(40.0, 30.0, 50.0), 10.0, WIDE, WIDE, 0.2, "tie", groups, errors, (change,), (change,),
        both,
        ("no question files",),
    )  # fmt: skip
    return Analysis(HOSTILE, (one, replace(one, verdict="better")), HOSTILE, (1, 1), True, HOSTILE, {HOSTILE: HOSTILE})


class _Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.sources: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.sources += [value or "" for name, value in attrs if name == "src"]


def test_nothing_from_outside_is_markup():
    set_language("en")
    page = render_analysis(sample())
    tags = _Tags(page)
    assert "script" not in tags.seen and HOSTILE not in page and "&lt;script&gt;" in page
    assert page.count("alert") > 10 and "Content-Security-Policy" in page
    assert "Became worse" in page and "有所退步" in page and "McNemar" in page


def test_pictures_are_inside_and_everything_is_in_the_json(tmp_path: Path):
    Image.new("RGB", (300, 200), (9, 90, 200)).save(tmp_path / "a.png")
    artifact = build_analysis(sample(str(tmp_path / "a.png")), tmp_path / "out", thumbnail=thumbnail)
    assert artifact.verify() == [] and Artifact.load(tmp_path / "out").kind == "report"
    page = (tmp_path / "out" / "analysis.html").read_text(encoding="utf-8")
    assert all(source.startswith("data:image/jpeg;base64,") for source in _Tags(page).sources)
    assert str(tmp_path) not in page
    data = json.loads((tmp_path / "out" / "analysis.json").read_text(encoding="utf-8"))
    assert data["protocols"][0]["fixed"][0]["question"] == HOSTILE


def test_one_model_has_no_differences():
    set_language("en")
    protocol = sample().protocols[0]
    alone = replace(
        protocol, b=None, difference=None, verdict="at chance", agreement=None, fixed=(), broken=(), errors=(),
        groups=tuple(replace(group, b=None, difference=None) for group in protocol.groups),
    )  # fmt: skip
    found = Analysis("m", (alone,))
    page = render_analysis(found)
    assert "is at chance on" in sentences(found)[0].text()
    assert "Agreement" not in page and "Became" not in page and "By question type" in page


def test_sentences_say_who_and_how_sure():
    set_language("en")
    tie, better = sentences(sample())
    assert tie.text().startswith("Tie on") and "answered better: 1, worse: 1" in tie.text()
    assert better.tone == "good" and "+10.0 points [−5.0, 25.0]" in better.text()


def test_every_sentence_and_name_is_translated():
    known = catalogue()
    root = Path(bettersynth.__file__).parent
    said = {*question_types.QUESTION_TYPES, *question_types.ANSWER_KINDS, *question_types.ANSWER_LENGTHS}
    said |= {
        error_types.RIGHT,
        *error_types.FREE_ERRORS,
        *error_types.OPTION_ERRORS,
        *GROUP_TITLES.values(),
        *_COMPARED.values(),
    }
    for name in ("report/analysis_page.py", "experiment/analysis.py", "experiment/answers.py"):
        for node in ast.walk(ast.parse((root / name).read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("t", "both", "Message")
            ):
                said |= {a.value for a in node.args[:1] if isinstance(a, ast.Constant)}
    assert sorted(text for text in said if text not in known) == []
