#!/usr/bin/env bash
# Manages Cloud TPU slices from creation to deletion.  --help lists the commands; --dry-run prints the gcloud calls.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: tpu/tpu.sh COMMAND [--flag=value ...] [-- arguments of `python -m igpt_jax train`]

On the workers the checkout is ~/igpt_jax.  All workers must see the workdir, so put it in a bucket:
--workdir=gs://my-bucket/runs/s32

commands
  create    request the slice, and wait until it is ready (with --queued: only request it, and return)
  status    show its state
  setup     copy this checkout to every worker and install it
  launch    start the training given after -- on all workers; it outlives the connection
  resume    setup and launch again, on a slice that was preempted and is back; training continues from its checkpoint
  logs      follow the log of one worker; with several slices, of the first one
  stop      stop the training on all workers; it saves a checkpoint first
  fetch     copy the workdir to this machine: from gs:// directly, or from worker 0
  delete    delete the slice, and its queued request
With --slices=N, all commands but logs and fetch reach every slice.

flags, or environment variables                 for, and default
  --name=NAME              TPU_NAME              (required)
  --zone=ZONE              TPU_ZONE              (required)
  --project=PROJECT        TPU_PROJECT           gcloud's default
  --type=TYPE              TPU_TYPE              (create) v5litepod-16, v5p-32, v6e-16, v4-32, ...
  --version=VERSION        TPU_VERSION           (create) the runtime version; default: one for the type
  --queued                 TPU_QUEUED=1          use a queued resource instead of a plain TPU VM
  --spot                   TPU_SPOT=1            (create) cheaper, but may be preempted at any time
  --slices=N               TPU_SLICES            1; several work together over the network, and need --queued
  --worker=N               TPU_WORKER            (logs) 0
  --from=DIR --to=DIR      TPU_FROM, TPU_TO      (fetch) where the workdir is, and where it goes
  --dry-run                TPU_DRY_RUN=1         print every gcloud command instead of running it
TEXT
}

fail() {
  echo "tpu.sh: $*" >&2
  exit 2
}

name=${TPU_NAME:-} zone=${TPU_ZONE:-} project=${TPU_PROJECT:-} type=${TPU_TYPE:-} version=${TPU_VERSION:-}
queued=${TPU_QUEUED:-} spot=${TPU_SPOT:-} slices=${TPU_SLICES:-1} worker=${TPU_WORKER:-0}
from=${TPU_FROM:-} to=${TPU_TO:-} dry_run=${TPU_DRY_RUN:-}
training=()

command=${1:---help}
[[ $command == --help || $command == -h ]] && usage && exit 0
shift
while (($#)); do
  case $1 in
    --name=*) name=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --project=*) project=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --version=*) version=${1#*=} ;;
    --slices=*) slices=${1#*=} ;;
    --worker=*) worker=${1#*=} ;;
    --from=*) from=${1#*=} ;;
    --to=*) to=${1#*=} ;;
    --queued) queued=1 ;;
    --spot) spot=1 ;;
    --dry-run) dry_run=1 ;;
    --)
      shift
      training=("$@")
      break
      ;;
    *) fail "unknown flag $1; see tpu/tpu.sh --help" ;;
  esac
  shift
done
[[ -n $name ]] || fail "which slice? give --name=NAME or set TPU_NAME"
[[ -n $zone ]] || fail "in which zone? give --zone=ZONE or set TPU_ZONE"

[[ $slices =~ ^[1-9][0-9]*$ ]] || fail "--slices=$slices is no number of slices; give 1 or more"
((slices == 1)) || [[ -n $queued ]] || fail "several slices are one queued resource; add --queued, or set TPU_QUEUED=1"

# The names of the slices: several have the name of the request, and a number.
nodes=("$name")
if ((slices > 1)); then
  nodes=()
  for ((i = 0; i < slices; i++)); do nodes+=("$name-$i"); done
fi

where=(--zone="$zone")
[[ -z $project ]] || where+=(--project="$project")

run() {
  if [[ -n $dry_run ]]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

tpu() { run gcloud compute tpus "$@" "${where[@]}"; }
on_worker() { tpu tpu-vm ssh "$1" --worker="$2" --command="$3"; }
# Reaches the workers of all slices at the same time, since those of a training wait for each other.
on_all_workers() {
  local node ids=() id failed=0
  for node in "${nodes[@]}"; do
    on_worker "$node" all "$1" &
    ids+=($!)
  done
  for id in "${ids[@]}"; do wait "$id" || failed=1; done
  return "$failed"
}

runtime_of() {
  case $1 in
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    *) echo tpu-ubuntu2204-base ;;
  esac
}

create() {
  [[ -n $type ]] || fail "of which type? give --type=TYPE, such as v5litepod-16; tpu/README.md says which for what"
  local runtime=${version:-$(runtime_of "$type")} kind=(--accelerator-type="$type")
  [[ -z $spot ]] || kind+=(--spot)
  if [[ -n $queued ]]; then
    if ((slices > 1)); then
      kind+=(--node-count="$slices" --node-prefix="$name")
    else
      kind+=(--node-id="$name")
    fi
    tpu queued-resources create "$name" --runtime-version="$runtime" "${kind[@]}"
  else
    tpu tpu-vm create "$name" --version="$runtime" "${kind[@]}"
  fi
}

status() {
  if [[ -n $queued ]]; then
    tpu queued-resources describe "$name" --format="value(state.state)"
  else
    tpu tpu-vm describe "$name" --format="value(state,health)"
  fi
}

setup() {
  local archive node
  archive=$(mktemp --suffix=.tar.gz)
  run git -C "$(dirname "$0")/.." archive --format=tar.gz --output="$archive" HEAD
  for node in "${nodes[@]}"; do tpu tpu-vm scp "$archive" "$node":igpt_jax.tar.gz --worker=all; done
  # The runtimes have an older Python than the package needs; uv installs a newer one.
  on_all_workers "set -e
    rm -rf igpt_jax/igpt_jax igpt_jax/experiments  # modules of an older checkout
    mkdir -p igpt_jax && tar -xzf igpt_jax.tar.gz -C igpt_jax && cd igpt_jax
    command -v ~/.local/bin/uv >/dev/null || curl -LsSf https://astral.sh/uv/install.sh | sh
    ~/.local/bin/uv venv --quiet --allow-existing --python=3.12 && ~/.local/bin/uv pip install --quiet -e '.[tpu]'"
  rm -f "$archive"
}

launch() {
  ((${#training[@]})) || fail "train what? give -- --config=FILE --workdir=DIR ..."
  local arguments
  arguments=$(printf '%q ' "${training[@]}")
  # The training inherits the lock, and holds it as long as it lives.
  on_all_workers "cd igpt_jax || { echo 'igpt_jax is not there; run setup first' >&2; exit 1; }
    exec 9>> ~/igpt_jax.lock; flock -n 9 || { echo 'still running' >&2; exit 1; }
    nohup setsid .venv/bin/python -m igpt_jax train --distributed=auto $arguments >> ~/igpt_jax.log 2>&1 < /dev/null &
    echo \$! > ~/igpt_jax.pid
    sleep 5; kill -0 \$! 2>/dev/null || wait \$! || { tail -n 5 ~/igpt_jax.log >&2; exit 1; }"
}

fetch() {
  [[ -n $from && -n $to ]] || fail "from where to where? give --from=DIR --to=DIR"
  if [[ $from == gs://* ]]; then
    run gcloud storage rsync --recursive "$from" "$to"
  else
    tpu tpu-vm scp --recurse "${nodes[0]}":"$from" "$to" --worker=0
  fi
}

delete() {
  if [[ -n $queued ]]; then
    tpu queued-resources delete "$name" --force --quiet
  else
    tpu tpu-vm delete "$name" --quiet
  fi
}

case $command in
  create | status | setup | launch | fetch | delete) "$command" ;;
  resume)
    setup
    launch
    ;;
  logs) on_worker "${nodes[0]}" "$worker" "tail -n 100 -F ~/igpt_jax.log" ;;
  stop) on_all_workers "! flock -n ~/igpt_jax.lock true || { echo 'nothing is running' >&2; exit 1; }
    kill -TERM \$(cat ~/igpt_jax.pid)" ;;
  *) fail "unknown command $command; see tpu/tpu.sh --help" ;;
esac
