# A Docker Engine: the one that runs, or Debian's, started here.
# shellcheck shell=bash

DAEMON_JSON=/etc/docker/daemon.json
# The label in daemon.json that tells our file from the machine owner's.
DAEMON_LABEL=io.kindnet.testenv=true
BOUNDED_RUNC=/usr/local/lib/kindnet/bounded-runc
ENGINE_PACKAGES=(iptables nftables iproute2 procps util-linux)

engine_answers() { docker version >/dev/null 2>&1; }

systemd_runs() { [[ -d /run/systemd/system && $(</proc/1/comm) == systemd ]]; }

# Bit 24 of the bounding set.
has_cap_sys_resource() {
  local set
  set=$(awk '/^CapBnd:/ { print $2 }' /proc/self/status)
  (((16#$set >> 24) & 1))
}

install_bounded_runc() {
  local folder
  folder=$(dirname "$BOUNDED_RUNC")
  install_packages gcc libc6-dev
  mkdir -p "$folder"
  gcc -O2 -Wall -Wextra -o "$BOUNDED_RUNC.tmp" "$TESTENV_DIR/docker/bounded-runc.c"
  mv "$BOUNDED_RUNC.tmp" "$BOUNDED_RUNC"
}

# ip6tables is an experimental option up to Docker 26: without it pods have no
# IPv6 way out of the bridge and [::1] publishes only work through the proxy.
write_daemon_json() {
  local runtime=""
  if [[ -e $DAEMON_JSON ]] && ! grep -qF "$DAEMON_LABEL" "$DAEMON_JSON"; then
    say "leaving $DAEMON_JSON as it is"
    return 0
  fi
  if ! has_cap_sys_resource; then
    install_bounded_runc
    runtime=$(printf ',\n  "runtimes": { "bounded-runc": { "path": "%s" } },\n  "default-runtime": "bounded-runc"' "$BOUNDED_RUNC")
  fi
  mkdir -p "$(dirname "$DAEMON_JSON")"
  cat >"$DAEMON_JSON.tmp" <<JSON
{
  "labels": ["$DAEMON_LABEL"],
  "experimental": true,
  "ip6tables": true$runtime
}
JSON
  mv "$DAEMON_JSON.tmp" "$DAEMON_JSON"
}

# A pid file left by a crash names a process that may be anything by now.
drop_stale_pid_file() {
  local file=$1 pid
  [[ -e $file ]] || return 0
  pid=$(<"$file")
  # A killed process nobody has waited for still has its name, but is no daemon any more.
  if [[ $(cat "/proc/$pid/comm" 2>/dev/null) != "$2" ]] ||
    grep -q '^State:[[:space:]]*Z' "/proc/$pid/status" 2>/dev/null; then
    rm -f "$file"
  fi
}

start_engine() {
  if systemd_runs; then
    systemctl restart docker
  else
    drop_stale_pid_file /var/run/docker.pid dockerd
    drop_stale_pid_file /var/run/docker/containerd/containerd.pid containerd
    # A session of its own: the daemon outlives whoever called us. The lock's
    # descriptor is closed so that it does not outlive us too.
    setsid nohup dockerd >>"$LOG_DIR/dockerd.log" 2>&1 </dev/null 9>&- &
    printf '%d\n' $! >"$KINDNET_CACHE/dockerd.pid"
  fi
  local tries
  for ((tries = 0; tries < 300; tries++)); do
    engine_answers && return 0
    sleep 0.2
  done
  tail -n 20 "$LOG_DIR/dockerd.log" 2>/dev/null || true
  return 1
}

install_and_start_engine() {
  mount_cgroup_hierarchies
  # Before the package: on a systemd machine its installation starts the engine.
  write_daemon_json
  install_packages "${ENGINE_PACKAGES[@]}"
  # Another vendor's engine that merely is not running will do, and conflicts.
  command -v dockerd >/dev/null || install_packages docker.io
  engine_answers && ! systemd_runs && return 0
  start_engine
}

prepare_engine() {
  step "inotify limits and IPv6" prepare_host
  if engine_answers; then
    report_step cached "Docker Engine $(docker version -f '{{.Server.Version}}')" 0.0
  else
    step "Docker Engine from Debian" install_and_start_engine
  fi
}
