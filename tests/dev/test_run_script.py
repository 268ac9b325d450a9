"""The `run` script, with a stand-in for Python that writes down what it was asked to do."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.dev.processes import ROOT

_LOCKS = ("requirements.lock", "requirements-embedded.lock", "requirements-test.lock")
_PYTHON = f"""#!/bin/sh
real={sys.executable}
say() {{ echo "$*" >>"$CALLS"; }}
case "$*" in
    "-c "*) exec "$real" "$@" ;;
    "-m pip --version") ;;
    "-m venv "*) shift 2; for venv; do :; done; say venv; mkdir -p "$venv/bin"
        cp "$0" "$venv/bin/python" ;;
    "-m pip "*" install "*) for lock; do :; done; say "install ${{lock##*/}}"; $DURING_INSTALL ;;
    *) say "start $*"; echo "PYTHONPATH=$PYTHONPATH BILLING_DATA_DIR=$BILLING_DATA_DIR" ;;
esac
"""


class Project:
    """A copy of `run` and the lock files with a stand-in `python3` on its path."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "project"
        self.root.mkdir()
        self._bin = folder / "bin"
        self._bin.mkdir()
        self._calls = folder / "calls"
        self._calls.touch()
        shutil.copy(ROOT / "run", self.root)
        for lock in _LOCKS:
            shutil.copy(ROOT / lock, self.root)
        self.install_python(_PYTHON)

    def install_python(self, script: str) -> None:
        for name in ("python3", "python3.14", "python3.13", "python3.12", "python3.11"):
            (self._bin / name).write_text(script)
            (self._bin / name).chmod(0o755)

    def start(
        self, *words: str, during_install: str = "true", cwd: Path | None = None
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.root / "run", *words],
            env={
                "PATH": f"{self._bin}:/usr/bin:/bin",
                "CALLS": str(self._calls),
                "DURING_INSTALL": during_install,
            },
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *words: str, **options: str) -> tuple[int, list[str], str]:
        """The exit code, what Python was asked to do, and the standard error."""
        self._calls.write_text("")
        process = self.start(*words, **options)  # type: ignore[arg-type]
        _, errors = process.communicate()
        return process.returncode, self.calls(), errors

    def calls(self) -> list[str]:
        return self._calls.read_text().splitlines()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


FIRST = ["venv", "install requirements.lock", "install requirements-embedded.lock"]
START = "start -P -m gateway.cli"


def test_the_second_start_installs_nothing(project: Project) -> None:
    assert project.run("token")[:2] == (0, [*FIRST, f"{START} token"])
    assert project.run("up") == (0, [f"{START} up"], "")


def test_only_the_tests_install_their_own_packages(project: Project) -> None:
    project.run()
    assert project.run("test")[1] == ["install requirements-test.lock", f"{START} test"]
    assert project.run("test")[1] == [f"{START} test"]
    assert project.run()[1] == [START]


def test_a_changed_lock_or_a_failed_installation_makes_it_anew(project: Project) -> None:
    project.run()
    with (project.root / "requirements.lock").open("a") as lock:
        lock.write("# another version\n")
    exit_code, calls, errors = project.run(during_install="false")
    assert (exit_code, calls) == (2, FIRST[:2])
    assert "run: cannot install requirements.lock: " in errors
    assert project.run()[1] == [*FIRST, START]


def test_tests_that_were_half_installed_are_made_anew(project: Project) -> None:
    project.run()
    project.run("test", during_install="false")
    assert project.run()[1] == [*FIRST, START]


def test_a_killed_installation_makes_it_anew(project: Project) -> None:
    process = project.start(during_install="kill -9 0")
    process.communicate()
    assert project.run()[1] == [*FIRST, START]


def test_two_first_starts_install_once(project: Project) -> None:
    both = [project.start(), project.start()]
    assert [process.wait() for process in both if process.communicate()] == [0, 0]
    assert sorted(project.calls()) == sorted([*FIRST, START, START])


def test_it_runs_from_anywhere_and_keeps_its_data_in_the_project(
    project: Project, tmp_path: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(project.root / "run")
    project.run()
    output, _ = project.start(cwd=tmp_path).communicate()
    assert output == f"PYTHONPATH={project.root} BILLING_DATA_DIR={project.root}/.data\n"
    assert project.start(cwd=Path("/")).communicate()[0] == output


def test_an_old_python_is_one_line(project: Project) -> None:
    project.install_python('#!/bin/sh\ncase "$*" in --version) echo Python 3.9.2;; *) exit 1; esac')
    exit_code, _, errors = project.run()
    assert exit_code == 2
    assert errors == "run: needs Python 3.11 or newer and finds Python 3.9.2\n"
