# What enid may --------------------------------------------------------------------------------------
locals {
  of_pods = var.credentials != "instance-profile"
  irsa    = var.credentials == "irsa"

  namespace       = "kube-system"
  service_account = "enid" # the chart's
  issuer          = aws_eks_cluster.this.identity[0].oidc[0].issuer
  issuer_host     = trimprefix(local.issuer, "https://")

  # Only this cluster's own service account may be this role.
  trust_of_pod_identity = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = ["sts:AssumeRole", "sts:TagSession"]
      Principal = { Service = "pods.eks.amazonaws.com" }
      Condition = {
        StringEquals = {
          "aws:RequestTag/kubernetes-namespace"       = local.namespace
          "aws:RequestTag/kubernetes-service-account" = local.service_account
          "aws:SourceAccount"                         = local.account
        }
        ArnEquals = { "aws:SourceArn" = aws_eks_cluster.this.arn }
      }
    }]
  })
  trust_of_irsa = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = ["sts:AssumeRoleWithWebIdentity"]
      Principal = { Federated = one(aws_iam_openid_connect_provider.this[*].arn) }
      Condition = {
        StringEquals = {
          "${local.issuer_host}:aud" = "sts.amazonaws.com"
          "${local.issuer_host}:sub" = "system:serviceaccount:${local.namespace}:${local.service_account}"
        }
      }
    }]
  })

  role_name = local.of_pods ? one(aws_iam_role.enid[*].name) : aws_iam_role.node.name
}

resource "aws_iam_role" "enid" {
  count = local.of_pods ? 1 : 0

  name_prefix        = "${substr(var.name, 0, 26)}-enid-"
  assume_role_policy = local.irsa ? local.trust_of_irsa : local.trust_of_pod_identity
  # The policy compares ENIs with the caller's tag of this name. Pod Identity gives it to each session;
  # for a web identity a role's own tags are the caller's.
  tags = merge(local.tags, { "eks-cluster-name" = var.name })
}

# The policies as they are shipped, and as the embedded VPC tries them; ARNs of China and GovCloud begin otherwise.
resource "aws_iam_role_policy" "enid" {
  name = "enid"
  role = local.role_name
  policy = replace(
    file("${path.module}/../config/iam/${local.of_pods ? "pod-identity" : "instance-profile"}.json"),
    "arn:aws:", "arn:${local.partition}:",
  )
}

resource "aws_iam_role_policy" "within_the_vpc" {
  name   = "within-the-vpc"
  role   = local.role_name
  policy = templatefile("${path.module}/within-vpc.json.tftpl", { vpc_arn = module.network.vpc_arn })
}

resource "aws_eks_pod_identity_association" "enid" {
  count = var.credentials == "pod-identity" ? 1 : 0

  cluster_name    = aws_eks_cluster.this.name
  namespace       = local.namespace
  service_account = local.service_account
  role_arn        = aws_iam_role.enid[0].arn
  tags            = local.tags
}

resource "aws_iam_openid_connect_provider" "this" {
  count = local.irsa ? 1 : 0

  url            = local.issuer
  client_id_list = ["sts.amazonaws.com"]
  tags           = local.tags
}

# enid itself ----------------------------------------------------------------------------------------
locals {
  chart = coalesce(var.chart, "${path.module}/../config/chart")

  settings = merge(
    var.prefix_delegation ? { ENABLE_PREFIX_DELEGATION = "true" } : {},
    var.custom_networking ? {
      AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG = "true"
      ENI_CONFIG_LABEL_DEF               = "topology.kubernetes.io/zone"
    } : {},
    var.settings,
  )

  values = yamlencode({
    image       = var.image
    clusterName = var.name
    env         = local.settings
    # kube-proxy starts beside enid, and the API server's Service is kube-proxy's.
    apiServer = { host = trimprefix(aws_eks_cluster.this.endpoint, "https://") }
    serviceAccount = {
      annotations = local.irsa ? { "eks.amazonaws.com/role-arn" = aws_iam_role.enid[0].arn } : {}
    }
  })

  # One a zone, named as the zone is: the nodes' own label leads to it.
  eni_configs = join("---\n", [
    for zone, subnet in var.custom_networking ? module.network.pod_subnet_ids : {} : yamlencode({
      apiVersion = "crd.k8s.amazonaws.com/v1alpha1"
      kind       = "ENIConfig"
      metadata   = { name = zone }
      spec = {
        subnet         = subnet
        securityGroups = [aws_eks_cluster.this.vpc_config[0].cluster_security_group_id]
      }
    })
  ])
}

# helm is run, and not Terraform's provider for it: a provider is configured before anything is planned,
# and this cluster is not there yet; at destroy it would be asked of a cluster that goes. The command
# is the one that an operator types, and is an output. It waits for nothing: there are no nodes yet.
resource "terraform_data" "enid" {
  input = {
    cluster = aws_eks_cluster.this.name
    region  = local.region
  }
  triggers_replace = [
    local.values,
    local.eni_configs,
    sha256(join("", [for file in sort(fileset(local.chart, "**")) : filesha256("${local.chart}/${file}")])),
  ]

  provisioner "local-exec" {
    command = "\"$BIN/with-cluster\" \"$CLUSTER\" \"$REGION\" \"$BIN/install\" \"$CHART\""
    environment = {
      BIN         = abspath("${path.module}/bin")
      CLUSTER     = self.input.cluster
      REGION      = self.input.region
      CHART       = abspath(local.chart)
      VALUES      = local.values
      ENI_CONFIGS = local.eni_configs
    }
  }

  depends_on = [aws_eks_addon.before_nodes]
}

# The smoke test: pods, Services, DNS and the rest, from and to the new nodes.
resource "terraform_data" "verified" {
  count = var.enid == "" ? 0 : 1

  triggers_replace = [terraform_data.enid.id, aws_eks_node_group.this.id]

  provisioner "local-exec" {
    command = "\"$BIN/with-cluster\" \"$CLUSTER\" \"$REGION\" \"$ENID\" verify --quick"
    environment = {
      BIN     = abspath("${path.module}/bin")
      CLUSTER = aws_eks_cluster.this.name
      REGION  = local.region
      ENID    = var.enid
    }
  }

  depends_on = [aws_eks_addon.coredns]
}

# The end --------------------------------------------------------------------------------------------
# An ENI that is attached goes with its instance; one that was just created, or is on its way, stays, and
# holds its subnet and its groups. This is destroyed after the nodes, and before the network.
resource "terraform_data" "no_eni_left" {
  input = {
    bin     = abspath("${path.module}/bin")
    cluster = var.name
    region  = local.region
    vpc     = module.network.vpc_id
  }

  provisioner "local-exec" {
    when    = destroy
    command = "\"$BIN/delete-enis\" \"$CLUSTER\" \"$REGION\" \"$VPC\""
    environment = {
      BIN     = self.input.bin
      CLUSTER = self.input.cluster
      REGION  = self.input.region
      VPC     = self.input.vpc
    }
  }

  depends_on = [module.network, aws_eks_cluster.this] # the cluster's own group is in use, too
}
