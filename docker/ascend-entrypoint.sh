#!/usr/bin/env bash
# Sets CANN's variables. The image has them in root's .bashrc, which containers do not read.
set -eo pipefail # Without -u, because the files below read unset variables.

for file in /usr/local/Ascend/ascend-toolkit/set_env.sh /usr/local/Ascend/nnal/atb/set_env.sh; do
    if [[ ! -f "$file" ]]; then
        echo "rankd: $file is missing: is this vllm-ascend's image?" >&2
        exit 1
    fi
    # shellcheck source=/dev/null
    source "$file"
done
export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}/usr/local/lib"
export TASK_QUEUE_ENABLE="${TASK_QUEUE_ENABLE:-1}"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

exec rankd-entrypoint "$@"
