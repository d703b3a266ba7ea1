"""The shipped data strategies: each plans, runs, and keeps the rules of the track it declares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bettersynth.engine.local import process
from bettersynth.engine.plan import plan, read_recipe
from bettersynth.engine.track import check_challenge

FOLDER = Path(__file__).parents[3] / "src" / "bettersynth" / "experiment" / "strategies"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
SIX_STAGES = ("quality_focused", "advanced_data_processing", "diversity_focused", "balanced_with_qa")


def load(name: str, **overrides: Any) -> Any:
    return read_recipe(
        FOLDER / f"{name}.yaml",
        overrides=[f"{key}={value}" for key, value in overrides.items()],
        variables={"scorer": "fake", "captioner": "fake", "model_zoo": "/none", "budget": 90},
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_strategy_says_what_it_expects_and_can_be_planned(name: str) -> None:
    recipe = load(name)
    assert recipe.keys.project_name == name and len(recipe.keys.hypothesis) > 40
    assert plan(recipe).operators or name == "raw"
    assert recipe.keys.track == ("open" if name == "balanced_with_qa" else "challenge")
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    assert text.startswith(f"# bettersynth process {name}")
    if name in SIX_STAGES:
        assert all(f"  # {number}. " in text for number in range(1, 7)), "the six stages are visible"


@pytest.mark.parametrize("name", NAMES)
def test_a_strategy_runs_and_fills_the_budget(name: str, data: Path, tmp_path: Path) -> None:
    recipe = load(name, dataset_path=str(data / "d.jsonl"))
    artifact = process(recipe, out=tmp_path / "o", workers=1)
    assert artifact.facts["rows_out"] == (58 if name == "raw" else 90)
    if recipe.keys.track == "challenge":
        assert check_challenge(tmp_path / "o" / "processed_data.jsonl", data / "d.jsonl") == artifact.facts["rows_out"]


def test_without_tiny_models_the_real_ones_are_asked_for() -> None:
    from bettersynth.core.errors import ConfigErrors

    recipe = read_recipe(FOLDER / "quality_focused.yaml", variables={"model_zoo": "/none"})
    with pytest.raises(ConfigErrors) as caught:
        plan(recipe)
    shown = caught.value.render()
    assert "clip-vit-large-patch14-336" in shown and "blip2-opt-2.7b" in shown
