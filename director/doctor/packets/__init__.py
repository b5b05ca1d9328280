"""What packet filters do with a packet: iptables' and nftables' rules as values, and a walk through them."""
