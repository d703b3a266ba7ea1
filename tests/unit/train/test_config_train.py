"""StageConfig: mistakes are refused together; what decides a result is fingerprinted, places and machines are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bettersynth.config.train import StageConfig, stage_config
from bettersynth.core.errors import ConfigError, ConfigErrors

Configure = Callable[..., StageConfig]


def test_all_mistakes_at_once(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigErrors) as caught:
        stage_config({**settings, "lrr": 1, "stage": 7, "precision": "int8", "epochs": "many"})
    text = caught.value.render()
    assert len(caught.value.problems) == 4
    assert "did you mean 'lr'?" in text
    for key in ("stage", "precision", "epochs"):
        assert key in text


def test_scientific_notation_without_a_dot_is_a_number(configure: Configure) -> None:
    assert configure(lr="2e-5").lr == 2e-5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples_seen": 9, "epochs": 2}, "samples_seen and epochs"),
        ({"bases": {"llm": "a", "vision_tower": "b", "vision_tower_aux": "c"}}, "exactly one of bases"),
        ({"betas": [0.9, 1.5]}, "betas"),
    ],
)
def test_impossible_combinations(configure: Configure, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configure(**changes)


def test_result_digest_ignores_places_and_machine(configure: Configure) -> None:
    base = configure()
    same = configure(data="/elsewhere.json", workers=3, logging_steps=9, per_device_batch_size=2, device="cpu")
    assert base.result_digest() == same.result_digest()
    assert base.result_digest() != configure(seed=4).result_digest()


def test_micro_batch_means_make_the_batch_split_part_of_the_result(configure: Configure) -> None:
    one = configure(loss_normalization="micro_batch")
    two = configure(loss_normalization="micro_batch", per_device_batch_size=2)
    assert one.result_digest() != two.result_digest()


def test_accumulation_follows_from_the_global_batch(configure: Configure) -> None:
    assert configure(global_batch=32).with_devices(2).gradient_accumulation_steps == 4
    assert configure(global_batch=None).with_devices(2).global_batch == 8
    with pytest.raises(ConfigError, match="global batch"):
        configure(global_batch=6).with_devices(1)


def test_images_lie_beside_the_data_unless_said_otherwise(configure: Configure, data_folder: Path) -> None:
    assert configure().images == data_folder
    assert configure(image_root="/pictures").images == Path("/pictures")


def test_messages_are_translated() -> None:
    """Every message of this package has a Chinese form with the same fields."""
    import ast
    import string

    import bettersynth.config.train
    from bettersynth.core.lang import catalogue

    package = Path(bettersynth.config.train.__file__).parent.parent / "train"
    sources = [*package.glob("*.py"), Path(bettersynth.config.train.__file__)]
    templates = {
        node.args[0].value
        for path in sources
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "t" and isinstance(node.args[0], ast.Constant)
    }
    known = catalogue()
    own = {template for template in templates if template in known}
    assert len(own) > 50
    for template in own:
        fields = {name for _, name, _, _ in string.Formatter().parse(template) if name}
        assert fields == {name for _, name, _, _ in string.Formatter().parse(known[template]) if name}, template
    assert templates - own <= {"unknown key '{name}'"}  # said by config/load.py, translated there
