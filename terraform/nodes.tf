# A managed node group, whose nodes are told their max-pods -----------------------------------------
data "aws_ec2_instance_type" "node" {
  instance_type = var.instance_type
}

# max-pods comes of the table that the daemon ships with; here AWS says whether it is right.
check "limits" {
  assert {
    condition = (
      data.aws_ec2_instance_type.node.maximum_ipv4_addresses_per_interface == module.sizes.limits.ipv4 &&
      data.aws_ec2_instance_type.node.default_vcpus == module.sizes.limits.vcpus &&
      one([for card in data.aws_ec2_instance_type.node.network_cards : card.maximum_interfaces if card.index == 0]) == module.sizes.limits.enis
    )
    error_message = "EC2 says otherwise of ${var.instance_type} than eni/limits.json (${jsonencode(module.sizes.limits)}): make the table anew (tests/tools/make_limits.py), or max-pods is wrong."
  }
}

locals {
  architecture = contains(data.aws_ec2_instance_type.node.supported_architectures, "arm64") ? "arm64" : "x86_64"

  # With an image of one's own choice EKS adds nothing to the user data, and max-pods is what this
  # says. Without one EKS writes a NodeConfig of its own, with the max-pods of its own CNI.
  node_config = {
    apiVersion = "node.eks.aws/v1alpha1"
    kind       = "NodeConfig"
    spec = {
      cluster = {
        name                 = aws_eks_cluster.this.name
        apiServerEndpoint    = aws_eks_cluster.this.endpoint
        certificateAuthority = aws_eks_cluster.this.certificate_authority[0].data
        cidr                 = aws_eks_cluster.this.kubernetes_network_config[0].service_ipv4_cidr
      }
      kubelet = {
        config = { maxPods = module.sizes.max_pods }
      }
    }
  }
  user_data = <<-EOT
    MIME-Version: 1.0
    Content-Type: multipart/mixed; boundary="enid"

    --enid
    Content-Type: application/node.eks.aws

    ${yamlencode(local.node_config)}
    --enid--
  EOT
}

# EKS' Amazon Linux 2023 of the cluster's version.
data "aws_ssm_parameter" "image" {
  name = "/aws/service/eks/optimized-ami/${var.kubernetes_version}/amazon-linux-2023/${local.architecture}/standard/recommended/image_id"
}

resource "aws_launch_template" "node" {
  name_prefix            = "${var.name}-"
  image_id               = nonsensitive(data.aws_ssm_parameter.image.value) # a public name
  user_data              = base64encode(local.user_data)
  update_default_version = true

  # Version 2 of IMDS only. enid and kubelet are on the host's network, one hop away; a pod is two
  # away, and has keys of its own or none, not the node's.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = var.imds_hops
  }

  block_device_mappings {
    device_name = "/dev/xvda"
    ebs {
      encrypted             = true
      volume_size           = 20
      volume_type           = "gp3"
      delete_on_termination = true
    }
  }

  dynamic "tag_specifications" {
    for_each = toset(["instance", "network-interface", "volume"])
    content {
      resource_type = tag_specifications.key
      tags          = merge(local.tags, local.cluster_tag, { Name = "${var.name}-node" })
    }
  }

  tags = local.tags
}

resource "aws_eks_node_group" "this" {
  cluster_name           = aws_eks_cluster.this.name
  node_group_name_prefix = "${var.name}-"
  node_role_arn          = aws_iam_role.node.arn
  subnet_ids             = values(module.network.node_subnet_ids)
  instance_types         = [var.instance_type]

  launch_template {
    id      = aws_launch_template.node.id
    version = aws_launch_template.node.latest_version
  }

  scaling_config {
    desired_size = var.nodes
    min_size     = 0
    max_size     = var.nodes + 1
  }

  update_config {
    max_unavailable = 1
  }

  tags = local.tags

  # All that makes a node Ready; and what must outlive the nodes when everything goes.
  depends_on = [
    aws_eks_addon.before_nodes,
    aws_eks_pod_identity_association.enid,
    aws_iam_role_policy_attachment.node,
    aws_iam_role_policy.enid,
    aws_iam_role_policy.within_the_vpc,
    module.network,
    terraform_data.enid,
    terraform_data.no_eni_left,
  ]
}

resource "aws_iam_role" "node" {
  name_prefix = "${substr(var.name, 0, 26)}-node-"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ec2.amazonaws.com" }
    }]
  })
  tags = local.tags
}

# Not AmazonEKS_CNI_Policy: it lets a node change every ENI of the account.
resource "aws_iam_role_policy_attachment" "node" {
  for_each = toset(["AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly"])

  role       = aws_iam_role.node.name
  policy_arn = "arn:${local.partition}:iam::aws:policy/${each.key}"
}
