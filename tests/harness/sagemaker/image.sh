#!/usr/bin/env bash
# Makes of launch/sagemaker/image/Dockerfile what a registry would hold: the files that its steps add, without Docker.
# COPY copies, RUN runs in the root file system it is for, ENV PATH is written down; FROM is --base or this machine,
# without its Python and its MPI: the image must do with its own.
#
#   image.sh [--base DIR] CONTEXT OUT          CONTEXT: as given to docker build; OUT: a new directory: root/, path
#   image.sh --base DIR --install CONTEXT      makes DIR: a Debian of this machine's release with nothing but what the
#                                              Dockerfile installs (debootstrap, and this machine's apt settings)
# Exit code 77, with the reason, where this machine cannot stand in for the base. Needs root.
set -euo pipefail
base=/ install=
if [ "$1" = --base ]; then base=$2 && shift 2; fi
if [ "$1" = --install ]; then install=yes && shift; fi
context=$1 out=${2:-}
skip() {
  echo "image: $*" >&2
  exit 77
}
[ "$(id -u)" -eq 0 ] || skip "needs root"
# Comments away, continued lines in one, the default of ARG in its place.
steps=$(sed -E '/^ *#/d' "$context/launch/sagemaker/image/Dockerfile" | sed -e ':a' -e '/\\$/N; s/\\\n *//; ta')
config=$(sed -n 's/^ARG CONFIG=//p' <<<"$steps")
steps=${steps//'${CONFIG}'/${CONFIG:-$config}}

in_base() { chroot "$base" env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive sh -euc "$1"; }
if [ -n "$install" ]; then
  [ ! -f "$base/complete" ] || exit 0
  command -v debootstrap >/dev/null || skip "debootstrap is not installed"
  release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  mirror=$({ grep -hoE 'https?://[^ ]*/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null || true; } | head -n 1)
  [ -n "$mirror" ] || skip "this machine's apt names no mirror of Debian"
  rm -rf "$base"
  timeout 300 debootstrap --variant=minbase "$release" "$base" $mirror >"$base.log" 2>&1 ||
    skip "debootstrap $release $mirror: $(tail -n 1 "$base.log")"
  unshare --mount bash -euc '
    base=$1
    mkdir -p "$base/etc/ssl/certs"
    touch "$base/etc/resolv.conf"
    for name in etc/apt etc/ssl/certs etc/resolv.conf; do mount --bind "/$name" "$base/$name"; done
    for name in proc dev; do mount --rbind "/$name" "$base/$name"; done
    while read -r _ command; do
      chroot "$base" env -i HOME=/root DEBIAN_FRONTEND=noninteractive \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin sh -euc "$command" </dev/null
    done' - "$base" < <(grep '^RUN apt-get ' <<<"$steps") >>"$base.log" 2>&1 ||
    skip "the Dockerfile's packages cannot be installed: $(tail -n 1 "$base.log")"
  touch "$base/complete"
  exit 0
fi

mkdir -p "$out/root"
while read -r step words; do
  case $step in
    FROM | ARG | '') ;;
    ENV) sed -n 's/^PATH=//p' <<<"$words" >"$out/path" ;;
    COPY)
      read -ra words <<<"$words"
      place=$out/root${words[-1]}
      unset 'words[-1]'
      for word in "${words[@]}"; do
        if [ -d "$context/$word" ]; then  # a directory's content
          mkdir -p "$place" && cp -a "$context/$word/." "$place/"
        elif [ "${place%/}" != "$place" ]; then
          mkdir -p "$place" && cp "$context/$word" "$place"
        else
          mkdir -p "$(dirname "$place")" && cp "$context/$word" "$place"
        fi
      done
      ;;
    RUN)
      case $words in
        apt-get*)  # the base has them already, see --install
          for tool in jq sshd ssh-keygen ssh; do
            in_base "command -v $tool >/dev/null" || skip "$tool is not in $base"
          done
          ;;
        *)  # over the base, so that what it writes stays in OUT
          rm -rf "$out.run" && mkdir -p "$out.run"
          unshare --mount bash -euc '
            mount -t tmpfs tmpfs "$3.run"
            mkdir "$3.run"/{upper,work,root}
            cp -a "$3/root/." "$3.run/upper/"
            mount -t overlay overlay -o "lowerdir=$1,upperdir=$3.run/upper,workdir=$3.run/work" "$3.run/root"
            mount --rbind /dev "$3.run/root/dev"
            chroot "$3.run/root" env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin sh -euc "$2"
            cp -a "$3.run/upper/." "$3/root/"' - "$base" "$words" "$out" || skip "\"$words\" cannot be run over $base"
          rmdir "$out.run"
          ;;
      esac
      ;;
    *)
      echo "image: the Dockerfile has a step that this script does not know: $step" >&2
      exit 1
      ;;
  esac
done <<<"$steps"
[ -s "$out/path" ] || { echo "image: the Dockerfile sets no PATH" >&2 && exit 1; }

# What the base of the image would not have: overlay file systems take a device 0 0 for a file that is not there.
for file in "$base"/usr/bin/python3* "$base"/usr/bin/{mpirun,mpiexec,orterun,orted,prte,prterun}*; do
  [ ! -e "$file" ] && [ ! -L "$file" ] || { mkdir -p "$out/root/usr/bin" && mknod "$out/root/usr/bin/${file##*/}" c 0 0; }
done
