"""Build the wheel and run `bettersynth demo --quick` from it in an empty environment, outside of the checkout.

Shows that the package carries everything it needs (weights, strategies, presets, pages). Prints the demo's last lines.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def _run(*command: str | Path, cwd: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    print("+", *command, flush=True)
    subprocess.run([str(word) for word in command], cwd=cwd, env=environment, check=True)


def main() -> int:
    """Build, install, run; returns 0 when the demo passes."""
    with tempfile.TemporaryDirectory(prefix="bettersynth-wheel-") as folder:
        work = Path(folder)
        _run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", work, ROOT, cwd=work)
        wheel = next(work.glob("*.whl"))
        venv.create(work / "env", with_pip=True)
        python = work / "env" / "bin" / "python"
        constraints = ROOT / "constraints.txt"
        _run(python, "-m", "pip", "install", "-q", "-c", constraints, "torch==2.13.0", cwd=work)
        _run(python, "-m", "pip", "install", "-q", "-c", constraints, f"{wheel}[train]", cwd=work)
        _run(work / "env" / "bin" / "bettersynth", "demo", "--quick", "--out", work / "demo", cwd=work)
        print(f"wheel {wheel.name}: {wheel.stat().st_size / 2**20:.1f} MiB, quick demo passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
