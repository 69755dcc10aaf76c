"""Every setting, with its default. A group's file (group_data/GROUP.py), a host's entry in the inventory and
`--data key=value` override it, in this order.

Ids of models, images, profiles and hardware come from catalog/; `python -m sparkfleet show HOST` prints what they give.
"""

# --- what is served -------------------------------------------------------------------------------
# A row of catalog/models.yaml. The drafter comes with its target; they are locked, staged and removed together.
model = "gemma4-26b-a4b-nvfp4"

# A row of catalog/images.yaml. Change it here to roll the fleet, `--data image_tag=…` for a trial. The flags, variables
# and the drafter's attention backend that the image needs follow from it, forwards and backwards.
image_tag = "2026-06-11-pr41703"

# For a tag that the catalogue does not know: the known line or tag that it behaves like. Said in every plan and table.
image_line = None

# A row of catalog/profiles.yaml: agentic (262,144 tokens of context, 64 sequences) or production (184,320 and 32), …
profile = "agentic"

# A row of catalog/hardware.yaml.
hardware = "gb10"

# Single vLLM arguments in snake_case that this host or group sets differently, e.g. {"max_num_seqs": 16}; also
# num_speculative_tokens and drafter_attention_backend. They pass the same rules as everything else.
overrides = {}

# How the container gets the GPU: "gpus" (--gpus all) or "cdi" (--device nvidia.com/gpu=all). With CDI a systemd
# daemon-reload cannot take the GPU away from running containers.
gpu_injection = "gpus"

# --- who may use it -------------------------------------------------------------------------------
# A file on the node, readable by root alone, that holds VLLM_API_KEY=…; the tool never reads the key itself.
api_key_file = None

# Without a key the model is reachable by everyone who reaches the port. That is refused unless the reason stands here.
allow_unauthenticated = None

# Whose acceptance of a model's terms this fleet relies on, by model:
# {"gemma4-26b-a4b-nvfp4": {"by": "name", "on": "2026-11-01"}}.
terms_accepted = {}

# --- where it comes from --------------------------------------------------------------------------
# Digests, commits, sizes and hashes; written by `python -m sparkfleet lock`, reviewed in version control.
lock_file = "fleet.lock.json"

# More catalogue folders, on top of catalog/ (relative to the repository's root).
catalog_overlays = []

# Another Hub than Hugging Face's (a mirror); None = HF_ENDPOINT or the default.
hub_endpoint = None

# Where images of a registry are pulled from instead: {"ghcr.io": "http://10.0.0.5:5000"}. Digests are checked all
# the same.
registry_mirrors = {}

# Where the controller keeps what it downloaded, so that weights cross the WAN once.
artefact_cache = ".sparkfleet/artefacts"

# How many hosts receive weights at the same time.
sync_parallel = 4

# --- how a roll-out goes --------------------------------------------------------------------------
# The group whose hosts go first, as a wave of their own; None = no canaries.
canary_group = "canary"

# How many hosts a wave stops at the same time. Each is out of service for one engine start.
batch_size = 1

# Preflight failures to pass over, by id, for a run that you watch: --data 'force_preflight=["mem.available"]'.
force_preflight = []
