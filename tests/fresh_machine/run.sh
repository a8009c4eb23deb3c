#!/bin/bash
# Proves that a fresh Debian 12 with make, git and this checkout does all the set-up by itself: bootstraps one into a
# folder, clones the last commit into it, and runs the given targets there (see README.md). As root, on Debian or Ubuntu.
set -eu -o pipefail

usage() { sed -n 's/^# \{0,1\}//; 2,3p' "$0"; echo "usage: $0 [--mirror URL] [--again] FOLDER [TARGET ...]"; exit 2; }

mirror=""
again=no
while [ $# -gt 0 ]; do
    case "$1" in
        --mirror) mirror="$2"; shift 2 ;;
        --again) again=yes; shift ;;
        -*) usage ;;
        *) break ;;
    esac
done
[ $# -ge 1 ] || usage
folder=$(realpath -m "$1"); shift
[ $# -ge 1 ] || set -- demo demo test
checkout=$(realpath "$(dirname "$0")/../..")

if [ "$again" = no ]; then
    [ ! -e "$folder" ] || { echo "'$folder' exists: remove it, or give --again to use it once more." >&2; exit 1; }
    # The mirror that this machine itself uses, in either form of apt's sources.
    [ -n "$mirror" ] || mirror=$({ cat /etc/apt/sources.list /etc/apt/sources.list.d/debian.* 2>/dev/null || true; } |
        sed -n -e 's/^URIs: *\([^ ]*\).*/\1/p' -e 's/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*\).*/\2/p' | head -n 1)
    [ -n "$mirror" ] || { echo "Give the Debian mirror with --mirror." >&2; exit 1; }
    debootstrap --variant=minbase --include=make,git,ca-certificates bookworm "$folder" "$mirror"
fi

# The network's settings of this machine: names, certificates, proxies, package index, folders of wheels.
for file in /etc/resolv.conf /etc/hosts /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
    [ ! -e "$file" ] || install -D -m 644 "$(realpath "$file")" "$folder$file"
done
passed=()
while IFS= read -r name; do
    passed+=("$name=${!name}")
done < <(compgen -e | grep -iE '^(https?_proxy|all_proxy|no_proxy|SSL_CERT_FILE|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|(PIP|UV)_.*)$')
for wheels in ${PIP_FIND_LINKS:-} ${UV_FIND_LINKS:-}; do
    [ ! -d "$wheels" ] || { mkdir -p "$folder$wheels"; cp -a "$wheels/." "$folder$wheels/"; }
done

rm -rf "$folder/root/deepscape"
git clone --quiet --no-hardlinks "$checkout" "$folder/root/deepscape"

for target in "$@"; do
    start=$SECONDS
    echo "---- make $target"
    # A mount and process namespace of its own: /proc is there for what needs it, and nothing is left behind.
    unshare --mount --pid --fork chroot "$folder" /usr/bin/env -i HOME=/root LANG=C.UTF-8 CI=true \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin ${passed[@]+"${passed[@]}"} \
        /bin/sh -c 'mount -t proc proc /proc && exec make --no-print-directory -C /root/deepscape "$@"' sh "$target" </dev/null
    echo "---- make $target: passed in $((SECONDS - start)) s"
done
