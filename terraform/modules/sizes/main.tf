# Arithmetic: which subnet has which CIDR block, and how many pods a node takes. Pure: no provider.
#
# max_pods is EKS' formula as `enid plan` and eni/limits.py have it, over the very table that the
# daemon ships with; tests/terraform/test_sizes.py holds the two equal for every instance type.

locals {
  # A row: ENIs and IPv4 addresses of an ENI on the default network card, IPv6 addresses of one, the
  # cards, the hypervisor, bare metal or not, vCPUs (eni/limits.py, Row). The table has a line for each
  # type; all of it as one value costs Terraform a third of a second each time.
  line = "(?m)^\"${replace(var.instance_type, ".", "\\.")}\":(\\[.*\\])"
  row  = jsondecode(regex(local.line, file("${path.module}/../../../eni/limits.json"))[0])

  enis       = local.row[0]
  ipv4       = local.row[1]
  hypervisor = local.row[4]
  bare_metal = local.row[5]
  vcpus      = local.row[6]

  prefixes_allowed = local.hypervisor == "nitro" || local.bare_metal
  each             = var.prefix_delegation && local.prefixes_allowed ? 16 : 1
  pod_enis         = var.custom_networking ? local.enis - 1 : local.enis

  # Two pods of every node are on its own address: kube-proxy and enid.
  formula = local.pod_enis * (local.ipv4 - 1) * local.each + 2
  # EKS' max-pods-calculator recommends no more, whatever the ENIs hold.
  cap = local.vcpus > 30 ? 250 : 110

  max_pods = min(local.formula, local.cap)

  zones = { for index, zone in var.zones : zone => index }
  # A sixteenth of the VPC for each zone's nodes; the first sixteenth is cut up for what is public.
  node_cidrs   = { for zone, index in local.zones : zone => cidrsubnet(var.vpc_cidr, 4, index + 1) }
  public_cidrs = { for zone, index in local.zones : zone => cidrsubnet(var.vpc_cidr, 8, index) }
  # Pods share the secondary block: halves for two zones, quarters for three or four.
  pod_bits  = ceil(log(length(var.zones), 2))
  pod_cidrs = { for zone, index in local.zones : zone => cidrsubnet(var.pod_cidr, local.pod_bits, index) }

  # AWS keeps the first four addresses of a subnet and the last.
  pod_addresses = pow(2, 32 - split("/", values(local.pod_cidrs)[0])[1]) - 5
  # A node's ENIs each have a primary address beside those of pods, and a prefix is held whole: what
  # a node can hold at most, by its limits and not by max_pods, since targets may keep some idle.
  node_holds = local.pod_enis * (1 + (local.ipv4 - 1) * local.each)
  # Nodes are spread over the zones: the fullest zone has the part that is rounded up.
  zone_holds = ceil(var.most_nodes / length(var.zones)) * local.node_holds
}
