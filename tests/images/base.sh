#!/usr/bin/env bash
# Writes a minimal Debian as a tar file: base.sh FILE. The base of the images that make test-images
# builds, with the libraries that Python and vLLM load; Python itself is added by the test.
set -euo pipefail

for program in mmdebstrap buildah; do
  if ! command -v "$program" >/dev/null || [ "$(id -u)" != 0 ]; then
    echo "base.sh: needs root, buildah and mmdebstrap" >&2
    exit 0 # The test says so, too.
  fi
done

# The release of this machine, because the image gets this machine's Python.
suite=bookworm
if grep -qx ID=debian /etc/os-release; then
  suite=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
fi
mkdir -p "$(dirname "$1")"
draft=$(mktemp "$1.XXXXXX")
trap 'rm -f "$draft"' EXIT
mmdebstrap --quiet --mode=root --variant=minbase --format=tar \
  --include=ca-certificates,libnuma1,libpython3-stdlib \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  --dpkgopt='path-exclude=/usr/share/man/*' \
  "$suite" "$draft"
mv "$draft" "$1"
