"""What a training run may spend, and the check that compared runs spend the same."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from bettersynth.core.errors import ConfigError
from bettersynth.core.lang import t


@dataclass(frozen=True, slots=True)
class Budget:
    """Compute of one training stage. Equal budgets make data strategies comparable.

    Args:
        samples_seen: training samples shown to the model, repetitions counted.
        global_batch: samples per optimizer step, over all devices.
        epochs: passes over the data; 1 in the locked tracks.
    """

    samples_seen: int
    global_batch: int
    epochs: int = 1

    @property
    def steps(self) -> int:
        """Optimizer steps; the last step may be smaller than the global batch."""
        return -(-self.samples_seen // self.global_batch)


def check_equal(budgets: dict[str, Budget]) -> None:
    """Raise ConfigError unless all named budgets are equal; the message lists the differing numbers."""
    distinct = {tuple(asdict(budget).items()) for budget in budgets.values()}
    if len(distinct) > 1:
        listed = "; ".join(f"{name}: {asdict(budget)}" for name, budget in budgets.items())
        raise ConfigError(
            t("the compared runs do not have the same compute budget"),
            got=listed,
            expected=t("equal samples seen, global batch and epochs"),
            hint=t("set the same cap and batch for every strategy, or compare them on the open track"),
        )


def check_global_batch(per_device: int, accumulation: int, devices: int, expected: int) -> None:
    """The kit's arithmetic: per-device batch x accumulation x devices must be the track's global batch."""
    product = per_device * accumulation * devices
    if product != expected:
        raise ConfigError(
            t("per-device batch x accumulation x devices is not the track's global batch"),
            got=f"{per_device} x {accumulation} x {devices} = {product}",
            expected=str(expected),
            hint=_batch_hint(per_device, devices, expected),
        )


def _batch_hint(per_device: int, devices: int, expected: int) -> str:
    if expected % (per_device * devices) == 0:
        return t("set gradient accumulation to {n}", n=expected // (per_device * devices))
    fitting = [b for b in range(1, expected + 1) if expected % (b * devices) == 0]
    if not fitting:
        return t("use a number of devices that divides {n}", n=expected)
    nearest = min(fitting, key=lambda b: abs(b - per_device))
    return t("set the per-device batch to {b} and accumulation to {a}", b=nearest, a=expected // (nearest * devices))
