output "ids" {
  description = "Node -> server."
  value       = { for name, instance in openstack_compute_instance_v2.node : name => instance.id }
}

output "private_ips" {
  description = "Node -> private address."
  value       = { for name, port in openstack_networking_port_v2.node : name => port.all_fixed_ips[0] }
}

output "public_ips" {
  description = "Node -> floating address, or null."
  value       = { for name, node in var.nodes : name => try(openstack_networking_floatingip_associate_v2.node[name].floating_ip, null) }
}

output "zones" {
  description = "Node -> the availability zone that it stands in."
  value       = { for name, instance in openstack_compute_instance_v2.node : name => instance.availability_zone }
}
