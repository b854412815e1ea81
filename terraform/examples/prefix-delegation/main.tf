# Pods on /28 prefixes: an m5.large takes 110 pods, which is as many as EKS recommends for it, and EC2 is
# asked for 16 addresses at once. Half of each pod subnet is reserved for prefixes.

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

  name              = "enid-prefixes"
  zones             = var.zones
  api_from          = var.api_from
  image             = var.image
  prefix_delegation = true
}

output "max_pods" {
  description = "What kubelet was told."
  value       = module.cluster.max_pods
}
