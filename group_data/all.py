"""Every setting, with its default. A group's file (group_data/GROUP.py), a host's entry in the inventory and
`--data key=value` override it, in this order: the last one wins.

Ids of models, images, profiles and hardware come from catalog/; `python -m sparkfleet show HOST` prints the result.
"""

from sparkfleet.node.transport import attentive as _attentive

# --- what to serve --------------------------------------------------------------------------------
# A row of catalog/models.yaml. The drafter comes with its target; the two are locked, staged and removed together.
model = "gemma4-26b-a4b-nvfp4"

# A row of catalog/images.yaml. Change it here to roll a tag out to the fleet; use `--data image_tag=…` for a trial. The
# tag decides the flags, the variables and the drafter's attention backend, for an upgrade and for a rollback.
image_tag = "2026-06-11-pr41703"

# For a tag that the catalogue does not know: the known line or tag that it behaves like. Every plan and table shows it.
image_line = None

# A row of catalog/profiles.yaml, such as agentic (262,144 tokens of context, 64 sequences) or production (184,320, 32).
profile = "agentic"

# A row of catalog/hardware.yaml.
hardware = "gb10"

# The names by which clients request the model; the gates use the first one. None = the profile's or the model's own.
# Every start of a release checks each of them.
served_names = None

# Single vLLM arguments in snake_case that this host or group sets differently, e.g. {"max_num_seqs": 16}; also
# num_speculative_tokens and drafter_attention_backend. The same rules apply to them as to everything else.
overrides = {}

# How the container gets the GPU: "gpus" (--gpus all) or "cdi" (--device nvidia.com/gpu=all). With CDI a systemd
# daemon-reload cannot take the GPU away from running containers.
gpu_injection = "gpus"

# --- who may use it -------------------------------------------------------------------------------
# A file on the node, readable by root alone, that holds VLLM_API_KEY=…; the key never leaves the node.
api_key_file = None

# Without a key, everyone who can reach the port can use the model. That is refused unless you give the reason here.
allow_unauthenticated = None

# Who accepted a model's terms, and when, by model: {"gemma4-26b-a4b-nvfp4": {"by": "name", "on": "2026-11-01"}}.
terms_accepted = {}

# --- where it comes from --------------------------------------------------------------------------
# Digests, commits, sizes and hashes. `python -m sparkfleet lock` writes it; review and commit it.
lock_file = "fleet.lock.json"

# More catalogue folders, on top of catalog/ (relative to the repository's root).
catalog_overlays = []

# A mirror of the Hugging Face Hub; None = HF_ENDPOINT or the default.
hub_endpoint = None

# Mirrors to pull a registry's images from: {"ghcr.io": "http://10.0.0.5:5000"}; Docker Hub is docker.io. Digests are
# checked with a mirror too.
registry_mirrors = {}

# Who downloads weights, once for the whole fleet: "seeds", a host of the group below (without such a group, the first
# host of the run, then the second if that fails), or "controller", this machine, for hosts without a WAN.
fetch_on = "seeds"
seed_group = "seeds"

# The package index from which a seed installs its download tool, e.g. "http://10.0.0.5:8080/simple"; None = the one in
# the host's own pip.conf or uv.toml, else PyPI. Hashes are pinned (catalog/hub-tool.txt). Put credentials into the
# host's netrc, not into this URL.
tool_index = None

# Where the controller keeps its downloads.
artefact_cache = ".sparkfleet/artefacts"

# The most that a download may take of the WAN, in megabytes a second; 0 = no limit.
fetch_limit_mb_s = 0

# How weights travel from host to host: "swarm" (aria2; fast for many hosts), "rsync" (from a host that has them),
# "auto" (a swarm if at least two hosts receive and all have aria2, else rsync), or "controller" (rsync over SSH from
# here to each host). The first three are not encrypted and need a LAN that you trust; every byte is verified on
# arrival. See docs/artefacts.md.
distribution = "auto"

# How images reach the hosts: "pull" (each host pulls from the registry, or from registry_mirrors), or "spread" (one
# host pulls, and the image goes to the others as weights do, for a slow WAN; uncompressed, so the LAN carries more).
image_distribution = "pull"

# The network to use between the hosts, e.g. "192.168.100.0/24", since SSH often does not use the fast link; None = the
# addresses by which this machine reaches the hosts.
spread_subnet = None

# The port on which a host listens while weights travel between hosts, and at no other time.
spread_port = 6891

# The most that each host may send, in megabytes a second, so that serving traffic keeps its share; 0 = no limit.
spread_limit_mb_s = 0

# Seconds after which the spread of one model ends, whatever is still missing.
spread_deadline_s = 7200

# With distribution = "controller": how many hosts receive at once.
sync_parallel = 4

# --- how a rollout proceeds -----------------------------------------------------------------------
# The group whose hosts go first, in waves of their own; None = no canaries.
canary_group = "canary"

# How many hosts a wave changes at once: a number, a share of the run's hosts ("25%", rounded down), or a ramp whose
# last step repeats. Each host is out of service for one engine start, a few minutes. The default tries a release on one
# host, confirms it on a tenth of them, then takes a quarter at a time.
batch_size = [1, "10%", "25%"]

# How many hosts of the run may be out of service at once, including those that were down before. One always may.
max_unavailable = "25%"

# How many hosts must serve at any time; a wave that would leave fewer does not start. 0 = max_unavailable decides.
min_serving = 0

# How many hosts may fail in the whole rollout without stopping it. A good release needs none.
max_failures = 0

# What to do with the hosts that already run the new release when one host fails or serves worse: "halt" leaves them,
# since each is verified; "revert_all" rolls them back, for a fleet that must serve one release. If the run stops for
# another reason (a hook's veto, too few hosts serving, a lost lease), they keep the new release in either case.
on_failure = "halt"

# Hosts that are down or drifted go before the good ones: they cost no capacity, and if the release fails there, no good
# host was lost to it.
unhealthy_first = True

# Seconds between waves, for problems that take longer to show than the soak below.
pause_between_waves_s = 0

# Whether a canary fails its wave if its figures are worse than the old release's by more than its profile allows.
judge_canary = True

# Seconds for which a host stays reserved for a rollout whose controller vanished. A running controller renews the
# reservation three times in that time.
lease_ttl_s = 60

# Where the report of each rollout is kept.
runs_dir = ".sparkfleet/runs"

# Executables named pre-rollout, pre-wave, post-wave and post-rollout in this folder receive the report as JSON on
# standard input; if one of the first three fails, the rollout stops there.
hooks_dir = "hooks"

# Seconds of repeated gates before a release counts as verified; None = the profile's.
soak_s = None

# The watchdog: checks the engine each minute and restarts it when it hangs. Turn it off only if something else does so.
watch = True

# How many of the last staged releases tasks/prune.py keeps on a host, besides the current, previous, verified and
# pinned ones, which always stay. If the disk has less room than the hardware's disk_reserve_bytes, it keeps only those.
keep_releases = 3
pinned_releases = []

# Whether each host hashes its weights once a week, at the lowest priority. Status shows damaged files, and the next
# deploy replaces them.
verify_weekly = False

# How a host leaves its load balancer before it drains, and returns once verified; None = nothing in front of it:
# {"out": {"command": ["/usr/local/bin/pool", "out"]}, "in": {"http": {"method": "POST", "url": "http://…"}},
#  "timeout_s": 10}
# If the call needs a token, put its HTTP header into a file on the host:
# {"http": {…, "header_file": "/etc/lb.headers"}}.
rotation = None

# A port on which each host answers GET /ready for a load balancer: 200 = send requests, 404 = draining (finish what
# runs, send nothing new), 503 = not serving; None = off. The host answers by itself, also after a boot without the
# controller. readiness_network (such as "192.168.100.0/24") binds the port to the host's address in that network, None
# = to all addresses. readiness_notice_s: how long the balancer may take to notice; draining waits at least that long.
readiness_port = None
readiness_network = None
readiness_notice_s = 5

# A release that failed its gates on a host is not tried there again unless you give its id here:
# --data retry_release=ID
retry_release = None

# Whether tasks/retire.py also removes the weights.
retire_models = False

# After a rollback, the next deploy refuses the release that was rolled back unless you give its id here:
# --data roll_forward=ID. To stay on the release you rolled back to, set image_tag to its tag instead.
roll_forward = None

# --- how fit a host must be -----------------------------------------------------------------------
# docs/preflight.md explains each check and its remedy. Failures to ignore, by id, for a run that you watch:
# --data 'force_preflight=["mem.available"]'.
force_preflight = []

# Warnings that you accept, with the reason and an end date:
# {"net.wifi": {"reason": "the office has no cable there", "until": "2027-01-31"}}. Failures cannot be waived.
preflight_waivers = {}

# Repairs that a deploy may make before it stages (tasks/repair.py makes them alone), each only on hosts that need it:
#   apt_holds      hold the driver's packages, so that a plain `apt upgrade` does not separate driver and kernel
#   cdi_refresh    enable nvidia-cdi-refresh, which renews the CDI specification after a driver update
#   cdi_spec       regenerate a stale CDI specification; a stale copy is renamed to NAME.stale
#   docker_group   add the login's user to the group docker, which is equivalent to root
#   drop_caches    drop the page cache before each start of the engine (part of the release's unit: needs a deploy)
#   earlyoom       install and configure earlyoom, the one guard that sees memory taken by CUDA; skipped while an engine
#                  that got its GPU by --gpus serves, since it needs a daemon-reload
#   sleep_targets  mask sleep, suspend and hibernate
repairs = []

# --- how hosts are reached ------------------------------------------------------------------------
# Sends commands without delay and notices a vanished host within a minute. Set ssh_user, ssh_key, ssh_known_hosts_file
# and pyinfra's other ssh_ settings here too.
ssh_paramiko_connect_kwargs = {"transport_factory": _attentive}
