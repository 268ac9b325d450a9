"""Who may import whom, and the one place of each thing, read from the source itself.

Every exception is listed with its reason; one that is no longer needed fails too.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = ("gateway", "ledger", "lua", "migrations", "bench", "chaos", "tests")
PACKAGES = ("gateway", "ledger", "lua", "migrations")

# What a package may import of ours, beside itself.
MAY_IMPORT = {
    "gateway": {"ledger", "lua", "migrations"},
    "ledger": {"lua", "migrations"},
    "lua": set(),
    "migrations": set(),
}

REDIS = {
    "lua/connection.py": "the scripts' connection",
    "lua/cluster.py": "which slot a key is in",
    "lua/multiplexer.py": "the same for the hot path; takes only the URL's meaning from redis-py",
}
ASYNCPG = {
    "ledger/db.py": "connections and pools",
    "ledger/migrate.py": "runs before there is anything else",
    "gateway/dev/postgres.py": "the embedded server: waits for it and creates the database",
}
STRIPE = {"ledger/stripe_api.py": "what goes to Stripe passes here, and its import is not small"}
CLOCK = {
    "ledger/clock.py": "the one place that reads the time",
    "gateway/replay/send.py": "a client's own pace: the default of a clock that is handed in",
    "gateway/client/metering.py": "the SDK runs in the caller's process, without the ledger",
}
ENVIRON = {
    "ledger/settings.py": "every variable of the service",
    "gateway/__main__.py": "a program's entry: hands it on to its worker processes",
    "gateway/metrics.py": "a variable of the Prometheus library, not of the service",
    "gateway/cli.py": "a command line: what it hands on to the programs it starts",
    "gateway/dev/servers.py": "what it hands on to the embedded Redis, with a variable of libc",
    "gateway/replay/command.py": "a command line: colours, and where the service is",
}
SQL = {
    "ledger/migrate.py": "its own table, before any migration ran",
    "gateway/dev/postgres.py": "the embedded server: creates the database",
    "gateway/backup/databases.py": "creates, renames and drops databases: names are no parameters",
    "gateway/doctor.py": "asks Postgres for its time",
}

DEV = {
    "gateway/cli.py": "a command line: `./run`, its servers and its tokens",
    "gateway/__main__.py": "a program's entry: hands the key of this data dir to the gateway",
}

CLOCK_CALLS = {
    "time.time", "time.time_ns", "time.monotonic", "time.monotonic_ns", "time.perf_counter",
    "time.perf_counter_ns", "time.localtime", "time.gmtime",
    "datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today",
    "datetime.date.today",
}  # fmt: skip
ENVIRON_CALLS = {"os.environ", "os.environb", "os.getenv", "os.putenv"}
STATEMENT = re.compile(
    r"\s*(SELECT|INSERT\s+INTO|UPDATE|DELETE\s+FROM|MERGE\s+INTO|WITH|VALUES|TRUNCATE|CREATE|ALTER"
    r"|DROP|SET|LOCK|COPY|LISTEN|NOTIFY|VACUUM|ANALYZE|GRANT|REVOKE|BEGIN|COMMIT|ROLLBACK|CALL|DO)"
    r"\s+[\w('\"*$]"
)


class Module:
    """One source file, parsed."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.tree = ast.parse(text, path)
        self.name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        self.package = self.name if path.endswith("/__init__.py") else self.name.rpartition(".")[0]

    def imports(self) -> Iterator[str]:
        """Full names of everything imported, wherever in the file."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                parts = self.package.split(".")
                base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
                module = ".".join(part for part in (base, node.module) if part)
                yield from (f"{module}.{alias.name}" for alias in node.names)
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "__import__", "importlib.import_module", "import_module"
            ):  # fmt: skip
                yield ast.unparse(node.args[0]).strip("'\"")

    def imports_of(self, *roots: str) -> list[str]:
        return [one for one in self.imports() if one.split(".")[0] in roots]

    def names(self) -> Iterator[str]:
        """Full dotted names of everything used: ``from time import time as t; t`` is time.time."""
        local: dict[str, str] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    local[alias.asname or alias.name.split(".")[0]] = (
                        alias.name if alias.asname else alias.name.split(".")[0]
                    )
            elif isinstance(node, ast.ImportFrom) and not node.level:
                for alias in node.names:
                    local[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Attribute | ast.Name):
                root, _, rest = ast.unparse(node).partition(".")
                if root in local:
                    yield f"{local[root]}.{rest}" if rest else local[root]

    def statements(self) -> Iterator[str]:
        """Strings that begin like SQL, docstrings left out."""
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value
                if id(node) not in docstrings and STATEMENT.match(text):
                    yield text


def read_modules() -> list[Module]:
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return [
        Module(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
        for path in paths
    ]


MODULES = read_modules()


def uses_clock(module: Module) -> bool:
    return any(name in CLOCK_CALLS for name in module.names())


def uses_environ(module: Module) -> bool:
    return any(name in ENVIRON_CALLS for name in module.names())


def uses_sql(module: Module) -> bool:
    return any(True for _ in module.statements())


def imports_redis(module: Module) -> bool:
    return bool(module.imports_of("redis", "hiredis", "valkey", "coredis"))


def imports_asyncpg(module: Module) -> bool:
    return bool(module.imports_of("asyncpg", "psycopg", "psycopg2", "sqlalchemy"))


def imports_stripe(module: Module) -> bool:
    return bool(module.imports_of("stripe"))


def wrong_imports(module: Module) -> list[str]:
    """Imports of ours that the module's package must not make."""
    package = module.path.split("/")[0]
    allowed = MAY_IMPORT[package] | {package}
    return [one for one in module.imports_of(*OURS) if one.split(".")[0] not in allowed]


def impure_imports(module: Module) -> list[str]:
    """Imports by which a module of ledger.domain, or the layouts it reads, would know more than
    its domain."""
    if not module.path.startswith("ledger/domain/") and module.path != "lua/packing.py":
        return []
    return [
        one
        for one in module.imports()
        if not one.startswith("ledger.domain.")
        and one.split(".")[0] not in sys.stdlib_module_names - {"asyncio", "socket", "time"}
        and one.split(".")[0] != "msgspec"
        and not one.startswith("lua.packing.")  # bytes and nothing else: held to the same
    ]


def service_imports(module: Module) -> list[str]:
    """Imports by which the Python SDK would drag the service into a caller's process."""
    if not module.path.startswith("gateway/client/"):
        return []
    return [one for one in module.imports_of(*OURS) if not one.startswith("gateway.client")]


def imports_dev(module: Module) -> bool:
    """What runs in production must not need a developer's machine."""
    if module.path.startswith("gateway/dev/"):
        return False
    return any(f"{one}.".startswith("gateway.dev.") for one in module.imports())


RULES: list[tuple[Callable[[Module], object], dict[str, str]]] = [
    (wrong_imports, {}),
    (impure_imports, {}),
    (service_imports, {}),
    (imports_dev, DEV),
    (imports_redis, REDIS),
    (imports_asyncpg, ASYNCPG),
    (imports_stripe, STRIPE),
    (uses_clock, CLOCK),
    (uses_environ, ENVIRON),
    (uses_sql, SQL),
]


@pytest.mark.parametrize(("broken_by", "places"), RULES, ids=[rule.__name__ for rule, _ in RULES])
def test_each_thing_has_its_places_and_is_nowhere_else(
    broken_by: Callable[[Module], object], places: dict[str, str]
) -> None:
    assert {one.path for one in MODULES if broken_by(one)} == places.keys()


def test_every_package_is_looked_at() -> None:
    assert {one.path.split("/")[0] for one in MODULES} == set(PACKAGES)
    assert len(MODULES) > 40


@pytest.mark.parametrize("package", ["gateway", "ledger", "lua"])
def test_a_package_says_what_each_of_its_modules_is_for(package: str) -> None:
    [docstring] = [ast.get_docstring(one.tree) or "" for one in MODULES if one.name == package]
    named = set(re.findall(rf"`(?:{package}\.)?(\w+)`", docstring))
    there = {path.stem for path in (ROOT / package).glob("[a-z]*") if is_module(path)}
    assert there <= named


def is_module(path: Path) -> bool:
    return path.suffix == ".py" or (path / "__init__.py").exists()


def test_named_queries_are_where_the_sql_is() -> None:
    for folder in ("ledger/sql", "migrations"):
        for path in sorted((ROOT / folder).glob("*.sql")):
            assert STATEMENT.search(path.read_text(encoding="utf-8"))
    assert not [one for one in PACKAGES if list((ROOT / one / "common").glob("*.py"))]


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [
        (wrong_imports, "ledger/x.py", "from gateway import app"),
        (wrong_imports, "ledger/x.py", "def f():\n    import gateway.app"),
        (wrong_imports, "ledger/x.py", "from gateway.app import make_app as m"),
        (wrong_imports, "lua/x.py", "from ledger.domain import usage"),
        (wrong_imports, "lua/x.py", "import gateway"),
        (wrong_imports, "gateway/x.py", "from tests import conftest"),
        (wrong_imports, "ledger/x.py", "importlib.import_module('gateway.app')"),
        (wrong_imports, "ledger/x.py", "if TYPE_CHECKING:\n    from gateway.app import A"),
        (wrong_imports, "ledger/domain/x.py", "from gateway import app"),
        (impure_imports, "ledger/domain/x.py", "from ledger import clock"),
        (impure_imports, "ledger/domain/x.py", "from ledger.store import usage"),
        (impure_imports, "ledger/domain/x.py", "from .. import db"),
        (impure_imports, "ledger/domain/x.py", "from lua.scripts import Limit"),
        (impure_imports, "ledger/domain/x.py", "import structlog"),
        (impure_imports, "ledger/domain/x.py", "import asyncio"),
        (service_imports, "gateway/client/x.py", "from ledger import clock"),
        (service_imports, "gateway/client/x.py", "from gateway import problems"),
        (imports_dev, "gateway/backup/x.py", "from gateway.dev.servers import Server"),
        (imports_dev, "gateway/x.py", "from gateway import dev"),
        (imports_redis, "ledger/x.py", "from redis.asyncio import Redis"),
        (imports_redis, "gateway/x.py", "import hiredis"),
        (imports_asyncpg, "gateway/x.py", "import asyncpg"),
        (imports_asyncpg, "ledger/store/x.py", "from asyncpg import Pool"),
        (imports_stripe, "ledger/x.py", "def f():\n    from stripe import StripeClient"),
        (uses_clock, "gateway/x.py", "import time\ntime.time()"),
        (uses_clock, "gateway/x.py", "from time import monotonic as m\nm()"),
        (uses_clock, "gateway/x.py", "import time as t\nt.time_ns()"),
        (uses_clock, "ledger/x.py", "from datetime import datetime\ndatetime.now(UTC)"),
        (uses_clock, "ledger/x.py", "import datetime as d\nd.datetime.now()"),
        (uses_clock, "ledger/x.py", "from datetime import date\ndate.today()"),
        (uses_clock, "ledger/x.py", "import time\ndef f(now=time.monotonic): ..."),
        (uses_environ, "gateway/x.py", "import os\nos.environ['A']"),
        (uses_environ, "gateway/x.py", "from os import environ as e\ne['A']"),
        (uses_environ, "ledger/x.py", "import os\nos.getenv('A')"),
        (uses_sql, "gateway/x.py", "f('SELECT 1')"),
        (uses_sql, "ledger/store/x.py", "q = '''\n  INSERT INTO usage VALUES (1)'''"),
        (uses_sql, "ledger/x.py", "q = f'UPDATE usage SET {a} = 1'"),
        (uses_sql, "ledger/x.py", "q = 'SET LOCAL statement_timeout = 1'"),
    ],
)
def test_the_rule_sees_what_breaks_it(
    rule: Callable[[Module], object], path: str, text: str
) -> None:
    assert rule(Module(path, text))


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [
        (wrong_imports, "gateway/x.py", "from ledger import db\nfrom lua import keys"),
        (wrong_imports, "ledger/x.py", "from lua import keys\nfrom ledger.domain import usage"),
        (impure_imports, "ledger/domain/x.py", "import re, msgspec\nfrom .period import Period"),
        (impure_imports, "ledger/x.py", "import structlog"),
        (imports_dev, "gateway/dev/x.py", "from gateway.dev import tokens"),
        (imports_dev, "gateway/x.py", "from gateway import datadir"),
        (uses_clock, "gateway/x.py", "from ledger import clock\nclock.now(), clock.monotonic()"),
        (uses_clock, "gateway/x.py", "import time\ntime.sleep(1)"),
        (uses_environ, "gateway/x.py", "import os\nos.path.join(environ)"),
        (uses_sql, "gateway/x.py", "'''SELECT 1 is not sent.'''\nx = 'Select a plan'"),
    ],
)
def test_the_rule_lets_pass_what_keeps_it(
    rule: Callable[[Module], object], path: str, text: str
) -> None:
    assert not rule(Module(path, text))
