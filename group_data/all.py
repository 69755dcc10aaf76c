"""Every setting, with its default. A group's file (group_data/GROUP.py), a host's entry in the inventory and
`--data key=value` override it, in this order.

Ids of models, images, profiles and hardware come from catalog/; `python -m sparkfleet show HOST` prints what they give.
"""

from sparkfleet.transport import attentive as _attentive

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

# The names that clients ask for the model by, the first one being what the gates ask; None = the profile's or the
# model's own. Each of them is proven after every start.
served_names = None

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

# Where images of a registry are pulled from instead: {"ghcr.io": "http://10.0.0.5:5000"}; Docker's own is docker.io.
# Digests are checked all the same.
registry_mirrors = {}

# Who downloads weights, once for the whole fleet: "seeds", a host of the group below (without one, the first hosts of
# the run; the next one is tried when one fails), or "controller", this machine, for hosts that reach no WAN.
fetch_on = "seeds"
seed_group = "seeds"

# The package index that a seed takes its download tool from, e.g. "http://10.0.0.5:8080/simple"; None = what the host's
# own pip.conf or uv.toml says, else PyPI. Hashes are pinned (catalog/hub-tool.txt). Without credentials: those belong
# into the host's netrc.
tool_index = None

# Where the controller keeps what it downloaded.
artefact_cache = ".sparkfleet/artefacts"

# Megabytes a second that a download may take of the WAN; 0 = all it gets.
fetch_limit_mb_s = 0

# How weights go from host to host: "swarm" (aria2; fast for many), "rsync" (from hosts that have them), "auto" (a swarm
# from two receivers on where all have aria2, else rsync), or "controller" (rsync over SSH from here, to each). The
# first three are not encrypted and mean a LAN that you trust; every byte is proven afterwards. See docs/artefacts.md.
distribution = "auto"

# How images come: "pull" (each host from the registry, or from registry_mirrors), or "spread" (one host pulls, and the
# image goes to the others as weights do, for a thin WAN; it is not compressed, so the LAN carries more).
image_distribution = "pull"

# The network between the hosts to use, e.g. "192.168.100.0/24", since the fast link is often not the one that SSH goes
# over; None = the addresses that this machine reaches.
spread_subnet = None

# The port that a host listens on while weights go between hosts, and never else.
spread_port = 6891

# Megabytes a second that each host may send, so that serving traffic lives; 0 = no limit.
spread_limit_mb_s = 0

# Seconds after which the spreading of one model ends, whatever is still missing.
spread_deadline_s = 7200

# With distribution = "controller": how many hosts receive at the same time.
sync_parallel = 4

# --- how a roll-out goes --------------------------------------------------------------------------
# The group whose hosts go first, as a wave of their own; None = no canaries.
canary_group = "canary"

# How many hosts a wave changes at the same time: a number, a share of the run's hosts ("25%", rounded down), or a ramp
# whose last step goes on. Each is out of service for one engine start, some minutes. One host learns what a release is
# worth, a tenth confirms it, then a quarter at a time.
batch_size = [1, "10%", "25%"]

# How many hosts of the run may be out of service at once, those counted that were down before. At least one always may.
max_unavailable = "25%"

# How many hosts must serve at any time; a wave that would leave fewer does not start. 0 = max_unavailable decides.
min_serving = 0

# How many hosts may fail over the whole roll-out before it stops. One is already more than a good release needs.
max_failures = 0

# What happens to the others that took the release when one host fails or serves worse: "halt" leaves them, each proven;
# "revert_all" takes them back, for a fleet that must serve one release. A run that stops for another reason (a hook's
# no, too few that serve, a lost lease) leaves them in either case.
on_failure = "halt"

# Hosts that are down or drifted go before the good ones: they cost no capacity, and if the release is bad there, no
# good host was lost to it.
unhealthy_first = True

# Seconds between waves, for figures that need a while to show. What the soak below does not cover.
pause_between_waves_s = 0

# Whether a canary whose figures are worse than the old release's by more than its profile allows fails its wave.
judge_canary = True

# How long a host stays reserved for a roll-out whose controller vanished. It is renewed three times in this time.
lease_ttl_s = 60

# Where the report of each roll-out is kept.
runs_dir = ".sparkfleet/runs"

# Executables named pre-rollout, pre-wave, post-wave and post-rollout in this folder get the report as JSON on standard
# input; one of the first three that fails stops the roll-out there.
hooks_dir = "hooks"

# Seconds under light load before a release counts as proven; None = the profile's.
soak_s = None

# A look each minute at what serves, with one restart when it hangs. Off only where something else does that.
watch = True

# How many of the last staged releases tasks/prune.py leaves on a host, beside the current, previous, verified and
# pinned ones, which always stay. With less room than the hardware's disk_reserve_bytes it leaves only those.
keep_releases = 3
pinned_releases = []

# Whether each host hashes its weights again once a week, at the lowest priority; what is damaged shows in status and is
# brought again by the next deploy.
verify_weekly = False

# How a host leaves its load balancer before it drains, and comes back once proven; None = nothing in front of it:
# {"out": {"command": ["/usr/local/bin/pool", "out"]}, "in": {"http": {"method": "POST", "url": "http://…"}},
#  "timeout_s": 10}
# A call that needs a token has its HTTP header in a file on the host: {"http": {…, "header_file": "/etc/lb.headers"}}.
rotation = None

# A release that failed its gates on a host is not tried there again unless its id stands here:
# --data retry_release=ID
retry_release = None

# Whether tasks/retire.py removes the weights too.
retire_models = False

# After a roll-back the next deploy refuses to bring the release that was left, unless its id stands here:
# --data roll_forward=ID. To stay where the fleet went back to, set image_tag to that one instead.
roll_forward = None

# --- how fit a host must be -----------------------------------------------------------------------
# What each check says and what to do is in docs/preflight.md. Failures to pass over, by id, for a run that you watch:
# --data 'force_preflight=["mem.available"]'.
force_preflight = []

# Warnings that somebody decided to live with, and until when:
# {"net.wifi": {"reason": "the office has no cable there", "until": "2027-01-31"}}. Failures cannot be waived.
preflight_waivers = {}

# What the tool may mend before it stages (also alone: tasks/repair.py), each only where it is needed:
#   apt_holds      hold the driver's packages, so that a plain `apt upgrade` does not tear driver and kernel apart
#   cdi_refresh    enable nvidia-cdi-refresh, which renews the CDI specification after a driver update
#   cdi_spec       write a stale CDI specification anew; a copy in /etc/cdi steps aside
#   docker_group   put the login's user into the group docker, which is as good as root
#   drop_caches    drop the page cache before each start of the engine (a line in the release's unit, so by a deploy)
#   earlyoom       install and set up earlyoom, the one guard that sees memory taken by CUDA; not while an engine serves
#                  that got its GPU by --gpus, since it takes a daemon-reload
#   sleep_targets  mask sleep, suspend and hibernate
repairs = []

# --- how hosts are reached ------------------------------------------------------------------------
# Commands are sent at once, and a host that vanished is noticed within a minute.
# ssh_user, ssh_key, ssh_known_hosts_file and pyinfra's other ssh_ settings belong here too.
ssh_paramiko_connect_kwargs = {"transport_factory": _attentive}
