# EKS ---------------------------------------------------------------------------------------------
resource "aws_eks_cluster" "this" {
  # checkov:skip=CKV_AWS_39: helm and the smoke test come from outside; api_from says who, and cannot say everybody
  # checkov:skip=CKV_AWS_38: api_from has no default, and its validation refuses all of the internet, which the tests show
  name     = var.name
  version  = var.kubernetes_version
  role_arn = aws_iam_role.cluster.arn

  # Without this EKS brings aws-node, kube-proxy and CoreDNS by itself. The latter two come as
  # add-ons below; in place of the first comes enid.
  bootstrap_self_managed_addons = false

  enabled_cluster_log_types = ["api", "audit", "authenticator", "controllerManager", "scheduler"]

  access_config {
    authentication_mode                         = "API"
    bootstrap_cluster_creator_admin_permissions = true
  }

  vpc_config {
    subnet_ids              = values(module.network.node_subnet_ids)
    endpoint_private_access = true
    endpoint_public_access  = true
    public_access_cidrs     = var.api_from
  }

  # An IPv6 cluster wants pods with IPv6 addresses, and enid gives none yet: with ipv6 the nodes are
  # dual-stack, and the cluster is as it was.
  kubernetes_network_config {
    ip_family = "ipv4"
  }

  encryption_config {
    resources = ["secrets"]
    provider {
      key_arn = aws_kms_key.this.arn
    }
  }

  tags = local.tags

  # EKS writes its logs as long as it is there, and needs its role to take its own ENIs away.
  depends_on = [aws_cloudwatch_log_group.cluster, aws_iam_role_policy_attachment.cluster]
}

resource "aws_iam_role" "cluster" {
  name_prefix = "${substr(var.name, 0, 26)}-cluster-"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "eks.amazonaws.com" }
    }]
  })
  tags = local.tags
}

resource "aws_iam_role_policy_attachment" "cluster" {
  role       = aws_iam_role.cluster.name
  policy_arn = "arn:${local.partition}:iam::aws:policy/AmazonEKSClusterPolicy"
}

# Secrets and logs are encrypted with it.
resource "aws_kms_key" "this" {
  description             = "Secrets and logs of the cluster ${var.name}"
  enable_key_rotation     = true
  deletion_window_in_days = 7
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "TheAccountsOwnPolicies"
        Effect    = "Allow"
        Action    = "kms:*"
        Resource  = "*"
        Principal = { AWS = "arn:${local.partition}:iam::${local.account}:root" }
      },
      {
        Sid       = "LogsOfThisCluster"
        Effect    = "Allow"
        Action    = ["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey*", "kms:ReEncrypt*"]
        Resource  = "*"
        Principal = { Service = "logs.${local.region}.amazonaws.com" }
        Condition = {
          ArnEquals = {
            "kms:EncryptionContext:aws:logs:arn" = "arn:${local.partition}:logs:${local.region}:${local.account}:log-group:${local.log_group}"
          }
        }
      },
    ]
  })
  tags = local.tags
}

locals {
  log_group = "/aws/eks/${var.name}/cluster" # EKS' own name for it
}

resource "aws_cloudwatch_log_group" "cluster" {
  # checkov:skip=CKV_AWS_338: a test's logs are read in the week of the test; log_days says how long
  name              = local.log_group
  retention_in_days = var.log_days
  kms_key_id        = aws_kms_key.this.arn
  tags              = local.tags
}

# Add-ons -----------------------------------------------------------------------------------------
# DaemonSets are whole in a cluster without nodes; CoreDNS is not, and waits for them.
resource "aws_eks_addon" "before_nodes" {
  for_each = toset(concat(
    ["kube-proxy"],
    var.credentials == "pod-identity" ? ["eks-pod-identity-agent"] : [],
  ))

  cluster_name                = aws_eks_cluster.this.name
  addon_name                  = each.key
  resolve_conflicts_on_create = "OVERWRITE"
  tags                        = local.tags
}

resource "aws_eks_addon" "coredns" {
  cluster_name                = aws_eks_cluster.this.name
  addon_name                  = "coredns"
  resolve_conflicts_on_create = "OVERWRITE"
  tags                        = local.tags
  depends_on                  = [aws_eks_node_group.this]
}
