#!/usr/bin/env bash
# The image keeps CANN's variables in root's .bashrc, which a container's command never reads.
set -eo pipefail # Not -u: the files below read variables that may be unset.

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

exec rankd "$@"
