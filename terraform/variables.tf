# What must be said -----------------------------------------------------------------------------
variable "zones" {
  description = "Two or more availability zones of the provider's region. EKS lacks room in some, so that nobody chooses for you."
  type        = list(string)
}

variable "api_from" {
  description = "The CIDR blocks that reach the API server from outside: whoever applies this, since helm and `enid verify` run there."
  type        = list(string)

  validation {
    condition     = length(var.api_from) > 0 && alltrue([for cidr in var.api_from : can(cidrhost(cidr, 0)) && !endswith(cidr, "/0")])
    error_message = "api_from is [${join(", ", var.api_from)}]: name your own addresses, such as 203.0.113.7/32, and not all of the internet."
  }
}

variable "image" {
  description = "enid's image: a repository that nodes can pull from, and a tag."
  type = object({
    repository = string
    tag        = string
  })
}

# The cluster -----------------------------------------------------------------------------------
variable "name" {
  description = "The cluster's name. ENIs are tagged with it, and deleted by it."
  type        = string
  default     = "enid-test"

  validation {
    condition     = can(regex("^[0-9A-Za-z][0-9A-Za-z_-]{0,49}$", var.name))
    error_message = "name is ${var.name}: letters, digits, - and _, up to 50, since roles are named after it."
  }
}

variable "kubernetes_version" {
  description = "EKS' version; `make e2e` runs this one."
  type        = string
  default     = "1.34"
}

variable "vpc_cidr" {
  description = "The VPC's first CIDR block: nodes and what is public."
  type        = string
  default     = "10.0.0.0/16"
}

variable "pod_cidr" {
  description = "The VPC's second CIDR block: pods."
  type        = string
  default     = "100.64.0.0/16"
}

variable "ipv6" {
  description = "Whether VPC, subnets and nodes have IPv6 as well. Pods have IPv4 addresses either way."
  type        = bool
  default     = false
}

variable "log_days" {
  description = "How long CloudWatch keeps the control plane's logs."
  type        = number
  default     = 7
}

variable "tags" {
  description = "Tags for everything that is made."
  type        = map(string)
  default     = {}
}

# Nodes -----------------------------------------------------------------------------------------
variable "instance_type" {
  description = "Type of the nodes, as eni/limits.json knows it."
  type        = string
  default     = "m5.large"
}

variable "nodes" {
  description = "How many nodes."
  type        = number
  default     = 2
}

variable "imds_hops" {
  description = "Hops that an answer of IMDS may take: 1 reaches the host's network, where enid is, and no pod. 2 lets pods have the node's role, for tests of that."
  type        = number
  default     = 1

  validation {
    condition     = contains([1, 2], var.imds_hops)
    error_message = "imds_hops is ${var.imds_hops}: 1 keeps IMDS from pods, 2 lets them have it; there is nothing beyond."
  }
}

# enid ------------------------------------------------------------------------------------------
variable "credentials" {
  description = "Where the daemon's keys come from: pod-identity and irsa have the policy of the cluster's tag, instance-profile that of the own instance (docs/iam.md)."
  type        = string
  default     = "pod-identity"

  validation {
    condition     = contains(["pod-identity", "irsa", "instance-profile"], var.credentials)
    error_message = "credentials is ${var.credentials}, and not pod-identity, irsa or instance-profile."
  }
}

variable "prefix_delegation" {
  description = "Whether ENIs take /28 prefixes; half of each pod subnet is reserved for them then."
  type        = bool
  default     = false
}

variable "custom_networking" {
  description = "Whether ENIConfigs, one a zone, place the pods' ENIs; else enid finds the pod subnets by their tag."
  type        = bool
  default     = false
}

variable "settings" {
  description = "More of enid's settings (docs/settings.md)."
  type        = map(string)
  default     = {}
}

variable "chart" {
  description = "The folder of enid's chart; not given: the one of this repository."
  type        = string
  default     = null
}

variable "enid" {
  description = "The command `enid` of the machine that applies this; \"\" leaves the smoke test out."
  type        = string
  default     = "enid"
}
