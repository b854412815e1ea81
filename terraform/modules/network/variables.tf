variable "name" {
  description = "The cluster's name; everything is named after it."
  type        = string
}

variable "vpc_cidr" {
  description = "The VPC's first CIDR block."
  type        = string
}

variable "pod_cidr" {
  description = "The VPC's second CIDR block."
  type        = string
}

variable "public_cidrs" {
  description = "By zone: the subnets of the NAT gateway and of load balancers."
  type        = map(string)
}

variable "node_cidrs" {
  description = "By zone: the subnets of the nodes."
  type        = map(string)
}

variable "pod_cidrs" {
  description = "By zone: the subnets of the pods."
  type        = map(string)
}

variable "reserved_cidrs" {
  description = "By zone: what of the pod subnet is reserved for prefixes; empty: nothing."
  type        = map(string)
  default     = {}
}

variable "discovered" {
  description = "Whether enid finds the pod subnets by their tag. Under custom networking ENIConfigs name them."
  type        = bool
  default     = true
}

variable "ipv6" {
  description = "Whether the VPC and its subnets have IPv6 blocks, and a way out for them."
  type        = bool
  default     = false
}

variable "tags" {
  description = "Tags for everything that is made."
  type        = map(string)
  default     = {}
}
