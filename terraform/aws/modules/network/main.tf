# A VPC with three subnets a zone: gateways (bastion, NAT, load balancers), private nodes, public nodes.

locals {
  gateway_networks = { for index, zone in var.zones : zone => cidrsubnet(var.cidr, 8, index) }
  private_networks = { for index, zone in var.zones : zone => cidrsubnet(var.cidr, 4, 1 + index) }
  public_networks  = { for index, zone in var.zones : zone => cidrsubnet(var.cidr, 4, 8 + index) }
  nat_zones        = var.nat ? toset(var.nat_per_zone ? var.zones : [var.zones[0]]) : toset([])
}

resource "aws_vpc" "site" {
  cidr_block           = var.cidr
  enable_dns_support   = true
  enable_dns_hostnames = true
  tags                 = { Name = var.site }
}

# Nothing uses the VPC's default group; emptied, it opens nothing to what is put into it by mistake.
resource "aws_default_security_group" "closed" {
  vpc_id = aws_vpc.site.id
}

resource "aws_internet_gateway" "site" {
  vpc_id = aws_vpc.site.id
  tags   = { Name = var.site }
}

resource "aws_subnet" "gateways" {
  for_each = local.gateway_networks

  vpc_id                  = aws_vpc.site.id
  availability_zone       = each.key
  cidr_block              = each.value
  map_public_ip_on_launch = false
  tags                    = { Name = "${var.site}-gateways-${each.key}" }
}

resource "aws_subnet" "private" {
  for_each = local.private_networks

  vpc_id                  = aws_vpc.site.id
  availability_zone       = each.key
  cidr_block              = each.value
  map_public_ip_on_launch = false
  tags                    = { Name = "${var.site}-private-${each.key}" }
}

resource "aws_subnet" "public" {
  for_each = local.public_networks

  vpc_id                  = aws_vpc.site.id
  availability_zone       = each.key
  cidr_block              = each.value
  map_public_ip_on_launch = false
  tags                    = { Name = "${var.site}-public-${each.key}" }
}

resource "aws_route_table" "public" {
  vpc_id = aws_vpc.site.id
  tags   = { Name = "${var.site}-public" }
}

resource "aws_route" "internet" {
  route_table_id         = aws_route_table.public.id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.site.id
}

resource "aws_route_table_association" "gateways" {
  for_each = aws_subnet.gateways

  subnet_id      = each.value.id
  route_table_id = aws_route_table.public.id
}

resource "aws_route_table_association" "public" {
  for_each = aws_subnet.public

  subnet_id      = each.value.id
  route_table_id = aws_route_table.public.id
}

resource "aws_eip" "nat" {
  for_each = local.nat_zones

  domain     = "vpc"
  tags       = { Name = "${var.site}-nat-${each.key}" }
  depends_on = [aws_internet_gateway.site]
}

resource "aws_nat_gateway" "site" {
  for_each = local.nat_zones

  allocation_id = aws_eip.nat[each.key].id
  subnet_id     = aws_subnet.gateways[each.key].id
  tags          = { Name = "${var.site}-${each.key}" }
  depends_on    = [aws_internet_gateway.site]
}

# A table a zone, so that another NAT gateway is another route and no zone's table is made anew.
resource "aws_route_table" "private" {
  for_each = aws_subnet.private

  vpc_id = aws_vpc.site.id
  tags   = { Name = "${var.site}-private-${each.key}" }
}

resource "aws_route" "nat" {
  for_each = var.nat ? aws_route_table.private : {}

  route_table_id         = each.value.id
  destination_cidr_block = "0.0.0.0/0"
  nat_gateway_id         = aws_nat_gateway.site[var.nat_per_zone ? each.key : var.zones[0]].id
}

resource "aws_route_table_association" "private" {
  for_each = aws_subnet.private

  subnet_id      = each.value.id
  route_table_id = aws_route_table.private[each.key].id
}
