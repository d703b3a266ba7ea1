from __future__ import annotations

import pytest

from bettersynth.core.errors import ConfigError
from bettersynth.models.family import family_names, load_family


def test_families_are_found_by_folder():
    assert "mgm" in family_names()
    for name in family_names():
        assert load_family(name).name == name


def test_unknown_family_names_the_nearest():
    with pytest.raises(ConfigError) as caught:
        load_family("mgn")
    assert "'mgm'" in (caught.value.hint or "")
