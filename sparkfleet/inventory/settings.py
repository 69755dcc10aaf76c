"""What an operator sets for a host: the inventory's data, validated at the border.

`group_data/all.py` documents each key with its default. Keys that pyinfra itself reads (ssh_*, fake_*, and those that
start with an underscore) pass by.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import parse_qsl, urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from sparkfleet import ROOT, secrets
from sparkfleet.catalog.catalog import Catalog, ServedName, load
from sparkfleet.catalog.rows import Row
from sparkfleet.errors import SettingsError, nearest
from sparkfleet.inventory.pace import Pace
from sparkfleet.preflight.waivers import Decisions
from sparkfleet.release.recipe import Choice
from sparkfleet.release.release import Operation
from sparkfleet.release.rules import Deployment
from sparknode.base.shape import Node
from sparknode.state import release as schema
from sparknode.state.status import Readiness

FOREIGN_PREFIXES = ("ssh_", "fake_", "_", "docker_", "winrm_")


def _text(value: object, digits: int = 0) -> object:
    """`--data image_tag=20260611` reaches us as a number, and an operator means the tag.

    Of 1e5 and true it cannot be said any more what was typed.
    """
    if isinstance(value, bool | float):
        raise ValueError("expected a text, and pyinfra took it for something else: --data 'KEY=\"VALUE\"' keeps it one")
    return f"{value:0{digits}d}" if isinstance(value, int) else value


Text = Annotated[str, BeforeValidator(_text)]
# Sixteen hex digits; one in two thousand ids has no letter, and may begin with a zero.
ReleaseId = Annotated[str, BeforeValidator(partial(_text, digits=16)), Field(pattern=r"^[0-9a-f]{16}$")]


def _subnet(value: str) -> str:
    try:
        ipaddress.IPv4Network(value)
    except ValueError as error:
        raise ValueError(f"expected an IPv4 network such as 192.168.100.0/24: {error}") from None
    return value


Subnet = Annotated[str, AfterValidator(_subnet)]


class Terms(Row):
    """Who accepted a model's terms, and when."""

    by: str = Field(min_length=1)
    on: datetime.date


class HttpCall(Row):
    """A call; what identifies the caller stands in a file on the host, because a release is read by everyone there."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    url: str = Field(pattern=r"^https?://")
    header_file: str | None = Field(default=None, pattern=r"^/")

    @field_validator("url")
    @classmethod
    def _no_secret(cls, url: str) -> str:
        named = [name for name, _ in parse_qsl(urlsplit(url).query) if secrets.names_secret(name)]
        if named:
            raise ValueError(f"'{named[0]}' in a URL stands in releases and logs; put it into a header_file")
        return url


class Hook(Row):
    """What a host does to leave or enter the rotation: a command, or an HTTP call."""

    command: list[str] | None = Field(default=None, min_length=1)
    http: HttpCall | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Hook:
        if (self.command is None) == (self.http is None):
            raise ValueError('expected {"command": […]} or {"http": {…}}')
        return self


class Rotation(Row):
    """How a host is taken out of rotation before it drains, and given back after it is proven."""

    model_config = ConfigDict(populate_by_name=True)

    out: Hook
    in_: Hook = Field(alias="in")
    timeout_s: int = Field(default=10, ge=1, le=300)


class Settings(Pace, Decisions):
    model: Text
    image_tag: Text
    profile: Text
    hardware: Text
    image_line: Text | None = None
    overrides: dict[str, Any] = {}
    served_names: list[ServedName] | None = Field(default=None, min_length=1)
    gpu_injection: Literal["gpus", "cdi"] = "gpus"
    api_key_file: str | None = None
    allow_unauthenticated: str | None = None
    terms_accepted: dict[str, Terms] = {}
    lock_file: str = "fleet.lock.json"
    catalog_overlays: list[str] = []
    hub_endpoint: str | None = None
    registry_mirrors: dict[str, str] = {}
    artefact_cache: str = ".sparkfleet/artefacts"
    fetch_on: Literal["seeds", "controller"] = "seeds"
    seed_group: str = "seeds"
    tool_index: str | None = Field(default=None, pattern=r"^https?://")
    fetch_limit_mb_s: float = Field(default=0, ge=0)
    distribution: Literal["auto", "swarm", "rsync", "controller"] = "auto"
    image_distribution: Literal["pull", "spread"] = "pull"
    spread_subnet: Subnet | None = None
    spread_port: int = Field(default=6891, ge=1024, le=65535)
    spread_limit_mb_s: float = Field(default=0, ge=0)
    spread_deadline_s: float = Field(default=7200, ge=60)
    canary_group: str | None = "canary"
    soak_s: int | None = Field(default=None, ge=0)
    watch: bool = True
    keep_releases: int = Field(default=3, ge=0)
    pinned_releases: list[ReleaseId] = []
    verify_weekly: bool = False
    rotation: Rotation | None = None
    readiness_port: int | None = Field(default=None, ge=1024, le=65535)
    readiness_network: Subnet | None = None
    readiness_notice_s: float = Field(default=5, ge=1, le=30)
    retry_release: ReleaseId | None = None
    roll_forward: ReleaseId | None = None
    retire_models: bool = False
    sync_parallel: int = Field(default=4, ge=1)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: object, info: ValidationInfo) -> object:
        annotation = cls.model_fields[str(info.field_name)].annotation
        kinds = {annotation, *get_args(annotation)}
        if isinstance(value, bool) and kinds & {int, float} and bool not in kinds:
            raise ValueError("expected a number, and true and false are none")
        return value

    def catalog(self) -> Catalog:
        return load(tuple((ROOT / overlay).resolve() for overlay in self.catalog_overlays))

    @property
    def lock_path(self) -> Path:
        return ROOT / self.lock_file

    @property
    def readiness(self) -> Readiness | None:
        """Where the host answers whether requests may come; None where it is off."""
        if self.readiness_port is None:
            return None
        return Readiness(self.readiness_port, self.readiness_network, self.readiness_notice_s)

    @property
    def pace(self) -> Pace:
        return Pace(**{name: getattr(self, name) for name in Pace.model_fields})

    @property
    def choice(self) -> Choice:
        chosen = (self.model, self.image_tag, self.profile, self.hardware)
        names = tuple(self.served_names) if self.served_names else None
        return Choice(*chosen, image_line=self.image_line, overrides=dict(self.overrides), served_names=names)

    @property
    def operation(self) -> Operation:
        given = Node(self.rotation.model_dump(by_alias=True), "rotation") if self.rotation else None
        rotation = given.build(schema.Rotation) if given else None
        return Operation(self.soak_s, self.watch, rotation, "drop_caches" in self.repairs)

    @property
    def deployment(self) -> Deployment:
        return Deployment(
            api_key_file=self.api_key_file,
            allow_unauthenticated=self.allow_unauthenticated,
            terms_accepted=self.model in self.terms_accepted,
        )


REQUIRED = ("model", "image_tag", "profile", "hardware")


def parse_settings(host: str, data: Mapping[str, Any]) -> Settings:
    """Validate a host's data.

    Raises SettingsError that names host, key and allowed values; when no setting at all is there, it says that the
    command was started in the wrong folder, which is how pyinfra loses group_data/.
    """
    ours = {key: value for key, value in data.items() if not key.startswith(FOREIGN_PREFIXES)}
    if not any(key in ours for key in ("lock_file", "canary_group", "batch_size")):
        raise SettingsError(
            f"{host}: group_data/ was not loaded",
            "the settings of group_data/all.py",
            f"start pyinfra in the repository's root ({ROOT.name}/), which holds group_data/ and config.py",
        )
    secrets.refuse_in_data(host, ours)
    for key in REQUIRED:
        if not ours.get(key):
            remedy = f"set {key} in the inventory or in group_data/"
            raise SettingsError(f"{host}: no {key} is set", f"a {key} from catalog/", remedy)
    try:
        return Settings.model_validate(ours)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else "?"
        where = ".".join(str(part) for part in first["loc"])
        known = sorted(Settings.model_fields)
        if first["type"] == "extra_forbidden" and len(first["loc"]) == 1:
            found = f"{host}: unknown setting '{key}'{nearest(key, known)}"
            raise SettingsError(found, f"one of {', '.join(known)}") from None
        found, remedy = f"{host}: {where} is {first['input']!r}", "fix it in the inventory or in group_data/"
        raise SettingsError(found, first["msg"].removeprefix("Value error, "), remedy) from None
