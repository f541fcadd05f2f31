#!/bin/sh
# `docker run IMAGE MODEL` and `docker run IMAGE --port 9000` serve; a command of rankd stays itself.
set -eu

case "${1:-}" in
-h | --help | --version) ;;
"" | -* | */* | builtin) set -- serve "$@" ;;
esac

exec rankd "$@"
