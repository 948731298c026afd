# Kernel settings the node containers need from the machine.
# shellcheck shell=bash

# raise_sysctl KEY MINIMUM: never lowers.
raise_sysctl() {
  local path=/proc/sys/${1//./\/} minimum=$2 current
  [[ -r $path ]] || return 0
  current=$(<"$path")
  ((current >= minimum)) || printf '%s\n' "$minimum" >"$path" ||
    say "warning: $1 is $current and cannot be raised to $minimum"
}

# systemd, kubelet and containerd of a few nodes exhaust the usual 128 instances.
raise_inotify_limits() {
  raise_sysctl fs.inotify.max_user_instances 512
  raise_sysctl fs.inotify.max_user_watches 524288
}

enable_ipv6() {
  local scope path
  for scope in all default lo; do
    path=/proc/sys/net/ipv6/conf/$scope/disable_ipv6
    [[ -e $path && $(<"$path") != 0 ]] || continue
    printf '0\n' >"$path" || say "warning: IPv6 stays off ($path)"
  done
}

# The hierarchies a cgroup v1 or hybrid host has not mounted yet, as Debian's
# cgroupfs-mount does it; a controller bound elsewhere (v2) is left alone.
mount_cgroup_hierarchies() {
  local controller hierarchy enabled
  if [[ $(stat -f -c %T /sys/fs/cgroup) == cgroup2fs ]]; then
    return 0
  fi
  mountpoint -q /sys/fs/cgroup || mount -t tmpfs -o uid=0,gid=0,mode=0755 cgroup /sys/fs/cgroup
  while read -r controller hierarchy _ enabled; do
    [[ $controller == \#* || $enabled != 1 ]] && continue
    mountpoint -q "/sys/fs/cgroup/$controller" && continue
    # Mounted together with another controller, say cpu,cpuacct.
    grep -qE "^cgroup [^ ]+ cgroup [^ ]*\b$controller\b" /proc/mounts && continue
    mkdir -p "/sys/fs/cgroup/$controller"
    mount -n -t cgroup -o "$controller" cgroup "/sys/fs/cgroup/$controller" || {
      rmdir "/sys/fs/cgroup/$controller"
      say "warning: cgroup controller $controller (hierarchy $hierarchy) is not available"
    }
  done </proc/cgroups
}

prepare_host() {
  raise_inotify_limits
  enable_ipv6
}
