#!/usr/bin/env bash
# Installs the system programs that the tests ("test", the default), the demo ("demo") or the
# benchmarks ("bench") call, where this is possible and they are missing.
set -euo pipefail

mode=${1:-test}
# program:package
case $mode in
  test)
    wanted='lz4:lz4 gzip:gzip mke2fs:e2fsprogs qemu-img:qemu-utils taskset:util-linux openssl:openssl'
    # an S3 server, an NFS server, and a kernel that can mount from it
    wanted+=' ceph-mon:ceph-mon ceph-osd:ceph-osd radosgw:radosgw ceph-authtool:ceph-common'
    wanted+=' ganesha.nfsd:nfs-ganesha /usr/lib/x86_64-linux-gnu/ganesha/libfsalvfs.so:nfs-ganesha-vfs'
    wanted+=' mount.nfs4:nfs-common linux.uml:user-mode-linux slirp-fullbolt:slirp depmod:kmod'
    ;;
  demo) wanted='mke2fs:e2fsprogs' ;;
  bench)
    wanted='/usr/bin/time:time openssl:openssl mke2fs:e2fsprogs taskset:util-linux restic:restic'
    wanted+=' ceph-mon:ceph-mon ceph-osd:ceph-osd radosgw:radosgw ceph-authtool:ceph-common'
    ;;
  *)
    echo "usage: test/install.sh [test|demo|bench]" >&2
    exit 2
    ;;
esac

# mke2fs usually lies outside an ordinary user's PATH.
PATH=$PATH:/usr/sbin:/sbin

find_missing() {
  missing=()
  packages=()
  local pair
  for pair in $wanted; do
    if ! command -v "${pair%%:*}" >/dev/null && ! [ -f "${pair%%:*}" ]; then
      missing+=("${pair%%:*}")
      packages+=("${pair#*:}")
    fi
  done
}

apt() {
  DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 "$@" </dev/null
}

find_missing
if [ ${#missing[@]} -eq 0 ]; then
  exit 0
fi

if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
  # A failed update is not the end: the lists at hand may do.
  apt update || true
  apt install -y --no-install-recommends "${packages[@]}" || true
  find_missing
  if [ ${#missing[@]} -eq 0 ]; then
    exit 0
  fi
  reason='could not be installed'
else
  reason='cannot be installed here (needs root and apt-get)'
fi

if [ "$mode" != test ] || [ -n "${CI:-}" ]; then
  echo "test/install.sh: missing: ${missing[*]}; $reason; packages: ${packages[*]}" >&2
  exit 1
fi
echo "test/install.sh: missing: ${missing[*]}; $reason; tests that need them will be skipped"
