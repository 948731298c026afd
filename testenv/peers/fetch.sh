# Peers for interoperability and side-by-side measurements: real kind, a recent
# kubectl and the reference CNI plugins, unpacked beside the system, not into it.
# shellcheck shell=bash

# Folder with bin/kind, bin/kubectl and cni/{ptp,host-local,portmap,...}.
peers_dir() {
  printf '%s/peers/%s\n' "$KINDNET_CACHE" \
    "$(recipe_hash "$PEER_KIND_VERSION" "$PEER_KUBECTL_VERSION" "$PEER_CNI_PLUGINS_VERSION" "$TESTENV_DIR/peers/fetch.sh")"
}

# fetch_peer DIR PACKAGE VERSION: unpack it, the pinned version if there is one.
fetch_peer() {
  local dir=$1 package=$2 version=$3 debs=$1/debs
  mkdir -p "$debs" "$dir/tree"
  (
    cd "$debs" || exit
    if [[ -z $version ]] || ! retry 2 private_apt "$PEERS_SUITE" apt-get download "$package=$version"; then
      [[ -z $version ]] || say "$PEERS_SUITE no longer has $package $version, taking its present version"
      retry 3 private_apt "$PEERS_SUITE" apt-get download "$package"
    fi
    # shellcheck disable=SC2016  # dpkg's own placeholders
    dpkg-deb -W --showformat '${Package} ${Version}\n' "$package"_*.deb >>"$dir/VERSIONS"
  )
  dpkg -x "$debs/$package"_*.deb "$dir/tree"
}

build_peers() {
  local dir
  dir=$(peers_dir)
  fresh_dir "$dir"
  private_apt_update "$PEERS_SUITE"
  fetch_peer "$dir.tmp" kind "$PEER_KIND_VERSION"
  fetch_peer "$dir.tmp" kubectl "$PEER_KUBECTL_VERSION"
  fetch_peer "$dir.tmp" containernetworking-plugins "$PEER_CNI_PLUGINS_VERSION"
  mkdir -p "$dir.tmp/bin"
  mv "$dir.tmp"/tree/usr/bin/{kind,kubectl} "$dir.tmp/bin/"
  mv "$dir.tmp/tree/usr/lib/cni" "$dir.tmp/cni"
  rm -rf "$dir.tmp/tree" "$dir.tmp/debs"
  "$dir.tmp/bin/kind" version
  "$dir.tmp/bin/kubectl" version --client
  publish_dir "$dir"
  keep_newest 3 "$KINDNET_CACHE/peers"
}

prepare_peers() {
  cached_step "peers from Debian $PEERS_SUITE" "$(peers_dir)" build_peers
  ln -sfn "$(peers_dir)" "$KINDNET_CACHE/peers/current"
  sed 's/^/          /' "$(peers_dir)/VERSIONS"
  say "          in $KINDNET_CACHE/peers/current/{bin,cni}"
}
