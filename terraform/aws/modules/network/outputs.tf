# Subnets are named once nodes in them can reach the internet: a node that boots before its route exists waits for mirrors in vain.

output "vpc_id" {
  description = "The VPC."
  value       = aws_vpc.site.id
}

output "gateway_subnets" {
  description = "Zone -> subnet of bastion, NAT and load balancers."
  value       = { for zone, subnet in aws_subnet.gateways : zone => subnet.id }
  depends_on  = [aws_route.internet, aws_route_table_association.gateways]
}

output "private_subnets" {
  description = "Zone -> subnet of nodes without public addresses."
  value       = { for zone, subnet in aws_subnet.private : zone => subnet.id }
  depends_on  = [aws_route.nat, aws_route_table_association.private]
}

output "public_subnets" {
  description = "Zone -> subnet of nodes with public addresses."
  value       = { for zone, subnet in aws_subnet.public : zone => subnet.id }
  depends_on  = [aws_route.internet, aws_route_table_association.public]
}
