"""The arrows of the design: who may import whom, and where each big library lives."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LEAVES = {"tts_core.types", "tts_core.errors", "tts_core.settings", "tts_core.text.limits"}

ALLOWED: dict[str, set[str]] = {
    "handler": {"storage", "tts_core"},
    "storage": {"storage", "tts_core.store"},
    "tts_core.types": set(),
    "tts_core.errors": set(),
    "tts_core.settings": set(),
    "tts_core.logs": set(),
    "tts_core.store": {"tts_core.store"},
    "tts_core.speech": set(),
    "tts_core.starting": {"tts_core.speech"},
    "tts_core.jobs": {"tts_core.jobs", "tts_core.store"},
    "tts_core.audio": {"tts_core.audio"},
    "tts_core.text": {"tts_core.text"},
    "tts_core.cache": {"tts_core.cache", "tts_core.store", "tts_core.text", "tts_core.audio"},
    "tts_core.espeak": {"tts_core.speech", "tts_core.espeak"},
    "tts_core.xtts": {"tts_core.speech", "tts_core.xtts"},
    "tts_core.synthesizer": {"tts_core.speech", "tts_core.text", "tts_core.audio"},
    "tts_core.service": {
        "tts_core.service",
        "tts_core.synthesizer",
        "tts_core.cache",
        "tts_core.store",
        "tts_core.jobs",
        "tts_core.speech",
        "tts_core.text",
        "tts_core.audio",
    },
    "tts_core.batch": {"tts_core.batch", "tts_core.jobs", "tts_core.audio", "tts_core.text"},
    "tts_core.cli": {
        "tts_core.service",
        "tts_core.jobs",
        "tts_core.store",
        "tts_core.audio",
        "tts_core.cli_batch",
        "tts_core.cli_tenants",
    },
    "tts_core.cli_batch": {"tts_core.service", "tts_core.batch", "tts_core.jobs"},
    "tts_core.cli_tenants": {"tts_core.service", "tts_core.jobs", "tts_core.store"},
}
"""Beside the leaves, which everything may use."""

HOMES: dict[str, set[str]] = {
    "runpod": {"handler"},
    "sqlite3": {"storage.local.database"},
    "postgrest": {"storage.supabase.client"},
    "storage3": {"storage.supabase.client"},
    "httpx": {"storage.supabase.client", "tts_core.batch.endpoint"},
    "pydantic": {"tts_core.jobs", "tts_core.settings"},
    "torch": {"tts_core.xtts"},
    "torchaudio": {"tts_core.xtts"},
    "TTS": {"tts_core.xtts.reading"},
    "av": {"tts_core.audio"},
    "safetensors": {"tts_core.xtts", "tts_core.service.latents"},
    "espeakng_loader": {"tts_core.espeak"},
    "sentry_sdk": {"tts_core.logs"},
}


def modules() -> Iterator[tuple[str, ast.Module]]:
    paths = [ROOT / "handler.py", *(ROOT / "storage").rglob("*.py"), *(ROOT / "tts_core").rglob("*.py")]
    for path in paths:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        yield name, ast.parse(path.read_text())


def imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            assert node.module is not None
            yield node.module if node.module != "tts_core" else f"tts_core.{node.names[0].name}"


def within(name: str, parents: set[str]) -> bool:
    return any(name == parent or name.startswith(parent + ".") for parent in parents)


def allowed_for(module: str) -> set[str]:
    owner = max((area for area in ALLOWED if within(module, {area})), key=len)
    return ALLOWED[owner] | LEAVES


def edges() -> list[tuple[str, str]]:
    return [(name, target) for name, tree in modules() for target in imports(tree)]


def test_every_module_belongs_to_an_area_of_the_design() -> None:
    names = {name for name, _ in modules()} - {"tts_core"}
    assert all(any(within(name, {area}) for area in ALLOWED) for name in names)


@pytest.mark.parametrize(("module", "target"), [e for e in edges() if within(e[1], {"tts_core", "storage", "handler"})])
def test_arrows_point_down(module: str, target: str) -> None:
    assert within(target, allowed_for(module)), f"{module} may not import {target}"


@pytest.mark.parametrize(("module", "target"), [e for e in edges() if e[1].split(".")[0] in HOMES])
def test_each_big_library_has_one_home(module: str, target: str) -> None:
    assert within(module, HOMES[target.split(".")[0]]), f"{module} may not import {target}"


def test_importing_a_module_does_nothing() -> None:
    """Only definitions, assignments, docstrings and the main guard stand at the top level."""
    for name, tree in modules():
        for node in tree.body:
            is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            assert is_docstring or not isinstance(node, ast.Expr | ast.For | ast.While | ast.With | ast.Try), (
                f"{name}:{node.lineno} runs at import"
            )
