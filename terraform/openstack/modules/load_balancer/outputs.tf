output "address" {
  description = "Floating address."
  value       = openstack_networking_floatingip_v2.front.address
}
