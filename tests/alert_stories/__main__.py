"""Write `alerts/tests/*.yml`. Usage: python -m alert_stories FOLDER, the folder of the repository."""

from __future__ import annotations

import sys
from pathlib import Path

from alert_stories import files

root = Path(sys.argv[1])
for name, text in files.render_tests().items():
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
