# A VPC as the demo's: in each zone a subnet for nodes, one for pods out of a second CIDR block, and
# one for the way out.

locals {
  zones = sort(keys(var.node_cidrs))
  # The subnets in one row, so that each has an IPv6 /64 of its own: public, nodes, pods.
  numbered = concat(
    [for zone in local.zones : "public ${zone}"],
    [for zone in local.zones : "node ${zone}"],
    [for zone in local.zones : "pod ${zone}"],
  )
  ipv6_cidrs = var.ipv6 ? {
    for number, subnet in local.numbered : subnet => cidrsubnet(aws_vpc.this.ipv6_cidr_block, 8, number)
  } : {}
}

resource "aws_vpc" "this" {
  # checkov:skip=CKV2_AWS_11: a cluster that lives for an hour; who debugs it turns flow logs on for that hour
  cidr_block                       = var.vpc_cidr
  assign_generated_ipv6_cidr_block = var.ipv6
  enable_dns_support               = true
  enable_dns_hostnames             = true # EKS' private endpoint has a name of a private zone

  tags = merge(var.tags, { Name = var.name })
}

resource "aws_vpc_ipv4_cidr_block_association" "pods" {
  vpc_id     = aws_vpc.this.id
  cidr_block = var.pod_cidr
}

# A VPC's own group lets all its members talk. Nobody is a member here; it is made to allow nothing.
resource "aws_default_security_group" "this" {
  vpc_id = aws_vpc.this.id

  tags = merge(var.tags, { Name = "${var.name}-unused" })
}

# Subnets ------------------------------------------------------------------------------------------
resource "aws_subnet" "public" {
  for_each = var.public_cidrs

  vpc_id                          = aws_vpc.this.id
  availability_zone               = each.key
  cidr_block                      = each.value
  ipv6_cidr_block                 = lookup(local.ipv6_cidrs, "public ${each.key}", null)
  assign_ipv6_address_on_creation = var.ipv6

  tags = merge(var.tags, {
    Name                     = "${var.name}-public-${each.key}"
    "kubernetes.io/role/elb" = "1"
  })
}

resource "aws_subnet" "node" {
  for_each = var.node_cidrs

  vpc_id                          = aws_vpc.this.id
  availability_zone               = each.key
  cidr_block                      = each.value
  ipv6_cidr_block                 = lookup(local.ipv6_cidrs, "node ${each.key}", null)
  assign_ipv6_address_on_creation = var.ipv6

  tags = merge(var.tags, {
    Name                              = "${var.name}-node-${each.key}"
    "kubernetes.io/role/internal-elb" = "1"
  })
}

resource "aws_subnet" "pod" {
  for_each = var.pod_cidrs

  # By way of the association: EC2 refuses a subnet of a block that the VPC does not have yet.
  vpc_id                          = aws_vpc_ipv4_cidr_block_association.pods.vpc_id
  availability_zone               = each.key
  cidr_block                      = each.value
  ipv6_cidr_block                 = lookup(local.ipv6_cidrs, "pod ${each.key}", null)
  assign_ipv6_address_on_creation = false # pods have IPv4 addresses; an ENI's own would only be in the way

  # The first tag lets a node take the subnet for its ENIs; the second keeps other clusters' nodes off
  # it (docs/settings.md, ENABLE_SUBNET_DISCOVERY).
  tags = merge(
    var.tags,
    { Name = "${var.name}-pod-${each.key}" },
    var.discovered ? {
      "kubernetes.io/role/cni"                     = "1"
      "cni.networking.k8s.aws/cluster/${var.name}" = "1"
    } : {},
  )
}

# EC2 takes an ENI's prefixes from what is reserved for them, so that single addresses, of load
# balancers for one, leave whole /28s.
resource "aws_ec2_subnet_cidr_reservation" "prefixes" {
  for_each = var.reserved_cidrs

  subnet_id        = aws_subnet.pod[each.key].id
  cidr_block       = each.value
  reservation_type = "prefix"
  description      = "for pods of ${var.name}"
}

# Ways out -----------------------------------------------------------------------------------------
resource "aws_internet_gateway" "this" {
  vpc_id = aws_vpc.this.id

  tags = merge(var.tags, { Name = var.name })
}

resource "aws_eip" "nat" {
  domain     = "vpc"
  depends_on = [aws_internet_gateway.this]

  tags = merge(var.tags, { Name = "${var.name}-nat" })
}

# One for all zones: a test cluster survives a zone's loss by being made again.
resource "aws_nat_gateway" "this" {
  allocation_id = aws_eip.nat.id
  subnet_id     = aws_subnet.public[local.zones[0]].id
  depends_on    = [aws_internet_gateway.this]

  tags = merge(var.tags, { Name = var.name })
}

resource "aws_egress_only_internet_gateway" "this" {
  count = var.ipv6 ? 1 : 0

  vpc_id = aws_vpc.this.id

  tags = merge(var.tags, { Name = var.name })
}

resource "aws_route_table" "public" {
  vpc_id = aws_vpc.this.id

  tags = merge(var.tags, { Name = "${var.name}-public" })
}

resource "aws_route" "public_ipv4" {
  route_table_id         = aws_route_table.public.id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.this.id
}

resource "aws_route" "public_ipv6" {
  count = var.ipv6 ? 1 : 0

  route_table_id              = aws_route_table.public.id
  destination_ipv6_cidr_block = "::/0"
  gateway_id                  = aws_internet_gateway.this.id
}

resource "aws_route_table" "private" {
  vpc_id = aws_vpc.this.id

  tags = merge(var.tags, { Name = "${var.name}-private" })
}

resource "aws_route" "private_ipv4" {
  route_table_id         = aws_route_table.private.id
  destination_cidr_block = "0.0.0.0/0"
  nat_gateway_id         = aws_nat_gateway.this.id
}

resource "aws_route" "private_ipv6" {
  count = var.ipv6 ? 1 : 0

  route_table_id              = aws_route_table.private.id
  destination_ipv6_cidr_block = "::/0"
  egress_only_gateway_id      = aws_egress_only_internet_gateway.this[0].id
}

resource "aws_route_table_association" "public" {
  for_each = aws_subnet.public

  subnet_id      = each.value.id
  route_table_id = aws_route_table.public.id
}

resource "aws_route_table_association" "node" {
  for_each = aws_subnet.node

  subnet_id      = each.value.id
  route_table_id = aws_route_table.private.id
}

# Pods, too: what no node translates (AWS_VPC_K8S_CNI_EXTERNALSNAT=true) leaves here by its own address.
resource "aws_route_table_association" "pod" {
  for_each = aws_subnet.pod

  subnet_id      = each.value.id
  route_table_id = aws_route_table.private.id
}
