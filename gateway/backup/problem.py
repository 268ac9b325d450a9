"""Why a backup, a restore or an export cannot be done."""

from __future__ import annotations


class BackupProblem(Exception):
    """Nothing was changed; the message is one line that names the cause and the way out.
    `exit_code`: 1 failed, 2 wrong usage or configuration."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        self.exit_code = exit_code
        super().__init__(message)
