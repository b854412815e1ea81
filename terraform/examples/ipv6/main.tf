# A VPC, subnets and nodes with IPv6 beside IPv4. Pods have IPv4 addresses all the same: enid gives none of IPv6 yet
# and refuses ENABLE_IPv6, so that the cluster is no IPv6 cluster. It shows that enid leaves the nodes' IPv6 alone.

terraform {
  required_version = ">= 1.9"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100, < 7"
    }
  }
}

provider "aws" {
  region = var.region
}

module "cluster" {
  source = "../.."

  name     = "enid-ipv6"
  zones    = var.zones
  api_from = var.api_from
  image    = var.image
  ipv6     = true
}

output "max_pods" {
  description = "What kubelet was told."
  value       = module.cluster.max_pods
}
