#!/usr/bin/env bash
# Makes the environment of `make serve` and `make test`: tools/setup.sh FOLDER EXTRAS, such as
# tools/setup.sh .venv native. It says what it downloads and shows the progress on a terminal. What a
# failed or interrupted first run leaves is removed; downloads stay in the cache of pip or uv.
#
# PYTHON: the interpreter [python3]. TORCH_INDEX: where the CPU build of torch comes from on Linux without
# an accelerator. GOAL: the target of make, for messages [serve]. PIP_INDEX_URL, UV_INDEX_URL and the files of pip and uv are used as always.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=$1 extras=$2
python=${PYTHON:-python3}
torch_index=${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}
torch=$(sed -n 's/^torch==//p' constraints.txt)
supported='>=3.11,<3.15'
goal=${GOAL:-serve}
is_new=""

say() { echo "rankd: $*" >&2; }

# Runs for each end of the script. A set-up that was complete once is kept.
ended() {
  local status=$?
  trap - EXIT
  [ "$status" = 0 ] && exit
  [ "$status" = 130 ] && say "interrupted"
  if [ -n "$is_new" ] && [ -e "$venv" ]; then
    say "removing the unfinished $venv; what was downloaded is in the cache, so run the same command again"
    rm -rf "$venv"
  fi
  exit "$status"
}
trap ended EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

is_supported() {
  "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null
}

has_uv() { command -v uv >/dev/null; }

has_pip() { "$venv/bin/python" -m pip --version >/dev/null 2>&1; }

# uv does not read pip's variables and files.
pip_alone_is_configured() {
  [ -z "${UV_DEFAULT_INDEX:-}${UV_INDEX:-}${UV_INDEX_URL:-}${UV_EXTRA_INDEX_URL:-}${UV_FIND_LINKS:-}${UV_CONFIG_FILE:-}" ] &&
    [ ! -e "${XDG_CONFIG_HOME:-$HOME/.config}/uv/uv.toml" ] && [ ! -e /etc/uv/uv.toml ] &&
    "$venv/bin/python" -m pip config list 2>/dev/null |
    grep -qE '\.(index-url|extra-index-url|find-links|no-index|proxy|cert|trusted-host)='
}

make_environment() {
  is_new=yes
  if is_supported; then
    if "$python" -m venv "$venv"; then return; fi
    rm -rf "$venv"
    has_uv || { say "$python cannot make an environment; install what it lacks (above), then run the same command again"; exit 1; }
  elif ! has_uv; then
    say "Python $supported is needed, and $python is $("$python" --version 2>/dev/null || echo "not there")." \
      "Name another one: make $goal PYTHON=python3.12"
    exit 1
  fi
  # uv brings pip, and Python itself if there is none that fits.
  uv venv --seed --python "$supported" "$venv"
}

has_accelerator() {
  command -v nvidia-smi >/dev/null || command -v npu-smi >/dev/null ||
    [ -e /dev/nvidiactl ] || [ -e /dev/davinci_manager ] || [ -e /dev/kfd ]
}

# install ARGUMENTS...: with pip or uv.
install() {
  if [ "$installer" = uv ]; then
    uv pip install --python "$venv/bin/python" ${quiet:+"$quiet"} "$@"
  else
    "$venv/bin/python" -m pip install --disable-pip-version-check ${quiet:+"$quiet"} "$@"
  fi
}

# Whether the version of torch is there already, of whatever build.
has_torch() {
  "$venv/bin/python" -c 'import importlib.metadata, sys
sys.exit(importlib.metadata.version("torch").partition("+")[0] != sys.argv[1])' "$torch" 2>/dev/null
}

# The index of torch's makers has builds without CUDA's libraries; that of PyPI for Linux has them all.
install_cpu_torch() {
  say "no GPU or NPU found: the CPU build of PyTorch comes from $torch_index; about 300 MB are downloaded" \
    "in all, which takes a minute on a fast network"
  if UV_HTTP_TIMEOUT=15 PIP_DEFAULT_TIMEOUT=15 PIP_RETRIES=1 \
    install --no-deps --index-url "$torch_index" "torch==$torch"; then return; fi
  say "$torch_index does not give it: PyTorch comes from your usual index, perhaps with CUDA's libraries" \
    "(about 3 GB). A mirror of the CPU builds: make $goal TORCH_INDEX=URL"
}

began=$SECONDS
if [ -e "$venv" ] && ! [ -x "$venv/bin/python" ]; then
  say "$venv has no bin/python; remove it, or choose another folder with VENV="
  exit 1
fi
if [ -e "$venv" ] && ! has_pip && ! "$venv/bin/python" -m ensurepip >/dev/null 2>&1; then
  # Left by a set-up that failed: an environment without anything in it.
  if [ -e "$venv/pyvenv.cfg" ] && [ -z "$(find "$venv"/lib*/python3*/site-packages -mindepth 1 -print -quit 2>/dev/null)" ]; then
    say "$venv is unfinished and empty: making it again"
    rm -rf "$venv"
  else
    say "$venv has no pip; remove it, or choose another folder with VENV="
    exit 1
  fi
fi
[ -e "$venv" ] || make_environment

installer=pip
if has_uv && ! pip_alone_is_configured; then installer=uv; fi
# On a terminal both show what they do; elsewhere their progress would fill a log.
quiet=--quiet
if [ -t 2 ]; then quiet=""; fi

say "installing rankd[$extras] into $venv with $installer"
if [ "$(uname -s)" = Linux ] && ! has_torch; then
  if has_accelerator; then
    say "the first time it downloads about 3 GB, most of it PyTorch with CUDA's libraries"
  else
    install_cpu_torch
  fi
fi
if ! install -c constraints.txt --editable ".[$extras]"; then
  say "the installation failed; the reason is above. A slow or blocked network: set PIP_INDEX_URL to a mirror"
  exit 1
fi
say "installed in $((SECONDS - began)) s"
