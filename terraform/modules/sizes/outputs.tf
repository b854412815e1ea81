output "formula" {
  description = "What `enid plan` calls max_pods: how many pods the ENIs hold by EKS' formula."
  value       = local.formula
}

output "max_pods" {
  description = "What `enid plan` calls recommended_max_pods, and kubelet is told: the formula, capped as EKS recommends."
  value       = local.max_pods

  precondition {
    condition     = local.zone_holds <= local.pod_addresses
    error_message = "A zone's ${ceil(var.most_nodes / length(var.zones))} nodes can hold ${local.zone_holds} addresses, and its pod subnet has ${local.pod_addresses}: make pod_cidr (${var.pod_cidr}) larger, or take fewer nodes (most_nodes is ${var.most_nodes}) or a smaller type than ${var.instance_type}."
  }
}

output "limits" {
  description = "What eni/limits.json says of the type, to be compared with what EC2 says."
  value = {
    enis       = local.enis
    ipv4       = local.ipv4
    hypervisor = local.hypervisor
    bare_metal = local.bare_metal
    vcpus      = local.vcpus
  }
}

output "public_cidrs" {
  description = "By zone: the subnets of the NAT gateway and of load balancers."
  value       = local.public_cidrs
}

output "node_cidrs" {
  description = "By zone: the subnets of the nodes and their primary ENIs."
  value       = local.node_cidrs
}

output "pod_cidrs" {
  description = "By zone: the subnets of the ENIs that enid makes."
  value       = local.pod_cidrs
}

output "reserved_cidrs" {
  description = "By zone: the first half of the pod subnet, to be reserved for /28 prefixes, so that single addresses do not break it up."
  value       = { for zone, cidr in local.pod_cidrs : zone => cidrsubnet(cidr, 1, 0) }
}
