from __future__ import annotations

import json

import pytest

from bettersynth.core.artifact import Artifact
from bettersynth.core.errors import BetterSynthError, ConfigError, DataError
from bettersynth.eval.predictions import FILE, LOG
from bettersynth.eval.runner import ask, generate, open_target, plan_batches
from bettersynth.infer.protocols import Decoding

from .conftest import ScriptedChat


def _bytes(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}


class Killed(BaseException):
    """Stands for a kill: nothing may catch it."""


def test_every_answer_carries_its_provenance(data, tmp_path):
    model = ScriptedChat(lambda request: "stop")
    artifact = generate("textvqa-noocr", model, data, tmp_path / "NAME" / "t", decoding=Decoding(8), batch_size=2)
    lines = [json.loads(line) for line in (tmp_path / "NAME" / "t" / FILE).read_text().splitlines()]
    assert [line["key"] for line in lines] == ["p0", "p0#2", "p1"]
    for line in lines:
        stamp = line["provenance"]
        assert stamp["checkpoint"] == model.digest and stamp["decoding"] == Decoding(8).digest()
        assert stamp["protocol"] == "textvqa-noocr" and len(stamp["prompt"]) == len(stamp["data"]) == 32
    kit = [json.loads(line) for line in (tmp_path / "NAME" / "t" / "answers.jsonl").read_text().splitlines()]
    assert list(kit[0]) == ["question_id", "prompt", "text", "answer_id", "model_id", "metadata"]
    assert kit[0]["model_id"] == "NAME" and kit[1]["question_id"] == "p0"
    assert artifact.kind == "predictions" and not artifact.verify()
    assert not (tmp_path / "NAME" / "t" / LOG).exists()


@pytest.mark.parametrize("task", ["textvqa-ocr", "mmbench"])
def test_a_killed_run_continues_and_ends_in_the_same_bytes(data, tmp_path, task):
    def answer(request):
        return request.key[::-1]

    whole = generate(task, ScriptedChat(answer), data, tmp_path / "n" / "whole", batch_size=2)
    total = whole.facts["num_questions"]
    for survived in range((total + 1) // 2):
        out = tmp_path / f"cut{survived}" / "n" / "whole"

        def dying(request, survived=survived, first=[]):  # noqa: B006
            first.append(request.key)
            if len(first) > 2 * survived:
                raise Killed
            return answer(request)

        with pytest.raises(Killed):
            generate(task, ScriptedChat(dying), data, out, batch_size=2)
        assert not Artifact.exists(out)
        model = ScriptedChat(answer)
        again = generate(task, model, data, out, batch_size=2)
        assert len(model.asked) == total - 2 * survived
        assert again.digest == whole.digest
        assert _bytes(out) == _bytes(whole.folder)


def test_a_torn_line_is_asked_again(data, tmp_path):
    out = tmp_path / "n" / "t"
    whole = generate("mmbench", ScriptedChat(lambda r: "A"), data, tmp_path / "n" / "w", batch_size=1)
    lines = (tmp_path / "n" / "w" / FILE).read_bytes().splitlines(keepends=True)
    out.mkdir(parents=True)
    (out / LOG).write_bytes(lines[0] + lines[1][:40])
    model = ScriptedChat(lambda r: "A")
    again = generate("mmbench", model, data, out, batch_size=1)
    assert len(model.asked) == 4 and again.files == whole.files


def test_finished_answers_are_returned_and_other_checkpoints_replace_them(data, tmp_path):
    out = tmp_path / "n" / "t"
    generate("mmbench", ScriptedChat(lambda r: "A"), data, out)
    silent = ScriptedChat(lambda r: "B")
    assert generate("mmbench", silent, data, out).parents["checkpoint"] == silent.digest
    assert silent.asked == []
    other = ScriptedChat(lambda r: "B", digest="d" * 32)
    generate("mmbench", other, data, out)
    assert len(other.asked) == 5
    longer = ScriptedChat(lambda r: "B", digest="d" * 32)
    generate("mmbench", longer, data, out, decoding=Decoding(3))
    assert len(longer.asked) == 5


def test_limit_keeps_whole_questions(data):
    target = open_target("mmbench", data)
    assert [q.key for q in ask(target, 1).questions] == ["1", "1000001", "2000001"]
    assert ask(target, 1).digest != ask(target).digest


def test_batches_keep_rotations_together_and_sort_by_length(data):
    asked = ask(open_target("mmbench", data))
    batches = plan_batches(asked, 2)
    keys = [question.key for batch in batches for question in batch]
    assert keys == ["1000002", "2", "1", "1000001", "2000001"] or keys == ["1", "1000001", "2000001", "1000002", "2"]
    assert sorted(map(len, batches)) == [1, 2, 2]


def test_a_question_file_names_its_split(data):
    target = open_target("mmbench", data / "mmbench" / "mmbench_dev_20230712.tsv")
    assert (target.split, len(ask(target).questions)) == ("mmbench_dev_20230712", 5)


def test_bad_requests(data, tmp_path):
    with pytest.raises(ConfigError, match="several protocols"):
        generate("textvqa", ScriptedChat(lambda r: ""), data, tmp_path / "o")
    model = ScriptedChat(lambda r: "")
    model.generate = lambda requests, decoding: []
    with pytest.raises(BetterSynthError, match="did not answer"):
        generate("mmbench", model, data, tmp_path / "o")


def test_an_unwritable_folder_is_a_clear_error(data, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        generate("mmbench", ScriptedChat(lambda r: ""), data, tmp_path / "file" / "o")


def test_progress_counts_questions(data, tmp_path):
    seen = []
    generate(
        "mmbench",
        ScriptedChat(lambda r: ""),
        data,
        tmp_path / "o",
        batch_size=3,
        progress=lambda a, b: seen.append((a, b)),
    )
    assert seen == [(3, 5), (5, 5)]


def test_the_letter_protocol_hands_the_letters_to_the_model_and_is_scored_under_its_own_name(data, tmp_path):
    from bettersynth.eval.score import score

    seen = []

    def first(request):
        seen.append(request.choices)
        return request.choices[0]

    artifact = generate("mmbench@letter", ScriptedChat(first), data, tmp_path / "n" / "letter", batch_size=4)
    assert artifact.facts["protocol"] == "mmbench@letter"
    assert seen and all(choices[0] == "A" for choices in seen)
    names = json.loads((score(artifact.folder, data).folder / "results.json").read_text())
    assert "mmbench-circular@letter" in json.dumps(names)
    seen.clear()
    generate(
        "mmbench", ScriptedChat(lambda request: seen.append(request.choices) or "A"), data, tmp_path / "n" / "free"
    )
    assert set(seen) == {()}
