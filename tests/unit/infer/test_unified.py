"""Who decides that a picture begins, what options and prompts may be, and where it all ends up on disk."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from bettersynth.core.errors import ConfigError, ConfigErrors, DataError
from bettersynth.infer import unified as unified_module
from bettersynth.infer.image_rule import kinds_by_words
from bettersynth.infer.unified import InterleaveInferencer, load_model
from bettersynth.infer.unified_run import Job, model_digest, read_jobs, run_jobs
from bettersynth.infer.unified_types import EDIT_SETTINGS, Part, parts_of, request_of
from bettersynth.models.bagel.context import Context, forward, read_text, read_vit_image, text_block
from bettersynth.models.bagel.convert import save_checkpoint
from bettersynth.models.bagel.draw import DrawSettings
from bettersynth.models.bagel.generate import Answer, logits_after
from bettersynth.models.layers.mot import Rows
from bettersynth.models.layers.quantize import FrozenWeight

QUICK = {"num_timesteps": 3, "image_size": (16, 16), "max_new_tokens": 4}


@pytest.fixture(scope="module")
def inferencer(bagel_folder):
    return InterleaveInferencer(bagel_folder)


def _script(monkeypatch, inferencer, *texts, marker=None):
    """Make the model write these texts, one after the other; ``marker`` ends them."""
    left = list(texts)

    def write(model, contexts, **options):
        ids = [tuple(inferencer.reader.tokenizer.encode(left.pop(0))) for _ in contexts]
        return [Answer(list(one), True, marker or model.config.special.eos) for one in ids]

    monkeypatch.setattr(unified_module, "generate_text", write)


def _teach(monkeypatch, inferencer, *kinds):
    """Make the model's likeliest token behind each closing marker the one of these kinds in turn."""
    special = inferencer.model.config.special
    tokens = {"image": special.image_start, "text": special.bos, "end": special.eos, "nothing": 0}
    left = list(kinds)

    def logits(model, contexts, last):
        rows = torch.zeros(len(contexts), model.config.llm.vocab_size)
        for row in rows:
            row[tokens[left.pop(0)]] = 9.0
        return list(rows)

    monkeypatch.setattr(unified_module, "logits_after", logits)


def _shape(result):
    return [(output.kind, output.decision.how) for output in result.outputs]


@pytest.mark.parametrize(
    ("prompt", "has_picture", "kinds"),
    [
        ("draw a red ball", False, ("image",)),
        ("Can you paint the sea?", False, ("image",)),
        ("Please generate a picture of a cat", False, ("image",)),
        ("请生成一张猫的图片", False, ("image",)),
        ("画一只猫", False, ("image",)),
        ("a red ball and a blue cup", False, ("image",)),
        ("A beautiful sunset over the ocean", False, ("image",)),
        ("make the ball green", True, ("image",)),
        ("remove the cup", True, ("image",)),
        ("把球变成绿色", True, ("image",)),
        ("what is in the picture?", True, ("text",)),
        ("How many balls are there", True, ("text",)),
        ("Describe the image concisely.", True, ("text",)),
        ("Provide a brief description of the given image.", True, ("text",)),
        ("Give a short and clear explanation of the subsequent image.", True, ("text",)),
        ("图里有什么", True, ("text",)),
        ("the cup", True, ("text",)),
        ("Tell a story with pictures", False, ("text", "image")),
        ("", True, ("text",)),
    ],
)
def test_words_that_ask_for_a_picture(prompt, has_picture, kinds):
    found, reason = kinds_by_words(prompt, has_picture=has_picture)
    assert found == kinds and reason


def test_control_rule_and_learned_say_so(inferencer, monkeypatch):
    _teach(monkeypatch, inferencer, "nothing", "nothing", "image", "end")
    asked = inferencer.unified_generate("what is this", output="image", **QUICK)
    assert _shape(asked) == [("image", "control")]
    by_words = inferencer.unified_generate("draw a red ball", **QUICK)
    assert _shape(by_words) == [("image", "rule")] and '"draw"' in by_words.decisions[0].reason
    _script(monkeypatch, inferencer, "the ball")
    by_words = inferencer.unified_generate("what is this", **QUICK)
    assert _shape(by_words) == [("text", "rule")]
    learned = inferencer.unified_generate("what is this", **QUICK)
    assert _shape(learned) == [("image", "learned")] and "p(image) = 0.9" in learned.decisions[0].reason
    assert learned.decisions[-1].kind == "end" and learned.decisions[-1].how == "learned"


def test_a_model_that_knows_when_answers_in_any_order(inferencer, monkeypatch):
    _teach(monkeypatch, inferencer, "text", "image", "image", "text", "end")
    _script(monkeypatch, inferencer, "the ball", "the end")
    result = inferencer.unified_generate("a story", seed=5, **QUICK)
    assert [kind for kind, _ in _shape(result)] == ["text", "image", "image", "text"]
    assert [type(part) for part in result.segments] == [str, Image.Image, Image.Image, str]
    assert result.text == "the ball\nthe end" and len(result.images) == 2


def test_an_image_start_in_the_text_begins_a_picture(inferencer, monkeypatch):
    _teach(monkeypatch, inferencer, "text", "end")
    _script(monkeypatch, inferencer, "the ball", marker=inferencer.model.config.special.image_start)
    result = inferencer.unified_generate("what is this", **QUICK)
    assert _shape(result) == [("text", "learned"), ("image", "learned")]
    _teach(monkeypatch, inferencer, "text", "end")
    _script(monkeypatch, inferencer, "", marker=inferencer.model.config.special.image_start)
    assert _shape(inferencer.unified_generate("what is this", **QUICK)) == [("image", "learned")]


def test_an_image_mark_in_the_text_is_drawn_there(inferencer, monkeypatch):
    _script(monkeypatch, inferencer, "the ball <image> then", "the end")
    result = inferencer.unified_generate("story", output="rule", **QUICK)
    assert _shape(result) == [("text", "rule"), ("image", "rule"), ("text", "rule")]
    assert result.text == "the ball\nthe end"


def test_answers_have_an_end(inferencer, monkeypatch):
    _teach(monkeypatch, inferencer, *["image"] * 9)
    result = inferencer.unified_generate("draw", max_outputs=3, **QUICK)
    assert len(result.images) == 3 and result.decisions[-1].kind == "end"


def test_thoughts_are_kept_apart(inferencer, monkeypatch):
    _script(monkeypatch, inferencer, "<think> a red ball </think>", "<think> cup </think> blue cup")
    drawn = inferencer.unified_generate("draw a ball", output="image", think=True, **QUICK)
    assert [output.kind for output in drawn.outputs] == ["thought", "image"] and drawn.thoughts == ("a red ball",)
    said = inferencer.unified_generate("what is this", output="text", think=True, **QUICK)
    assert said.thoughts == ("cup",) and said.text == "blue cup"


def test_stop_strings_end_texts(inferencer, monkeypatch):
    whole = inferencer.unified_generate("what is this", output="text", max_new_tokens=6)
    cut = inferencer.unified_generate("what is this", output="text", max_new_tokens=6, stop=" ")
    assert len(whole.outputs[0].ids) == 6 and whole.outputs[0].finish == "length"
    assert cut.text == whole.text.split()[0] and len(cut.outputs[0].ids) == 1 and cut.outputs[0].finish == "stop"
    _script(monkeypatch, inferencer, *["the ball the cup the end"] * 2, "<think> a ball </think> the ball the")
    asked = inferencer.unified_generate("a story", output=("text", "image"), stop=["end", "cup"], **QUICK)
    assert _shape(asked) == [("text", "control"), ("image", "control")] and asked.text == "the ball the"
    free = inferencer.unified_generate("tell a story with pictures", output="rule", stop="ball", **QUICK)
    assert _shape(free) == [("text", "rule")] and "stop string" in free.decisions[-1].reason
    thought = inferencer.unified_generate("what is this", output="text", think=True, stop="ball", **QUICK)
    assert (thought.thoughts, thought.text) == (("a ball",), "the")
    monkeypatch.setattr(inferencer.reader, "tokenizer", None)
    with pytest.raises(ConfigError, match="need a tokenizer"):
        inferencer.unified_generate([5, 6], output="text", stop="a", **QUICK)


def test_top_p_reaches_the_draws(inferencer):
    options = {"output": "text", "max_new_tokens": 8, "temperature": 3.0, "seed": 4}
    greedy = inferencer.unified_generate("what is this", **{**options, "temperature": 0.0})
    drawn, narrow = (inferencer.unified_generate("what is this", top_p=p, **options) for p in (1.0, 1e-6))
    assert narrow.outputs[0].ids == greedy.outputs[0].ids != drawn.outputs[0].ids


def test_the_learned_position_is_the_one_that_training_teaches(inferencer):
    """Logits behind a closing marker equal those of reading it, for texts and for pictures, also side by side."""
    model, special = inferencer.model, inferencer.model.config.special
    one, two = Context(), Context()
    read_text(model, [one], [[1, 2, 3]])
    read_vit_image(model, two, torch.linspace(-1, 1, 3 * 28 * 28).reshape(3, 28, 28))
    before = [(c.length, c.next_rope) for c in (one, two)]
    text, picture = logits_after(model, [one, two], [special.eos, special.image_end])
    assert [(c.length, c.next_rope) for c in (one, two)] == before
    rows, _ = forward(model, [text_block(model, Context(), [special.bos, 1, 2, 3, special.eos])])
    whole = model.language_model.lm_head(model.decoder.final_norms(Rows(rows.und, rows.gen)).und)
    assert torch.allclose(text, whole[-1].float(), atol=1e-5)
    assert torch.allclose(picture, logits_after(model, [two], [special.image_end])[0], atol=1e-5)


def test_options_by_both_names(inferencer):
    ours = request_of("a", {"output": "text", "max_new_tokens": 9, "image_size": (32, 16), "taylorseer": True})
    theirs = {
        "understanding_output": True,
        "max_think_token_n": 10,
        "image_shapes": (16, 32),
        "enable_taylorseer": True,
    }
    other = request_of("a", theirs)
    assert (ours.output, ours.max_new_tokens, ours.image_size) == (other.output, other.max_new_tokens, other.image_size)
    assert ours.drawing(has_image=False) == other.drawing(has_image=False) == DrawSettings(taylorseer=True)
    flags = request_of("a", {"size": "32x16", "steps": 5, "shift": 2, "cfg_text": 3, "renorm": "channel"})
    settings = DrawSettings(num_timesteps=5, timestep_shift=2, cfg_text_scale=3, cfg_renorm_type="channel")
    assert flags.image_size == (32, 16) and flags.drawing(has_image=False) == settings
    assert request_of("a", {}).drawing(has_image=True) == EDIT_SETTINGS
    assert request_of("a", {"do_sample": False, "temperature": 0.7}).temperature == 0.0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cfg_txt_scale": 2}, "cfg_text_scale"),
        ({"cfg_renorm_type": "local"}, "text_channel"),
        ({"output": "sound"}, "learned"),
        ({"max_new_tokens": 0}, "at least 1"),
        ({"num_timesteps": 1}, "at least 2"),
        ({"num_timesteps": 2.5}, "whole number"),
        ({"seed": "abc"}, "whole number"),
        ({"temperature": -1}, "at least 0"),
        ({"temperature": float("nan")}, "at least 0"),
        ({"cfg_text_scale": "4"}, "at least 0"),
        ({"timestep_shift": 0}, "above 0"),
        ({"cfg_renorm_min": 2}, "0 ... 1"),
        ({"cfg_interval": (1, 0)}, "the smaller one first"),
        ({"image_size": 96}, "1024x768"),
        ({"image_size": (0, 16)}, "1024x768"),
        ({"image_shapes": 5}, "the height first"),
        ({"output": []}, "output"),
        ({"output": ()}, "output"),
        ({"think": "yes"}, "true | false"),
        ({"output": 5}, "one of"),
        ({"output": "text,video"}, "got: text,video"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_drawn(inferencer, options, said):
    with pytest.raises(ConfigError, match=said):
        inferencer.unified_generate("draw", **options)


def test_sizes_beyond_the_table_are_refused(inferencer, monkeypatch):
    with pytest.raises(ConfigError, match="sides of 4 to 24 pixels"):
        inferencer.unified_generate("draw", output="image", image_size=(28, 8))
    monkeypatch.setattr(inferencer.model, "config", replace(inferencer.model.config, interpolate_pos=True))
    for options in ({"image_shapes": (100000, 100000)}, {"image_size": (8, 100)}):
        with pytest.raises(ConfigError, match="sides of 4 to 96 pixels"):
            inferencer.check(request_of("draw", options))
    drawn = inferencer.unified_generate("draw", output="image", num_timesteps=2, image_size=(28, 8))
    assert drawn.images[0].size == (28, 8)


def test_prompts_of_all_forms(tmp_path):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    record = [{"type": "text", "role": "user", "content": "hi"}, {"type": "image", "image_path": tmp_path / "red.png"}]
    parts = parts_of([*record, {"role": "assistant", "content": "yes"}, [1, 2], (tmp_path / "red.png").read_bytes()])
    assert [part.is_image for part in parts] == [False, True, False, False, True] and parts[2] == Part("yes", True)
    assert parts_of([1, 2]) == (Part((1, 2)),)
    assert parts_of([{"type": "image", "image_path": str(tmp_path / "red.png")}])[0].is_image
    with pytest.raises(DataError, match="image not found"):
        parts_of([{"type": "image", "image_path": "gone.png"}])
    with pytest.raises(DataError, match=r"text \| image"):
        parts_of([{"type": "video", "image_path": "a.mp4"}])
    (tmp_path / "bad.png").write_bytes(b"no picture")
    for prompt, said in (
        ([tmp_path / "gone.png"], "image not found"),
        ([tmp_path / "bad.png"], "damaged"),
        ([3.5], "neither"),
    ):
        with pytest.raises(DataError, match=said):
            parts_of(["first", *prompt])


def test_texts_need_a_tokenizer_and_models_an_autoencoder(bagel_folder):
    inferencer = InterleaveInferencer(bagel_folder)
    inferencer.reader.tokenizer = None
    with pytest.raises(ConfigError, match="as ids"):
        inferencer.unified_generate("draw")
    model = load_model(str(bagel_folder))
    model._autoencoder = []
    with pytest.raises(ConfigError, match="no autoencoder"):
        InterleaveInferencer(model)


def test_calls_as_the_original_has_them(inferencer):
    options = {key: value for key, value in QUICK.items() if key != "image_size"}
    picture = Image.new("RGB", (20, 12), "blue")
    drawn = inferencer(image=picture, text="a red ball", **options)
    assert drawn["image"].size == (20, 12) and drawn["text"] is None
    said = inferencer(image=picture, text="what", understanding_output=True, **options)
    assert said["image"] is None and isinstance(said["text"], str)


@pytest.mark.parametrize(("kind", "most", "share"), [("int8", 0.02, 1.0), ("nf4", 0.2, 0.5)])
def test_few_bits_load_small_and_answer_alike(bagel_folder, inferencer, tmp_path, kind, most, share):
    """No dense matrix of the decoder's layers stays, and latents are within what 8 and 4 bits explain."""
    model = load_model(bagel_folder, load_in=kind)
    layers = model.decoder.layers
    packed = [part for part in layers.modules() if isinstance(part, FrozenWeight)]
    assert len(packed) == 2 * 2 * 7 and not any(parameter.ndim == 2 for parameter in layers.parameters())
    for part in packed:
        assert part.codes.nbytes <= share * part.shape.numel() + 32 and part.scale.dtype == torch.float32
    options = {**QUICK, "output": "image", "cfg_text_scale": 1.0, "seed": 1}
    ours = InterleaveInferencer(model).unified_generate("draw a red ball", **options).outputs[0].latent
    wanted = inferencer.unified_generate("draw a red ball", **options).outputs[0].latent
    assert 0 < (ours - wanted).norm() / wanted.norm() < most
    with pytest.raises(ConfigError, match="few bits"):
        save_checkpoint(model, tmp_path)
    with pytest.raises(ConfigError, match="nf4, int8"):
        load_model(bagel_folder, load_in="int3")


# --- on disk -----------------------------------------------------------------------------------------------------


def test_jobs_are_kept_and_continued(inferencer, tmp_path, monkeypatch):
    jobs = [Job(f"j{n}", request_of("draw", {**QUICK, "output": "image", "seed": n})) for n in range(4)]
    batches = []
    real = inferencer.generate_batch

    def counted(requests):
        batches.append(len(requests))
        if len(batches) == 2:
            raise KeyboardInterrupt
        return real(requests)

    monkeypatch.setattr(inferencer, "generate_batch", counted)
    with pytest.raises(KeyboardInterrupt):
        run_jobs(inferencer, jobs, tmp_path / "a", digest="m", batch_size=2)
    artifact = run_jobs(inferencer, jobs, tmp_path / "a", digest="m", batch_size=2)
    whole = run_jobs(inferencer, jobs, tmp_path / "b", digest="m", batch_size=3)
    assert batches == [2, 2, 2, 3, 1]
    assert artifact.digest == whole.digest and not artifact.verify() and artifact.facts["pictures"] == 4
    run_jobs(inferencer, jobs, tmp_path / "a", digest="m", batch_size=2)
    assert len(batches) == 5  # nothing was left to do
    run_jobs(inferencer, jobs[:1], tmp_path / "a", digest="other", batch_size=2)
    assert batches[-1] == 1  # another model: asked again


def test_a_file_of_prompts_tells_all_its_mistakes_at_once(tmp_path):
    path = tmp_path / "p.jsonl"
    lines = [{"prompt": "a"}, {"text": "b"}, {"prompt": "c", "sede": 3}, {"id": "00001", "prompt": "d"}]
    lines += [
        {"prompt": "e", "seed": "x"},
        [1],
        {"prompt": ""},
        {"prompt": "f", "noise": 3},
        {"id": None, "prompt": "g"},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + "{torn\n", encoding="utf-8")
    with pytest.raises(ConfigErrors) as caught:
        read_jobs(path, {})
    assert len(caught.value.problems) == 8
    for said in (
        *("p.jsonl:2", "sede", "did you mean 'seed'", "p.jsonl:5 seed", "p.jsonl:6", "a list", "p.jsonl:7 prompt"),
        *("p.jsonl:8 noise", "p.jsonl:10", "same id"),
    ):
        assert said in caught.value.body()


def test_only_a_line_feed_ends_a_line_of_prompts(tmp_path):
    path, text = tmp_path / "p.jsonl", "a\u2028b\x85c"
    path.write_text(f'{{"prompt": "{text}"}}\r\n\n{{"prompt": "d"}}', encoding="utf-8")
    assert [[part.value for part in job.request.parts] for job in read_jobs(path, {})] == [[text], ["d"]]
    path.write_bytes(b"\xff\n")
    with pytest.raises(DataError, match="not UTF-8"):
        read_jobs(path, {})


def test_the_command(bagel_folder, tmp_path: Path, call):
    Image.new("RGB", (20, 12), "blue").save(tmp_path / "in.png")
    prompts = tmp_path / "prompts.jsonl"
    lines = [
        {"id": "edit", "segments": [{"type": "image", "image_path": "in.png"}, "make a ball"], "output": "image"},
        {"id": "said", "prompt": "what is this", "output": "text"},
    ]
    prompts.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    words = ["generate", "--model", bagel_folder, "--prompts", prompts, "--steps", 3, "--size", "16x8", "-o", "out"]
    words += ["--max-new-tokens", 3, "draw a red ball"]
    assert [job["id"] for job in call(*words, "--plan").data] == ["edit", "said", "00003"]
    done = call(*words, "--json")
    results = [json.loads(line) for line in done.out.splitlines()]
    assert [[o["kind"] for o in r["outputs"]] for r in results[:2]] == [["image"], ["text"]]
    assert results[0]["outputs"][0]["how"] == "control" and Image.open("out/edit-0.png").size == (16, 8)
    assert "control" in call(*words).out
    counted = call(
        "generate", "--model", bagel_folder, "draw", "--count", 2, "--output", "image", "--steps", 2, "--json"
    )
    first, second = (json.loads(line) for line in counted.out.splitlines())
    assert (first["seed"], second["seed"]) == (0, 1)
    assert Path("generated/00001-0-0.png").read_bytes() != Path("generated/00001-1-0.png").read_bytes()


def test_mistakes_of_the_command(bagel_folder, tmp_path, call):
    assert "nothing was asked" in call("generate", "--model", bagel_folder, expect=2).err
    assert "1024x768" in call("generate", "--model", bagel_folder, "a", "--size", "big", expect=2).err
    assert "--temperature" in call("generate", "--model", bagel_folder, "a", "--top-p", "0.5", expect=2).err
    assert "none of them empty" in call("generate", "--model", bagel_folder, "a", "--stop", "", expect=2).err
    assert "model folder not found" in call("generate", "--model", tmp_path / "gone", "a", expect=1).err
    gone = call("generate", "--model", bagel_folder, "--image", "gone.png", "a", expect=1).err
    assert "image not found" in gone and "--image" in gone
    assert "nothing was asked" in call("generate", "--model", bagel_folder, "", expect=2).err
    assert "model folder not found" in call("generate", "--model", tmp_path / "gone", "a", "--plan", expect=1).err
    for command in (("chat",), ("eval", "mmbench", "--checkpoint")):
        assert "use bettersynth generate" in call(*command, bagel_folder, expect=1).err
    (tmp_path / "taken").write_text("")
    words = ("generate", "--model", bagel_folder, "a", "--steps", 2, "-o", tmp_path / "taken")
    assert "cannot write the file" in call(*words, expect=1).err
    assert model_digest(bagel_folder) != model_digest(bagel_folder, dtype="bfloat16")


def test_what_cannot_be_answered_is_named_before_anything_is(inferencer, tmp_path, monkeypatch):
    options = {**QUICK, "output": "image"}
    jobs = [Job("good", request_of("draw", options)), Job("huge", request_of("draw", {**options, "size": "999x8"}))]
    jobs.append(Job("long", request_of([5] * 40000, options)))
    with pytest.raises(ConfigErrors) as caught:
        run_jobs(inferencer, jobs, tmp_path / "a", digest="m")
    assert [problem.where for problem in caught.value.problems] == ["huge image_size", "long prompt"]
    assert "40000 tokens" in caught.value.body() and not (tmp_path / "a").exists()


def test_other_requests_do_not_replace_earlier_answers_unseen(bagel_folder, call):
    words = ("generate", "--model", bagel_folder, "--output", "image", "--steps", 2, "--size", "16x8")
    call(*words, "draw a cup")
    first = Path("generated/00001-0.png").read_bytes()
    call(*words, "draw a hat", "--seed", 3)
    assert Path("generated/00001-0.png").read_bytes() == first and Path("generated-2/00001-0.png").is_file()
    assert "1/1 answered" in call(*words, "draw a cup").err and not Path("generated-3").exists()
    said = call(*words, "draw a tree", "-o", "generated").err
    assert "generated: replaces 1 answer to other requests" in said
    assert Path("generated/00001-0.png").read_bytes() != first
