"""The configuration of our checkpoints as transformers' AutoConfig hands it out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers.configuration_utils import PretrainedConfig

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t

MODEL_TYPE = "mgm_gemma"


class MgmGemmaConfig(PretrainedConfig):
    """All fields of an MGM checkpoint's ``config.json``, under their own names."""

    model_type = MODEL_TYPE
    keys_to_ignore_at_inference = ("past_key_values",)


class LateModel:
    """What transformers' mappings hold for our model: the class itself is loaded with the first checkpoint.

    transformers' modules import each other while they are loaded; a class of ours that needs them all must come later.
    """

    config_class = MgmGemmaConfig

    @classmethod
    def from_pretrained(cls, *args: Any, **options: Any) -> Any:
        """A checkpoint, see :class:`bettersynth.models.mgm.auto_model.MgmGemmaForCausalLM`."""
        from bettersynth.models.mgm.auto_model import MgmGemmaForCausalLM

        return MgmGemmaForCausalLM.from_pretrained(*args, **options)

    @classmethod
    def _from_config(cls, config: MgmGemmaConfig, **options: Any) -> Any:
        from bettersynth.models.mgm.auto_model import MgmGemmaForCausalLM

        return MgmGemmaForCausalLM(config)


class LateProcessor:
    """The same for the processor."""

    @classmethod
    def from_pretrained(cls, *args: Any, **options: Any) -> Any:
        """A checkpoint's processor, see :class:`bettersynth.models.mgm.auto_processor.MgmGemmaProcessor`."""
        from bettersynth.models.mgm.auto_processor import MgmGemmaProcessor

        return MgmGemmaProcessor.from_pretrained(*args, **options)


def register_config() -> None:
    """Make the type known to AutoConfig."""
    from transformers.models.auto.configuration_auto import AutoConfig

    AutoConfig.register(MODEL_TYPE, MgmGemmaConfig, exist_ok=True)


def register_model() -> None:
    """Make the model known to AutoModelForCausalLM, and to the class for images and text."""
    from transformers.models.auto import modeling_auto

    for name in ("AutoModelForCausalLM", "AutoModelForImageTextToText"):
        getattr(modeling_auto, name).register(MgmGemmaConfig, LateModel, exist_ok=True)


def register_processor() -> None:
    """Make the processor known to AutoProcessor."""
    from transformers.models.auto.processing_auto import AutoProcessor

    AutoProcessor.register(MgmGemmaConfig, LateProcessor, exist_ok=True)


def local_folder(name: str | Path, options: dict[str, Any]) -> Path:
    """The checkpoint's folder: a local one, or a snapshot of a hub repository whose name the user gave.

    Args:
        options: ``revision``, ``cache_dir``, ``token``, ``local_files_only`` are taken out.

    Raises:
        DataError: neither a folder nor a repository's name.
    """
    given = ("revision", "cache_dir", "token", "local_files_only", "force_download")
    chosen = {key: options.pop(key) for key in given if key in options}
    if Path(name).is_dir():
        return Path(name)
    text = str(name)
    if text.count("/") != 1 or text.startswith((".", "/")):
        raise DataError(t("model folder not found"), where=text)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(text, **{key: value for key, value in chosen.items() if value is not None}))
