"""The command line: tokens, test groups, and one clear line for every mistake."""

from __future__ import annotations

import re
import socket
import stat
from pathlib import Path

import pytest
from joserfc import jwt

from gateway import cli
from gateway.datadir import DataDir, Runtime
from gateway.dev.tokens import dev_key
from gateway.environment import completed, of_database, of_service
from ledger.domain.ids import dev_uuid
from ledger.settings import SettingError
from tests.dev.processes import call, environment

TEST_USER = str(dev_uuid("test-user"))
HOSPITAL = str(dev_uuid("hospital"))
CLINIC = str(dev_uuid("clinic"))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            ["service"],
            {"sub": "service-dev", "org": "*", "scope": "usage:write usage:read"},
        ),
        (
            ["service", "--org", "hospital", "--scope", "usage:read"],
            {"sub": "service-dev", "org": HOSPITAL, "scope": "usage:read"},
        ),
        (["user", "--user", "test-user"], {"sub": TEST_USER}),
        (["user", "--user", TEST_USER], {"sub": TEST_USER}),
        (
            ["org_admin", "--user", "test-user", "--org", "hospital", "--org", "clinic"],
            {"sub": TEST_USER, "org": [HOSPITAL, CLINIC]},
        ),
        (["finance"], {"sub": "finance-dev"}),
    ],
)
def test_a_token_says_who_and_where(
    options: list[str],
    expected: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("BILLING_DATA_DIR", str(tmp_path))
    assert cli.main(["token", "--role", *options]) == 0
    key = dev_key(tmp_path)
    token = jwt.decode(capsys.readouterr().out.strip(), key, algorithms=["ES256"])
    assert token.header["kid"] == key.thumbprint()
    assert token.claims.pop("exp") - token.claims.pop("iat") == 12 * 3600
    fixed = {"iss": "billing-dev", "aud": "billing", "roles": [options[0]]}
    assert token.claims == fixed | expected


def test_the_key_is_made_once_and_is_private(tmp_path: Path) -> None:
    assert dev_key(tmp_path).thumbprint() == dev_key(tmp_path).thumbprint()
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_data_folder_is_private(tmp_path: Path) -> None:
    data = DataDir(tmp_path / "a" / "b")
    data.create()
    assert stat.S_IMODE(data.path.stat().st_mode) == 0o700


def test_a_second_shell_finds_the_running_servers_while_they_run(tmp_path: Path) -> None:
    runtime = Runtime(database_url="postgresql://d", redis_url="redis://r", port=8081)
    data = DataDir(tmp_path)
    assert data.running() is None
    with data:
        data.publish(runtime)
        assert DataDir(tmp_path).running() == runtime
    assert data.running() is None


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"PORT": "0"}, "PORT: must be a whole number from 1 to 65535"),
        ({"INVOICE_PARK_ABOVE": "10.5"}, "INVOICE_PARK_ABOVE: must be a whole number from 1 to"),
        ({"INVOICE_PARK_ABOVE": "1000000000000", "HOST": "x"}, "HOST: must be a loopback address"),
        ({"QUOTA_ENFORCEMENT": "maybe"}, "QUOTA_ENFORCEMENT: must be true or false"),
        ({"REDIS_URL": "http://x"}, "REDIS_URL: is not a Redis URL"),
        ({"HOST": "0.0.0.0"}, "HOST: must be a loopback address when BILLING_ENV=dev"),
        ({"BILLING_ENV": "production"}, "DATABASE_URL: is required"),
        (
            {
                "BILLING_ENV": "production",
                "DATABASE_URL": "postgresql://db/x",
                "REDIS_URL": "redis",
            },
            "AUTH_JWKS_URL: or AUTH_INTROSPECTION_URL is required",
        ),
    ],
)
def test_a_wrong_variable_is_one_line_that_names_it(
    variables: dict[str, str], line: str, tmp_path: Path
) -> None:
    answer = call(environ=environment(tmp_path, **variables))
    assert answer.returncode == 2
    assert answer.stderr.startswith(f"billing: {line}")
    assert answer.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir()), "nothing was started or made"


def test_a_taken_port_is_one_line_that_offers_another(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        answer = call("up", environ=environment(tmp_path, PORT=str(port)))
    assert answer.returncode == 2
    assert answer.stderr == (
        f"billing: PORT: {port} is in use; try another one: PORT={port + 1} ./run\n"
    )


@pytest.mark.parametrize(
    ("words", "exit_code", "line"),
    [
        (["test", "nonsense"], 2, "billing: no test group nonsense; there are: "),
        (["token", "--role", "user"], 2, "billing: token --role user needs --user"),
        (["token", "--role", "org_admin"], 2, "billing: token --role org_admin needs --org"),
        (["migrate"], 2, "billing: DATABASE_URL: is not set"),
    ],
)
def test_a_wrong_command_is_one_line(
    words: list[str], exit_code: int, line: str, tmp_path: Path
) -> None:
    answer = call(*words, environ=environment(tmp_path))
    assert answer.returncode == exit_code
    assert answer.stderr.startswith(line)
    assert answer.stderr.count("\n") == 1


def test_replay_needs_the_service_and_no_database(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("tokens\n1\n")
    options = ["--users", "1", "--orgs", "0", "--map", "tokens=ai_tokens"]
    file = str(tmp_path / "rows.csv")
    answer = call(
        "replay", file, *options, "--url", "http://127.0.0.1:1", environ=environment(tmp_path)
    )
    assert answer.returncode == 1
    assert "http://127.0.0.1:1" in answer.stderr
    assert "./run" in answer.stderr
    assert "DATABASE_URL" not in answer.stderr


def test_a_database_out_of_reach_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    url = f"postgresql://u@127.0.0.1:{port}/d"
    answer = call("migrate", environ=environment(tmp_path, DATABASE_URL=url))
    assert answer.returncode == 1
    assert answer.stderr.startswith("billing: the database cannot be migrated: ")
    assert answer.stderr.count("\n") == 1


def test_help_names_every_command(tmp_path: Path) -> None:
    answer = call("--help", environ=environment(tmp_path))
    for name in ("up", "infrastructure", "token", "test", "migrate", "replay", "doctor"):
        assert re.search(rf"^    {name}\s", answer.stdout, re.MULTILINE)
    assert answer.returncode == 0


def test_what_is_not_set_is_as_the_running_servers_were_started(tmp_path: Path) -> None:
    runtime = Runtime(
        "postgresql://d", "redis://r", 8081, durability="replicated", durability_replicas=2,
        partitions=8,
    )  # fmt: skip
    environ = {"BILLING_DATA_DIR": str(tmp_path)}
    with DataDir(tmp_path) as data:
        data.publish(runtime)
        config = of_service(environ)
        said = (config.database_url, config.redis_url, config.port, config.partitions)
        assert said == ("postgresql://d", "redis://r", 8081, 8)
        assert (config.durability, config.durability_replicas) == ("replicated", 2)
        config = of_service({**environ, "DURABILITY": "default", "PARTITIONS": "4"})
        assert (config.durability, config.durability_replicas) == ("default", 0)
        assert config.partitions == 4
    assert completed(environ) == environ
    with pytest.raises(SettingError, match=r"DATABASE_URL: is not set and no \./run is up"):
        of_service(environ)


def test_a_mistyped_environment_is_not_taken_for_dev() -> None:
    environ = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "BILLING_ENV": "prod"}
    with pytest.raises(SettingError, match="BILLING_ENV: must be one of dev, production"):
        of_database(environ)
