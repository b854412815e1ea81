variable "instance_type" {
  description = "Type of the nodes, as eni/limits.json knows it."
  type        = string

  validation {
    condition     = strcontains(file("${path.module}/../../../eni/limits.json"), "\n\"${var.instance_type}\":[")
    error_message = "Instance type ${var.instance_type} is not in eni/limits.json: take one that is, or make the table anew (tests/tools/make_limits.py)."
  }
}

variable "prefix_delegation" {
  description = "Whether ENIs take /28 prefixes; a type that takes none has single addresses."
  type        = bool
  default     = false
}

variable "custom_networking" {
  description = "Whether ENIConfigs place the pods' ENIs, so that the primary one carries no pods."
  type        = bool
  default     = false
}

variable "zones" {
  description = "Names of the availability zones."
  type        = list(string)

  validation {
    condition     = length(distinct(var.zones)) == length(var.zones) && length(var.zones) >= 2 && length(var.zones) <= 4
    error_message = "${length(var.zones)} zones (${join(", ", var.zones)}): EKS wants two at least, all different; there is room for four."
  }
}

variable "vpc_cidr" {
  description = "The VPC's first CIDR block: nodes and what is public."
  type        = string
  default     = "10.0.0.0/16"

  validation {
    condition     = can(regex("/(1[6-9]|20)$", var.vpc_cidr)) && can(cidrhost(var.vpc_cidr, 0))
    error_message = "vpc_cidr ${var.vpc_cidr} is no IPv4 block between /16, the largest that a VPC takes, and /20, whose public subnets are /28, the smallest."
  }

  validation {
    condition     = can(cidrhost(var.vpc_cidr, 0)) && try(cidrhost(var.vpc_cidr, 0) == split("/", var.vpc_cidr)[0], false)
    error_message = "vpc_cidr ${var.vpc_cidr} has bits behind its length: write ${try(cidrsubnet(var.vpc_cidr, 0, 0), "its network address")}."
  }
}

variable "pod_cidr" {
  description = "The VPC's second CIDR block: pods. It is of the shared address space, which no company's network routes (RFC 6598)."
  type        = string
  default     = "100.64.0.0/16"

  validation {
    condition     = can(regex("^100\\.(6[4-9]|[7-9][0-9]|1[01][0-9]|12[0-7])\\.", var.pod_cidr)) && can(regex("/(1[6-9]|2[0-4])$", var.pod_cidr))
    error_message = "pod_cidr ${var.pod_cidr} is not in 100.64.0.0/10, or not between /16, the largest that a VPC takes, and /24."
  }
}

variable "most_nodes" {
  description = "How many nodes there will be at most, to see whether their pods fit."
  type        = number
  default     = 2

  validation {
    condition     = var.most_nodes >= 1 && floor(var.most_nodes) == var.most_nodes
    error_message = "most_nodes is ${var.most_nodes}: it is a whole number, 1 at least."
  }
}
