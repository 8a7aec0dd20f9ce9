#!/bin/sh
# Clusterwright: gives the mesh's interface its key, peers and address, in any state; see role wireguard_mesh.
# Usage: wireguard_mesh.sh INTERFACE ADDRESS/LENGTH MTU
set -eu
interface=$1 address=$2 mtu=$3

# wireguard-go takes a moment until it listens.
for turn in $(seq 100); do
  wg show "$interface" public-key >/dev/null 2>&1 && break
  sleep 0.1
done

# The private key is read here alone: it stands in no command line and in no other file. Sessions with peers that stay go on.
{
  printf '[Interface]\nPrivateKey = '
  cat /etc/wireguard/clusterwright.key /usr/local/lib/clusterwright/wireguard_mesh.conf
} | wg syncconf "$interface" /dev/stdin
ip address replace "$address" dev "$interface"
ip link set dev "$interface" mtu "$mtu" up
