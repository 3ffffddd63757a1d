output "groups" {
  description = "nodes, bastion or a node class -> its security group. Named when the rules are there."
  value       = { for name, group in aws_security_group.class : name => group.id }
  depends_on  = [aws_vpc_security_group_ingress_rule.port, aws_vpc_security_group_ingress_rule.bastion, aws_vpc_security_group_egress_rule.all]
}
