#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes the image that local nodes start from: what a bare Debian on a cloud has, and nothing of Ashlar.
#   seed.sh CACHE CODENAME IMAGE MIRROR PACKAGE,PACKAGE...
# Prints one line a step; the last is "present" (nothing was done) or "imported". MIRROR may be empty: debootstrap's own.
set -euo pipefail
if [ $# -ne 5 ]; then
  echo "usage: seed.sh CACHE CODENAME IMAGE MIRROR PACKAGES" >&2
  exit 2
fi
cache=$1 codename=$2 image=$3 mirror=$4 packages=$5

if podman image exists "$image"; then
  echo present
  exit 0
fi

mkdir -p "$cache"
exec 9>"$cache/lock"
if ! flock --wait 1200 9; then
  echo "another run has held $cache/lock for 20 minutes; end it and run again" >&2
  exit 1
fi
if podman image exists "$image"; then
  echo present
  exit 0
fi

archive="$cache/${image##*:}.tar.gz"
if [ ! -e "$archive" ]; then
  # Nobody else builds while the lock is held, so what lies here was left by a run that was killed.
  rm -rf --one-file-system "$cache"/build.*
  build=$(mktemp -d -p "$cache" build.XXXXXX)
  trap 'rm -rf --one-file-system "$build"' EXIT
  root="$build/rootfs"

  echo "debootstrap $codename"
  if ! debootstrap --variant=minbase --include="$packages" "$codename" "$root" ${mirror:+"$mirror"} >"$build/log" 2>&1; then
    tail -n 15 "$build/log" >&2
    echo "debootstrap of $codename failed; check that this machine reaches a Debian mirror (local_nodes_mirror names another)" >&2
    exit 1
  fi

  # Each node is a machine of its own: identity and host keys come later, package lists would only be stale.
  rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/cache/apt/*.bin "$root"/var/lib/apt/lists/* "$root"/var/log/*.log "$root"/etc/ssh/ssh_host_*
  : >"$root/etc/machine-id"
  : >"$root/etc/resolv.conf"
  printf '127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n' >"$root/etc/hosts"
  rm -f "$root/var/lib/dbus/machine-id" "$root/etc/hostname"

  # These would touch devices and terminals of the machine the nodes run on, or burn its two cores at the same second on every node.
  for unit in systemd-udevd.service systemd-udevd-control.socket systemd-udevd-kernel.socket systemd-udev-trigger.service systemd-udev-settle.service \
    getty.target getty@.service console-getty.service systemd-journald-audit.socket systemd-networkd-wait-online.service \
    sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount dev-hugepages.mount proc-sys-fs-binfmt_misc.automount \
    apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer man-db.timer; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
  done

  # On a machine systemd makes every mount shared (volumes that pods mount must reach the host); in a container it leaves that to its manager.
  cat >"$root/etc/systemd/system/shared-mounts.service" <<'UNIT'
[Unit]
Description=Mounts propagate as on a machine
DefaultDependencies=no
Before=sysinit.target
[Service]
Type=oneshot
ExecStart=/usr/bin/mount --make-rshared /
[Install]
WantedBy=sysinit.target
UNIT
  mkdir -p "$root/etc/systemd/system/sysinit.target.wants"
  ln -sf ../shared-mounts.service "$root/etc/systemd/system/sysinit.target.wants/shared-mounts.service"

  echo "pack $archive"
  tar --create --numeric-owner --directory "$root" . | gzip -1 >"$archive.new"
  mv "$archive.new" "$archive"
fi

echo "import $image"
podman import --quiet --change 'CMD ["/sbin/init"]' --change 'STOPSIGNAL SIGRTMIN+3' --change 'ENV container=podman' "$archive" "$image" >/dev/null 2>&1 ||
  {
    rm -f "$archive"
    echo "podman could not import $archive; it was removed, run again" >&2
    exit 1
  }
echo imported
