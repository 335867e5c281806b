"""Where data sets are looked for."""

from __future__ import annotations

import os
from pathlib import Path

from nuat.errors import InputError


def find(name: str, inside: str, what: str) -> Path:
    """The folder `inside` under NAME/, or directly, in $NUAT_DATA or ./data.

    Raises InputError that says where it looked.
    """
    roots = [Path(os.environ["NUAT_DATA"])] if "NUAT_DATA" in os.environ else [Path("data")]
    places = [place for root in roots for place in (root / name / inside, root / inside)]
    for place in places:
        if place.is_dir():
            return place
    raise InputError(
        f"{name} was not found; looked for {' and '.join(str(place) for place in places)}. "
        f"Unpack {what} from its official page there, or set NUAT_DATA to the folder that holds it"
    )
