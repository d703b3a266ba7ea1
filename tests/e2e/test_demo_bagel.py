"""The quick bagel demo from the command line: whole, and continued after a part of it is lost."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from bettersynth.core.fingerprint import digest_file
from bettersynth.demo.bagel.tour import plan_bagel_demo


def _bytes_of(root: Path) -> dict[str, str]:
    """Digest of everything that a repetition must reproduce: records, weights, pictures and answers."""
    wanted = [root / "records" / "demo.jsonl", root / "training" / "ema.safetensors", root / "answers" / "answers.json"]
    wanted += sorted((root / "pictures").glob("*.png"))
    return {str(path.relative_to(root)): digest_file(path) for path in wanted}


def test_quick_bagel_demo_draws_describes_talks_and_continues(tmp_path: Path, program):
    root = tmp_path / "demo_bagel_out"
    done = program("demo", "bagel", "--quick", "--json", cwd=tmp_path)
    found = json.loads(done.stdout)
    assert found["pictures"]["all"]["right"]["of"] == 10 and found["captions"]["whole"]["of"] == 3
    assert {state for _, state, _ in plan_bagel_demo(root, is_quick=True, seed=0)} == {"done"}
    assert {state for _, state, _ in plan_bagel_demo(root, is_quick=True, seed=1)} == {"to do"}
    page = (root / "report" / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") >= 10 + 2 * 3 + 2
    assert 'lang="zh"' in page and "<script" not in page and not re.search(r'(src|href)="http', page)
    drawn = sorted(path.name for path in (root / "answers").glob("dialogue-*.png"))
    assert len(drawn) == 2, "the dialogue draws a second picture after its questions"
    for heading in ("Generated pictures", "Dialogue", "Digests", "squared error"):
        assert heading in page, heading
    before = _bytes_of(root)
    shutil.rmtree(root / "pictures")
    shutil.rmtree(root / "answers")
    again = program("demo", "bagel", "--quick", cwd=tmp_path)
    assert "right" in again.stdout and str(root / "report" / "report.html") in again.stdout
    assert _bytes_of(root) == before
