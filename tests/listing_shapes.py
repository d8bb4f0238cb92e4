"""The shapes of the files that RunPod reads, as its publishing guide and runpodctl's source have them."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Text = Annotated[str, Field(min_length=1)]


class Shape(BaseModel):
    """An unknown key is an error: RunPod would pass over a misspelt one in silence."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Option(Shape):
    label: Text
    value: str


class Input(Shape):
    name: Text
    type: Literal["string", "number", "boolean"]
    description: Annotated[str, Field(min_length=12)]
    default: str | int | float | bool
    required: bool = False
    advanced: bool = False
    options: list[Option] | None = None
    min: int | float | None = None
    max: int | float | None = None
    trueValue: str | None = None
    falseValue: str | None = None


class Variable(Shape):
    key: Text
    input: Input


class Preset(Shape):
    name: Text
    defaults: Annotated[dict[str, str], Field(min_length=1)]


class HubConfig(Shape):
    runsOn: Literal["GPU", "CPU"]
    endpointType: Literal["LB"] | None = None
    containerDiskInGb: Annotated[int, Field(ge=5)]
    gpuCount: Annotated[int, Field(ge=1)]
    gpuIds: Text
    allowedCudaVersions: Annotated[list[str], Field(min_length=1)]
    presets: Annotated[list[Preset], Field(min_length=1)]
    env: list[Variable]


class Hub(Shape):
    """.runpod/hub.json"""

    title: Text
    description: Text
    type: Literal["serverless"]
    category: Literal["audio", "embedding", "language", "video", "image"]
    iconUrl: str | None = None
    config: HubConfig


class Value(Shape):
    key: Text
    value: str


class HubTest(Shape):
    """`timeout` in ms."""

    name: Text
    input: dict[str, object]
    timeout: Annotated[int, Field(ge=30_000)]


class HubTestsConfig(Shape):
    gpuTypeId: Text
    gpuCount: int
    allowedCudaVersions: list[str]
    env: list[Value]


class HubTests(Shape):
    """.runpod/tests.json"""

    tests: Annotated[list[HubTest], Field(min_length=1)]
    config: HubTestsConfig


class ProjectTable(Shape):
    uuid: Annotated[str, Field(pattern="^[0-9a-f]{8}$")]
    base_image: Text
    gpu_types: list[str]
    gpu_count: int
    volume_mount_path: Literal["/runpod-volume"]
    ports: str
    container_disk_size_gb: int
    env_vars: dict[str, str]


class EndpointTable(Shape):
    active_workers: int
    max_workers: int
    flashboot: bool
    idle_timeout: int
    model_refs: list[str] | None = None


class RuntimeTable(Shape):
    python_version: str
    handler_path: str
    requirements_path: str


class RunpodProject(Shape):
    """runpod.toml: runpodctl stops with a panic where one of [project] or [runtime] is missing."""

    name: Text
    project: ProjectTable
    endpoint: EndpointTable
    runtime: RuntimeTable
