#!/usr/bin/env bash
# Shows that the README's promise holds: a bare Debian 12 with git, make, python3 and python3-venv, and an ordinary user,
# need `make demo` and `make test` and nothing else.
#
#   sudo tools/check_bare_machine.sh MIRROR [TARGET...]
#
# MIRROR is a Debian mirror (the URI in /etc/apt/sources.list*). The targets are `demo` and `test` unless given. The last
# commit is cloned into a fresh root directory; BARE_ROOT=DIRECTORY keeps that directory, and uses it again.
#
# Needs root for debootstrap and chroot. Every mount and process lives in namespaces of its own and ends with this script.
# The network is the machine's, and so is its way to a package index: pip's configuration, certificates, proxies.
set -euo pipefail

[[ $# -ge 1 ]] || { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
[[ $EUID -eq 0 ]] || { echo "$0: needs root, for debootstrap and chroot" >&2; exit 2; }
command -v debootstrap >/dev/null || { echo "$0: debootstrap is missing: apt-get install debootstrap" >&2; exit 2; }

if [[ -z ${IN_NAMESPACES:-} ]]; then
  IN_NAMESPACES=1 exec unshare --mount --pid --fork --kill-child "$0" "$@"
fi

mirror=$1
shift
targets=("$@")
[[ $# -ge 1 ]] || targets=(demo test)
repository=$(cd "$(dirname "$0")/.." && pwd)

if [[ -n ${BARE_ROOT:-} ]]; then
  root=$BARE_ROOT
  mkdir -p "$root"
else
  root=$(mktemp -d /tmp/shoal-bare-XXXXXX)
  trap 'umount --recursive --lazy "$root"/{proc,dev/pts,dev/shm} 2>/dev/null || true; rm -rf --one-file-system "$root"' EXIT
fi
chmod 755 "$root"

if [[ ! -e $root/etc/debian_version ]]; then
  debootstrap --variant=minbase --include=git,make,python3,python3-venv,ca-certificates bookworm "$root" "$mirror" >"$root.log" 2>&1 ||
    { tail -20 "$root.log" >&2; exit 1; }
  rm -f "$root.log"
fi

mount -t proc proc "$root/proc"
mkdir -p "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts "$root/dev/pts"
ln -sf pts/ptmx "$root/dev/ptmx"
mount -t tmpfs tmpfs "$root/dev/shm"
for file in /etc/resolv.conf /etc/hosts /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
  [[ ! -e $file ]] || cp --dereference "$file" "$root$file"
done

id=4242 # no user of the machine has it
home=/home/visitor
chroot "$root" id visitor >/dev/null 2>&1 || chroot "$root" useradd --uid $id --create-home --shell /bin/bash visitor
rm -rf --one-file-system "${root:?}$home/shoal"
git clone --quiet --no-hardlinks "file://$repository" "$root$home/shoal"
chown -R $id:$id "$root$home/shoal"

# The environment of a new login, and of the caller's only what says how packages are reached.
environment=(HOME=$home USER=visitor PATH=/usr/local/bin:/usr/bin:/bin TERM=linux)
while IFS='=' read -r -d '' name value; do
  case $name in
    PIP_* | UV_* | SSL_CERT_FILE | SSL_CERT_DIR | REQUESTS_CA_BUNDLE | [Hh][Tt][Tt][Pp]_[Pp]* | [Hh][Tt][Tt][Pp][Ss]_[Pp]* | [Nn][Oo]_[Pp]* )
      environment+=("$name=$value")
      ;;
  esac
done < <(env -0)

as_visitor() { chroot --userspec=$id:$id "$root" /usr/bin/env -i "${environment[@]}" /bin/bash -c "cd $home/shoal && $1"; }

echo "bare machine: Debian $(cat "$root/etc/debian_version"), $(as_visitor 'python3 --version'), user $(as_visitor 'id -un'), commit $(as_visitor 'git rev-parse --short HEAD')"
for target in "${targets[@]}"; do
  start=$SECONDS
  if as_visitor "make $target"; then outcome=passed; else outcome="FAILED ($?)"; fi
  echo "bare machine: make $target $outcome in $((SECONDS - start)) s"
  [[ $outcome == passed ]] || exit 1
done
left=$(pgrep --uid $id --list-full || true)
[[ -z $left ]] || { printf 'bare machine: left behind:\n%s\n' "$left"; exit 1; }
