"""The CronJob runs the real command with no more rights than it needs. Read, not run: there is no
cluster here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from gateway import cli
from ledger import settings

FILE = Path(__file__).resolve().parents[2] / "k8s" / "backup-cronjob.yaml"


@pytest.fixture
def job() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(FILE.read_text())
    assert (read["apiVersion"], read["kind"]) == ("batch/v1", "CronJob")
    spec: dict[str, Any] = read["spec"]
    return spec


@pytest.fixture
def pod(job: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = job["jobTemplate"]["spec"]["template"]["spec"]
    return found


@pytest.fixture
def container(pod: dict[str, Any]) -> dict[str, Any]:
    [one] = pod["containers"]
    found: dict[str, Any] = one
    return found


def test_it_runs_once_a_day_and_never_twice_at_once(job: dict[str, Any]) -> None:
    assert re.fullmatch(r"[0-5]?\d (1?\d|2[0-3]) \* \* \*", job["schedule"])
    assert job["concurrencyPolicy"] == "Forbid"
    assert job["successfulJobsHistoryLimit"] and job["failedJobsHistoryLimit"]
    assert job["jobTemplate"]["spec"]["activeDeadlineSeconds"] < 86400


def test_its_command_is_one_of_ours(container: dict[str, Any]) -> None:
    program, *words = container["command"]
    args = cli._parser(words[0]).parse_args(words)
    assert (program, args.command, args.to) == ("billing", "backup", Path("/backups"))


def test_secrets_come_by_file_that_the_pod_may_read_and_others_not(
    pod: dict[str, Any], container: dict[str, Any]
) -> None:
    variables = {one["name"]: one["value"] for one in container["env"]}
    source = Path(settings.__file__).read_text()
    for name in variables:
        assert f'"{name.removesuffix("_FILE")}"' in source or f'"{name}"' in source
    mounted = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
    volumes = {one["name"]: one for one in pod["volumes"]}
    for name in ("DATABASE_URL_FILE", "BACKUP_KEY_FILE"):
        folder, _, file = variables[name].rpartition("/")
        secret = volumes[mounted[folder]]["secret"]
        assert file in {one["path"] for one in secret["items"]}
        assert secret["defaultMode"] == 0o440  # what `gateway.backup.key` accepts of root's files
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"]
    assert set(variables) == {"BILLING_ENV", "DATABASE_URL_FILE", "BACKUP_KEY_FILE"}


def test_it_has_no_more_rights_than_it_needs(
    pod: dict[str, Any], container: dict[str, Any]
) -> None:
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    own = container["securityContext"]
    assert own["readOnlyRootFilesystem"] is True and own["allowPrivilegeEscalation"] is False
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert {"hostNetwork", "hostPID", "hostIPC"}.isdisjoint(pod)
    writable = [one["name"] for one in container["volumeMounts"] if not one.get("readOnly")]
    assert writable == ["backups"]
    for kind in ("requests", "limits"):
        assert set(container["resources"][kind]) == {"cpu", "memory"}
