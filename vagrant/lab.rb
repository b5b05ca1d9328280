# Which machines the lab is made of, read from its topology (director/lab/pair.yaml).
#
# One rule: no Vagrant here and no gem, only Ruby's own library, so that `ruby lab.rb` prints as JSON what the
# Vagrantfile makes; a test compares that with what the lab itself reads.

require "ipaddr"
require "json"
require "yaml"

module Lab
  TOPOLOGY = File.expand_path(ENV.fetch("LAB_TOPOLOGY", "../director/lab/pair.yaml"), __dir__)
  MEMORY_MB = { "director" => 1024, "l7proxy" => 1024 }.freeze
  OTHERS_MB = 512
  GROUPS = { "client" => "clients", "director" => "directors", "l7proxy" => "l7proxies", "backend" => "backends" }.freeze

  # Of each host: links in the file's order, routes to networks that it reaches by its gateway, and sysctls.
  def self.machines(file = TOPOLOGY)
    topology = YAML.safe_load(File.read(file))
    networks, hosts = topology.fetch("networks"), topology.fetch("hosts")
    hosts.map do |name, host|
      {
        "name" => name,
        "role" => host.fetch("role"),
        "group" => GROUPS.fetch(host["role"]),
        "memory_mb" => MEMORY_MB.fetch(host["role"], OTHERS_MB),
        "links" => host.fetch("links").map { |network, link| link_of(network, networks.fetch(network), link) },
        "routes" => routes_of(host, networks, hosts),
        "sysctls" => host.fetch("sysctls", {}).transform_values(&:to_s),
      }
    end
  end

  # By role, and real servers of the directors are the l7proxy: the names are those of the collection's inventories.
  def self.groups(machines)
    groups = machines.group_by { |machine| machine["group"] }
    groups.transform_values! { |each| each.map { |machine| machine["name"] } }
    { **groups, "realservers" => groups.fetch("l7proxies", []) }
  end

  # What Vagrant has no word for, as a shell script for the machine: IPv6, the way back by the gateway, sysctls.
  # An interface is found by its MAC: its name is the box's business. The machine's own default route stays as it is.
  def self.settle(machine)
    lines = machine["links"].map do |link|
      "ip -6 address replace #{link['v6']} dev \"$(by_mac #{link['mac']})\" nodad"
    end
    lines += machine["routes"].map { |route| "ip route replace #{route['to']} via #{route['via']}" }
    lines += machine["sysctls"].map { |key, value| "sysctl -qw #{key}=#{value}" }
    [BY_MAC, *lines].join("\n") + "\n"
  end

  BY_MAC = <<~SH.freeze
    set -eu
    by_mac() {
        for each in /sys/class/net/*; do
            if [ "$(cat "$each/address")" = "$1" ]; then basename "$each"; return; fi
        done
        echo "no interface has the MAC $1: is it an older machine? vagrant destroy, and up again" >&2
        exit 1
    }
  SH
  private_constant :BY_MAC

  def self.link_of(network, addresses, link)
    v4, v6 = IPAddr.new(addresses.fetch("v4")), IPAddr.new(addresses.fetch("v6"))
    {
      "network" => network,
      "v4" => link.fetch("v4"),
      "netmask" => v4.netmask,
      "v6" => "#{link.fetch('v6')}/#{v6.prefix}",
      "mac" => link.fetch("mac"),
    }
  end
  private_class_method :link_of

  # The networks that a host is not on, by its gateway's address on the first network that both are on.
  def self.routes_of(host, networks, hosts)
    return [] unless host["gateway"]

    there = hosts.fetch(host["gateway"]).fetch("links")
    shared = host["links"].keys.find { |network| there.key?(network) }
    (networks.keys - host["links"].keys).flat_map do |network|
      %w[v4 v6].map { |family| { "to" => networks[network][family], "via" => there[shared].fetch(family) } }
    end
  end
  private_class_method :routes_of
end

if $PROGRAM_NAME == __FILE__
  machines = Lab.machines
  machines.each { |machine| machine["settle"] = Lab.settle(machine) }
  puts JSON.pretty_generate("machines" => machines, "groups" => Lab.groups(machines))
end
