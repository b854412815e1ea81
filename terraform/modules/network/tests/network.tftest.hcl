# The VPC, made by a provider that makes nothing up but ids.

mock_provider "aws" {
  mock_resource "aws_vpc" {
    defaults = {
      arn             = "arn:aws:ec2:eu-central-1:123456789012:vpc/vpc-0123456789abcdef0"
      ipv6_cidr_block = "2a05:d014:1::/56"
    }
  }
}

variables {
  name     = "blue"
  vpc_cidr = "10.0.0.0/16"
  pod_cidr = "100.64.0.0/16"
  public_cidrs = {
    "eu-central-1a" = "10.0.0.0/24"
    "eu-central-1b" = "10.0.1.0/24"
  }
  node_cidrs = {
    "eu-central-1a" = "10.0.16.0/20"
    "eu-central-1b" = "10.0.32.0/20"
  }
  pod_cidrs = {
    "eu-central-1a" = "100.64.0.0/17"
    "eu-central-1b" = "100.64.128.0/17"
  }
}

run "nodes_and_pods_have_subnets_in_each_zone" {
  assert {
    condition     = tomap({ for zone, s in aws_subnet.node : zone => s.cidr_block }) == var.node_cidrs
    error_message = "Node subnets: ${jsonencode({ for zone, s in aws_subnet.node : zone => s.cidr_block })}."
  }
  assert {
    condition     = tomap({ for s in aws_subnet.pod : s.availability_zone => s.cidr_block }) == var.pod_cidrs
    error_message = "Pod subnets: ${jsonencode({ for zone, s in aws_subnet.pod : zone => s.cidr_block })}."
  }
  assert {
    condition     = aws_vpc_ipv4_cidr_block_association.pods.cidr_block == "100.64.0.0/16"
    error_message = "The second block is ${aws_vpc_ipv4_cidr_block_association.pods.cidr_block}."
  }
}

run "only_pod_subnets_are_found_by_nodes_and_by_this_cluster_only" {
  assert {
    condition = alltrue([for s in aws_subnet.pod :
      s.tags["kubernetes.io/role/cni"] == "1" && s.tags["cni.networking.k8s.aws/cluster/blue"] == "1"
    ])
    error_message = "Pod subnets lack the tags of discovery."
  }
  assert {
    condition     = alltrue([for s in merge(aws_subnet.node, aws_subnet.public) : !contains(keys(s.tags), "kubernetes.io/role/cni")])
    error_message = "A node or public subnet would be taken for pods."
  }
}

run "under_custom_networking_none_is_found" {
  variables {
    discovered = false
  }

  assert {
    condition     = alltrue([for s in aws_subnet.pod : join(",", keys(s.tags)) == "Name"])
    error_message = "A pod subnet has a tag of discovery."
  }
}

run "no_address_is_public_by_itself" {
  assert {
    condition     = alltrue([for s in merge(aws_subnet.node, aws_subnet.pod, aws_subnet.public) : s.map_public_ip_on_launch != true])
    error_message = "A subnet gives public addresses."
  }
}

run "nodes_and_pods_leave_by_the_nat_gateway" {
  assert {
    condition     = aws_route.private_ipv4.nat_gateway_id == aws_nat_gateway.this.id
    error_message = "The private route table does not lead to the NAT gateway."
  }
  assert {
    condition = alltrue([for a in concat(values(aws_route_table_association.node), values(aws_route_table_association.pod)) :
      a.route_table_id == aws_route_table.private.id
    ])
    error_message = "A node or pod subnet is not in the private route table."
  }
}

run "half_of_each_pod_subnet_is_kept_for_prefixes" {
  variables {
    reserved_cidrs = {
      "eu-central-1a" = "100.64.0.0/18"
      "eu-central-1b" = "100.64.128.0/18"
    }
  }

  assert {
    condition = alltrue([for zone, r in aws_ec2_subnet_cidr_reservation.prefixes :
      r.reservation_type == "prefix" && r.subnet_id == aws_subnet.pod[zone].id
    ])
    error_message = "A reservation is of another type or subnet."
  }
}

run "with_ipv6_each_subnet_has_a_64_and_a_way_out" {
  variables {
    ipv6 = true
  }

  assert {
    condition = length(distinct([
      for s in concat(values(aws_subnet.public), values(aws_subnet.node), values(aws_subnet.pod)) : s.ipv6_cidr_block
    ])) == 6
    error_message = "Two subnets have one IPv6 block."
  }
  assert {
    condition     = aws_subnet.pod["eu-central-1b"].ipv6_cidr_block == "2a05:d014:1:5::/64"
    error_message = "The last subnet's block is ${aws_subnet.pod["eu-central-1b"].ipv6_cidr_block}."
  }
  assert {
    condition     = aws_route.private_ipv6[0].egress_only_gateway_id == aws_egress_only_internet_gateway.this[0].id
    error_message = "IPv6 has no way out."
  }
}

run "without_ipv6_there_is_none" {
  assert {
    condition     = length(aws_egress_only_internet_gateway.this) == 0 && length(aws_route.private_ipv6) == 0
    error_message = "There is IPv6."
  }
}
