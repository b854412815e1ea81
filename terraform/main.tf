# A cluster for a test of enid on AWS: EKS without a CNI of its own, and enid in its place.
#
# The order is what matters. A node is Ready only with a CNI, and a node group is made only when its
# nodes are Ready; so enid is installed into a cluster without nodes, and the nodes come last. When all
# goes the order is the reverse: nodes first, while enid still runs, then what ENIs they left, then
# subnets and security groups, which EC2 does not delete while an ENI is in them.

locals {
  tags = merge(var.tags, { "enid.dev/test-cluster" = var.name })
  # Instances and their primary ENIs carry it: config/iam/pod-identity.json asks for it.
  cluster_tag = { "cluster.k8s.amazonaws.com/name" = var.name }

  account   = data.aws_caller_identity.this.account_id
  partition = data.aws_partition.this.partition
  region    = data.aws_region.this.id
}

data "aws_caller_identity" "this" {}
data "aws_partition" "this" {}
data "aws_region" "this" {}

module "sizes" {
  source = "./modules/sizes"

  instance_type     = var.instance_type
  prefix_delegation = var.prefix_delegation
  custom_networking = var.custom_networking
  zones             = var.zones
  vpc_cidr          = var.vpc_cidr
  pod_cidr          = var.pod_cidr
  most_nodes        = var.nodes + 1 # an update of the node group has one more for a while
}

module "network" {
  source = "./modules/network"

  name           = var.name
  vpc_cidr       = var.vpc_cidr
  pod_cidr       = var.pod_cidr
  public_cidrs   = module.sizes.public_cidrs
  node_cidrs     = module.sizes.node_cidrs
  pod_cidrs      = module.sizes.pod_cidrs
  reserved_cidrs = var.prefix_delegation ? module.sizes.reserved_cidrs : {}
  discovered     = !var.custom_networking
  ipv6           = var.ipv6
  tags           = local.tags
}
