"""``python -m bettersynth`` is the same as the ``bettersynth`` program."""

import sys

from bettersynth.cli.main import main

sys.exit(main())
