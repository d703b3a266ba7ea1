"""Our checkpoints in lmms-eval and VLMEvalKit.

lmms-eval's real classes are used where it is installed, else a stand-in with its documented interface (0.7.3);
VLMEvalKit, which is no package of an index, always by a stand-in of its ``BaseModel`` and ``supported_VLM``.
"""

from __future__ import annotations

import abc
import importlib
import importlib.util
import io
import sys
import types
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from bettersynth.core.errors import ConfigError
from bettersynth.core.sample import ImageRef
from bettersynth.eval.harnesses import _requests
from bettersynth.infer.protocols import ChatRequest, ChatResponse

GOLDEN = Path(__file__).resolve().parents[3] / "golden" / "data" / "mgm_a" / "checkpoint"
HAS_LMMS = importlib.util.find_spec("lmms_eval") is not None


class Recorder:
    """Stands in for a checkpoint: answers with what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[ChatRequest], int]] = []

    def generate(self, requests, decoding):
        self.calls.append((list(requests), decoding.max_new_tokens))
        return [ChatResponse(r.key, f"{r.prompt}|{type(r.image).__name__}\n\nmore") for r in requests]


def _lmms_stand_in() -> dict[str, types.ModuleType]:
    class CacheHook:
        def add_partial(self, attr, req, res):
            pass

    class lmms(abc.ABC):  # noqa: N801
        is_simple = True

        def __init__(self) -> None:
            self._rank, self._world_size, self.cache_hook, self.task_dict = 0, 1, CacheHook(), {}

        @classmethod
        def create_from_arg_string(cls, text, additional=None):
            pairs = dict(part.split("=", 1) for part in text.split(","))
            return cls(**pairs, **{k: v for k, v in (additional or {}).items() if v is not None})

        @abc.abstractmethod
        def loglikelihood(self, requests): ...
        @abc.abstractmethod
        def generate_until(self, requests): ...
        @abc.abstractmethod
        def generate_until_multi_round(self, requests): ...

    @dataclass(frozen=True)
    class ModelManifest:
        model_id: str
        simple_class_path: str | None = None
        chat_class_path: str | None = None
        aliases: tuple[str, ...] = ()

    names = ("lmms_eval", "lmms_eval.api", "lmms_eval.api.model", "lmms_eval.models", "lmms_eval.models.registry_v2")
    found = {name: types.ModuleType(name) for name in names}
    found["lmms_eval.api.model"].lmms = lmms
    found["lmms_eval.models.registry_v2"].ModelManifest = ModelManifest
    return found


@pytest.fixture
def lmms_module(monkeypatch):
    """Our lmms-eval module, over the real package or the stand-in."""
    if not HAS_LMMS:
        for name, module in _lmms_stand_in().items():
            monkeypatch.setitem(sys.modules, name, module)
    sys.modules.pop("bettersynth.eval.harnesses.lmms_eval_model", None)
    yield importlib.import_module("bettersynth.eval.harnesses.lmms_eval_model")
    sys.modules.pop("bettersynth.eval.harnesses.lmms_eval_model", None)


@dataclass
class Instance:
    args: tuple


def instance(doc_id, context, pictures, **settings):
    return Instance((context, settings, lambda document: pictures[document], doc_id, "task", "test"))


@pytest.fixture
def recorder(monkeypatch) -> Recorder:
    model = Recorder()
    monkeypatch.setattr(_requests, "load_model", lambda path, **settings: model)
    return model


def test_lmms_eval_asks_and_gets_answers_in_order(lmms_module, recorder):
    model = lmms_module.BetterSynth.create_from_arg_string("pretrained=x", {"batch_size": 4, "device": "cpu"})
    assert (model.rank, model.world_size) == (0, 1) if HAS_LMMS else model._rank == 0
    picture = Image.new("RGB", (4, 4), (1, 2, 3))
    model.task_dict = {"task": {"test": ["one", "two", "none"]}}
    pictures = {"one": [picture], "two": [[picture], [picture]], "none": None}
    asked = [
        instance(0, "<image>\nWhat?", pictures, max_new_tokens=16, until=["\n\n"], temperature=0, do_sample=False),
        instance(1, "Two <image 1> of <image 2>?", pictures),
        instance(2, "a <image> tag without a picture", pictures, max_new_tokens=16, until="|"),
    ]
    answers = model.generate_until(asked)
    assert answers[0] == "What?|bytes" and answers[2] == "a <image> tag without a picture"
    assert answers[1].startswith("Two of ?") or answers[1].startswith("Two  of ?")
    assert [(len(requests), most) for requests, most in recorder.calls] == [(2, 16), (1, 1024)]
    with Image.open(io.BytesIO(recorder.calls[0][0][0].image)) as seen:
        assert seen.getpixel((0, 0)) == (1, 2, 3)


def test_lmms_eval_refuses_what_would_be_something_else(lmms_module, recorder):
    model = lmms_module.BetterSynth("x")
    model.task_dict = {"task": {"test": ["one"]}}
    with pytest.raises(ConfigError, match="greedily"):
        model.generate_until([instance(0, "?", {"one": None}, do_sample=True, temperature=0.7)])
    with pytest.raises(ConfigError, match="greedily"):
        model.generate_until([instance(0, "?", {"one": None}, num_beams=3)])
    with pytest.raises(ConfigError, match="several rounds"):
        model.generate_until_multi_round([])


def test_lmms_eval_finds_the_model_by_its_manifest(lmms_module):
    made = lmms_module.manifest()
    module, _, name = made.simple_class_path.rpartition(".")
    assert made.model_id == "bettersynth" and getattr(importlib.import_module(module), name).is_simple
    if HAS_LMMS:
        from lmms_eval.models.registry_v2 import ModelRegistryV2

        registry = ModelRegistryV2()
        registry.register_manifest(made)
        assert issubclass(registry.get_model_class("bettersynth"), importlib.import_module("lmms_eval.api.model").lmms)
    text = (Path(__file__).resolve().parents[4] / "pyproject.toml").read_text(encoding="utf-8")
    assert "bettersynth.eval.harnesses.lmms_eval_model:manifest" in text


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="no golden checkpoint")
def test_log_likelihood_is_the_models(lmms_module):
    from bettersynth.models.mgm.generate import next_logits

    model = lmms_module.BetterSynth(str(GOLDEN), device="cpu")
    model.task_dict = {"task": {"test": ["zebra"]}}
    picture = Image.new("RGB", (30, 20), (200, 9, 9))
    chat, tokenizer = model.chat, model.chat.processor.tokenizer

    def next_scores(text):
        example = chat.processor.encode_question("k", text, ImageRef("k"))
        pixels = chat.processor.prepare_image(_requests.request("k", text, [picture]).image)
        batch = chat.processor.collate([example], [[pixels]], is_left_padded=True)
        return next_logits(chat.model, batch)[0].log_softmax(-1)

    scores = next_scores("What?")
    best = int(scores.argmax())
    word = next(w for w in ("the", "zebra", "red", "a") if len(tokenizer.encode(w)[0]) == 1)
    asked = [
        Instance(("What?", word, lambda _: [picture], 0, "task", "test")),
        Instance(("What?", word + word, lambda _: [picture], 0, "task", "test")),
        Instance(("What?", lambda document: document, lambda _: None, 0, "task", "test")),
    ]
    found = model.loglikelihood(asked)
    token = tokenizer.encode(word)[0][0]
    assert found[0][0] == pytest.approx(float(scores[token]), abs=1e-4) and found[0][1] == (token == best)
    assert found[1][0] < found[0][0] and found[2][0] < 0


def test_settings_that_nobody_knows_are_refused(monkeypatch):
    with pytest.raises(ConfigError, match="unknown arguments: attn"):
        _requests.load_model("x", attn="sdpa")
    with pytest.raises(ConfigError, match="whole number"):
        _requests.load_model("x", batch_size="auto")


# ---------------------------------------------------------------- VLMEvalKit


def _vlmeval_stand_in() -> dict[str, types.ModuleType]:
    class BaseModel:
        def __init__(self):
            self.dump_image_func = None

        def generate(self, message, dataset=None):
            message = [{"type": "text", "value": message}] if isinstance(message, str) else message
            assert all(part["type"] in self.allowed_types for part in message)
            return self.generate_inner(message, dataset)

        def set_dump_image(self, function):
            self.dump_image_func = function

    names = ("vlmeval", "vlmeval.vlm", "vlmeval.vlm.base", "vlmeval.config")
    found = {name: types.ModuleType(name) for name in names}
    found["vlmeval.vlm.base"].BaseModel = BaseModel
    found["vlmeval.config"].supported_VLM = {}
    return found


@pytest.fixture
def vlm_module(monkeypatch):
    for name, module in _vlmeval_stand_in().items():
        monkeypatch.setitem(sys.modules, name, module)
    sys.modules.pop("bettersynth.eval.harnesses.vlmevalkit_model", None)
    yield importlib.import_module("bettersynth.eval.harnesses.vlmevalkit_model")
    sys.modules.pop("bettersynth.eval.harnesses.vlmevalkit_model", None)


def test_vlmevalkit_asks_through_its_own_generate(vlm_module, recorder):
    vlm_module.register("mine", "folder", dtype="float32")
    build = sys.modules["vlmeval.config"].supported_VLM["mine"]
    assert isinstance(build, partial)
    model = build()
    message = [
        {"type": "image", "value": "/a.jpg"},
        {"type": "text", "value": "What?"},
        {"type": "text", "value": "A. x"},
    ]
    assert model.generate(message, dataset="MMBench").startswith("What?\nA. x|ImageRef")
    assert recorder.calls[0][0][0].image == ImageRef("/a.jpg") and recorder.calls[0][1] == 1024
    assert model.generate("no picture").startswith("no picture|NoneType") and not model.use_custom_prompt("MMBench")


def test_vlmevalkits_script_runs_with_our_models(vlm_module, tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        "import sys\nfrom vlmeval.config import supported_VLM\nfrom pathlib import Path\n"
        f"Path({str(tmp_path / 'seen')!r}).write_text(' '.join(sys.argv[1:]) + '|' + ','.join(supported_VLM))\n",
        encoding="utf-8",
    )
    vlm_module.main(["a=one", "b=two", str(script), "--data", "MMBench_DEV_EN", "--model", "a"])
    assert (tmp_path / "seen").read_text(encoding="utf-8") == "--data MMBench_DEV_EN --model a|a,b"
    for words in ([], ["a=one"], ["run.py"]):
        with pytest.raises(ConfigError, match="NAME=CHECKPOINT"):
            vlm_module.main(words)


def test_without_vlmevalkit_it_says_so(monkeypatch):
    sys.modules.pop("bettersynth.eval.harnesses.vlmevalkit_model", None)
    monkeypatch.setitem(sys.modules, "vlmeval", None)
    module = importlib.import_module("bettersynth.eval.harnesses.vlmevalkit_model")
    with pytest.raises(ConfigError, match="VLMEvalKit is not installed"):
        module.register("mine", "folder")
    sys.modules.pop("bettersynth.eval.harnesses.vlmevalkit_model", None)
