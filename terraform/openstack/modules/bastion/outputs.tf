output "address" {
  description = "Floating address; stays when the bastion is replaced."
  value       = openstack_networking_floatingip_v2.bastion.address
  depends_on  = [openstack_networking_floatingip_associate_v2.bastion]
}
