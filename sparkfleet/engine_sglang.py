"""SGLang as the model card starts it: `python3 -m sglang.launch_server` with the model, the address and the port.

The HTTP side was read from SGLang 0.5.23: /health generates a token and is 503 while loading and while draining; the
acceptance figures are gauges of the moment, which no gate may read as if they were totals, so the nodes refuse to
activate such a release.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparkfleet.catalog import Model, Profile, Scalar
from sparkfleet.engine import Api, Engine, flag_words

if TYPE_CHECKING:
    from sparkfleet.recipe import Recipe

CARD_ORDER = ("host", "port", "served_model_name")


def _model_arguments(model: Model, _: Profile) -> dict[str, Scalar]:
    # SGLang serves one name; without the flag it would be the path inside the container.
    return {"served_model_name": model.served_names[0]}


def _arguments(recipe: Recipe) -> list[str]:
    rest = sorted(key for key in recipe.args if key not in CARD_ORDER)
    arguments = ["--model-path", recipe.model.container_path]
    for key in [*(key for key in CARD_ORDER if key in recipe.args), *rest]:
        arguments += flag_words(recipe, key, recipe.args[key])
    return arguments


SGLANG = Engine(
    kind="sglang",
    program=("-m", "sglang.launch_server"),
    model_arguments=_model_arguments,
    arguments=_arguments,
    docker_options=("--shm-size", "32g"),
    caches={"flashinfer": "/root/.cache/flashinfer", "triton": "/root/.triton"},
    memory_argument="mem_fraction_static",
    context_argument="context_length",
    reserved=frozenset({"model_path", "served_model_name", "config", "api_key", "admin_api_key"}),
    key_variable=None,
    ready_timeout=None,
    deployable=False,
    api=Api(
        readiness_path="/health",
        readiness_generates=True,
        identity_path="/v1/models",
        version_path="/server_info",
        metrics_path="/metrics",
        metrics={
            "running": "sglang:num_running_reqs",
            "waiting": "sglang:num_queue_reqs",
            "acceptance_rate": "sglang:spec_accept_rate",
            "mean_acceptance_length": "sglang:spec_accept_length",
        },
        acceptance_is_counter=False,
        health_while_draining=503,
    ),
)
