"""The numbers of generic netlink and of its family "IPVS".

One rule: a number stands here with the kernel's own name and file, and nowhere else. All files are below
include/uapi/linux/.
"""

from __future__ import annotations

from typing import Final

# linux/netlink.h
NETLINK_GENERIC: Final = 16
SOL_NETLINK: Final = 270  # include/linux/socket.h
NETLINK_CAP_ACK: Final = 10
NETLINK_EXT_ACK: Final = 11
NLMSG_HEADER_BYTES: Final = 16  # struct nlmsghdr
NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
NLM_F_REQUEST: Final = 0x01
NLM_F_ACK: Final = 0x04
NLM_F_DUMP: Final = 0x300  # NLM_F_ROOT | NLM_F_MATCH
NLM_F_CAPPED: Final = 0x100  # in an acknowledgement: the request was left out of it
NLM_F_ACK_TLVS: Final = 0x200  # in an acknowledgement: attributes follow
NLMSGERR_ATTR_MSG: Final = 1
NLA_HEADER_BYTES: Final = 4  # struct nlattr
NLA_F_NESTED: Final = 0x8000
NLA_TYPE_MASK: Final = 0x3FFF  # ~(NLA_F_NESTED | NLA_F_NET_BYTEORDER)

# linux/socket.h (include/linux/)
AF_INET: Final = 2
AF_INET6: Final = 10

# linux/genetlink.h
GENL_HEADER_BYTES: Final = 4  # struct genlmsghdr
GENL_ID_CTRL: Final = 0x10
CTRL_VERSION: Final = 2
CTRL_CMD_GETFAMILY: Final = 3
CTRL_ATTR_FAMILY_ID: Final = 1
CTRL_ATTR_FAMILY_NAME: Final = 2

# linux/ip_vs.h: IPVS_GENL_NAME, IPVS_GENL_VERSION
IPVS_GENL_NAME: Final = "IPVS"
IPVS_GENL_VERSION: Final = 1

# linux/ip_vs.h: "Generic Netlink command attributes", IPVS_CMD_*
NEW_SERVICE: Final = 1
SET_SERVICE: Final = 2
DEL_SERVICE: Final = 3
GET_SERVICE: Final = 4
NEW_DEST: Final = 5
SET_DEST: Final = 6
DEL_DEST: Final = 7
GET_DEST: Final = 8
NEW_DAEMON: Final = 9
DEL_DAEMON: Final = 10
GET_DAEMON: Final = 11
SET_CONFIG: Final = 12
GET_CONFIG: Final = 13
SET_INFO: Final = 14
GET_INFO: Final = 15

# linux/ip_vs.h: IPVS_CMD_ATTR_*
CMD_SERVICE: Final = 1
CMD_DEST: Final = 2
CMD_DAEMON: Final = 3
CMD_TIMEOUT_TCP: Final = 4  # u32, seconds
CMD_TIMEOUT_TCP_FIN: Final = 5  # u32
CMD_TIMEOUT_UDP: Final = 6  # u32

# linux/ip_vs.h: IPVS_SVC_ATTR_*; the types are those of ip_vs_svc_policy in net/netfilter/ipvs/ip_vs_ctl.c
SVC_AF: Final = 1  # u16
SVC_PROTOCOL: Final = 2  # u16
SVC_ADDR: Final = 3  # union nf_inet_addr, 16 bytes; an IPv4 address is the first 4
SVC_PORT: Final = 4  # be16
SVC_FWMARK: Final = 5  # u32
SVC_SCHED_NAME: Final = 6  # NUL-terminated, up to 15 characters
SVC_FLAGS: Final = 7  # struct ip_vs_flags: flags, mask
SVC_TIMEOUT: Final = 8  # u32, seconds
SVC_NETMASK: Final = 9  # IPv4: be32 mask; IPv6: u32 prefix length
SVC_STATS: Final = 10
SVC_PE_NAME: Final = 11
SVC_STATS64: Final = 12

# linux/ip_vs.h: IPVS_DEST_ATTR_*; the types are those of ip_vs_dest_policy
DEST_ADDR: Final = 1  # union nf_inet_addr
DEST_PORT: Final = 2  # be16
DEST_FWD_METHOD: Final = 3  # u32
DEST_WEIGHT: Final = 4  # u32
DEST_U_THRESH: Final = 5  # u32
DEST_L_THRESH: Final = 6  # u32
DEST_ACTIVE_CONNS: Final = 7  # u32
DEST_INACT_CONNS: Final = 8  # u32
DEST_PERSIST_CONNS: Final = 9  # u32
DEST_STATS: Final = 10
DEST_ADDR_FAMILY: Final = 11  # u16
DEST_STATS64: Final = 12
DEST_TUN_TYPE: Final = 13  # u8
DEST_TUN_PORT: Final = 14  # be16
DEST_TUN_FLAGS: Final = 15  # u16

# linux/ip_vs.h: IPVS_STATS_ATTR_*; u64 in STATS64; in STATS u32, but for the bytes
STATS_CONNS: Final = 1
STATS_INPKTS: Final = 2
STATS_OUTPKTS: Final = 3
STATS_INBYTES: Final = 4
STATS_OUTBYTES: Final = 5

# linux/ip_vs.h: IPVS_DAEMON_ATTR_*; the types are those of ip_vs_daemon_policy
DAEMON_STATE: Final = 1  # u32: IP_VS_STATE_MASTER, IP_VS_STATE_BACKUP
DAEMON_MCAST_IFN: Final = 2  # NUL-terminated, up to 15 characters
DAEMON_SYNC_ID: Final = 3  # u32
DAEMON_SYNC_MAXLEN: Final = 4  # u16
DAEMON_MCAST_GROUP: Final = 5  # struct in_addr
DAEMON_MCAST_GROUP6: Final = 6  # struct in6_addr
DAEMON_MCAST_PORT: Final = 7  # u16, in the host's order
DAEMON_MCAST_TTL: Final = 8  # u8
STATE_MASTER: Final = 1
STATE_BACKUP: Final = 2

# linux/ip_vs.h: IPVS_INFO_ATTR_*
INFO_VERSION: Final = 1  # u32, IP_VS_VERSION_CODE: one byte each of major, minor, patch

# linux/ip_vs.h: "Virtual Service Flags"
SVC_F_PERSISTENT: Final = 0x0001
SVC_F_HASHED: Final = 0x0002  # the kernel's own mark: in every dump, never asked for
SVC_F_ONEPACKET: Final = 0x0004
SVC_F_SCHED_MASK: Final = 0x0038  # SCHED1 | SCHED2 | SCHED3

# linux/ip_vs.h: IP_VS_CONN_F_FWD_MASK and its values
FWD_MASQ: Final = 0
FWD_LOCALNODE: Final = 1
FWD_TUNNEL: Final = 2
FWD_DROUTE: Final = 3
FWD_BYPASS: Final = 4

# linux/ip_vs.h: IP_VS_CONN_F_TUNNEL_TYPE_*
TUNNEL_IPIP: Final = 0
TUNNEL_GUE: Final = 1
TUNNEL_GRE: Final = 2
TUNNEL_FLAGS: Final = 3  # IP_VS_TUNNEL_ENCAP_FLAG_CSUM | IP_VS_TUNNEL_ENCAP_FLAG_REMCSUM
