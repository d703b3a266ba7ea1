"""bettersynth: turn noisy image-text pairs into better ones, and prove that they are better."""

from bettersynth.core.late import when_imported as _when_imported

__version__ = "0.1.0"

# transformers' Auto classes know our checkpoints as soon as transformers itself is imported, before or after us.
_when_imported(
    {
        "transformers.models.auto.configuration_auto": "bettersynth.models.mgm.auto_config:register_config",
        "transformers.models.auto.modeling_auto": "bettersynth.models.mgm.auto_config:register_model",
        "transformers.models.auto.processing_auto": "bettersynth.models.mgm.auto_config:register_processor",
    }
)
