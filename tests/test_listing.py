"""What RunPod and a builder are told of the worker, compared with the worker itself."""

import fnmatch
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.fake_platform import FakePlatform, worker
from tests.listing_shapes import Hub, HubTests, RunpodProject
from tts_core.settings import FOREIGN_NAMES, FOREIGN_ONLY, Settings
from tts_core.xtts.weights import BAKED_FOLDER

ROOT = Path(__file__).parent.parent


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


HUB = Hub.model_validate_json(text_of(".runpod/hub.json"))
TESTS = HubTests.model_validate_json(text_of(".runpod/tests.json"))
PROJECT = RunpodProject.model_validate(tomllib.loads(text_of("runpod.toml")))
PYPROJECT = tomllib.loads(text_of("pyproject.toml"))
DOCKERFILE = text_of("Dockerfile").replace("\\\n", " ").splitlines()

FOREIGN = {field: name for name, field in FOREIGN_NAMES.items() if field in FOREIGN_ONLY}

TOLD = {
    FOREIGN.get(field, f"XTTS_{field.upper()}"): field for field in Settings.model_fields if field != "runpod_job_url"
}
"""What an operator sets, by its first name. What is left out is set by RunPod."""

INPUTS = {variable.key: variable.input for variable in HUB.config.env}

ENVIRONMENTS: Mapping[str, Mapping[str, str]] = {
    **{preset.name: preset.defaults for preset in HUB.config.presets},
    "tests.json": {each.key: each.value for each in TESTS.config.env},
    "runpod.toml": PROJECT.project.env_vars,
    "the form left as it is": {
        name: json.dumps(each.default) if isinstance(each.default, bool) else str(each.default)
        for name, each in INPUTS.items()
    },
}


def instructions(word: str) -> list[str]:
    return [line.removeprefix(word).strip() for line in DOCKERFILE if line.startswith(word + " ")]


def of_the_sdk(name: str) -> bool:
    spec = importlib.util.find_spec("runpod")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    sources = Path(spec.submodule_search_locations[0]).rglob("*.py")
    return any(f'"{name}"' in path.read_text(encoding="utf-8") for path in sources)


def test_the_hub_asks_for_every_setting_and_for_nothing_else() -> None:
    assert sorted(INPUTS) == sorted(TOLD)
    assert len(INPUTS) == len(HUB.config.env)


@pytest.mark.parametrize("name", sorted(TOLD))
def test_the_hub_says_of_a_setting_what_the_code_says(name: str) -> None:
    """A number that may be left out is asked for as text: an empty field is no number."""
    told, coded = INPUTS[name], Settings.model_json_schema()["properties"][TOLD[name]]
    default = coded.get("default")
    kind = {"integer": "number", "number": "number", "boolean": "boolean"}.get(coded.get("type", ""), "string")
    assert (told.type, told.default) == (kind, "" if default is None else default)
    assert [option.value for option in told.options or []] == coded.get("enum", [])
    assert (told.min, told.max) == (coded.get("minimum"), coded.get("maximum")) or kind != "number"
    assert ((told.trueValue, told.falseValue) == ("1", "0")) is (kind == "boolean")


@pytest.mark.parametrize("where", ENVIRONMENTS)
def test_what_is_set_anywhere_is_accepted(where: str) -> None:
    env = ENVIRONMENTS[where]
    Settings.from_env(env)
    assert [name for name in env if name not in TOLD and not of_the_sdk(name)] == []


def test_the_image_sets_nothing_that_is_the_operators() -> None:
    names = re.findall(r"([A-Z_]+)=", " ".join(instructions("ENV")))
    assert names
    foreign = {"PATH", "HOME", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"}
    assert [name for name in names if name not in foreign and not of_the_sdk(name)] == []


def test_the_base_image_is_pinned() -> None:
    assert re.fullmatch(r"BASE_IMAGE=\S+:\S+@sha256:[0-9a-f]{64}", instructions("ARG")[0])
    assert set(instructions("FROM")) == {"${BASE_IMAGE}", "${BASE_IMAGE} AS packages", "packages AS baked"}


def test_packages_and_weights_lie_below_the_code() -> None:
    final = DOCKERFILE[DOCKERFILE.index("FROM ${BASE_IMAGE}") :]
    copies = [line.removeprefix("COPY ") for line in final if line.startswith("COPY ")]
    assert copies[:2] == ["--from=packages /opt/venv /opt/venv", "--from=baked /models /models"]
    copied = {source for line in copies[2:] for source in line.split()[:-1]}
    code = {*(name.split(".")[0] for name in PYPROJECT["tool"]["setuptools"]["packages"]), "handler.py"}
    assert copied == code | {"samples", "test_input.json"}


def test_what_the_image_is_made_of_is_there_and_sent_to_the_builder() -> None:
    sources = {
        source
        for line in instructions("COPY")
        if not line.startswith("--from")
        for source in line.split()[:-1]
        if "*" not in source
    }
    sent = {line[1:] for line in text_of(".dockerignore").splitlines() if line.startswith("!")}
    assert text_of(".dockerignore").splitlines()[1] == "*"
    assert {source.split("/")[0] for source in sources} == sent - {"weights"}
    assert [source for source in sources if not (ROOT / source).exists()] == []


def test_weights_are_baked_where_the_worker_looks_for_them() -> None:
    assert f"convert /official {BAKED_FOLDER} " in " ".join(DOCKERFILE)


def test_the_conversion_needs_no_more_code_than_its_stage_has(tmp_path: Path) -> None:
    (tmp_path / "tts_core").mkdir()
    for *sources, target in map(str.split, instructions("COPY")):
        if target.startswith("tts_core") and sources != ["tts_core"]:
            for source in map(ROOT.joinpath, sources):
                copy = shutil.copytree if source.is_dir() else shutil.copy
                copy(source, tmp_path / source.relative_to(ROOT))
    # What is missing there is found here all the same: this project is installed where the test runs.
    script = """import sys, tts_core.xtts.checkpoint
print(*(module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "tts_core"))"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert [name for name in done.stdout.split() if not Path(name).is_relative_to(tmp_path)] == []


def test_the_python_version_is_the_same_everywhere() -> None:
    version = PROJECT.runtime.python_version
    major, minor = version.split(".")
    assert PYPROJECT["project"]["requires-python"] == f">={version},<{major}.{int(minor) + 1}"
    assert f":{version}." in instructions("ARG")[0]
    assert f"sys.version_info[:2] == ({major}, {minor})" in " ".join(DOCKERFILE)


def test_the_cuda_version_is_that_of_torch_everywhere() -> None:
    (version,) = re.findall(r"^cuda-toolkit==(\d+\.\d+)", text_of("constraints.txt"), re.MULTILINE)
    assert HUB.config.allowedCudaVersions == TESTS.config.allowedCudaVersions == [version]
    assert f"RUNPOD_MIN_CUDA_VERSION={version}" in " ".join(instructions("ENV"))


def test_the_handler_is_the_same_everywhere() -> None:
    handler = PROJECT.runtime.handler_path
    assert (ROOT / handler).is_file()
    assert [json.loads(line) for line in instructions("CMD")] == [["python", "-u", handler]]
    assert [handler.removesuffix(".py")] == PYPROJECT["tool"]["setuptools"]["py-modules"]


def test_the_requirements_are_those_of_the_image() -> None:
    options, own = [line for line in text_of(PROJECT.runtime.requirements_path).splitlines() if line[0] != "#"]
    assert options == "-c constraints.txt"
    assert f"EXTRAS={own.removeprefix('.[').removesuffix(']')}" in instructions("ARG")


def test_every_package_is_in_pyproject() -> None:
    folders = {path.parent for name in ("storage", "tts_core") for path in (ROOT / name).rglob("*.py")}
    packages = sorted(".".join(folder.relative_to(ROOT).parts) for folder in folders)
    assert PYPROJECT["tool"]["setuptools"]["packages"] == packages


def test_what_runs_is_not_ignored() -> None:
    """runpodctl's globs: a star also matches a slash, and a folder's name ends with one."""
    patterns = [line for line in text_of(".runpodignore").splitlines() if line and line[0] != "#"]
    paths = [path for name in ("storage", "tts_core", "supabase") for path in (ROOT / name).rglob("*.py")]
    named = ["handler.py", "pyproject.toml", "constraints.txt", "README.md", PROJECT.runtime.requirements_path]
    needed = [*named, *(str(path.relative_to(ROOT)) for path in paths)]
    globs = [f"{pattern}*" if pattern.endswith("/") else pattern for pattern in patterns]
    assert [name for name in needed if any(fnmatch.fnmatchcase(name, glob) for glob in globs)] == []
    assert all(any(fnmatch.fnmatchcase(name, glob) for glob in globs) for name in ("data/x.db", ".env", "out/a/b.wav"))


async def test_the_hubs_tests_pass_without_weights_supabase_or_key(tmp_path: Path) -> None:
    env = {each.key: each.value for each in TESTS.config.env} | {"XTTS_DATA_DIR": str(tmp_path)}
    async with FakePlatform() as platform, worker(platform, [sys.executable, "handler.py"], env=env):
        for test in TESTS.tests:
            assert "tenant_key" not in test.input
            result = await platform.result(platform.submit(test.input), timeout_s=60)
            assert result.error is None
            assert result.output[-1]["status"] == "success"
