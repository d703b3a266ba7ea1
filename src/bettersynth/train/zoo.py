"""Where the base models lie in a kit's model zoo; needs no torch."""

from __future__ import annotations

from pathlib import Path

from bettersynth.core.errors import BetterSynthError, DataError
from bettersynth.core.lang import t

ZOO = {
    "llm": ("LLM/gemma", "*"),
    "vision_tower": ("OpenAI", "clip-*"),
    "vision_tower_aux": ("OpenAI", "openclip-*"),
}
"""Where the challenge kit keeps each base, below its model_zoo folder."""


def zoo_folder(model_zoo: Path, part: str) -> Path:
    """The one folder of a model zoo that holds a base.

    Raises:
        DataError: no such zoo, or none or several are in it.
    """
    fetch = t("in a kit it is toolkit/training/model_zoo; what is missing there says: bash download.sh")
    if not model_zoo.is_dir():
        raise DataError(
            t("no model zoo here"),
            where=str(model_zoo),
            expected=t("a folder with {name}", name="LLM/gemma/…, OpenAI/clip-…, OpenAI/openclip-…"),
            hint=fetch,
        )
    parent, pattern = ZOO[part]
    found = sorted(path for path in (model_zoo / parent).glob(pattern) if path.is_dir())
    if len(found) == 1:
        return found[0]
    raise DataError(
        t("expected exactly one {part} folder in the model zoo", part=part),
        where=str(model_zoo / parent / pattern),
        got=", ".join(path.name for path in found) or t("none"),
        hint=t("name the three base folders with bases: {llm, vision_tower, vision_tower_aux}") if found else fetch,
    )


def zoo_problems(model_zoo: Path) -> list[BetterSynthError]:
    """What is wrong with a zoo: that it is missing, or every base that is not there once."""
    problems: list[BetterSynthError] = []
    for part in ZOO:
        try:
            zoo_folder(model_zoo, part)
        except DataError as error:
            problems.append(error)
            if not model_zoo.is_dir():
                break
    return problems
