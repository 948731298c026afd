# kindnetctl and the kindnet image, built from this checkout.
# shellcheck shell=bash

CHECKOUT=$(cd "$TESTENV_DIR/.." && pwd)
# Compiled crates outlive the checkout, so that a fresh clone builds in a minute.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$KINDNET_CACHE/target}
KINDNET_VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' "$CHECKOUT/Cargo.toml" | head -n 1)
KINDNET_IMAGE=${KINDNET_IMAGE:-ghcr.io/kindnet-rs/kindnet:v$KINDNET_VERSION}
STATIC_TARGET=$(uname -m)-unknown-linux-gnu
KINDNETCTL=$CARGO_TARGET_DIR/$STATIC_TARGET/release/kindnetctl
export KINDNET_VERSION KINDNET_IMAGE KINDNETCTL

need_cargo() {
  command -v cargo >/dev/null ||
    die "cargo is not installed: get Rust 1.95 or newer from https://rustup.rs"
  command -v cc >/dev/null || install_packages gcc libc6-dev
  claim_target_dir
}

# cargo tells by the age of files whether a crate of ours is up to date, and takes those of another
# checkout for the same: after a change of checkout our own crates are compiled anew.
claim_target_dir() {
  local owner=$CARGO_TARGET_DIR/.checkout
  [[ $(cat "$owner" 2>/dev/null) == "$CHECKOUT" ]] && return 0
  mkdir -p "$CARGO_TARGET_DIR"
  find "$CARGO_TARGET_DIR" -path '*/.fingerprint/kindnet*' -prune -exec rm -rf {} +
  printf '%s\n' "$CHECKOUT" >"$owner"
}

# Static, with the same flags and target folder as the programs in the image:
# the crates both need are compiled once, and it runs on any distribution.
build_kindnetctl() {
  need_cargo
  (cd "$CHECKOUT" && RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --locked --release --target "$STATIC_TARGET" -p kindnetctl)
}

build_kindnet_image() {
  need_cargo
  "$CHECKOUT/manifests/image/build"
}

# kind, for interoperability and comparison.
peer_kind() { printf '%s\n' "$KINDNET_CACHE/peers/current/bin/kind"; }
