#!/usr/bin/env bash
# Builds the real etcd, kube-apiserver and kube-controller-manager that the
# tests run against, and prints the folder that holds them as its last line.
#
#   build.sh          build what is missing (minutes the first time, then nothing)
#   build.sh --where  only print the folder; exit status 3 when it is not built
#
# The result is kept outside the tree, under a key made of the sources, so that
# a fresh clone, another branch and a `git clean` find it again, and a change of
# version never meets the binary of another one.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
cache=${FLOTILLA_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/flotilla}
key=$(cd -- "$here" && sha256sum go.mod go.sum main.go | sha256sum | cut -c1-16)
dir=$cache/kube/$key

# The binary is renamed into place last, after its symlinks exist, so its
# presence alone says that the folder is complete.
if [[ -x $dir/kube-parts ]]; then
	echo "$dir"
	exit 0
fi

case ${1:-} in
'') ;;
--where) exit 3 ;;
*)
	echo "usage: build.sh [--where]" >&2
	exit 2
	;;
esac

mkdir -p -- "$dir"
# Test processes may start side by side: one builds, the others wait for it.
# The lock goes with the descriptor, so a killed build leaves none behind.
exec 9>"$dir/lock"
flock 9
if [[ ! -x $dir/kube-parts ]]; then
	# The version that the API server reports is the one go.mod asks for.
	version=$(cd -- "$here" && go list -m -f '{{.Version}}' k8s.io/kubernetes)
	echo "building Kubernetes $version for the tests into $dir" >&2
	tmp=$dir/kube-parts.tmp.$$
	trap 'rm -f -- "$tmp"' EXIT
	# Without cgo no C compiler is needed. `-s -w` leaves the symbols out, which
	# halves the file; nobody debugs these.
	(
		cd -- "$here"
		CGO_ENABLED=0 go build -trimpath \
			-ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$version" \
			-o "$tmp" . 9>&-
	) >&2
	for name in etcd kube-apiserver kube-controller-manager; do
		ln -sfn kube-parts "$dir/$name"
	done
	mv -- "$tmp" "$dir/kube-parts"
fi
echo "$dir"
