# Progress, logs, cache keys: what every other script here leans on.
# shellcheck shell=bash

TESTENV_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
KINDNET_CACHE=${KINDNET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kindnet}
LOG_DIR=$KINDNET_CACHE/logs
export KINDNET_CACHE
mkdir -p "$LOG_DIR"

# shellcheck source-path=SCRIPTDIR source=../versions.env
source "$TESTENV_DIR/versions.env"

say() { printf '%s\n' "$*"; }

die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# Seconds since the epoch with one decimal.
now() { printf '%.1f' "$EPOCHREALTIME"; }

elapsed_since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f", b - a }'; }

report_step() { printf '%-9s %-52s %7s s\n' "$1" "$2" "$3"; }

# show_progress PID TITLE STARTED: on a terminal, a line that counts until PID has ended; in a
# pipe nothing, so that a log has one line a step.
show_progress() {
  [[ -t 1 && ${TERM:-dumb} != dumb ]] || return 0
  while kill -0 "$1" 2>/dev/null; do
    printf '\r%s' "$(report_step ... "$2" "$(elapsed_since "$3")")"
    sleep 0.2
  done
  printf '\r'
}

# step TITLE COMMAND...: run with the output in a log file, print one line with
# the time taken; on failure show the end of the log and where it is.
step() {
  local title=$1 log started rc=0
  shift
  log=$LOG_DIR/$(tr -cs 'A-Za-z0-9.\n' - <<<"$title").log
  started=$(now)
  # In the background because a function called from a condition loses errexit.
  (
    set -euo pipefail
    "$@"
  ) >"$log" 2>&1 </dev/null &
  show_progress $! "$title" "$started"
  wait $! || rc=$?
  if ((rc != 0)); then
    report_step FAILED "$title" "$(elapsed_since "$started")"
    tail -n 30 "$log" | sed 's/^/    /' >&2
    printf 'error: %s failed (exit %d), full log: %s\n' "$title" "$rc" "$log" >&2
    return "$rc"
  fi
  report_step "done" "$title" "$(elapsed_since "$started")"
}

# cached_step TITLE MARKER COMMAND...: a step that is skipped while MARKER exists.
cached_step() {
  local title=$1 marker=$2
  shift 2
  if [[ -e $marker ]]; then
    report_step cached "$title" 0.0
    return 0
  fi
  step "$title" "$@"
}

# recipe_hash WORD_OR_FILE...: twelve hex digits over the contents of the files
# (directories recursively) and the plain words given.
recipe_hash() {
  local item
  for item in "$@"; do
    if [[ -d $item ]]; then
      (cd "$item" && find . -type f -print0 | sort -z | xargs -0 sha256sum)
    elif [[ -f $item ]]; then
      sha256sum <"$item"
    else
      printf '%s\n' "$item"
    fi
  done | sha256sum | cut -c1-12
}

# fresh_dir DIR: an empty DIR.tmp to build in; publish_dir DIR renames it, so
# that an interrupted build never looks finished.
fresh_dir() {
  rm -rf "$1.tmp"
  mkdir -p "$1.tmp"
}

publish_dir() {
  rm -rf "$1"
  mv "$1.tmp" "$1"
}

# keep_newest COUNT DIR: builds of older recipes go, a few stay for other
# checkouts and for going back.
keep_newest() {
  local count=$1 dir=$2 entry
  # shellcheck disable=SC2012  # names are ours: no spaces, no newlines
  ls -1t "$dir" | tail -n "+$((count + 1))" | while read -r entry; do
    rm -rf "${dir:?}/$entry"
  done
}

# stop_children PID: the whole tree below PID, which step puts in the background
# and which would otherwise outlive an interruption.
stop_children() {
  local child
  for child in $(pgrep -P "$1"); do
    stop_children "$child"
    kill "$child" 2>/dev/null || true
  done
}

# retry ATTEMPTS COMMAND...: with a growing pause between attempts.
retry() {
  local attempts=$1 n
  shift
  for ((n = 1; n <= attempts; n++)); do
    "$@" && return 0
    ((n == attempts)) || sleep "$n"
  done
  return 1
}

docker_image_exists() { docker image inspect "$1" >/dev/null 2>&1; }

# docker_image_label IMAGE KEY: empty when the image or the label is missing.
docker_image_label() {
  docker image inspect -f "{{ index .Config.Labels \"$2\" }}" "$1" 2>/dev/null || true
}

# image_is_current IMAGE RECIPE: was this very recipe what made the image?
RECIPE_LABEL=io.kindnet.testenv.recipe
image_is_current() { [[ $(docker_image_label "$1" "$RECIPE_LABEL") == "$2" ]]; }
