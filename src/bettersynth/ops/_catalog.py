"""All operators by name, and where removed Data-Juicer operators went."""

from __future__ import annotations

from bettersynth.core.errors import ConfigError
from bettersynth.core.lang import t
from bettersynth.core.registry import Registry, did_you_mean
from bettersynth.ops.base import Operator, find_class


class Catalog(Registry):
    """Our operators and plug-ins by file name, and behind them those of Data-Juicer's classes, which the adapter runs.

    ``names`` lists what is ours: those run anywhere. ``in`` and ``check`` know Data-Juicer's names too, so that a
    recipe that uses them is checked, parameters and all, also where Data-Juicer is not installed.
    """

    def foreign_names(self) -> list[str]:
        """Data-Juicer's operators that have no counterpart of ours, and those of the user's files for it."""
        from bettersynth.ops.foreign._facts import known_facts

        return sorted(name for name in known_facts() if name not in self.names() and name not in _SERVED)

    def __contains__(self, name: str) -> bool:
        return super().__contains__(name) or name in self.foreign_names()

    def check(self, name: str, *, where: str | None = None) -> None:
        """Raise ConfigError with the nearest of all names when ``name`` is not known."""
        if name in self:
            return
        known = [*self.names(), *self.foreign_names()]
        raise ConfigError(
            t("unknown {kind} '{name}'", kind=self.kind, name=name),
            where=where,
            expected=t("one of {n} registered names", n=len(known)),
            hint=did_you_mean(name, known) or t("list them with: bettersynth explain {kind}s", kind=self.kind),
        )

    def is_foreign(self, name: str) -> bool:
        """Whether Data-Juicer's process runs it."""
        return not super().__contains__(name) and name in self


OPERATORS = Catalog("operator", "bettersynth.ops", "bettersynth.operators")

REPLACED = {
    "image_captioning_from_gpt4v_mapper": "image_captioning_mapper",
    "image_captioning_from_blip2_mapper": "image_captioning_mapper",
    "ray_document_deduplicator": "document_deduplicator",
    "ray_image_deduplicator": "image_deduplicator",
    "ray_bts_minhash_deduplicator": "document_minhash_deduplicator",
    "generate_qa_from_text_mapper": "qa_from_caption_generator",
}


# Of those, Data-Juicer's own that only its Ray executor runs: here they get the name of ours as a hint.
_SERVED = frozenset(name for name in REPLACED if name.startswith("ray_"))


def operator_class(name: str) -> type[Operator]:
    """The class of a registered operator: ours, a plug-in's (its entry point names the class or its module), or one
    that stands for Data-Juicer's."""
    if OPERATORS.is_foreign(name):
        from bettersynth.ops.foreign._kinds import foreign_class

        return foreign_class(name)
    loaded = OPERATORS.module(name)
    return loaded if isinstance(loaded, type) else find_class(loaded)
