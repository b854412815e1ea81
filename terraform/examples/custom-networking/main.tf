# Pods in subnets and security groups of their own: an ENIConfig for each zone names them, and the primary ENI
# carries no pods. So a node takes fewer: an m5.large 20 instead of 29.

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

  name              = "enid-custom"
  zones             = var.zones
  api_from          = var.api_from
  image             = var.image
  custom_networking = true
}

output "max_pods" {
  description = "What kubelet was told."
  value       = module.cluster.max_pods
}

output "eni_configs" {
  description = "What was applied."
  value       = module.cluster.eni_configs
}
