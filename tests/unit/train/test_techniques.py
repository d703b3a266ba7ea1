"""Training techniques: what each does to order, loss and weights, and that all of them continue exactly."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from bettersynth.config.train import StageConfig, stage_config
from bettersynth.core.errors import ConfigError, ConfigErrors, DataError, RuleError
from bettersynth.models.family import load_family
from bettersynth.train.bases import load_start
from bettersynth.train.callbacks import Callback, Callbacks, StepView, read_log
from bettersynth.train.data import prepare
from bettersynth.train.distributed import Devices
from bettersynth.train.prepare import build_processor
from bettersynth.train.preset import load_preset, stage_settings
from bettersynth.train.stages import run_stage
from bettersynth.train.technique import TECHNIQUES, technique_settings
from bettersynth.train.techniques import curriculum
from bettersynth.train.trainer import Trainer

ZOO = Path(__file__).parents[2] / "golden" / "data" / "mgm_a" / "model_zoo"
CPU = Devices(0, 1, torch.device("cpu"))
QUIET = Callback()


def config_for(folder: Path, techniques: dict[str, Any], **changes: Any) -> StageConfig:
    settings = {
        "stage": 2,
        "data": folder / "data.json",
        "model_zoo": ZOO,
        "samples_seen": 48,
        "save_steps": 1,
        "lr": 0.003,
        "per_device_batch_size": 4,
        "global_batch": 8,
        "image_size_aux": 128,
        "max_length": 160,
        "seed": 5,
    }
    return stage_config({**settings, "techniques": techniques, **changes})


def trainer_for(folder: Path, techniques: dict[str, Any], out: Path, **changes: Any) -> Trainer:
    config = config_for(folder, techniques, **changes).with_devices(1)
    family = load_family("mgm")
    model = load_start(config, family)
    processor = build_processor(config, family, model)
    return Trainer(config, family, model, processor, prepare(config, processor), out, CPU)


def only(trainer: Trainer) -> Any:
    (technique,) = trainer.techniques._all.values()
    return technique


def log_of(folder: Path) -> list[float]:
    return [line["loss"] for line in read_log(folder / "train_log.jsonl")]


class StopAt(Callback):
    """Ends the process's run as a kill would, after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, view: StepView) -> None:
        if view.step == self.step:
            raise KeyboardInterrupt


EACH: dict[str, dict[str, Any]] = {
    "neftune": {"alpha": 20.0},
    "adversarial": {"epsilon": 0.3},
    "ema": {"decay": 0.8, "start": 0.2},
    "curriculum": {"by": "loss"},
    "loss_sampling": {"interval": 2},
    "hard_negatives": {"weight": 1.0},
    "distillation": {"top_k": 8},
}


def test_every_technique_is_tested() -> None:
    assert sorted(EACH) == TECHNIQUES.names()


@pytest.fixture(scope="module")
def plain(mgm_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without any technique; also the teacher."""
    out = tmp_path_factory.mktemp("plain") / "run"
    run_stage(config_for(mgm_data, {}), out=out, progress=QUIET)
    return out


@pytest.mark.parametrize("name", sorted(EACH))
def test_a_stopped_run_continues_to_the_same_weights(mgm_data: Path, plain: Path, tmp_path: Path, name: str) -> None:
    settings = EACH[name] | ({"teacher": str(plain)} if name == "distillation" else {})
    config = config_for(mgm_data, {name: settings})
    whole = run_stage(config, out=tmp_path / "whole", progress=QUIET)
    with pytest.raises(Exception, match="interrupted"):
        run_stage(config, out=tmp_path / "cut", progress=QUIET, callbacks=[StopAt(4)])
    again = run_stage(config, out=tmp_path / "cut", progress=QUIET)
    assert again.facts["weights_digest"] == whole.facts["weights_digest"]
    assert log_of(tmp_path / "cut") == log_of(tmp_path / "whole")
    unlike = json.loads((plain / "manifest.json").read_bytes())["facts"]["weights_digest"]
    assert whole.facts["weights_digest"] != unlike  # it does something
    assert whole.facts["samples_seen"] == 48
    if name == "loss_sampling":
        assert whole.facts["techniques"]["loss_sampling"]["most_shown"] > 1


def test_detailed_loss_is_the_loss(mgm_data: Path, tmp_path: Path) -> None:
    grads = []
    for changes in ({}, {"packing": True}):
        trainer = trainer_for(mgm_data, {"loss_sampling": {}}, tmp_path, **changes)
        ((indices, batch),) = list(trainer._batches([range(5)]))
        plain = trainer.family.loss(trainer.model, batch)
        detailed = trainer.family.detailed_loss(trainer.model, batch)
        torch.testing.assert_close(detailed.loss_sum, plain.loss_sum, rtol=1e-5, atol=1e-5)
        assert torch.bincount(detailed.detail.owner).tolist() == [trainer.data.examples.num_targets[i] for i in indices]
        weight = trainer.model.model.embed_tokens.weight
        for output in (plain, detailed):
            grads.append(torch.autograd.grad(output.loss_sum, weight, retain_graph=True)[0])
    for other in grads[1:]:
        torch.testing.assert_close(other, grads[0], rtol=1e-3, atol=1e-4)


def test_curriculum_goes_from_easy_to_hard_and_loses_nobody(mgm_data: Path, tmp_path: Path) -> None:
    trainer = trainer_for(mgm_data, {"curriculum": {"by": "length", "buckets": 3}}, tmp_path)
    before, after = trainer.order, trainer.techniques.order(trainer.order)
    lengths = [trainer.data.examples.num_tokens[index] for index in after[:24]]
    thirds = [lengths[at : at + 8] for at in (0, 8, 16)]
    assert max(thirds[0]) <= min(thirds[1]) and max(thirds[1]) <= min(thirds[2])
    assert Counter(after) == Counter(before) and after[24:] == before[24:]
    grouped = trainer_for(mgm_data, {"curriculum": {}}, tmp_path, group_by_modality_length=True)
    steps = [grouped.techniques.order(grouped.order)[at : at + 8] for at in range(0, 48, 8)]
    assert {tuple(sorted(step)) for step in steps} == {
        tuple(sorted(grouped.order[at : at + 8])) for at in range(0, 48, 8)
    }


def test_curriculum_by_a_field_of_the_records(mgm_data: Path, tmp_path: Path) -> None:
    rows = json.loads((mgm_data / "data.json").read_text())
    wanted = config_for(mgm_data, {"curriculum": {"by": "score", "field": "quality"}})
    with pytest.raises(DataError, match="no number in the field 'quality'"):
        trainer_for(mgm_data, wanted.techniques, tmp_path).run()
    path = tmp_path / "data.json"
    path.write_text(json.dumps([{**row, "quality": -number} for number, row in enumerate(rows)]))
    changes = {"data": path, "image_root": mgm_data}
    trainer = trainer_for(mgm_data, {"curriculum": {"by": "score", "field": "quality"}}, tmp_path, **changes)
    first = trainer.techniques.order(trainer.order)[:6]
    assert sorted(first) == [18, 19, 20, 21, 22, 23]


def test_curriculum_reads_the_field_of_json_lines_too(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    lines = [json.dumps({"id": str(n), "quality": n / 2}) for n in range(4)]
    path.write_text(
        "\n".join([*lines[:2], "no record", *lines[2:]]) + "\n"
    )  # the reader counts and leaves out bad lines
    assert curriculum._field(path, "quality", [4, 0]) == [1.5, 0.0]
    with pytest.raises(ConfigError, match="JSON-lines"):
        curriculum._field(tmp_path / "data.tar", "quality", [0])


def test_loss_sampling_shows_what_is_hard_more_often(mgm_data: Path, tmp_path: Path) -> None:
    trainer = trainer_for(mgm_data, {"loss_sampling": {"interval": 3, "uniform": 0.25}}, tmp_path)
    technique = only(trainer)
    technique._fresh = [(index, 3.0 if index == 7 else 0.0) for index in range(24)]
    technique.after_step(3)
    drawn = technique.reorder(trainer.order, 3)
    assert drawn[:24] == trainer.order[:24] and len(drawn) == 48
    shown = Counter(drawn[24:])
    assert shown[7] in (18, 19) and max(count for index, count in shown.items() if index != 7) == 1
    assert technique.reorder(trainer.order, 3) == drawn and technique.reorder(trainer.order, 0) == trainer.order
    with pytest.raises(ConfigError, match="loss_sampling") as caught:
        _ = trainer_for(mgm_data, {"loss_sampling": {"power": -1}}, tmp_path)
    assert "power" in str(caught.value.where)


def test_hard_negatives_pairs_similar_samples(mgm_data: Path, tmp_path: Path) -> None:
    trainer = trainer_for(mgm_data, {"hard_negatives": {}}, tmp_path)
    after = trainer.techniques.order(trainer.order)
    assert Counter(after) == Counter(trainer.order)
    technique = only(trainer)
    own = technique._similarity(list(range(24)))
    assert own.shape == (24, 24) and (own[0] == -1).all()  # row 0 has no picture
    answers = [trainer.data.examples[index].labels for index in range(24)]
    assert all(own[a, b] <= 0 for a in range(24) for b in range(24) if a != b and answers[a] == answers[b])
    ((indices, batch),) = list(trainer._batches([[1, 2, 3, 5]]))
    swapped = trainer.family.swap_images(batch, torch.tensor([1, 0, 3, 2]))
    assert torch.equal(swapped["images"][0], batch["images"][1]) and swapped["input_ids"] is batch["input_ids"]
    plain = trainer.family.loss(trainer.model, batch)
    with_margin = trainer.techniques.loss(trainer.model, batch, indices)
    assert float(with_margin.loss_sum.detach()) > float(plain.loss_sum.detach())


def test_adversarial_loss_is_above_the_plain_one_and_nothing_is_left_behind(mgm_data: Path, tmp_path: Path) -> None:
    trainer = trainer_for(mgm_data, {"adversarial": {"epsilon": 0.1, "weight": 1.0}}, tmp_path)
    ((indices, batch),) = list(trainer._batches([[1, 2, 3, 4]]))
    plain = float(trainer.family.loss(trainer.model, batch).loss_sum.detach())
    assert float(trainer.techniques.loss(trainer.model, batch, indices).loss_sum.detach()) > plain
    assert trainer.model.embedding_hook is None
    assert float(trainer.family.loss(trainer.model, batch).loss_sum.detach()) == plain


def test_neftune_leaves_pictures_and_padding_alone(mgm_data: Path, tmp_path: Path) -> None:
    trainer = trainer_for(mgm_data, {"neftune": {"alpha": 5.0}}, tmp_path)
    ((indices, batch),) = list(trainer._batches([[0, 1, 2]]))
    seen: list[torch.Tensor] = []

    def look(embeds: torch.Tensor, is_text: torch.Tensor) -> torch.Tensor:
        seen.append(embeds.detach())
        return embeds

    with trainer.family.with_embeddings(trainer.model, look):
        trainer.family.loss(trainer.model, batch)
        trainer.techniques.loss(trainer.model, batch, indices)
    is_text = batch["attention_mask"].clone()
    is_text.view(-1)[batch["image_positions"]] = False
    changed = (seen[1] - seen[0]).abs().amax(-1)
    assert (changed[~is_text] == 0).all() and (changed[is_text] > 0).all()
    width = seen[0].shape[-1]
    assert float(changed.max()) <= 5.0 / (int(is_text.sum(1).min()) * width) ** 0.5 * 1.001


def test_ema_saves_the_average(mgm_data: Path, tmp_path: Path) -> None:
    trainer = trainer_for(mgm_data, {"ema": {"decay": 0.5}}, tmp_path)
    name, parameter = trainer.parameters[0]
    expected, seen = None, 0

    class Watch(Callback):
        def on_step(self, view: StepView) -> None:
            nonlocal expected, seen
            now = view.model.get_parameter(name).detach().clone()
            decay = min(0.5, (1 + seen) / (10 + seen))
            expected = now if expected is None else expected * decay + now * (1 - decay)
            seen += 1

    trainer.callbacks = Callbacks([Watch()])
    trainer.run()
    assert expected is not None
    torch.testing.assert_close(parameter.detach(), expected, rtol=1e-5, atol=1e-6)


def test_distillation_from_itself_adds_nothing_and_a_full_cache_needs_no_teacher(
    mgm_data: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_for(mgm_data, {"distillation": {"teacher": str(plain), "weight": 1.0}}, tmp_path, init_from=plain)
    ((indices, batch),) = list(trainer._batches([[1, 2, 3, 4]]))
    itself = trainer.techniques.loss(trainer.model, batch, indices)
    assert abs(float(itself.loss_sum)) < 1e-2
    settings = {"teacher": str(plain), "top_k": 6, "cache": str(tmp_path / "c" / "answers.sqlite")}
    first = run_stage(config_for(mgm_data, {"distillation": settings}), out=tmp_path / "a", progress=QUIET)
    monkeypatch.setattr("bettersynth.train.techniques.distillation._load_teacher", lambda *_: pytest.fail("loaded"))
    second = run_stage(config_for(mgm_data, {"distillation": settings}), out=tmp_path / "b", progress=QUIET)
    assert first.facts["weights_digest"] == second.facts["weights_digest"]
    with pytest.raises(DataError, match="teacher not found"):
        trainer_for(mgm_data, {"distillation": {"teacher": str(tmp_path / "gone")}}, tmp_path)


def test_top_k_tends_to_the_whole_distribution(mgm_data: Path, plain: Path, tmp_path: Path) -> None:
    found = []
    for top_k in (None, 100_000, 4):
        settings = {"teacher": str(plain), "weight": 1.0, "top_k": top_k}
        trainer = trainer_for(mgm_data, {"distillation": settings}, tmp_path)
        ((indices, batch),) = list(trainer._batches([[1, 2, 3, 4]]))
        found.append(float(trainer.techniques.loss(trainer.model, batch, indices).loss_sum))
    assert found[1] == pytest.approx(found[0], rel=5e-3) and 0 < found[2] < found[0]


def test_mistakes_are_told_together(mgm_data: Path) -> None:
    with pytest.raises(ConfigErrors) as caught:
        technique_settings({"neftun": {}, "ema": {"decay": 2, "dcay": 1}})
    text = str(caught.value)
    assert "did you mean 'neftune'" in text and "dcay" in text and "decay" in text
    with pytest.raises(RuleError, match="locks these settings"):
        stage_settings(load_preset("demo"), 1, {"data": "d.json", "model_zoo": "z", "techniques": {"neftune": {}}})
    assert config_for(mgm_data, {}).result_settings().get("techniques") is None
    assert config_for(mgm_data, {"ema": {}}).result_settings()["techniques"] == {"ema": {}}
