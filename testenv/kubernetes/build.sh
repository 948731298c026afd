# Kubernetes binaries from Debian's source package, which holds the whole
# upstream tree with its vendored dependencies.
# shellcheck shell=bash

KUBERNETES_COMMANDS=(kubeadm kubelet kube-apiserver kube-controller-manager
  kube-scheduler kube-proxy kubectl)

kubernetes_dir() {
  printf '%s/kubernetes/%s-%s\n' "$KINDNET_CACHE" "$KUBERNETES_VERSION" \
    "$(recipe_hash "$KUBERNETES_SOURCE_VERSION" "$TESTENV_DIR/kubernetes/build.sh")"
}

kubernetes_source() { printf '%s/gopath/src/k8s.io/kubernetes\n' "$(kubernetes_dir)"; }

# go_build GOPATH ARGUMENT...: static GOPATH-mode build with a cache of its own,
# which -trimpath makes independent of where the tree lies.
go_build() {
  local gopath=$1
  shift
  env GO111MODULE=off CGO_ENABLED=0 GOPATH="$gopath" GOFLAGS=-trimpath \
    GOCACHE="$KINDNET_CACHE/go-build" go "$@"
}

build_kubernetes() {
  local dir gopath tree minor
  dir=$(kubernetes_dir)
  fresh_dir "$dir"
  gopath=$dir.tmp/gopath
  tree=$gopath/src/k8s.io/kubernetes
  mkdir -p "$gopath/src/k8s.io" "$dir.tmp/source" "$dir.tmp/bin"

  cd "$dir.tmp/source" || exit
  fetch_source "$DEBIAN_SUITE" kubernetes "$KUBERNETES_SOURCE_VERSION"
  mv kubernetes-*/ "$tree"
  rm -rf "$dir.tmp/source"
  cd "$tree" || exit

  # The vendored reflect2 relies on runtime internals that Go 1.18 changed.
  rm -rf vendor/github.com/modern-go/reflect2
  cp -rL /usr/share/gocode/src/github.com/modern-go/reflect2 vendor/github.com/modern-go/reflect2

  generate_openapi "$gopath"

  minor=${KUBERNETES_VERSION#v1.}
  minor=${minor%%.*}
  local stamps="" package
  for package in component-base/version client-go/pkg/version; do
    stamps+=" -X k8s.io/kubernetes/vendor/k8s.io/$package.gitVersion=$KUBERNETES_VERSION"
    stamps+=" -X k8s.io/kubernetes/vendor/k8s.io/$package.gitMajor=1"
    stamps+=" -X k8s.io/kubernetes/vendor/k8s.io/$package.gitMinor=$minor"
    stamps+=" -X k8s.io/kubernetes/vendor/k8s.io/$package.gitTreeState=archive"
  done
  # One invocation for all commands, so that both cores stay busy to the end.
  go_build "$gopath" build -ldflags "-s -w$stamps" -o "$dir.tmp/bin/" \
    "${KUBERNETES_COMMANDS[@]/#/k8s.io/kubernetes/cmd/}"
  publish_dir "$dir"
  keep_newest 2 "$KINDNET_CACHE/kubernetes"
}

# kube-apiserver does not start without the OpenAPI definitions that upstream's
# Makefile generates before compiling.
generate_openapi() {
  local gopath=$1 packages
  go_build "$gopath" build -o "$gopath/openapi-gen" \
    k8s.io/kubernetes/vendor/k8s.io/kube-openapi/cmd/openapi-gen
  packages=$(grep -rl --include='*.go' --exclude='*_test.go' '+k8s:openapi-gen=true' cmd pkg plugin staging/src vendor/k8s.io/kube-openapi 2>/dev/null |
    xargs -n1 dirname | sort -u |
    grep -vE '/sample-|/code-generator/|kube-openapi/(cmd|test|pkg/generators)|/testdata' |
    sed -e 's|^staging/src/|k8s.io/kubernetes/vendor/|' -e '/^k8s.io/!s|^|k8s.io/kubernetes/|' |
    paste -sd,)
  # The generator loads packages through go/build, hence the same environment,
  # and -trimpath made it forget where the standard library lies.
  env GO111MODULE=off CGO_ENABLED=0 GOPATH="$gopath" GOFLAGS= GOROOT="$(go env GOROOT)" \
    "$gopath/openapi-gen" \
    --go-header-file hack/boilerplate/boilerplate.generatego.txt \
    --output-file-base zz_generated.openapi \
    --output-base "$gopath/src" \
    --output-package k8s.io/kubernetes/pkg/generated/openapi \
    --input-dirs "$packages" \
    --report-filename "$gopath/openapi-violations"
  rm -f "$gopath/openapi-gen"
}

prepare_kubernetes() {
  cached_step "Kubernetes $KUBERNETES_VERSION from Debian's source" "$(kubernetes_dir)" build_kubernetes
}
