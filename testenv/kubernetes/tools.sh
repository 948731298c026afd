# Small programs built inside the Kubernetes tree, with what is vendored there.
# shellcheck shell=bash

# tool_binary NAME: NAME is a folder of Go files under testenv/.
tool_binary() {
  printf '%s/tools/%s-%s\n' "$KINDNET_CACHE" "$1" \
    "$(recipe_hash "$(basename "$(kubernetes_dir)")" "$TESTENV_DIR/$1")"
}

build_tool() {
  local name=$1 target package
  target=$(tool_binary "$name")
  package=$(kubernetes_source)/cmd/kindnet-$name
  rm -rf "$package"
  mkdir -p "$package" "$(dirname "$target")"
  cp "$TESTENV_DIR/$name/"*.go "$package/"
  go_build "$(kubernetes_dir)/gopath" vet "k8s.io/kubernetes/cmd/kindnet-$name"
  go_build "$(kubernetes_dir)/gopath" test "k8s.io/kubernetes/cmd/kindnet-$name"
  go_build "$(kubernetes_dir)/gopath" build -ldflags "-s -w" -o "$target.tmp" \
    "k8s.io/kubernetes/cmd/kindnet-$name"
  mv "$target.tmp" "$target"
  keep_newest 6 "$KINDNET_CACHE/tools"
}

prepare_tool() {
  cached_step "$1 stand-in" "$(tool_binary "$1")" build_tool "$1"
}
