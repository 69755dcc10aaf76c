"""From names to a recipe: which flags, variables and drafter settings serve this model on this image.

Pure: catalogue rows and a choice in, a `Recipe` out. Whether the recipe may run is decided in `sparkfleet.rules`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from sparkfleet.catalog import Catalog, Hardware, Image, Line, Model, Profile, Scalar
from sparkfleet.contract import Contract, contract_for
from sparkfleet.engine import Engine, engines
from sparkfleet.errors import nearest
from sparkfleet.rows import Gates
from sparkfleet.rules.book import refusal

SPECULATIVE_KEYS = {
    "num_speculative_tokens": "num_speculative_tokens",
    "drafter_attention_backend": "attention_backend",
    "drafter_kv_cache_dtype": "kv_cache_dtype",
}


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
class Override:
    """One argument that the host sets differently; `instead_of` is what profile, model and image would give."""

    key: str
    value: Any
    instead_of: Any

    def words(self) -> str:
        """Say it for the plan: «max_num_seqs: 16 instead of 64»."""
        return f"{self.key}: {_words(self.value)} instead of {_words(self.instead_of)}"


def _words(value: Any) -> str:
    if value is None:
        return "the engine's default"
    return str(value).lower() if isinstance(value, bool) else str(value)


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
    overridden: tuple[Override, ...]

    @property
    def contract(self) -> Contract:
        return contract_for(self.line.engine_version, self.line.engine)

    @property
    def engine(self) -> Engine:
        return engines()[self.line.engine]

    @cached_property
    def arguments(self) -> tuple[str, ...]:
        return tuple(self.engine.arguments(self))

    @property
    def memory_utilization(self) -> float | None:
        """The share of the machine's memory that the engine takes, where one is set."""
        value = self.args.get(self.engine.memory_argument)
        return value if isinstance(value, float) else None

    @property
    def max_model_len(self) -> int:
        """The context that the engine serves: the model's own where none is set."""
        value = self.args.get(self.engine.context_argument)
        return value if isinstance(value, int) else self.model.max_model_len

    def number(self, key: str) -> int | float | None:
        value = self.args.get(key)
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def compile_recipe(catalog: Catalog, choice: Choice) -> Recipe:
    """Combine the rows that the choice names.

    Raises SettingsError for an id that the catalogue does not know, an override that this engine has no argument
    for, or a value of the wrong type.
    """
    model = _known("model", choice.model, catalog.models)
    profile = _known("profile", choice.profile, catalog.profiles)
    hardware = _known("hardware", choice.hardware, catalog.hardware)
    image, line, image_known = find_image(catalog, choice.image_tag, choice.image_line)

    drafter = model.drafter if profile.speculative and line.drafter is not None else None
    args = {**profile.args, **engines()[line.engine].model_arguments(model, profile), **line.args}
    caching = _prefix_caching(profile, line, drafter is not None) if line.engine == "vllm" else None
    if caching is not None:
        args["enable_prefix_caching"] = caching
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
    args = {key: _canonical(line, key, value) for key, value in args.items() if value is not None}
    overridden = _override(args, speculative, choice, line)
    return Recipe(
        choice=choice,
        image=image,
        line=line,
        image_known=image_known,
        model=model,
        profile=profile,
        hardware=hardware,
        args=args,
        speculative=speculative,
        env={key: value for key, value in env.items() if value is not None},
        gates=_gates(profile, model, line, args, speculative is not None),
        overridden=overridden,
    )


def _canonical(line: Line, key: str, value: Scalar) -> Scalar:
    flag = contract_for(line.engine_version, line.engine).flags.get(key)
    canonical: Scalar = flag.canonical(value) if flag and not flag.problem_with(value) else value
    return canonical


def _gates(profile: Profile, model: Model, line: Line, args: Mapping[str, Scalar], speculative: bool) -> Gates:
    """Speed is the model's, acceptance the image's: their rows go before the profile's. What the engine is not started
    for is not asked of it.
    """
    asked = profile.gates
    changes: dict[str, Any] = {
        "reasoning": asked.reasoning and bool(args.get("reasoning_parser")),
        "tool_call": asked.tool_call and bool(args.get("enable_auto_tool_choice") and args.get("tool_call_parser")),
        "image": asked.image and model.images and not args.get("language_model_only"),
    }
    unforced = args.get("tool_call_parser") in engines()[line.engine].unforced_tool_parsers
    changes["tool_call_unforced"] = bool(changes["tool_call"] and unforced)
    if "throughput" in model.model_fields_set:
        changes["throughput"] = model.throughput
    if speculative:
        changes |= {str(name): gate for name, gate in line.gate_overrides.items()}
    return asked.model_copy(update=changes)


def find_image(catalog: Catalog, tag: str, image_line: str | None) -> tuple[Image, Line, bool]:
    """Return the image's row, its line, and whether the catalogue knows the tag.

    An unknown tag needs `image_line`, the id of a known line or tag that it behaves like; `latest` is never taken.
    """
    if tag == "latest":
        raise refusal("image-latest", "image_tag is 'latest'", f"one of {', '.join(sorted(catalog.images))}")
    if tag in catalog.images and image_line is None:
        image = catalog.images[tag]
        return image, catalog.line_of(image), True
    tags, lines = ", ".join(sorted(catalog.images)), ", ".join(sorted(catalog.lines))
    if image_line is None:
        found = f"image_tag '{tag}' is not in the catalogue{nearest(tag, list(catalog.images))}"
        raise refusal("image-unknown", found, f"one of {tags}; or image_line with one of {lines}")
    like = catalog.images.get(image_line)
    line_id = like.line if like else image_line
    if line_id not in catalog.lines:
        found = f"image_line '{image_line}' is neither a line nor a tag{nearest(image_line, list(catalog.lines))}"
        raise refusal("image-unknown", found, f"a line ({lines}) or a known tag")
    known = catalog.images.get(tag)
    # The tag's own version belongs to its own line.
    version = like.engine_version if like else None
    if known is not None:
        image = known.model_copy(update={"line": line_id, "engine_version": version})
        return image, catalog.line_of(image), True
    image = Image(
        repository=(like or next(row for row in catalog.images.values() if row.line == line_id)).repository,
        line=line_id,
        engine_version=version,
        state="candidate",
        sources={"*": f"declared by image_line: {image_line}"},
    )
    return image, catalog.line_of(image), False


R = TypeVar("R")


def _known(kind: str, row_id: str, rows: Mapping[str, R]) -> R:
    if row_id not in rows:
        found = f"{kind} '{row_id}' is not in the catalogue{nearest(row_id, list(rows))}"
        raise refusal("catalogue-id", found, f"one of {', '.join(sorted(rows))}")
    return rows[row_id]


def _prefix_caching(profile: Profile, line: Line, with_drafter: bool) -> bool:
    """vLLM turns prefix caching on when the flag is left out, so «off» must be written as well."""
    if profile.prefix_caching != "auto":
        return profile.prefix_caching == "on"
    if with_drafter and line.drafter is not None:
        return line.drafter.prefix_caching == "safe"
    return True


def _override(
    args: dict[str, Scalar], speculative: dict[str, Any] | None, choice: Choice, line: Line
) -> tuple[Override, ...]:
    contract = contract_for(line.engine_version, line.engine)
    reserved = engines()[line.engine].reserved
    overridden = []
    for key, value in sorted(choice.overrides.items()):
        if key in SPECULATIVE_KEYS:
            overridden.append(_override_speculative(speculative, key, value, choice))
            continue
        flag = contract.flags.get(key)
        if key in reserved or flag is None:
            known = [name for name in [*contract.flags, *SPECULATIVE_KEYS] if name not in reserved]
            what = "is set by the recipe itself" if key in reserved else "is no argument of the engine"
            expected = f"an argument of {contract.engine} in snake_case, {' or '.join(list(SPECULATIVE_KEYS)[:2])}"
            raise refusal("override-unknown", f"override '{key}' {what} ({contract}){nearest(key, known)}", expected)
        before = args.pop(key, None)
        if value is not None:
            if problem := flag.problem_with(value):
                expected = f"a value that {flag.option} accepts ({contract})"
                raise refusal("override-value", f"override '{key}' {problem}", expected)
            args[key] = flag.canonical(value)
        overridden.append(Override(key, args.get(key), before))
    return tuple(overridden)


def _override_speculative(speculative: dict[str, Any] | None, key: str, value: object, choice: Choice) -> Override:
    if speculative is None:
        raise refusal(
            "override-drafter",
            f"override '{key}' has no drafter to apply to: profile {choice.profile} with model {choice.model} on image "
            f"{choice.image_tag} serves without one",
            "a model, a profile and an image with a drafter",
        )
    wanted: type = int if key == "num_speculative_tokens" else str
    if not isinstance(value, wanted) or isinstance(value, bool):
        raise refusal("override-value", f"override '{key}' takes {wanted.__name__}, not {value!r}", wanted.__name__)
    if isinstance(value, str) and not value.isprintable():
        raise refusal("override-value", f"override '{key}' takes printable text, not {value!r}", "printable text")
    before = speculative.get(SPECULATIVE_KEYS[key])
    speculative[SPECULATIVE_KEYS[key]] = value
    return Override(key, value, before)
