output "vpc_id" {
  description = "The VPC."
  value       = aws_vpc.this.id
}

output "vpc_arn" {
  description = "The VPC, as IAM names it."
  value       = aws_vpc.this.arn
}

output "public_subnet_ids" {
  description = "By zone."
  value       = { for zone, subnet in aws_subnet.public : zone => subnet.id }
}

output "node_subnet_ids" {
  description = "By zone."
  value       = { for zone, subnet in aws_subnet.node : zone => subnet.id }
}

output "pod_subnet_ids" {
  description = "By zone."
  value       = { for zone, subnet in aws_subnet.pod : zone => subnet.id }
}
