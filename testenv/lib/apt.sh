# Debian packages: on the system, from another suite, and as source.
# shellcheck shell=bash

export DEBIAN_FRONTEND=noninteractive

# install_packages PACKAGE...: only what is missing, nothing recommended.
install_packages() {
  local package missing=()
  for package in "$@"; do
    package_installed "$package" || missing+=("$package")
  done
  ((${#missing[@]} == 0)) && return 0
  # A stale index is the usual reason for a failed download, so refresh first.
  retry 3 apt-get -q update
  retry 3 apt-get -q install -y --no-install-recommends \
    -o Dpkg::Options::=--force-confold "${missing[@]}"
}

package_installed() {
  [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

packages_installed() {
  local package
  for package in "$@"; do
    package_installed "$package" || return 1
  done
}

# The archive the system itself installs from.
debian_mirror() {
  # shellcheck disable=SC2016  # apt's own placeholders
  apt-get indextargets --format '$(REPO_URI) $(CODENAME)' |
    awk -v suite="$DEBIAN_SUITE" '$2 == suite { print $1; exit }'
}

# Paths and options of a private apt for SUITE: its own sources, lists and cache,
# so that the system's configuration never learns about the suite.
private_apt_dir() { printf '%s/apt/%s\n' "$KINDNET_CACHE" "$1"; }

private_apt() {
  local suite=$1 tool=$2 dir
  shift 2
  dir=$(private_apt_dir "$suite")
  "$tool" -q \
    -o Dir::Etc::SourceList="$dir/sources.list" \
    -o Dir::Etc::SourceParts=/dev/null \
    -o Dir::Etc::Preferences=/dev/null \
    -o Dir::Etc::PreferencesParts=/dev/null \
    -o Dir::State::Lists="$dir/lists" \
    -o Dir::State::Status=/dev/null \
    -o Dir::Cache="$dir/cache" \
    -o APT::Sandbox::User=root \
    -o APT::Default-Release="" \
    "$@"
}

private_apt_update() {
  local suite=$1 dir mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  dir=$(private_apt_dir "$suite")
  mirror=$(debian_mirror)
  [[ -n $mirror ]] || die "apt knows no archive for $DEBIAN_SUITE on this system"
  mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
  printf '%s [signed-by=%s] %s %s main\n' \
    deb "$keyring" "$mirror" "$suite" \
    deb-src "$keyring" "$mirror" "$suite" >"$dir/sources.list"
  retry 3 private_apt "$suite" apt-get update
}

# fetch_source SUITE PACKAGE VERSION: unpack a source package in the current
# folder; a later Debian revision will do when that one has left the archive.
fetch_source() {
  local suite=$1 package=$2 version=$3
  private_apt_update "$suite"
  retry 2 private_apt "$suite" apt-get source "$package=$version" ||
    retry 2 private_apt "$suite" apt-get source "$package"
}
