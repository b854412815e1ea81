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

# Whoever starts before the routes are there cannot fetch an image.
output "ways_out" {
  description = "Known when nodes have a way out."
  value       = { for zone, association in aws_route_table_association.node : zone => association.id }
  depends_on  = [aws_route.private_ipv4, aws_route.private_ipv6, aws_route.public_ipv4]
}
