"""From names to a recipe: which flags, variables and drafter settings serve this model on this image.

Pure: catalogue rows and a choice in, a `Recipe` out. Whether the recipe may run is decided in `sparkfleet.rules`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sparkfleet.catalog import Catalog, Gates, Hardware, Image, Line, Model, Profile, Scalar
from sparkfleet.contract import Contract, contract_for
from sparkfleet.errors import SettingsError, nearest

SPECULATIVE_KEYS = {
    "num_speculative_tokens": "num_speculative_tokens",
    "drafter_attention_backend": "attention_backend",
    "drafter_kv_cache_dtype": "kv_cache_dtype",
}
# Set by the recipe itself, so an override would contradict what is staged and mounted.
RESERVED = {"model_tag", "model", "speculative_config", "served_model_name", "config", "headless", "api_key"}


@dataclass(frozen=True)
class Choice:
    """What an operator asks for, by catalogue ids; `overrides` are single vLLM arguments in snake_case."""

    model: str
    image_tag: str
    profile: str
    hardware: str
    image_line: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    choice: Choice
    image: Image
    line: Line
    image_known: bool
    model: Model
    profile: Profile
    hardware: Hardware
    args: dict[str, Scalar]
    speculative: dict[str, Any] | None
    env: dict[str, str]
    gates: Gates
    overridden: tuple[str, ...]

    @property
    def contract(self) -> Contract:
        return contract_for(self.line.engine_version)


def compile_recipe(catalog: Catalog, choice: Choice) -> Recipe:
    """Combine the rows that the choice names.

    Raises SettingsError for an id that the catalogue does not know, an override that this vLLM has no argument
    for, or a value of the wrong type.
    """
    model = _known("model", choice.model, catalog.models)
    profile = _known("profile", choice.profile, catalog.profiles)
    hardware = _known("hardware", choice.hardware, catalog.hardware)
    image, line, image_known = find_image(catalog, choice.image_tag, choice.image_line)

    drafter = model.drafter if profile.speculative and line.drafter is not None else None
    args: dict[str, Scalar] = {
        "served_model_name": list(model.served_names),
        **profile.args,
        **_model_args(model),
        **line.args,
    }
    caching = _prefix_caching(profile, line, drafter is not None)
    if caching is not None:
        args["enable_prefix_caching"] = caching
    args["shutdown_timeout"] = profile.timing.shutdown_timeout_s
    speculative: dict[str, Any] | None = None
    if drafter is not None and line.drafter is not None:
        speculative = {
            "method": drafter.method,
            "model": drafter.container_path,
            "num_speculative_tokens": drafter.default_tokens,
            "attention_backend": line.drafter.backend,
            **profile.speculative_args,
        }
        speculative = {key: value for key, value in speculative.items() if value is not None}
    env = {**line.env, **profile.env}
    _override(args, speculative, choice, line)
    return Recipe(
        choice=choice,
        image=image,
        line=line,
        image_known=image_known,
        model=model,
        profile=profile,
        hardware=hardware,
        args={key: value for key, value in args.items() if value is not None},
        speculative=speculative,
        env={key: value for key, value in env.items() if value is not None},
        gates=_gates(profile, line) if speculative else profile.gates,
        overridden=tuple(sorted(choice.overrides)),
    )


def _gates(profile: Profile, line: Line) -> Gates:
    return profile.gates.model_copy(update={str(name): gate for name, gate in line.gate_overrides.items()})


def find_image(catalog: Catalog, tag: str, image_line: str | None) -> tuple[Image, Line, bool]:
    """Return the image's row, its line, and whether the catalogue knows the tag.

    An unknown tag needs `image_line`, the id of a known line or tag that it behaves like; `latest` is never taken.
    """
    if tag == "latest":
        raise SettingsError(
            "image_tag 'latest' is a name that moves, so a restart could change what a host runs",
            f"one of {', '.join(sorted(catalog.images))}",
            "name a tag; `python -m sparkfleet lock --check` says what :latest points to today",
        )
    if tag in catalog.images and image_line is None:
        image = catalog.images[tag]
        return image, catalog.line_of(image), True
    if image_line is None:
        raise SettingsError(
            f"image_tag '{tag}' is not in the catalogue{nearest(tag, list(catalog.images))}",
            f"one of {', '.join(sorted(catalog.images))}",
            "use a known tag, or set image_line to the known line that this tag behaves like "
            f"(one of {', '.join(sorted(catalog.lines))})",
        )
    like = catalog.images.get(image_line)
    line_id = like.line if like else image_line
    if line_id not in catalog.lines:
        raise SettingsError(
            f"image_line '{image_line}' is neither a line nor a tag{nearest(image_line, list(catalog.lines))}",
            f"a line ({', '.join(sorted(catalog.lines))}) or a known tag",
        )
    known = catalog.images.get(tag)
    image = known or Image(
        repository=like.repository if like else _repository_of(catalog, line_id),
        line=line_id,
        state="candidate",
        sources={"*": f"declared by image_line: {image_line}"},
    )
    image = image.model_copy(update={"line": line_id})
    return image, catalog.line_of(image), known is not None


def _repository_of(catalog: Catalog, line_id: str) -> str:
    return next(image.repository for image in catalog.images.values() if image.line == line_id)


R = TypeVar("R")


def _known(kind: str, row_id: str, rows: Mapping[str, R]) -> R:
    if row_id not in rows:
        raise SettingsError(
            f"{kind} '{row_id}' is not in the catalogue{nearest(row_id, list(rows))}",
            f"one of {', '.join(sorted(rows))}",
            f"set {kind} in the inventory or in group_data/",
        )
    return rows[row_id]


def _model_args(model: Model) -> dict[str, Scalar]:
    return {
        "quantization": model.quantization,
        "attention_backend": model.attention_backend,
        "trust_remote_code": True if model.trust_remote_code else None,
        "tool_call_parser": model.tool_call_parser,
        "reasoning_parser": model.reasoning_parser,
    }


def _prefix_caching(profile: Profile, line: Line, with_drafter: bool) -> bool | None:
    """vLLM turns prefix caching on when the flag is left out, so «off» must be written as well."""
    if profile.prefix_caching != "auto":
        return profile.prefix_caching == "on"
    if with_drafter and line.drafter is not None:
        return line.drafter.prefix_caching == "safe"
    return True


def _override(args: dict[str, Scalar], speculative: dict[str, Any] | None, choice: Choice, line: Line) -> None:
    contract = contract_for(line.engine_version)
    for key, value in choice.overrides.items():
        if key in SPECULATIVE_KEYS:
            _override_speculative(speculative, key, value, choice)
            continue
        flag = contract.flags.get(key)
        if key in RESERVED or flag is None:
            known = [name for name in [*contract.flags, *SPECULATIVE_KEYS] if name not in RESERVED]
            what = "is set by the recipe itself" if key in RESERVED else "is no argument of vllm serve"
            raise SettingsError(
                f"override '{key}' {what} (vLLM {line.engine_version}){nearest(key, known)}",
                "a vLLM argument in snake_case, num_speculative_tokens or drafter_attention_backend",
            )
        if value is None:
            args.pop(key, None)
            continue
        problem = flag.problem_with(value)
        if problem:
            raise SettingsError(f"override '{key}' {problem}", f"a value that {flag.option} accepts")
        args[key] = value


def _override_speculative(speculative: dict[str, Any] | None, key: str, value: object, choice: Choice) -> None:
    if speculative is None:
        raise SettingsError(
            f"override '{key}' has no drafter to apply to: profile '{choice.profile}' on image "
            f"'{choice.image_tag}' serves without one",
            "a profile with a drafter",
            "choose the profile agentic or production, or remove the override",
        )
    wanted: type = int if key == "num_speculative_tokens" else str
    if not isinstance(value, wanted) or isinstance(value, bool):
        raise SettingsError(f"override '{key}' takes {wanted.__name__}, not {value!r}")
    speculative[SPECULATIVE_KEYS[key]] = value
