# The cluster as it would be made: plans only, by a provider that knows the schema and makes ids up. Nothing is
# run: what an apply runs is in tests/terraform/applied.tftest.hcl, which has fakes of aws and helm.

mock_provider "aws" {
  source          = "./tests/aws"
  override_during = plan
}

variables {
  zones    = ["eu-central-1a", "eu-central-1b"]
  api_from = ["203.0.113.7/32"]
  image    = { repository = "example.test/enid", tag = "0.1.0" }
  enid     = ""
}

# The cluster -------------------------------------------------------------------------------------
run "eks_brings_no_cni" {
  command = plan

  assert {
    condition     = aws_eks_cluster.this.bootstrap_self_managed_addons == false
    error_message = "EKS would install aws-node."
  }
  assert {
    condition     = sort(keys(aws_eks_addon.before_nodes)) == tolist(["eks-pod-identity-agent", "kube-proxy"]) && aws_eks_addon.coredns.addon_name == "coredns"
    error_message = "The add-ons are ${jsonencode(keys(aws_eks_addon.before_nodes))} and ${aws_eks_addon.coredns.addon_name}."
  }
}

run "the_control_plane_logs_everything_and_encrypts_secrets" {
  command = plan

  assert {
    condition     = length(aws_eks_cluster.this.enabled_cluster_log_types) == 5
    error_message = "Logs: ${jsonencode(aws_eks_cluster.this.enabled_cluster_log_types)}."
  }
  assert {
    condition     = aws_cloudwatch_log_group.cluster.name == "/aws/eks/enid-test/cluster" && aws_cloudwatch_log_group.cluster.kms_key_id == aws_kms_key.this.arn
    error_message = "EKS would make a log group of its own: ${aws_cloudwatch_log_group.cluster.name}."
  }
  assert {
    condition     = aws_eks_cluster.this.encryption_config[0].provider[0].key_arn == aws_kms_key.this.arn && contains(aws_eks_cluster.this.encryption_config[0].resources, "secrets")
    error_message = "Secrets are not encrypted with the cluster's key."
  }
}

run "the_api_server_is_reached_from_where_it_was_said" {
  command = plan

  assert {
    condition     = join(",", aws_eks_cluster.this.vpc_config[0].public_access_cidrs) == "203.0.113.7/32"
    error_message = "It is reached from ${jsonencode(aws_eks_cluster.this.vpc_config[0].public_access_cidrs)}."
  }
}

run "all_of_the_internet_is_refused" {
  command = plan

  variables {
    api_from = ["203.0.113.7/32", "0.0.0.0/0"]
  }

  expect_failures = [var.api_from]
}

# Nodes -------------------------------------------------------------------------------------------
run "nodes_are_told_max_pods" {
  command = plan

  assert {
    condition     = strcontains(base64decode(aws_launch_template.node.user_data), "\"maxPods\": 29")
    error_message = "m5.large takes 29 pods; the user data is: ${base64decode(aws_launch_template.node.user_data)}"
  }
  assert {
    condition     = output.max_pods == 29
    error_message = "The output says ${output.max_pods}."
  }
}

run "and_more_with_prefixes" {
  command = plan

  variables {
    prefix_delegation = true
  }

  assert {
    condition     = strcontains(base64decode(aws_launch_template.node.user_data), "\"maxPods\": 110")
    error_message = "110 with prefixes; the user data is: ${base64decode(aws_launch_template.node.user_data)}"
  }
  assert {
    condition     = yamldecode(output.values).env.ENABLE_PREFIX_DELEGATION == "true"
    error_message = "enid is not told: ${output.values}"
  }
}

run "the_user_data_is_what_nodeadm_reads" {
  command = plan

  assert {
    condition     = yamldecode(regex("(?s)application/node.eks.aws\n\n(.*)\n--enid--", base64decode(aws_launch_template.node.user_data))[0]).spec.cluster.name == "enid-test"
    error_message = "No NodeConfig in: ${base64decode(aws_launch_template.node.user_data)}"
  }
  assert {
    condition     = startswith(base64decode(aws_launch_template.node.user_data), "MIME-Version: 1.0\n")
    error_message = "It begins with no MIME header: ${base64decode(aws_launch_template.node.user_data)}"
  }
}

run "ec2_that_disagrees_with_the_table_is_heard" {
  command = plan

  override_data {
    target = data.aws_ec2_instance_type.node
    values = {
      maximum_ipv4_addresses_per_interface = 15
      default_vcpus                        = 2
      supported_architectures              = ["x86_64"]
      network_cards                        = [{ index = 0, maximum_interfaces = 3 }]
    }
  }

  expect_failures = [check.limits]
}

run "imds_wants_a_token_and_answers_the_host_only" {
  command = plan

  assert {
    condition = (
      aws_launch_template.node.metadata_options[0].http_tokens == "required" &&
      aws_launch_template.node.metadata_options[0].http_put_response_hop_limit == 1
    )
    error_message = "IMDS: ${jsonencode(aws_launch_template.node.metadata_options)}."
  }
}

run "three_hops_are_refused" {
  command = plan

  variables {
    imds_hops = 3
  }

  expect_failures = [var.imds_hops]
}

run "volumes_are_encrypted" {
  command = plan

  assert {
    condition     = alltrue([for device in aws_launch_template.node.block_device_mappings : tobool(device.ebs[0].encrypted)])
    error_message = "A volume is not."
  }
}

run "instances_and_primary_enis_carry_the_clusters_tag" {
  command = plan

  assert {
    condition = alltrue([for kind in ["instance", "network-interface"] :
      one([for t in aws_launch_template.node.tag_specifications : t.tags["cluster.k8s.amazonaws.com/name"] if t.resource_type == kind]) == "enid-test"
    ])
    error_message = "config/iam/pod-identity.json would refuse: ${jsonencode(aws_launch_template.node.tag_specifications)}."
  }
}

run "nodes_have_no_right_to_all_enis" {
  command = plan

  assert {
    condition     = !contains(keys(aws_iam_role_policy_attachment.node), "AmazonEKS_CNI_Policy")
    error_message = "AmazonEKS_CNI_Policy is attached to nodes."
  }
}

# enid --------------------------------------------------------------------------------------------
run "pod_identity_has_the_clusters_policy" {
  command = plan

  assert {
    condition     = aws_iam_role_policy.enid.policy == file("../config/iam/pod-identity.json") && aws_iam_role.enid[0].tags["eks-cluster-name"] == "enid-test"
    error_message = "Another policy, or a role without the tag."
  }
  assert {
    condition = (
      aws_eks_pod_identity_association.enid[0].service_account == "enid" &&
      jsondecode(aws_iam_role.enid[0].assume_role_policy).Statement[0].Condition.StringEquals["aws:RequestTag/kubernetes-service-account"] == "enid"
    )
    error_message = "The role is not bound to enid's service account: ${aws_iam_role.enid[0].assume_role_policy}"
  }
  assert {
    condition     = jsondecode(aws_iam_role_policy.within_the_vpc.policy).Statement[0].Condition.ArnNotEquals["ec2:Vpc"] == module.network.vpc_arn
    error_message = "The fence is ${aws_iam_role_policy.within_the_vpc.policy}"
  }
}

run "the_roles_trust_is_exactly_this" {
  command = plan

  assert {
    condition = jsondecode(aws_iam_role.enid[0].assume_role_policy).Statement == [{
      Effect    = "Allow"
      Action    = ["sts:AssumeRole", "sts:TagSession"]
      Principal = { Service = "pods.eks.amazonaws.com" }
      Condition = {
        StringEquals = {
          "aws:RequestTag/kubernetes-namespace"       = "kube-system"
          "aws:RequestTag/kubernetes-service-account" = "enid"
          "aws:SourceAccount"                         = "123456789012"
        }
        ArnEquals = { "aws:SourceArn" = aws_eks_cluster.this.arn }
      }
    }]
    error_message = "Who may be the role: ${aws_iam_role.enid[0].assume_role_policy}"
  }
}

run "other_partitions_have_arns_of_their_own" {
  command = plan

  override_data {
    target = data.aws_partition.this
    values = { partition = "aws-cn" }
  }

  assert {
    condition     = !strcontains(aws_iam_role_policy.enid.policy, "arn:aws:") && strcontains(aws_iam_role_policy.enid.policy, "arn:aws-cn:ec2:*:*:network-interface/*")
    error_message = "ARNs of another partition: ${aws_iam_role_policy.enid.policy}"
  }
}

run "irsa_has_the_same_by_a_web_identity" {
  command = plan

  variables {
    credentials = "irsa"
  }

  assert {
    condition     = aws_iam_role_policy.enid.policy == file("../config/iam/pod-identity.json") && aws_iam_role.enid[0].tags["eks-cluster-name"] == "enid-test"
    error_message = "Another policy, or a role without the tag: every change would be denied."
  }
  assert {
    condition     = jsondecode(aws_iam_role.enid[0].assume_role_policy).Statement[0].Condition.StringEquals["oidc.eks.eu-central-1.amazonaws.com/id/0123456789ABCDEF:sub"] == "system:serviceaccount:kube-system:enid"
    error_message = "The role is not bound to enid's service account: ${aws_iam_role.enid[0].assume_role_policy}"
  }
  assert {
    condition     = yamldecode(output.values).serviceAccount.annotations["eks.amazonaws.com/role-arn"] == aws_iam_role.enid[0].arn
    error_message = "The service account does not name the role: ${output.values}"
  }
  assert {
    condition     = length(aws_eks_pod_identity_association.enid) == 0 && join(",", keys(aws_eks_addon.before_nodes)) == "kube-proxy"
    error_message = "Pod Identity is there, too."
  }
}

run "an_instance_profile_has_the_nodes_policy" {
  command = plan

  variables {
    credentials = "instance-profile"
  }

  assert {
    condition     = aws_iam_role_policy.enid.policy == file("../config/iam/instance-profile.json") && aws_iam_role_policy.enid.role == aws_iam_role.node.name
    error_message = "Another policy, or another role: ${aws_iam_role_policy.enid.role}."
  }
  assert {
    condition     = length(aws_iam_role.enid) == 0 && length(aws_eks_pod_identity_association.enid) == 0 && length(aws_iam_openid_connect_provider.this) == 0
    error_message = "There is a role for a service account, too."
  }
}

run "other_credentials_are_refused" {
  command = plan

  variables {
    credentials = "password"
  }

  expect_failures = [var.credentials]
}

run "enid_knows_the_clusters_name" {
  command = plan

  variables {
    settings = { WARM_IP_TARGET = "5" }
  }

  assert {
    condition     = yamldecode(output.values).clusterName == "enid-test" && yamldecode(output.values).env == { WARM_IP_TARGET = "5" }
    error_message = "Settings: ${output.values}"
  }
  assert {
    condition     = yamldecode(output.values).apiServer.host == "0123456789ABCDEF.gr7.eu-central-1.eks.amazonaws.com"
    error_message = "The API server is not named: ${output.values}"
  }
  assert {
    condition     = yamldecode(output.values).image == { repository = "example.test/enid", tag = "0.1.0" }
    error_message = "Image: ${output.values}"
  }
}

run "custom_networking_has_less_pods_and_finds_no_subnets" {
  command = plan

  variables {
    custom_networking = true
  }

  assert {
    condition     = output.max_pods == 20
    error_message = "The primary ENI carries no pods: 20, not ${output.max_pods}."
  }
  assert {
    condition     = yamldecode(output.values).env.ENI_CONFIG_LABEL_DEF == "topology.kubernetes.io/zone" && yamldecode(output.values).env.AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG == "true"
    error_message = "Settings: ${output.values}"
  }
}

run "without_it_there_is_no_eniconfig" {
  command = plan

  assert {
    condition     = output.eni_configs == ""
    error_message = "ENIConfigs: ${output.eni_configs}"
  }
}
