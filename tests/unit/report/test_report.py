"""The page, the tables, and what they refuse."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest

from bettersynth.core.artifact import Artifact
from bettersynth.core.errors import DataError, ProvenanceError
from bettersynth.core.lang import catalogue, set_language
from bettersynth.core.record import Accounting, DatasetSummary, Picture, ReportInput
from bettersynth.report import charts, pictures
from bettersynth.report.build import build_report
from bettersynth.report.html import render_html
from bettersynth.report.markdown import markdown_table, render_markdown
from bettersynth.report.terminal import display_width, render_table, render_terminal, wrap
from bettersynth.report.text import number, p_value, seconds, share, signed, size
from bettersynth.report.verdict import verdicts

HOSTILE = "<script>alert(1)</script>\"'&"


def _sample_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sample_report", Path(__file__).with_name("sample_report.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SAMPLE = _sample_module()


@pytest.fixture(autouse=True)
def _english() -> None:
    set_language("en")


@pytest.fixture
def report(tmp_path: Path) -> ReportInput:
    return SAMPLE.sample(tmp_path)


class _Page(HTMLParser):
    """Collects tags, attributes and whether every element is closed in order."""

    VOID = ("meta", "input", "img", "br", "line", "rect", "circle", "polyline")

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def _parse(html: str) -> _Page:
    page = _Page()
    page.feed(html)
    return page


def test_page_is_one_file_without_requests_or_scripts(report: ReportInput, tmp_path: Path) -> None:
    html = render_html(report, root=tmp_path)
    page = _parse(html)
    assert page.wrong == [] and page.open == []
    assert not {"script", "link", "iframe", "object", "form"} & {tag for tag, _ in page.tags}
    for _, attrs in page.tags:
        assert not any(name.startswith("on") for name in attrs)
        for name in ("src", "href"):
            value = attrs.get(name)
            assert value is None or value.startswith(("data:image/", "#")), value
    assert "url(" not in html and "@import" not in html and "http" not in html.replace("http-equiv", "")


def test_user_text_is_escaped_everywhere(tmp_path: Path) -> None:
    base = SAMPLE.sample(tmp_path)
    hostile_score = dataclasses.replace(
        base.results["raw"][0],
        protocol=HOSTILE,
        chance_method=HOSTILE,
        by_category={HOSTILE: (3.0, 4)},
        provenance={**SAMPLE.PROVENANCE, HOSTILE: HOSTILE},
    )
    data = DatasetSummary(
        HOSTILE,
        1,
        (Accounting(HOSTILE, 2, 1, {HOSTILE: 1}),),
        {HOSTILE: {"edges": [0, 1], "before": [2], "after": [1]}},
        {HOSTILE: (Picture(HOSTILE, HOSTILE, HOSTILE, HOSTILE), Picture(HOSTILE, HOSTILE))},
        (dataclasses.replace(base.datasets[0].filter_quality[0], noise=HOSTILE),),
        HOSTILE,
        HOSTILE,
    )
    training = dataclasses.replace(base.trainings[0], name=HOSTILE, facts={HOSTILE: [HOSTILE]})
    comparison = dataclasses.replace(base.comparisons[0], a=HOSTILE, b=HOSTILE, protocol=HOSTILE)
    report = ReportInput(
        HOSTILE, HOSTILE, False, (data,), (training,), {HOSTILE: (hostile_score,)}, (comparison,),
        (dataclasses.replace(base.costs[0], stage=HOSTILE),), {HOSTILE: HOSTILE}, {HOSTILE: HOSTILE}, (HOSTILE,),
    )  # fmt: skip
    html = render_html(report, root=tmp_path)
    page = _parse(html)
    assert "<script" not in html and page.wrong == [] and page.open == []
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    markdown = render_markdown(report)
    assert not re.search(r"(?<!\\)<script", markdown.split("```")[0])


def test_both_languages_are_in_the_page_and_complete(report: ReportInput, tmp_path: Path) -> None:
    html = render_html(report, root=tmp_path)
    assert html.count('class="en"') == html.count('class="zh"') > 60
    assert 'id="lang-en" aria-label="English" checked' in html
    set_language("zh")
    chinese = render_html(report, root=tmp_path)
    assert '<html lang="zh">' in chinese and 'id="lang-zh" aria-label="中文" checked' in chinese


def test_every_template_has_a_translation_with_the_same_fields() -> None:
    root = Path(charts.__file__).parent
    known = catalogue()
    for path in root.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("t", "both", "Message")
            ):
                first = node.args[0]
                if isinstance(first, ast.Constant):
                    assert first.value in known, f"{path.name}: {first.value}"
    own = json.loads((root.parent / "core/locale/zh/report.json").read_text(encoding="utf-8"))
    for english, chinese in own.items():
        assert sorted(re.findall(r"{\w+}", english)) == sorted(re.findall(r"{\w+}", chinese)), english


def test_words_chosen_at_run_time_are_translated_too(report: ReportInput, tmp_path: Path) -> None:
    html = render_html(report, root=tmp_path)
    for word in (
        "rows in",
        "quarantined",
        "learning rate, stage 1",
        "p (Holm)",
        "peak memory",
        "tie",
        "better",
        "missed",
    ):
        assert f'<span class="en" lang="en">{word}</span><span class="zh"' in html, word


def test_build_writes_page_tables_and_manifest_last(report: ReportInput, tmp_path: Path) -> None:
    out = tmp_path / "report"
    artifact = build_report(report, out, root=tmp_path)
    assert Artifact.load(out, kind="report").verify() == []
    assert sorted(artifact.files) == ["report.html", "report.md"]
    again = build_report(report, tmp_path / "again", root=tmp_path)
    assert again.digest == artifact.digest


def test_a_score_without_provenance_is_refused_and_nothing_is_written(report: ReportInput, tmp_path: Path) -> None:
    bare = dataclasses.replace(report.results["raw"][0], provenance={"checkpoint": "x", "prompt": "p", "decoding": "d"})
    bad = dataclasses.replace(report, results={"raw": (bare,)})
    for render in (
        lambda: build_report(bad, tmp_path / "o"),
        lambda: render_terminal(bad),
        lambda: render_markdown(bad),
    ):
        with pytest.raises(ProvenanceError, match="no predictions"):
            render()
    assert not (tmp_path / "o").exists()


def test_read_only_folder_is_a_clear_error(report: ReportInput, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot write"):
        build_report(report, tmp_path / "file" / "report", root=tmp_path)


def test_verdict_says_who_leads_tie_and_chance(report: ReportInput) -> None:
    first, second, third = [message.text() for message in verdicts(report)]
    assert first.startswith("balanced leads on textvqa-noocr, the highest of 2 that beat raw: 44.9 % against 18.4 %")
    assert second.startswith("Tie on mmbench-circular") and third.startswith("At chance on mmbench-exact-letter")
    assert "clean_ceiling" not in first, "a reference never wins"


def test_a_better_score_that_is_at_chance_is_never_a_gain(report: ReportInput, tmp_path: Path) -> None:
    fake = dataclasses.replace(report.comparisons[-1], verdict="better")
    changed = dataclasses.replace(report, comparisons=(fake,))
    assert verdicts(changed)[0].text().startswith("At chance on mmbench-exact-letter")
    assert ">better<" not in render_html(changed, root=tmp_path)
    assert "better" not in render_terminal(changed)


def test_verdict_shares_the_lead_when_the_runner_up_ties(report: ReportInput) -> None:
    level = dataclasses.replace(report.comparisons[0], a="quality", b="balanced", verdict="tie")
    text = verdicts(dataclasses.replace(report, comparisons=(*report.comparisons, level)))[0].text()
    assert text.startswith("balanced and quality share the lead")


def test_verdict_names_one_seed_and_losses(report: ReportInput) -> None:
    one = dataclasses.replace(report.comparisons[3], num_seeds=1)
    assert "one seed only" in verdicts(dataclasses.replace(report, comparisons=(one,)))[0].text()
    worse = dataclasses.replace(report.comparisons[0], verdict="worse")
    assert verdicts(dataclasses.replace(report, comparisons=(worse,)))[0].text().startswith("raw stays ahead")


def test_verdict_without_comparisons_falls_back(report: ReportInput) -> None:
    scores = dataclasses.replace(report, comparisons=(), results={"raw": report.results["raw"]})
    texts = [message.text() for message in verdicts(scores)]
    assert texts[0].startswith("raw scores 18.4 %") and texts[2].startswith("raw is at chance")
    data = dataclasses.replace(report, comparisons=(), results={})
    assert verdicts(data)[0].text() == "balanced: 2,400 rows in, 2,000 out; nothing was trained or scored."
    assert verdicts(ReportInput("t", "", False))[0].text() == "Nothing was measured yet."


def test_unbalanced_rows_raise_an_alarm(report: ReportInput, tmp_path: Path) -> None:
    assert 'class="alarm"' not in render_html(report, root=tmp_path)
    data = dataclasses.replace(report.datasets[0], accounting=(Accounting("lossy", 10, 8, {"x": 1}),))
    assert 'class="alarm"' in render_html(dataclasses.replace(report, datasets=(data,)), root=tmp_path)


def test_pictures_share_a_budget_and_what_is_missing_is_counted(tmp_path: Path) -> None:
    names = SAMPLE.draw_pictures(tmp_path, 3)
    one = (tmp_path / names[0]).stat().st_size
    book = pictures.PictureBook(tmp_path, max_bytes=one + 5)
    filled = pictures.fill(book, {"a": [Picture(name, "") for name in names], "b": [Picture("gone.png", "")]})
    assert [uri is not None for _, uri in filled["a"]] == [True, False, False]
    assert filled["b"][0][1] is None
    data = DatasetSummary("d", 3, galleries={"lost": (Picture("gone.png", "c"), Picture(names[0], "c"))})
    html = render_html(ReportInput("t", "", False, (data,)), root=tmp_path)
    assert ">2 of 2 shown<" in html and ">1 without a picture" in html


def test_absolute_picture_paths_do_not_reach_the_page(tmp_path: Path) -> None:
    (name,) = SAMPLE.draw_pictures(tmp_path, 1)
    gallery = (Picture(str(tmp_path / name), "in"), Picture("/elsewhere/on/this/machine.png", "out"))
    html = render_html(ReportInput("t", "", False, (DatasetSummary("d", 1, galleries={"g": gallery}),)), root=tmp_path)
    assert f'alt="{name}"' in html and "machine.png" in html
    assert str(tmp_path) not in html and "/elsewhere" not in html


def test_only_pictures_are_embedded(tmp_path: Path) -> None:
    (tmp_path / "a.svg").write_text("<svg onload='alert(1)'/>")
    (tmp_path / "a.png").write_text("<html>")
    book = pictures.PictureBook(tmp_path)
    assert book.uri("a.svg") is None and book.uri("a.png") is None and book.uri("") is None


def test_page_stays_small_with_many_large_pictures(tmp_path: Path) -> None:
    big = b"\x89PNG\r\n\x1a\n" + bytes(60_000)
    galleries = {}
    for group in range(6):
        for n in range(24):
            (tmp_path / f"{group}_{n}.png").write_bytes(big)
        galleries[f"g{group}"] = tuple(Picture(f"{group}_{n}.png", "") for n in range(24))
    html = render_html(ReportInput("t", "", False, (DatasetSummary("d", 1, galleries=galleries),)), root=tmp_path)
    assert 3_000_000 < len(html) < 4_300_000


def test_terminal_is_aligned_with_wide_characters_and_plain_without_colour(report: ReportInput) -> None:
    table = render_table(["方案", "score"], [["原始", "1.0"], ["balanced", "22.5"]], "<>")
    assert len({display_width(line) for line in table.splitlines()}) == 1
    assert "\x1b" not in render_terminal(report) and "\x1b[32m" in render_terminal(report, colour=True)
    assert "at chance" in render_terminal(report)
    set_language("zh")
    assert "随机水平" in render_terminal(report)


def test_a_handful_of_questions_is_no_finding(report: ReportInput) -> None:
    few = {
        name: tuple(dataclasses.replace(s, num_questions=24) for s in scores) for name, scores in report.results.items()
    }
    said = verdicts(dataclasses.replace(report, results=few))
    assert "Only 24 questions" in said[0].text() and len(said) == len(verdicts(report)) + 1
    assert "Only" not in verdicts(report)[0].text()


def test_markdown_table_cannot_be_broken_by_a_cell() -> None:
    table = markdown_table(["a"], [["x|y\nz"]])
    assert table.splitlines()[-1] == "| x\\|y z |"


def test_numbers() -> None:
    assert (signed(-1.25), signed(3.0), p_value(0.0002), p_value(None)) == ("−1.2", "+3.0", "< 0.001", "n/a")
    assert (seconds(3.21), seconds(125), seconds(12_000)) == ("3.2 s", "2 min 05 s", "3 h 20 min")
    assert (size(3 << 20), share(1, 0), number(12345), number(0.00001234)) == ("3 MiB", "n/a", "12,345", "1.23e-05")
    assert [charts.nice_top(v) for v in (0, 9.8, 37, 61)] == [1.0, 10.0, 40.0, 80.0]


def test_curves_survive_odd_logs(report: ReportInput, tmp_path: Path) -> None:
    log = ({"step": 1, "loss": float("nan")}, {"step": 2}, {"loss": 3}, {"step": 3, "loss": 1.0, "lr": 0.1})
    training = dataclasses.replace(report.trainings[0], log=log)
    html = render_html(dataclasses.replace(report, trainings=(training,)), root=tmp_path)
    assert "nan" not in html.split('id="training"')[1].split("</section>")[0]
    empty = dataclasses.replace(report.trainings[0], log=())
    assert "<polyline" not in render_html(dataclasses.replace(report, trainings=(empty,)), root=tmp_path)


def test_a_wide_table_fits_the_terminal_and_loses_no_word():
    steps = " > ".join(f"operator_number_{number}_filter" for number in range(20))
    text = render_table(
        ["condition", "data", "n"], [["quality", steps, "1/5 done"], ["raw", "as it is", "0/5"]], width=80
    )
    assert max(map(display_width, text.splitlines())) <= 80
    assert set(re.findall(r"operator_number_\d+_filter", text)) == set(steps.split(" > "))
    assert text.splitlines()[-1].startswith("raw ") and "1/5 done" in text


def test_wrapping_counts_columns_of_chinese_and_breaks_endless_words():
    assert wrap("过滤重复的图文对", 6) == ["过滤重", "复的图", "文对"]
    assert wrap("x" * 10, 4) == ["xxxx", "xxxx", "xx"]
    assert wrap("", 4) == [""] and wrap("ab cd", 5) == ["ab cd"]


def test_columns_may_be_narrower_than_a_table_only_down_to_its_words():
    text = render_table(["number"] * 12, [["1234567890"] * 12], width=40)
    assert text.splitlines()[-1].split() == ["1234567890"] * 12
