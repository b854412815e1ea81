output "kubeconfig" {
  description = "The command that lets kubectl in."
  value       = "aws eks update-kubeconfig --name ${aws_eks_cluster.this.name} --region ${local.region}"
}

output "install" {
  description = "The command that installed enid, for whoever upgrades it by hand; its values are the next output."
  value       = "helm upgrade --install enid ${local.chart} --namespace ${local.namespace} --values values.yaml"
}

output "values" {
  description = "The chart's values."
  value       = local.values
}

output "eni_configs" {
  description = "ENIConfigs under custom networking, else \"\"."
  value       = local.eni_configs
}

output "smoke_test" {
  description = "The smoke test, once kubectl is let in."
  value       = "enid verify --quick"
}

output "max_pods" {
  description = "What kubelet was told."
  value       = module.sizes.max_pods
}

output "vpc_id" {
  description = "The VPC."
  value       = module.network.vpc_id
}

output "pod_subnets" {
  description = "By zone: the subnets of the pods."
  value       = module.network.pod_subnet_ids
}

output "left_enis" {
  description = "The command that shows what ENIs of enid's nobody uses."
  value       = "aws ec2 describe-network-interfaces --region ${local.region} --filters Name=vpc-id,Values=${module.network.vpc_id} Name=tag:cluster.k8s.amazonaws.com/name,Values=${var.name} Name=status,Values=available"
}
