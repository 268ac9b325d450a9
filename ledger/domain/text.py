"""Free text that is stored: on one line, because Postgres refuses NUL, and a log or a report would
take a line break for the end of an entry."""

from __future__ import annotations

from typing import Annotated

import msgspec

END = r"$(?!\n)"  # `$` alone would let a line break pass at the end

Text = Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f]+" + END, max_length=200)]
