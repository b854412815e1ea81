# What AWS would say, where a test looks at it. The rest is made up.

mock_data "aws_caller_identity" {
  defaults = { account_id = "123456789012" }
}
mock_data "aws_partition" {
  defaults = { partition = "aws" }
}
mock_data "aws_region" {
  defaults = { id = "eu-central-1" }
}
mock_data "aws_ssm_parameter" {
  defaults = { value = "ami-0123456789abcdef0" }
}
mock_data "aws_ec2_instance_type" {
  defaults = {
    maximum_ipv4_addresses_per_interface = 10
    default_vcpus                        = 2
    supported_architectures              = ["x86_64"]
    network_cards                        = [{ index = 0, maximum_interfaces = 3 }]
  }
}
mock_resource "aws_vpc" {
  defaults = {
    id              = "vpc-0123456789abcdef0"
    arn             = "arn:aws:ec2:eu-central-1:123456789012:vpc/vpc-0123456789abcdef0"
    ipv6_cidr_block = "2a05:d014:1::/56"
  }
}
mock_resource "aws_eks_cluster" {
  defaults = {
    arn                   = "arn:aws:eks:eu-central-1:123456789012:cluster/enid-test"
    endpoint              = "https://0123456789ABCDEF.gr7.eu-central-1.eks.amazonaws.com"
    certificate_authority = [{ data = "Y2VydGlmaWNhdGU=" }]
    vpc_config            = { cluster_security_group_id = "sg-0123456789abcdef0" }
    identity              = [{ oidc = [{ issuer = "https://oidc.eks.eu-central-1.amazonaws.com/id/0123456789ABCDEF" }] }]
  }
}
mock_resource "aws_iam_role" {
  defaults = { arn = "arn:aws:iam::123456789012:role/mocked", name = "mocked" }
}
mock_resource "aws_iam_openid_connect_provider" {
  defaults = { arn = "arn:aws:iam::123456789012:oidc-provider/mocked" }
}
mock_resource "aws_kms_key" {
  defaults = { arn = "arn:aws:kms:eu-central-1:123456789012:key/0123" }
}
mock_resource "aws_launch_template" {
  defaults = { id = "lt-0123456789abcdef0", latest_version = 1 }
}
