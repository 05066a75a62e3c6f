#!/usr/bin/env bash
#SBATCH --job-name=multicsr
#SBATCH --exclusive
#
# One job on machines that are yours for its duration: Ray starts on all of them, the job runs, Ray stops.
#
#   Slurm:       sbatch --nodes=4 cluster/onprem/symmetric-run.sh generate my.yaml
#   Bare metal:  on every machine, the same line:
#                HEAD=10.0.0.1 NODES=4 cluster/onprem/symmetric-run.sh generate my.yaml
#
# Every machine has the project (`ray` and `python` on the PATH) and sees my.yaml; the store is s3:// or shared.
# Token: ~/.ray/auth_token or RAY_AUTH_TOKEN_PATH; under Slurm one is made for the job when there is none.
# `ray symmetric-run` refuses a machine on which Ray runs, and in the end stops every Ray there: take whole machines.
# More of `ray start`, for all machines: RAY_START_OPTIONS="--labels=multicsr.io/role=generate".
set -euo pipefail

run_node() {
    set -euo pipefail
    umask 077
    local job=$1 status=0
    shift
    export RAY_AUTH_MODE=token ADDRESS="$HEAD:${PORT:-6379}"
    export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=${RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT:-600}
    DONE=$(mktemp)
    export DONE
    # shellcheck disable=SC2086,SC2016 # options are words; the inner shell expands
    ray symmetric-run --address "$ADDRESS" --min-nodes "$NODES" --disable-usage-stats ${RAY_START_OPTIONS:-} -- \
        bash -c 'RAY_ADDRESS=$ADDRESS "$@" && echo done > "$DONE"' job python -m "ray_jobs.$job" "$@" || status=$?
    # It exits 0 when Ray did not start. The job runs on the head alone, whose address only one machine can bind.
    if [[ $status = 0 && ! -s $DONE ]] &&
        python -c 'import socket, sys; socket.create_server((sys.argv[1], 0)).close()' "$HEAD" 2> /dev/null; then
        echo "error: Ray did not start; see ${RAY_TMPDIR:-/tmp}/ray/session_latest/logs" >&2
        status=1
    fi
    rm -f "$DONE"
    return "$status"
}

if [[ $# -lt 2 ]]; then
    echo "usage: $0 JOB CONFIG [--set section.key=value]...    (sbatch, or with HEAD and NODES)" >&2
    exit 2
fi
if [[ -n ${SLURM_JOB_ID:-} ]]; then
    # Not through `head`, which would end scontrol by SIGPIPE when there are many nodes.
    HOSTS=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
    HEAD=${HOSTS%%$'\n'*}
    NODES=$SLURM_JOB_NUM_NODES
    if [[ -z ${RAY_AUTH_TOKEN:-}${RAY_AUTH_TOKEN_PATH:-} && ! -e ~/.ray/auth_token ]]; then
        RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
        export RAY_AUTH_TOKEN
    fi
    export HEAD NODES
    export -f run_node
    # shellcheck disable=SC2016
    exec srun --nodes="$NODES" --ntasks="$NODES" --ntasks-per-node=1 bash -c 'run_node "$@"' run_node "$@"
fi
: "${HEAD:?set it to the address of the first machine}" "${NODES:?set it to the number of machines}"
export HEAD NODES
run_node "$@"
