"""Take the pictures of docs/report.md: the top of a run's report, on a desktop and a telephone, in light and dark.

    python -m tools.report_screenshots RUN [FOLDER]

RUN is the folder of a run, such as the one that `edgeecc demo` leaves in runs/demo; its report is written anew. FOLDER
is where the pictures go, docs/images unless it is given. Needs Chromium, and matplotlib and pillow, of the extras
`report` and `host`. Exit status: 0 done, 1 one line on what is missing.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path
from typing import Iterator, Tuple

from PIL import Image

from edgeecc.errors import EdgeeccError
from edgeecc.report.run_job import PAGE, run
from edgeecc.run_folder import RunFolder
from tools.browser import Browser, BrowserError, program

ROOT = Path(__file__).resolve().parents[1]
#: Name -> width of the screen and height of the picture, in pixels.
SCREENS = {"desktop": (1280, 2110), "phone": (360, 2110)}
#: Colours that are kept: enough for text and flat bars, in files that stay small.
COLOURS = 64


def pictures(page: Path) -> Iterator[Tuple[str, bytes]]:
    """Yield the name of each picture and its PNG.

    Raises: BrowserError when there is no Chromium here, or it does not answer.
    """
    path = program()
    if path is None:
        raise BrowserError("no Chromium is here; install one, such as the package chromium")
    with Browser(path) as browser:
        for screen, (width, height) in SCREENS.items():
            for mode in ("light", "dark"):
                browser.open(page, width, dark=mode == "dark")
                yield f"report-{screen}-{mode}.png", small(browser.screenshot(height))


def small(data: bytes) -> bytes:
    """Return a picture with few colours."""
    out = io.BytesIO()
    few = Image.open(io.BytesIO(data)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    few.save(out, "PNG", optimize=True)
    return out.getvalue()


def main() -> int:
    """Write the pictures; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "docs" / "images")
    given = parser.parse_args()
    try:
        run(RunFolder(given.run), given.run.resolve().parents[1])
        given.folder.mkdir(parents=True, exist_ok=True)
        for name, data in pictures(given.run / PAGE):
            (given.folder / name).write_bytes(data)
            sys.stdout.write(f"{given.folder / name} {len(data):,} bytes\n")
    except (EdgeeccError, BrowserError) as error:
        sys.stderr.write(f"Error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
