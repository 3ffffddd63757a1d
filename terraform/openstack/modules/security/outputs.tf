output "groups" {
  description = "nodes, bastion or a node class -> its security group. Named when the rules are there."
  value       = { for name, group in openstack_networking_secgroup_v2.class : name => group.id }
  depends_on = [
    openstack_networking_secgroup_rule_v2.port,
    openstack_networking_secgroup_rule_v2.bastion,
    openstack_networking_secgroup_rule_v2.out,
  ]
}
