"""Symptoms in texts, probable causes, checks and fixes: data only, in the order in which a report has them.

Sources: runs of torch 2.13 with Gloo here (tests/cases/diagnose says which), issues and manuals where named.
A pattern of two words with a gap begins with the first one of the line, `^(?>.*?word)`: from each of many,
the search for the second would go to the line's end again.
"""

from __future__ import annotations

from collections.abc import Mapping

from provision.diagnose.causes import Row

_PORTS = "sysctl net.ipv4.ip_local_port_range; nft list ruleset; on both nodes"

ROWS = (
    Row(
        name="loopback-name",
        pattern=r"remote=\[(?:::ffff:)?127\.0\.(?!0\.1\b)\d+\.\d+\]",
        cause="a node's own name resolves to a loopback address, and Gloo told the others to come there",
        check="getent ahostsv4 $(hostname), on each node",
        fix="Give the name the address of the cluster's network in /etc/hosts (role host_names), "
        "or set GLOO_SOCKET_IFNAME.",
        source="ProcessGroupGloo.cpp; aws-do-eks #69",
        checks=frozenset({"own name"}),
    ),
    Row(
        name="gloo-interface-name",
        pattern=r"Unable to find address for: \^?\S+",
        cause="GLOO_SOCKET_IFNAME holds NCCL's syntax (^lo) or an interface that the node does not have",
        check="echo $GLOO_SOCKET_IFNAME; ip -brief address; on that node",
        fix="Name one exact interface: role collective_network writes it to /etc/clusterwright/job.env.",
        source="aws-do-eks #51",
    ),
    Row(
        name="ports-filtered",
        pattern=r"Connect timeout \[",
        cause="a firewall drops the ports that the ranks chose, though the meeting point's port is open; "
        "or a node's own name is a loopback address",
        check=_PORTS,
        fix="Open net.ipv4.ip_local_port_range between all nodes.",
        source="nccl #1956; horovod #1408",
        checks=frozenset({"sockets"}),
    ),
    Row(
        name="message-too-long",
        pattern=r"IBV_WC_LOC_LEN_ERR|[Mm]essage too long|EMSGSIZE",
        cause="the interfaces, or the switch between them, have different MTUs",
        check="ip -brief link; ping -M do -s 1472 PEER (8972 for 9000); from each node to each",
        fix="Set one MTU on all nodes and on the switch.",
        source="nccl #1524",
        checks=frozenset({"path mtu", "mtu"}),
    ),
    Row(
        name="meeting-point",
        pattern=r"client socket has (?:timed out|failed to connect)",
        cause="the meeting point is not reached: rank 0 never started, its name means another machine, "
        "or its port is filtered",
        check="getent ahostsv4 MASTER_ADDR on each node; ss -ltn 'sport = :MASTER_PORT' on the first",
        fix="Use the first node's own name or address; open the port; read rank 0's log first.",
        source="pytorch #73656, #79388",
        checks=frozenset({"master address"}),
    ),
    Row(
        name="port-taken",
        pattern=r"EADDRINUSE|[Aa]ddress already in use",
        cause="another program, perhaps a rank of an earlier job, listens on the port of the meeting point",
        check="ss -ltnp 'sport = :29500' on the first node",
        fix="End it, or pass --master-port.",
        checks=frozenset({"master port"}),
    ),
    Row(
        name="clients-missing",
        pattern=r"\b(\d+)/(?!\1\b)\d+ clients joined",
        cause="a node or rank never came to the meeting point",
        check="compare the ranks that have a log with those of the hostfile",
        fix="Read that node's log; start the job without it (--exclude) or restart it.",
    ),
    Row(
        name="killed",
        pattern=r"\(SIGKILL\)|exitcode\s*:\s*-9\b|oom-kill|Out of memory: Killed process",
        cause="the process was killed: memory ran out, or somebody did it",
        check="journalctl -k | grep -i 'killed process', on that node",
        fix="Use less memory (smaller micro-batch, offload) or find who killed it.",
    ),
    Row(
        name="shapes-differ",
        pattern=r"Received data size doesn't match expected size"
        r"|[Mm]essage truncated ?: received \d+ bytes instead of \d+",
        cause="ranks are in different operations or with different shapes: other code, data or library",
        check="compare code, data and library versions of the two nodes",
        fix="Make code and data the same on all ranks; look for a branch that depends on the rank.",
    ),
    Row(
        name="versions-differ",
        pattern=r"receiving \d+ bytes instead of \d+|NCCL_IGNORE_NET_MISMATCH|NET plugin mismatch",
        cause="nodes have different libraries (NCCL, torch), plugins, variables or network cards",
        check="NCCL_DEBUG=VERSION; env | grep NCCL; ls /sys/class/infiniband; on each node",
        fix="Make the nodes equal (ansible-playbook playbooks/site.yml).",
        source="nccl #1328, #1634",
        checks=frozenset({"torch", "environment", "clusterwright", "python"}),
    ),
    Row(
        name="wrong-interface",
        pattern=r"^(?>.*?NET/Socket ?: ?Using ).*\[\d+\](?:docker|virbr|br-|tun|tap|wg|cni|veth)",
        cause="NCCL chose the interface of a container engine, a bridge or a VPN",
        check="ip route get PEER, on each node",
        fix="NCCL_SOCKET_IFNAME==eth0 in /etc/nccl.conf, with the node's own name (role collective_network).",
        source="nccl #286, nccl-tests #219",
        checks=frozenset({"interface"}),
    ),
    Row(
        name="no-infiniband",
        pattern=r"NET/IB ?: ?No device found",
        cause="NCCL uses plain sockets: no InfiniBand or RoCE card is usable, or it may not lock memory",
        check="ls /dev/infiniband; ibv_devinfo; ulimit -l; on that node",
        fix="Where there is such a card: memlock unlimited, pass its devices to the container.",
    ),
    Row(
        name="address-family",
        pattern=r"errno: ?97\b|EAFNOSUPPORT|[Aa]ddress family not supported"
        r"|^(?>.*?ss_family).*\b(?:2 vs\.? 10|10 vs\.? 2)\b|remote=\[fe80::",
        cause="IPv4 and IPv6 are mixed: a name has both, or a node has no IPv6 (then it is a warning only)",
        check="getent ahosts NAME; sysctl net.ipv6.conf.all.disable_ipv6; on each node",
        fix="Use one family: addresses of /etc/hosts, NCCL_SOCKET_FAMILY=AF_INET.",
        source="pytorch #121807, #135355",
    ),
    Row(
        name="shared-memory",
        pattern=r"^(?>.*?(?:shm|shared memory)).*No space left on device|insufficient shared memory \(shm\)",
        cause="/dev/shm is full or small (64 MiB in a container)",
        check="df -h /dev/shm",
        fix="docker run --ipc=host or --shm-size; fewer workers of the data loader.",
        source="nccl #342, #290",
        checks=frozenset({"shared memory"}),
    ),
    Row(
        name="disk-full",
        pattern=r"^(?!.*(?:shm|shared memory)).*(?:No space left on device|\[Errno 28\]|ENOSPC)",
        cause="a disk of the node is full",
        check="df -h / /data; df -i /data",
        fix="Delete old checkpoints (python -m runtime checkpoint prune) or jobs of /data/jobs.",
        checks=frozenset({"disk"}),
    ),
    Row(
        name="files-open",
        pattern=r"Too many open files|EMFILE|ENFILE",
        cause="the limit of open files is too small for this many peers",
        check="ulimit -n, in the job; cat /proc/sys/fs/file-max",
        fix="Raise nofile (role host_tuning, host_tuning_nofile).",
        source="nccl #550; gloo #327",
        checks=frozenset({"open files"}),
    ),
    Row(
        name="roce-gid",
        pattern=r"^(?>.*?ibv_modify_qp).*(?:Invalid argument|errno 22)",
        cause="the index of the RoCE address (GID) is not the same kind on both nodes",
        check="show_gids, on each node",
        fix="Unset NCCL_IB_GID_INDEX (NCCL 2.21 and later finds it), or set it for each node.",
    ),
    Row(
        name="clock-skew",
        pattern=r"Expired credential|Rewound credential",
        cause="the clocks of the nodes differ",
        check="chronyc tracking, on each node",
        fix="Run the role time_sync.",
        source="ansible-slurm-appliance #114",
        checks=frozenset({"clock"}),
    ),
    Row(
        name="host-key",
        pattern=r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key verification failed",
        cause="the node has another host key than the ledger: it was rebuilt, or somebody else answers",
        check="ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub, on the node's console",
        fix="After a rebuild, run site.yml once with ssh_trust_replaced_nodes; else find out who answers.",
        checks=frozenset({"host key"}),
    ),
    Row(
        name="login-refused",
        pattern=r"Permission denied \((?:publickey|password|keyboard-interactive|gssapi)",
        cause="the node does not take this key",
        check="ssh -v NODE true",
        fix="Run the role ssh_trust.",
    ),
    Row(
        name="rank-late",
        pattern=r"Timed out waiting \d+ms for (?:recv|send) operation"
        r"|Watchdog caught collective operation timeout|wait timeout after \d+ms, keys:",
        cause="another rank is late, stopped or dead; this line is on every rank that waits for it",
        check="find the rank whose log lacks the line or ends first; `python -m runtime smoke` names it",
        fix="Mend that rank; this one is well.",
        consequence=True,
        source="gloo #511",
    ),
    Row(
        name="peer-gone",
        pattern=r"Connection closed by peer|Connection reset by peer|remote process exited|Broken pipe",
        cause="a peer ended first; its own log says why",
        check="find the rank that ended first",
        fix="Read that rank's log; this one is well.",
        consequence=True,
    ),
)

NOT_IN_TEXTS: Mapping[str, str] = {
    "P2P claimed but broken (hang at the first collective)": "needs a GPU: a copy with compared contents",
    "spinning in a collective (utilisation 100 %, low power)": "needs a GPU's power while it hangs",
    "dips at fixed times": "needs times by rank, not texts",
    "first step fine, drops after idle": "needs a socket held idle for ten minutes",
}
