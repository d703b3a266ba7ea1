"""Our checkpoints in lmms-eval: ``python -m lmms_eval --model bettersynth --model_args pretrained=DIR --tasks ...``.

lmms-eval (0.7) finds this module by the entry point ``lmms_eval.models`` of our distribution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lmms_eval.api.model import lmms

from bettersynth.core.errors import ConfigError
from bettersynth.core.lang import t
from bettersynth.eval.harnesses import _requests
from bettersynth.infer.protocols import Decoding
from bettersynth.infer.stops import cut_at

MAX_NEW_TOKENS = 1024
"""As lmms-eval's own models take it where a task says nothing."""


def manifest() -> Any:
    """What the entry point hands to lmms-eval's registry."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest("bettersynth", simple_class_path=f"{__name__}.BetterSynth", aliases=("mgm",))


class BetterSynth(lmms):  # type: ignore[misc]
    """An lmms-eval model over a checkpoint; greedy, one picture per request, one process.

    Args:
        pretrained: checkpoint folder.
        batch_size: sequences generated together.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        max_batch_size: passed by lmms-eval; not needed.
        settings: ``dtype``, ``model_zoo``, ``image_aspect_ratio``.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str,
        batch_size: int | str = 16,
        device: str | None = None,
        max_batch_size: int | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        self.chat = _requests.load_model(pretrained, batch_size=batch_size, device=device, **settings)

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """One answer per request, in order; requests with the same settings are answered together.

        Raises:
            ConfigError: sampling or beams are asked for.
        """
        answers: dict[int, str] = {}
        groups: dict[int, list[int]] = {}
        for index, instance in enumerate(requests):
            groups.setdefault(_max_new_tokens(instance.args[1]), []).append(index)
        for most, members in groups.items():
            asked = [self._request(index, requests[index].args) for index in members]
            for index, answer in zip(members, self.chat.generate(asked, Decoding(most)), strict=True):
                context, settings = requests[index].args[:2]
                answers[index] = cut_at(answer.text, _stops(settings))
                self.cache_hook.add_partial("generate_until", (context, settings), answers[index])
        return [answers[index] for index in range(len(requests))]

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Log-probability of each continuation, and whether greedy decoding would write it."""
        found = []
        for index, instance in enumerate(requests):
            context, target, doc_to_visual, doc_id, task, split = instance.args
            document = self.task_dict[task][split][doc_id]
            text = target(document) if callable(target) else str(target)
            asked = _requests.request(str(index), context, _flat(doc_to_visual(document)))
            found.append(self.chat.continuation(asked, text))
        return found

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Not served: every answer here is to one question.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(t("tasks of several rounds are not served"), hint=t("choose tasks of one question each"))

    def _request(self, index: int, args: Sequence[Any]) -> Any:
        context, _, doc_to_visual, doc_id, task, split = args
        return _requests.request(str(index), context, _flat(doc_to_visual(self.task_dict[task][split][doc_id])))


def _max_new_tokens(settings: Mapping[str, Any]) -> int:
    """The longest answer; anything but greedy decoding is refused, since it would silently be something else."""
    is_sampling = settings.get("do_sample") and float(settings.get("temperature") or 0) > 0
    if is_sampling or int(settings.get("num_beams") or 1) != 1:
        raise ConfigError(
            t("this model answers greedily only"), got=dict(settings), expected="temperature=0, num_beams=1"
        )
    return int(settings.get("max_new_tokens") or MAX_NEW_TOKENS)


def _stops(settings: Mapping[str, Any]) -> list[str]:
    until = settings.get("until") or []
    return [until] if isinstance(until, str) else list(until)


def _flat(pictures: Any) -> list[Any]:
    """Pictures of a document: None, one, a list, or lists of lists."""
    if pictures is None:
        return []
    if isinstance(pictures, list | tuple):
        return [picture for part in pictures for picture in _flat(part)]
    return [pictures]
