"""From names to a recipe: which flags, variables and drafter settings serve this model on this image.

Pure: catalogue rows and a choice in, a `Recipe` out. Whether the recipe may run is decided in
`sparkfleet.release.rules`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from sparkfleet.catalog.catalog import Catalog, Drafter, Hardware, Image, Line, Model, Profile, Scalar
from sparkfleet.catalog.contract import Contract
from sparkfleet.catalog.rows import AcceptanceGate, DrafterSupport, Floor, Gates, Throughput, Timing
from sparkfleet.errors import nearest
from sparkfleet.release.argument_names import refuse_arguments, refuse_speculation, refuse_variables
from sparkfleet.release.engine import Engine, engines
from sparkfleet.release.rules.book import refusal
from sparkfleet.release.speculation import SCHEDULE, Speculation, expected_length, single_stream_tokens, speculation

SPECULATIVE_KEYS = {
    "num_speculative_tokens": "num_speculative_tokens",
    SCHEDULE: SCHEDULE,
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
    # What clients ask for; None takes the profile's names, or else the model's.
    served_names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Override:
    """One argument that the host sets differently; `instead_of` is what profile, model and image would give."""

    key: str
    value: Any
    instead_of: Any

    def words(self) -> str:
        """Say it for the plan: «max_num_seqs: 16 instead of 64»."""
        if self.value == self.instead_of:
            return f"{self.key}: {_words(self.value)}, as without the override"
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
    speculation: Speculation | None
    speculative: dict[str, Any] | None
    env: dict[str, str]
    served_names: tuple[str, ...]
    timing: Timing
    gates: Gates
    overridden: tuple[Override, ...]

    @property
    def contract(self) -> Contract:
        return self.line.contract

    @property
    def engine(self) -> Engine:
        return engines()[self.line.engine]

    @property
    def drafter(self) -> Drafter | None:
        """The drafter that is staged and mounted beside the target."""
        return self.speculation.drafter if self.speculation else None

    @property
    def support(self) -> DrafterSupport | None:
        """What the image's line needs of the method that this recipe drafts with."""
        return self.speculation.support if self.speculation else None

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

    @property
    def port(self) -> int:
        """The port, which the rules hold to a number before anything is made of it."""
        return int(self.number("port") or 0)

    def within(self, place: str) -> Any:
        """Return one value out of an argument that takes JSON: «attention_config.backend»."""
        name, _, path = place.partition(".")
        value: Any = self.args.get(name)
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError:
                return None
        for key in path.split(".") if path else ():
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def forms(self, name: str) -> list[Any]:
        """Return what an argument is set to in each form that sets it: its own flag, then keys of JSON arguments."""
        places = [place for place, same in self.engine.same_choice.items() if same == name]
        return [value for value in (self.args.get(name), *map(self.within, places)) if value is not None]

    def chosen(self, name: str) -> Any:
        """Return an argument's value, whichever form it was given in."""
        return next(iter(self.forms(name)), None)

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

    contract, engine = line.contract, engines()[line.engine]
    for where, given in (
        (f"profile {choice.profile}", profile.args),
        (f"image line {image.line}", line.args),
        ("an override", {key: value for key, value in choice.overrides.items() if key not in SPECULATIVE_KEYS}),
    ):
        refuse_arguments(where, given, contract, engine.reserved)
    drafter = model.chosen_drafter(profile.drafter)
    staged = drafter.container_path if drafter else None
    refuse_speculation(f"profile {choice.profile}", profile.speculative_args, staged)
    refuse_variables(f"profile {choice.profile}", profile.env)
    refuse_variables(f"image line {image.line}", line.env)

    drafting = speculation(model, profile, line, image.line)
    names = choice.served_names or tuple(profile.served_names or model.served_names)
    args = {**line.args, **profile.args, **engine.model_arguments(model, profile, names)}
    caching = _prefix_caching(profile, drafting) if line.engine == "vllm" else None
    if caching is not None:
        args["enable_prefix_caching"] = caching
    speculative = dict(drafting.config) if drafting else None
    deadline = max(profile.timing.load_deadline_s, line.load_deadline_s or 0)
    env = {**line.env, **engine.waiting(deadline), **profile.env}
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
        speculation=drafting,
        speculative=speculative,
        env={key: value for key, value in env.items() if value is not None},
        served_names=names,
        timing=profile.timing.model_copy(update={"load_deadline_s": deadline}),
        gates=_gates(profile, model, line, image.line, args, speculative, drafting),
        overridden=overridden,
    )


def _canonical(line: Line, key: str, value: Scalar) -> Scalar:
    flag = line.contract.flags.get(key)
    canonical: Scalar = flag.canonical(value) if flag and not flag.problem_with(value) else value
    return canonical


def _gates(
    profile: Profile,
    model: Model,
    line: Line,
    line_id: str,
    args: Mapping[str, Scalar],
    speculative: Mapping[str, Any] | None,
    drafting: Speculation | None,
) -> Gates:
    """The model's speed goes before the profile's; floors of acceptance are the profile's where it names some, and else
    those of the model on this line. What the engine is not started for is not asked of it.
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
    if speculative is not None and drafting is not None:
        # They were published for the model's own drafter.
        floors = model.floors.get(line_id) if drafting.drafter and drafting.drafter == model.drafter else None
        tokens = single_stream_tokens(speculative)
        for kind in ("short", "long", "very_long"):
            gate: AcceptanceGate | None = getattr(asked, kind)
            if gate is None or gate.has_floor or drafting.drafter is None:
                # A look-up or the target's own heads: nobody has published what they accept, so it is only measured.
                continue
            floor: Floor = getattr(floors, kind) if floors else profile.fallback_floor
            changes[kind] = _with_floor(gate, floor, floors.drafted_tokens if floors else None, tokens)
        if floors is not None and floors.min_tokens_per_second is not None:
            speed = changes.get("throughput") or asked.throughput or Throughput()
            changes["throughput"] = speed.model_copy(update={"min_tokens_per_second": floors.min_tokens_per_second})
        changes |= {str(name): gate for name, gate in line.gate_overrides.items()}
    return asked.model_copy(update=changes)


def _with_floor(gate: AcceptanceGate, floor: Floor, made_with: int | None, tokens: int | None) -> AcceptanceGate:
    """Hold a gate to a floor. A rate falls as drafts get longer, so it counts for the draft length that it was made
    with alone; with another one the mean acceptance length decides.
    """
    rate, length = floor.min_acceptance_rate, floor.min_mean_acceptance_length
    if made_with is not None and tokens is not None and tokens != made_with:
        rate, length = None, expected_length(length, made_with, tokens) if length is not None else None
    return gate.model_copy(update={"min_acceptance_rate": rate, "min_mean_acceptance_length": length})


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


def _prefix_caching(profile: Profile, drafting: Speculation | None) -> bool:
    """vLLM turns prefix caching on when the flag is left out, so «off» must be written as well."""
    if profile.prefix_caching != "auto":
        return profile.prefix_caching == "on"
    return drafting is None or drafting.support.prefix_caching == "safe"


def _override(
    args: dict[str, Scalar], speculative: dict[str, Any] | None, choice: Choice, line: Line
) -> tuple[Override, ...]:
    contract = line.contract
    reserved = engines()[line.engine].reserved
    overridden = []
    for key, value in sorted(choice.overrides.items()):
        if key in SPECULATIVE_KEYS:
            overridden.append(_override_speculative(speculative, key, value, choice))
            continue
        flag = contract.flags.get(key)
        if flag is None:
            known = [name for name in [*contract.flags, *SPECULATIVE_KEYS] if name not in reserved]
            expected = f"an argument of {contract.engine} in snake_case, {' or '.join(list(SPECULATIVE_KEYS)[:3])}"
            elsewhere = contract.elsewhere("options", f"--{key.replace('_', '-')}")
            found = f"override '{key}' is no argument of {contract}{elsewhere or nearest(key, known)}"
            raise refusal("override-unknown", found, expected)
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
    wanted: type = {"num_speculative_tokens": int, SCHEDULE: list}.get(key, str)
    if not isinstance(value, wanted) or isinstance(value, bool):
        raise refusal("override-value", f"override '{key}' takes {wanted.__name__}, not {value!r}", wanted.__name__)
    if isinstance(value, str) and not value.isprintable():
        raise refusal("override-value", f"override '{key}' takes printable text, not {value!r}", "printable text")
    before = speculative.get(SPECULATIVE_KEYS[key])
    speculative[SPECULATIVE_KEYS[key]] = value
    return Override(key, value, before)
