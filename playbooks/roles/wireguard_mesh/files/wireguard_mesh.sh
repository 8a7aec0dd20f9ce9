#!/bin/sh
# Clusterwright: gives the mesh's interface its key, peers and address, in any state; see role wireguard_mesh.
# Usage: wireguard_mesh.sh INTERFACE ADDRESS/LENGTH NETWORK FAMILY MTU
set -eu
interface=$1 address=$2 network=$3 family=$4 mtu=$5

# What says that it comes from the mesh, or goes to an address of it, comes through WireGuard. The kernel would take an
# address of its own from any wire.
nft --file - <<EOF
table inet clusterwright_mesh
delete table inet clusterwright_mesh
table inet clusterwright_mesh {
  chain input {
    type filter hook input priority filter - 11; policy accept;
    iifname != { "lo", "$interface" } $family saddr $network counter drop
    iifname != { "lo", "$interface" } $family daddr $network counter drop
  }
}
EOF

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
