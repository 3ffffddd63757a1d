# Named once what is in them can reach the internet: a node that boots before its way out exists waits for mirrors in vain.

output "network" {
  description = "The site's network."
  value       = openstack_networking_network_v2.site.id
}

output "gateway_subnet" {
  description = "Subnet of bastion and load balancers."
  value       = openstack_networking_subnet_v2.site["gateways"].id
  depends_on  = [openstack_networking_router_interface_v2.site]
}

output "node_subnet" {
  description = "Subnet of nodes."
  value       = openstack_networking_subnet_v2.site["nodes"].id
  depends_on  = [openstack_networking_router_interface_v2.site]
}
