"""The same engine in every form that people keep it in: a script, a unit, a Compose file, a pasted line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.sparkfleet.interop.asking import DRAFTER, IMAGE, SECRET, TARGET, ask, given, refused, served

CONFIG = json.dumps({"method": "dflash", "model": "/models/gemma4-dflash", "num_speculative_tokens": 10})
WORDS = (
    "serve /models/gemma4 --served-model-name gemma --host 0.0.0.0 --port 8000 --max-model-len 32768 --max-num-seqs 16"
    f" --gpu-memory-utilization 0.65 --speculative-config '{CONFIG}'"
)
SCRIPT = f"""#!/usr/bin/env bash
set -euo pipefail
IMAGE="${{IMAGE:-{IMAGE}}}"       # a dated one
MODELS=${{MODELS_DIR:-$HOME/models}}
PORT=8000; NAME=gemma
FLAGS=(
  --served-model-name gemma --host 0.0.0.0   # names
  --port "$PORT"
)
FLAGS+=(--max-model-len 32768 --max-num-seqs 16)
if [ -z "${{HF_TOKEN:-}}" ]; then echo "no token" >&2; exit 1; fi
docker pull "$IMAGE"
docker rm -f "$NAME" 2>/dev/null || true
sudo docker run -d --restart unless-stopped \\
  --name "$NAME" --gpus all --ipc=host --net=host `# the GPU` \\
  -e HF_TOKEN -eVLLM_ALLOW_LONG_MAX_MODEL_LEN=1 \\
  -v "$MODELS/gemma4:/models/gemma4:ro" -v $MODELS/gemma4-dflash:/models/gemma4-dflash:ro \\
  -v ~/.cache/vllm:/root/.cache/vllm \\
  --entrypoint vllm "$IMAGE" \\
  serve /models/gemma4 "${{FLAGS[@]}}" --gpu-memory-utilization 0.65 \\
  --speculative-config '{CONFIG}' "$@" > /tmp/engine.log 2>&1 &
for i in $(seq 1 60); do curl -sf "http://localhost:$PORT/health" && break; sleep 5; done
"""
UNIT = f"""[Unit]
Description=An engine
After=docker.service

[Service]
Environment=PORT=8000
Environment="MODELS=/srv/models" "UTILIZATION=0.65"
ExecStartPre=-/usr/bin/docker rm -f gemma
ExecStart=
ExecStart=/usr/bin/docker run --rm --name %p --gpus all --ipc=host --network=host \\
  -e HF_TOKEN -e VLLM_ALLOW_LONG_MAX_MODEL_LEN=1 \\
  -v ${{MODELS}}/gemma4:/models/gemma4:ro -v ${{MODELS}}/gemma4-dflash:/models/gemma4-dflash:ro \\
  # the tag that was measured
  --entrypoint vllm {IMAGE} \\
  serve /models/gemma4 --served-model-name gemma --host 0.0.0.0 --port ${{PORT}} --max-model-len 32768 \\
  --max-num-seqs 16 --gpu-memory-utilization $UTILIZATION --speculative-config '{CONFIG}'
ExecStop=/usr/bin/docker stop gemma
Restart=always

[Install]
WantedBy=multi-user.target
"""
SERVICE: dict[str, Any] = {
    "image": "${REGISTRY:-ghcr.io}/aeon-7/aeon-vllm-ultimate:2026-06-18-v0.23.0-dflashfix",
    "container_name": "gemma",
    "restart": "unless-stopped",
    "ipc": "host",
    "network_mode": "host",
    "environment": {"VLLM_ALLOW_LONG_MAX_MODEL_LEN": 1, "HF_TOKEN": "${HF_TOKEN:-}"},
    "volumes": [
        "./models/gemma4:/models/gemma4:ro",
        {"type": "bind", "source": "./models/gemma4-dflash", "target": "/models/gemma4-dflash"},
    ],
    "deploy": {"resources": {"reservations": {"devices": [{"driver": "nvidia", "capabilities": ["gpu"]}]}}},
    "command": f"vllm {WORDS.replace('8000', '${PORT:-8000}')}",
}
COMPOSE = yaml.safe_dump({"services": {"engine": SERVICE, "webui": {"image": "ghcr.io/open-webui/open-webui:main"}}})
LISTED = yaml.safe_dump(
    {
        "services": {
            "engine": {
                **SERVICE,
                "entrypoint": "vllm",
                "environment": ["VLLM_ALLOW_LONG_MAX_MODEL_LEN=1", "HF_TOKEN"],
                "command": ["serve", "/models/gemma4", *WORDS.split(" '")[0].split()[2:], CONFIG],
            }
        }
    }
)
SHELL = f"""docker run --gpus all -e VLLM_ALLOW_LONG_MAX_MODEL_LEN=1 -e PORT=8000 --entrypoint bash {IMAGE} -lc \\
'exec vllm {WORDS.replace("8000", "$PORT").replace("'", '"').replace(CONFIG, CONFIG.replace('"', chr(92) + '"'))}'
"""


def compose(**changes: Any) -> str:
    row = {key: value for key, value in {**SERVICE, **changes}.items() if value is not None}
    return yaml.safe_dump({"services": {"engine": row}})


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        (SCRIPT, "start.sh"),
        (UNIT, "gemma.service"),
        (COMPOSE, "compose.yaml"),
        (LISTED, "compose.yaml"),
        (SHELL, "a.sh"),
    ],
    ids=["script", "unit", "compose", "compose-lists", "shell-inside"],
)
def test_every_form_gives_the_same_release(text: str, origin: str, tmp_path: Path) -> None:
    imported = ask(text, origin)
    assert (imported.model, imported.image_tag) == ("gemma4-26b-a4b-nvfp4", "2026-06-18-v0.23.0-dflashfix")
    assert given(imported) == {
        "host": "0.0.0.0", "port": 8000, "max_model_len": 32768, "max_num_seqs": 16, "gpu_memory_utilization": 0.65,
    }  # fmt: skip
    assert imported.row["speculative"] is True
    assert imported.row["served_names"] == ["gemma"]
    release = served(imported, tmp_path).release
    env = {key: value for key, value in release.container.env.items() if key != "PORT"}
    assert env == {"VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1", "VLLM_ENGINE_READY_TIMEOUT_S": "2400"}


@pytest.mark.parametrize(
    "line",
    [
        f"vllm serve {TARGET} --port 8001",
        f"$ VLLM_USE_V1=1 vllm serve {TARGET} \\\n    --port 8001",
        f"```bash\nexport VLLM_USE_V1=1\nexec vllm serve {TARGET} --port=8001\n```",
        f"/opt/venv/bin/vllm serve {TARGET} --port 8001",
        f"python3 -m vllm.entrypoints.openai.api_server --model {TARGET} --port 8001",
        f"sudo -E env VLLM_USE_V1=1 nohup vllm serve {TARGET} --port 8001 &",
    ],
)
def test_a_pasted_line_is_read(line: str) -> None:
    imported = ask(line, "line.txt")
    assert given(imported)["port"] == 8001
    assert imported.row.get("env", {}) in ({}, {"VLLM_USE_V1": "1"})
    assert "it names no image" in "\n".join(imported.notes)


@pytest.mark.parametrize(
    "command",
    [
        f"--model {TARGET} --port 8001",
        f"{TARGET} --port 8001",
        f"vllm serve {TARGET} --port 8001",
        f"python3 -m vllm.entrypoints.openai.api_server --model {TARGET} --port 8001",
        f"bash -c 'vllm serve {TARGET} --port 8001'",
        f'sh -c "export A=1 && echo; vllm serve {TARGET} --port 8001"',
    ],
)
def test_what_follows_the_official_image_is_the_engines_command(command: str) -> None:
    image = "vllm/vllm-openai@sha256:9eff9734a30b6713a8566217d36f8277630fd2d31cec7f0a0292835901a23aa4"
    if "&&" in command:
        assert "needs a shell: echo" in refused(f"docker run --gpus all {image} {command}")
        return
    imported = ask(f"docker run --gpus all -p 8001:8001 {image} {command}")
    assert given(imported)["port"] == 8001
    assert imported.image_tag == "vllm-openai-2026-05-06"


HF = "/root/.cache/huggingface/hub/models--AEON-7--Gemma-4-26B-A4B-it-Uncensored-NVFP4/snapshots/"
COMMIT = "1d7e8dbc4456fedeacd12e5308c7d43fd489dfa6"


@pytest.mark.parametrize(
    ("mount", "folder", "note"),
    [
        ("/srv/AEON-7/Gemma-4-26B-A4B-it-Uncensored-NVFP4:/model", "/model", ""),
        ("/srv/gemma-4-26b-a4b-it-uncensored-nvfp4:/weights", "/weights", ""),
        ("/srv/AEON-7:/models", "/models/Gemma-4-26B-A4B-it-Uncensored-NVFP4", ""),
        (f"{HF}{COMMIT}:/m", "/m", ""),
        (f"{HF}{'0' * 40}:/m", "/m", f"Its folder is of revision {'0' * 40}; a release serves {COMMIT}"),
        ("~/.cache/huggingface:/root/.cache/huggingface", f"{HF}{COMMIT}", ""),
        ("/srv/anything:/models/gemma4", "/models/gemma4", "was taken for"),
    ],
)
def test_a_folder_is_recognised_by_what_is_mounted_there(mount: str, folder: str, note: str) -> None:
    imported = ask(f"docker run -v {mount} {IMAGE} vllm serve {folder} --port 8000")
    assert imported.model == "gemma4-26b-a4b-nvfp4"
    assert note in "\n".join(imported.notes)


def test_a_folder_of_several_models_needs_a_word() -> None:
    script = f"docker run -v /srv/31b:/models/gemma4-31b {IMAGE} vllm serve /models/gemma4-31b --port 8000"
    assert "name its model with --model" in "\n".join(ask(script).notes)
    assert ask(script, model="gemma4-31b-deckard-awq").model == "gemma4-31b-deckard-awq"
    assert "model 'no-such' is not in the catalogue" in refused(script, model="no-such")


TWO = f"docker run --name a {IMAGE} vllm serve /models/gemma4 --port 8000\n" * 2
TWO = TWO.replace("name a", "name b", 1)
TWO_SERVICES = yaml.safe_dump({"services": {"one": SERVICE, "two": SERVICE}})


def test_of_several_engines_one_is_chosen() -> None:
    assert "starts 2 engines: b, a" in refused(TWO)
    assert ask(TWO, service="a").row["args"]["port"] == 8000
    assert "2 services that start vLLM: one, two" in refused(TWO_SERVICES, "compose.yaml")
    assert ask(TWO_SERVICES, "compose.yaml", service="two").profile_id == "two"
    assert "no service 'three'" in refused(TWO_SERVICES, "compose.yaml", service="three")


@pytest.mark.parametrize(
    ("text", "origin", "said"),
    [
        (f"docker run --privileged {IMAGE} vllm serve {TARGET}", "a.sh", "docker run --privileged"),
        (f"docker run --user 1000 {IMAGE} vllm serve {TARGET}", "a.sh", "docker run --user 1000"),
        (f"docker run {IMAGE} python3 serve.py", "a.sh", "the command starts with 'bash python3'"),
        (
            f"docker run {IMAGE} bash -c 'pip install x && vllm serve {TARGET}'",
            "a.sh",
            "needs a shell: &&, pip install x",
        ),
        (f"docker run {IMAGE} vllm serve {TARGET} --port $PORT", "a.sh", "the command needs a shell: ${PORT}"),
        (f"for m in a b; do docker run {IMAGE} vllm serve $m; done", "a.sh", "the command needs a shell: ${m}"),
        (f"docker run -e A=$HOME/x {IMAGE} vllm serve {TARGET}", "a.sh", "env.A refers to another variable: ${HOME}/x"),
        ("docker run $IMAGE vllm serve m", "a.sh", "the image is ${IMAGE}"),
        ("docker run ghcr.io/aeon-7/aeon-vllm-ultimate:latest vllm serve m", "a.sh", "image-latest"),
        ("docker run ghcr.io/aeon-7/aeon-vllm-ultimate vllm serve m", "a.sh", "image-latest"),
        ("docker run vllm/vllm-openai:nightly --model m", "a.sh", "image-latest"),
        ("docker run vllm/vllm-openai:latest --model m", "a.sh", "vllm/vllm-openai@sha256:9eff9734"),
        (f"docker build -t {IMAGE} .\ndocker run {IMAGE} vllm serve m", "a.sh", "docker build changes what runs"),
        (f"pip install x\nvllm serve {TARGET}", "a.sh", "'pip install x' changes the engine"),
        (f"docker run {IMAGE} vllm serve 'm", "a.sh", "a quote is not closed"),
        ("docker run", "a.sh", "docker run names no image"),
        (
            f"docker run -v ./p.py:/usr/lib/python3/dist-packages/vllm/x.py {IMAGE} vllm serve {TARGET}",
            "a.sh",
            "a mount replaces /usr/lib/python3/dist-packages/vllm/x.py",
        ),
        (
            f"docker run -v ./t.jinja:/t.jinja {IMAGE} vllm serve {TARGET} --chat-template /t.jinja",
            "a.sh",
            "the engine reads /t.jinja, which is mounted from ./t.jinja",
        ),
        (f"docker run {IMAGE} vllm serve {TARGET} --tokenizer other/model", "a.sh", "--tokenizer is other/model"),
        (f"docker run {IMAGE} vllm serve {TARGET} --lora-modules a=b", "a.sh", "--lora-modules"),
        (f"docker run {IMAGE} vllm serve {TARGET} --config x.yaml", "a.sh", "--config reads arguments from a file"),
        ("echo vllm serve", "a.sh", "the script starts no engine"),
        ("just some words", "a.txt", "it starts no engine that is known here"),
        ("apiVersion: v1\nkind: Pod\n", "pod.yaml", "it is a Kubernetes manifest"),
        ("[Service]\nExecStart=/usr/local/bin/start.sh\n", "a.service", "starts with '/usr/local/bin/start.sh'"),
        ("[Service]\nType=simple\n", "a.service", "the unit has 0 ExecStart"),
        ("[Container]\nImage=x\nExec=vllm serve m\n", "a.container", "Podman Quadlet"),
        (compose(build="."), "compose.yaml", "services.engine.build builds an image"),
        (compose(extends={"file": "x.yaml"}), "compose.yaml", "services.engine.extends"),
        (compose(privileged=True), "compose.yaml", "services.engine.privileged"),
        (compose(image=None), "compose.yaml", "services.engine names no image"),
        (compose(image="${IMAGE}"), "compose.yaml", "the image is ${IMAGE}"),
        (compose(environment={"A": "${B}"}), "compose.yaml", "env.A refers to another variable: ${B}"),
        ("services: {db: {image: postgres}}", "compose.yaml", "no service of the Compose file starts vLLM: db"),
    ],
)
def test_what_has_no_place_is_refused_with_its_reason(text: str, origin: str, said: str) -> None:
    assert said in refused(text, origin)


@pytest.mark.parametrize(
    ("text", "origin", "said"),
    [
        (f"docker run --cap-add SYS_NICE {IMAGE} vllm serve {TARGET}", "a.sh", "of the container: --cap-add"),
        (f"docker run -p 9000:8000 {IMAGE} vllm serve {TARGET}", "a.sh", "published on port 9000"),
        (f"sysctl -w vm.swappiness=1\nvllm serve {TARGET}", "a.sh", "The script also runs sysctl"),
        (f"while true; do docker run {IMAGE} vllm serve {TARGET}; done", "a.sh", "started inside 'loop'"),
        (f"vllm serve {TARGET} | tee log", "a.sh", "piped on"),
        (f"vllm serve {TARGET} --download-dir /x", "a.sh", "--download-dir is left out"),
        (f"vllm serve {TARGET} --revision {'0' * 40}", "a.sh", f"--revision is {'0' * 40}, and a release serves"),
        ("[Service]\nEnvironmentFile=/etc/x\nExecStart=/bin/vllm serve m\n", "a.service", "EnvironmentFile are not in"),
        (
            "[Service]\nExecStartPre=/bin/modprobe x\nExecStart=vllm serve m\n",
            "a.service",
            "ExecStartPre=/bin/modprobe x",
        ),
        (compose(env_file=".env"), "compose.yaml", "of the container: env_file"),
        (compose(image="example/own:cu130-nightly"), "compose.yaml", "example/own:cu130-nightly moves"),
        (compose(image="example/own:nightly-20260901"), "compose.yaml", "is not in catalog/images.yaml: add it"),
        (
            "[Service]\nEnvironment=P=8001\n"
            f"ExecStart=/bin/bash -c 'exec docker run {IMAGE} vllm serve {TARGET} --port $P'",
            "a.service",
            "Read as a systemd unit",
        ),
        (compose(image="example/own:latest"), "compose.yaml", "image-latest: example/own:latest moves"),
        (f"docker run example/own vllm serve {TARGET}", "a.sh", "image-latest: example/own moves"),
        (f"docker run --cgroup-parent app.slice {IMAGE} python3 /bin/vllm serve {TARGET}", "a.sh", "--cgroup-parent"),
        (
            f"[Service]\nExecStart=/usr/bin/env -i A=1 /usr/bin/docker run {IMAGE} vllm serve {TARGET}"
            ' --mm-processor-kwargs \'{"classifier_from_token": ["no", "yes"]}\' --port 8000\n',
            "a.service",
            "For model: gemma4-26b-a4b-nvfp4",
        ),
        (compose(image="example/own:1"), "compose.yaml", "example/own:1 is not in catalog/images.yaml: add it"),
        (f"docker run {IMAGE}@sha256:{'1' * 64} vllm serve {TARGET}", "a.sh", "the lock decides"),
    ],
)
def test_what_changes_nothing_is_noted(text: str, origin: str, said: str) -> None:
    assert said in "\n".join(ask(text, origin).notes)


KEEPING = {
    "a flag": f"vllm serve {TARGET} --api-key {SECRET}",
    "a flag in one word": f"vllm serve {TARGET} --api-key={SECRET}",
    "a flag with an underscore": f"vllm serve {TARGET} --api_key {SECRET}",
    "the hub's token": f"vllm serve {TARGET} --hf-token {SECRET}",
    "a variable in front": f"HF_TOKEN={SECRET} vllm serve {TARGET}",
    "an exported one": f"export HF_TOKEN={SECRET}\nvllm serve {TARGET}",
    "docker -e": f"docker run -e VLLM_API_KEY={SECRET} {IMAGE} vllm serve {TARGET}",
    "docker --env=": f"docker run --env=HUGGING_FACE_HUB_TOKEN={SECRET} {IMAGE} vllm serve {TARGET}",
    "docker -e of the script's own": f"HF_TOKEN={SECRET}\ndocker run -e HF_TOKEN {IMAGE} vllm serve {TARGET}",
    "a default": f'docker run -e HF_TOKEN="${{HF_TOKEN:-{SECRET}}}" {IMAGE} vllm serve {TARGET}',
    "a header": f'vllm serve {TARGET} &\ncurl -H "Authorization: Bearer {SECRET}" localhost',
    "in JSON": f'vllm serve {TARGET} --kv-transfer-config \'{{"api_key": "{SECRET}"}}\'',
    "by its shape alone": f"docker run -e OTEL_EXPORTER_OTLP_HEADERS=x={SECRET} {IMAGE} vllm serve {TARGET}",
    "inside a shell": f"docker run {IMAGE} bash -c 'HF_TOKEN={SECRET} vllm serve {TARGET}'",
    "a URL": f"vllm serve {TARGET} --otlp-traces-endpoint http://me:{SECRET}@host",
    "unit Environment=": f'[Service]\nEnvironment="HF_TOKEN={SECRET}"\nExecStart=/bin/vllm serve {TARGET}\n',
    "unit ExecStart=": f"[Service]\nExecStart=/usr/bin/docker run -e HF_TOKEN={SECRET} {IMAGE} vllm serve {TARGET}\n",
    "compose map": compose(environment={"HF_TOKEN": SECRET}),
    "compose list": compose(environment=[f"VLLM_API_KEY={SECRET}"]),
    "compose default": compose(environment={"HF_TOKEN": f"${{HF_TOKEN:-{SECRET}}}"}),
    "compose command": compose(command=f"vllm serve {TARGET} --api-key {SECRET}"),
    "compose healthcheck": compose(healthcheck={"test": ["CMD", "curl", "-H", f"Authorization: Bearer {SECRET}"]}),
}


@pytest.mark.parametrize("text", KEEPING.values(), ids=KEEPING.keys())
def test_a_secret_is_refused_in_any_form_and_never_repeated(text: str) -> None:
    origin = "x.service" if text.startswith("[") else "compose.yaml" if text.startswith("services") else "a.sh"
    said = refused(text, origin)
    assert "looks like a secret" in said
    assert SECRET not in said


@pytest.mark.parametrize(
    "text",
    [
        f"docker run -e HF_TOKEN=$HF_TOKEN {IMAGE} vllm serve {TARGET}",
        f'docker run -e HF_TOKEN="${{HF_TOKEN:?set it}}" {IMAGE} vllm serve {TARGET}',
        f"vllm serve {TARGET} --api-key $VLLM_API_KEY",
        f'vllm serve {TARGET} --api-key "$(cat /run/secrets/key)"',
        f"docker run -e TOKENIZERS_PARALLELISM=false {IMAGE} vllm serve {TARGET} --max-num-batched-tokens 8192",
    ],
)
def test_a_reference_is_no_secret(text: str) -> None:
    imported = ask(text)
    assert not {name for name in imported.row.get("env", {}) if "HF" in name or "API" in name}
    assert "api_key" not in imported.row["args"]


def test_profiles_are_named_after_their_files_and_never_like_one_that_there_is() -> None:
    assert ask(SCRIPT, "gemma-fast.sh").profile_id == "gemma-fast"
    assert ask(SCRIPT, "start.sh").profile_id == "gemma"
    assert ask(SCRIPT, "agentic.sh").profile_id == "agentic-2"
    assert ask(f"vllm serve {TARGET}", "run.sh").profile_id == "gemma-4-26b-a4b-it-uncensored-nvfp4"


def test_the_drafter_of_the_cards_folder_is_the_catalogues() -> None:
    assert DRAFTER in refused(SCRIPT.replace("/models/gemma4-dflash", "/elsewhere"))
